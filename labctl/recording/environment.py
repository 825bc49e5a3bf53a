"""What a run ran on: interpreter, packages, source, computer."""

import json
import os
import platform
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path

import labctl

_GIT_TIMEOUT_S = 10


@dataclass(frozen=True)
class Environment:
    """A snapshot of where the program runs.

    Parameters
    ----------
    python
        Version of Python.
    packages
        Version of each installed package, JSON.
    git_commit
        Commit of the labctl checkout; empty when labctl was installed.
    git_diff
        Changes of tracked files since that commit.
    git_dirty
        Whether there are changes, files that git does not know included.
    hostname
        Name of the computer.
    platform
        Operating system and processor.
    argv
        Command line, JSON.
    threads
        Threads of the numerics; 0 when torch is not loaded.
    version
        Version of labctl.
    """

    python: str
    packages: str
    git_commit: str
    git_diff: str
    git_dirty: bool
    hostname: str
    platform: str
    argv: str
    threads: int
    version: str


def capture() -> Environment:
    """Take the snapshot.

    Returns
    -------
    environment
        As it is now.
    """
    commit, diff, dirty = _git(Path(labctl.__file__).parent.parent)
    torch = sys.modules.get("torch")
    return Environment(
        python=sys.version,
        packages=_packages(),
        git_commit=commit,
        git_diff=diff,
        git_dirty=dirty,
        hostname=platform.node(),
        platform=platform.platform(),
        argv=json.dumps(sys.argv),
        threads=0 if torch is None else int(torch.get_num_threads()),
        version=metadata.version("labctl"),
    )


@cache
def _packages() -> str:
    found = {dist.metadata["Name"]: dist.version for dist in metadata.distributions()}
    return json.dumps(dict(sorted(found.items())))


def _git(root: Path) -> tuple[str, str, bool]:
    # An installed labctl may lie inside somebody else's repository: only a
    # checkout of its own, with .git beside the package, is asked.
    if not (root / ".git").exists():
        return "", "", False
    commit = _ask_git(root, "rev-parse", "HEAD").strip()
    if not commit:
        return "", "", False
    diff = _ask_git(root, "diff", "HEAD", "--no-ext-diff", "--no-color")
    dirty = bool(_ask_git(root, "status", "--porcelain").strip())
    return commit, diff, dirty


def _ask_git(root: Path, *words: str) -> str:
    # GIT_OPTIONAL_LOCKS=0: looking must not disturb a git that works beside us.
    try:
        answer = subprocess.run(  # noqa: S603 - words are ours, no shell
            ["git", "-C", str(root), *words],  # noqa: S607 - git as the user has it
            capture_output=True,
            timeout=_GIT_TIMEOUT_S,
            check=False,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""  # no git here: the record says so by an empty commit
    if answer.returncode != 0:
        return ""
    return answer.stdout.decode("utf-8", "replace")
