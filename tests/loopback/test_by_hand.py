"""The page on starting the bench by hand says what the tests do."""

import os
import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from labctl import bench

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/how-to/start-the-loopback-bench.md").read_text(encoding="utf-8")


def test_the_display_is_that_of_the_tests() -> None:
    (told,) = re.findall(r"```text\n(Section.*?)```", PAGE, re.DOTALL)
    recipe = (ROOT / "tests/conftest.py").read_text(encoding="utf-8")
    assert f'XORG = """\n{told}"""' in recipe
    for words in ('"--pos", "0x0"', '"800x600", "--pos", "640x0"'):
        assert words in recipe
        assert re.sub('[",]', "", words) in PAGE


def test_every_word_that_the_room_hears_is_told() -> None:
    room = (ROOT / "tests/loopback/room.py").read_text(encoding="utf-8")
    heard = set(re.findall(r'^ +"([a-z ]+)": ', room.partition("done:")[2], re.M))
    rows = re.findall(r"^\| (`.*`) \|", PAGE, re.MULTILINE)
    assert {word for row in rows for word in re.findall("`(.*?)`", row)} == heard


def test_addresses_and_packages_are_those_of_the_bench_file_and_of_ci() -> None:
    devices = bench.load("loopback").file.devices
    assert devices.laser is not None
    assert devices.camera is not None
    assert str(devices.laser.options["address"]) in PAGE
    assert str(devices.camera.options["camera"]) in PAGE
    (line,) = re.findall(r"apt-get install (.*?)\nmake", PAGE, re.DOTALL)
    told = set(line.replace("\\\n", " ").split())
    ci = (ROOT / ".ci/run").read_text(encoding="utf-8")
    (listed,) = re.findall(r"^packages=\((.*?)^\)", ci, re.MULTILINE | re.DOTALL)
    assert told <= set(re.sub("#.*", "", listed).split())


def test_a_second_room_is_told_who_has_the_first(
    camera_port: Callable[..., AbstractContextManager[None]], tmp_path: Path
) -> None:
    port = tmp_path / "port"
    whose = rf"belongs to process {os.getpid()} in {re.escape(str(Path.cwd()))} since"
    with (
        camera_port(0.0, port),
        pytest.raises(TimeoutError, match=whose),
        camera_port(0.0, port),
    ):
        pass
    with camera_port(0.0, port):
        pass
