"""The room of the loopback bench, started and stopped with a module's tests."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
FOLDER = Path("/tmp/labctl-loopback")  # noqa: S108 - where the bench file says
WAIT_S = "600"  # for others' camera, in s
PEERS = ("mss", "glfw", "moderngl", "microscope.testsuite.mock_devices")


class Room:
    """The process of ``room.py``.

    Parameters
    ----------
    process
        Started, and ready.
    desktop
        The display that it looks at.
    """

    def __init__(self, process: "subprocess.Popen[str]", desktop: Any) -> None:  # noqa: ANN401 - of another conftest
        self._process, self.desktop = process, desktop

    def ask(self, words: str) -> dict[str, Any]:
        """Tell it to do something; return what it says."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{words}\n")
        self._process.stdin.flush()
        said: dict[str, Any] = json.loads(self._process.stdout.readline()) or {}
        return said


@pytest.fixture(scope="module")
def room(
    x_server: Any,  # noqa: ANN401 - of another conftest
    need_module: Callable[..., ModuleType],
) -> Iterator[Room]:
    """A bench in a room, with nobody at it."""
    for peer in PEERS:
        need_module(peer)
    need_module("drivers.camera.aravis", "apt-get install gir1.2-aravis-0.8")
    x_server.reset()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DISPLAY", x_server.display)
        with subprocess.Popen(  # noqa: S603 - our own module
            [sys.executable, "-m", "tests.loopback.room", str(FOLDER), WAIT_S],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=dict(os.environ),
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            said = process.stdout.readline()
            assert said == "ready\n", said
            made = Room(process, x_server)
            yield made
            errors = made.ask("state")["errors"]
            process.stdin.close()
            assert errors == []
            assert process.wait(60) == 0  # two interpreters end, on a busy computer
