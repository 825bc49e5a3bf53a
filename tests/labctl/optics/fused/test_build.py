"""The kernel is built once, by whoever comes first, and never half."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from labctl.optics.fused import build

# A compiler that tells its macros and, asked for a library, writes one and a line.
COMPILER = """
import os, pathlib, sys
if os.environ.get("FAKE_FAILS"):
    sys.exit("kernel.cpp:1: error: no such thing")
if "-E" in sys.argv:
    print("#define __VERSION__", os.environ.get("FAKE_VERSION", "12"))
else:
    out = pathlib.Path(sys.argv[sys.argv.index("-o") + 1])
    out.write_bytes(b"library" * 100_000)
    with pathlib.Path(__file__).with_suffix(".log").open("a") as log:
        log.write("built\\n")
"""


@pytest.fixture
def compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    script = tmp_path / "compiler.py"
    script.write_text(COMPILER, encoding="utf-8")
    monkeypatch.setenv("CXX", f'"{sys.executable}" "{script}"')
    monkeypatch.setenv("LABCTL_CACHE", str(tmp_path / "cache"))
    return script


def builds(compiler: Path) -> int:
    log = compiler.with_suffix(".log")
    return len(log.read_text().splitlines()) if log.exists() else 0


def test_the_second_time_it_is_there_already(compiler: Path) -> None:
    first, second = build.built(), build.built()
    assert first == second
    assert builds(compiler) == 1
    assert first.path.parent == build.folder()
    assert list(build.folder().iterdir()) == [first.path]


def test_another_compiler_or_source_is_another_kernel(
    compiler: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = {build.built().key}
    monkeypatch.setenv("FAKE_VERSION", "13")
    keys.add(build.built().key)
    for place in ("SOURCES", "HEADER"):
        whole = getattr(build, place)
        first = whole[0] if place == "SOURCES" else whole
        changed = tmp_path / first.name
        changed.write_bytes(first.read_bytes() + b"\n")
        other = (changed, *whole[1:]) if place == "SOURCES" else changed
        monkeypatch.setattr(build, place, other)
        keys.add(build.built().key)
    assert len(keys) == builds(compiler) == 4


@pytest.mark.slow
def test_processes_that_build_at_once_leave_one_whole_library(compiler: Path) -> None:
    code = "from labctl.optics.fused import build; print(build.built().path)"
    words = [sys.executable, "-c", code]
    running = [
        subprocess.Popen(words, stdout=subprocess.PIPE, text=True)  # noqa: S603 - our own interpreter
        for _ in range(4)
    ]
    paths = {process.communicate()[0].strip() for process in running}
    assert [process.returncode for process in running] == [0] * 4
    assert [str(path) for path in build.folder().iterdir()] == list(paths)
    assert Path(*paths).read_bytes() == b"library" * 100_000
    assert builds(compiler) >= 1


def test_without_a_compiler_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler -O3")
    with pytest.raises(ValueError, match=r"CXX=no-such-compiler.* Install g\+\+"):
        build.built()
    monkeypatch.delenv("CXX")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ValueError, match=r"no C\+\+ compiler \(c\+\+ or g\+\+ or"):
        build.built()


def test_what_a_compiler_says_when_it_fails_is_passed_on(
    compiler: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_FAILS", "1")
    with pytest.raises(ValueError, match=r"exit code 1.*\n?.*no such thing"):
        build.built()
    assert builds(compiler) == 0


@pytest.mark.usefixtures("compiler")
def test_a_cache_that_cannot_be_written_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("LABCTL_CACHE", str(tmp_path / "file"))
    with pytest.raises(ValueError, match=r"environment variable LABCTL_CACHE"):
        build.built()


def test_the_cache_is_that_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LABCTL_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", os.fspath(Path.home()))
    assert build.folder().name == "labctl"
    assert build.folder().is_relative_to(Path.home())
