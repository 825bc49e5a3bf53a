import json
import platform
import subprocess
from pathlib import Path

import pytest

from labctl.recording import environment


def test_tells_interpreter_packages_and_computer() -> None:
    found = environment.capture()
    assert platform.python_version() in found.python
    assert "h5py" in json.loads(found.packages)
    assert json.loads(found.argv)
    assert found.hostname == platform.node()


def test_a_package_inside_another_repository_has_no_commit(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    inside = tmp_path / "site-packages"
    inside.mkdir()
    assert environment._git(inside) == ("", "", False)


def test_a_checkout_has_commit_diff_and_dirt(tmp_path: Path) -> None:
    def git(*words: str) -> None:
        own = ("-c", "user.name=a", "-c", "user.email=a@b")
        subprocess.run(  # noqa: S603 - words are ours
            ["git", "-C", str(tmp_path), *own, *words],  # noqa: S607 - git of the user
            check=True,
            capture_output=True,
        )

    git("init")
    (tmp_path / "a.txt").write_text("one\n")
    git("add", "a.txt")
    git("commit", "-m", "one")
    commit, diff, dirty = environment._git(tmp_path)
    assert (len(commit), diff, dirty) == (40, "", False)
    (tmp_path / "a.txt").write_text("two\n")
    commit, diff, dirty = environment._git(tmp_path)
    assert dirty
    assert "+two" in diff


def test_a_broken_checkout_or_no_git_has_no_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".git").mkdir()
    assert environment._git(tmp_path) == ("", "", False)
    monkeypatch.setenv("PATH", "")
    assert environment._git(tmp_path) == ("", "", False)
