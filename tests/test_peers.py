"""A test that needs a peer skips where it is absent, and fails where it is required."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROBE = """
import pytest

@pytest.mark.peer
def test_absent(need_module):
    need_module("no_such_peer")

@pytest.mark.peer
def test_own_excuse():
    pytest.skip("I would rather not")

@pytest.mark.peer
def test_present(need_module):
    assert need_module("json").loads("1") == 1

def test_without_a_peer():
    pytest.skip("fine")
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("required", "outcome"),
    [("0", "1 passed, 3 skipped"), ("1", "2 failed, 1 passed, 1 skipped")],
)
def test_absence_is_a_skip_or_a_failure(
    tmp_path: Path, required: str, outcome: str
) -> None:
    recipe = (Path(__file__).parent / "conftest.py").read_text(encoding="utf-8")
    (tmp_path / "conftest.py").write_text(recipe, encoding="utf-8")
    (tmp_path / "test_probe.py").write_text(PROBE, encoding="utf-8")
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = peer: x\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-ra"],
        cwd=tmp_path,
        env=os.environ | {"LABCTL_REQUIRE_PEERS": required},
        capture_output=True,
        text=True,
        check=False,
    )
    assert outcome in done.stdout
    assert "no_such_peer; make peers installs it" in done.stdout
