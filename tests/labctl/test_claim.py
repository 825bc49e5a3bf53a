"""One process owns an instrument: proved with a second one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from labctl.claim import Claim
from labctl.errors import DeviceError

TRY = """
from labctl.claim import Claim
from labctl.errors import DeviceError
try:
    Claim("panel", {place!r})
except DeviceError as err:
    print(err)
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LABCTL_STATE", str(tmp_path / "state"))
    return tmp_path / "state"


def elsewhere(place: str) -> str:
    done = subprocess.run(  # noqa: S603 - our own interpreter and code
        [sys.executable, "-c", TRY.format(place=place)],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_another_process_is_refused_and_told_who_has_it() -> None:
    claim = Claim("slm", "monitor A/1 at [0, 0]")
    said = elsewhere("monitor A/1 at [0, 0]")
    assert said.startswith("panel: open: monitor A/1 at [0, 0]: lock=")
    assert f"is held by process {os.getpid()} on " in said
    # Another one, though its file has the same words.
    assert not elsewhere("monitor A-1 at [0, 0]")
    claim.release()
    assert not elsewhere("monitor A/1 at [0, 0]")


def test_so_is_this_process_itself() -> None:
    claim = Claim("slm", "monitor A")
    with pytest.raises(DeviceError, match=f"is held by process {os.getpid()} on "):
        Claim("slm", "monitor A")
    claim.release()
    Claim("slm", "monitor A").release()


def test_that_of_a_process_that_died_is_free() -> None:
    made = "from labctl.claim import Claim\nkept = Claim('slm', 'A')"
    code = f"import os\n{made}\nos._exit(9)"
    done = subprocess.run(  # noqa: S603 - our own interpreter and code
        [sys.executable, "-c", code], check=False
    )
    assert done.returncode == 9
    Claim("slm", "A").release()
