"""Builds the compiled kernel where it runs, at its first use, into the user's cache.

A library is named by a hash of all that its bits depend on: source, flags, and what
the compiler says of itself and of this processor. So another processor, compiler or
labctl finds a library of its own or builds it, also in a cache that computers share.
"""

import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

CACHE: Final = "LABCTL_CACHE"
SOURCES: Final = tuple(
    Path(__file__).with_name(name) for name in ("kernel.cpp", "crossing.cpp")
)
HEADER: Final = Path(__file__).with_name("lines.hpp")
_COMPILERS: Final = ("c++", "g++", "clang++")
_TIMEOUT_S: Final = 300
# As fast as -ffast-math, without what that does to the rest of the process.
_FLAGS: Final = (
    "-std=c++17",
    "-O3",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fno-signed-zeros",
    "-ffp-contract=fast",
)
_TELLING: Final = 300


@dataclass(frozen=True)
class Built:
    """A compiled kernel.

    Parameters
    ----------
    path
        The shared library.
    key
        What its bits depend on, hashed.
    """

    path: Path
    key: str


def folder() -> Path:
    """Where kernels lie: LABCTL_CACHE, else the cache folder of this user.

    Returns
    -------
    folder
        A folder that may not be there yet.
    """
    named = os.environ.get(CACHE, "")
    if named:
        return Path(named).absolute()
    if sys.platform == "win32":
        home = Path(os.environ.get("LOCALAPPDATA", Path.home()))
    elif sys.platform == "darwin":
        home = Path.home() / "Library" / "Caches"
    else:
        cache = os.environ.get("XDG_CACHE_HOME", "")
        home = Path(cache) if cache else Path.home() / ".cache"
    return home / "labctl"


def built() -> Built:
    """Find the kernel of this computer, or build it.

    Any number of processes may do so at once: each builds for itself, and the last
    one's library takes the place of the others' in one move.

    Returns
    -------
    built
        Ready to be loaded.

    Raises
    ------
    ValueError
        There is no compiler, it fails, or the cache cannot be written.
    """
    compiler = _compiler()
    key = _key(compiler)
    suffix = ".dll" if sys.platform == "win32" else ".so"
    path = folder() / f"kernel-{key}{suffix}"
    if not path.exists():
        _build(compiler, path)
    return Built(path, key)


def _compiler() -> list[str]:
    named = shlex.split(os.environ.get("CXX", ""), posix=sys.platform != "win32")
    for words in [named] if named else [[name] for name in _COMPILERS]:
        found = shutil.which(words[0])
        if found is not None:
            return [found, *words[1:]]
    sought = f"CXX={named[0]}" if named else " or ".join(_COMPILERS)
    text = (
        f"no C++ compiler ({sought}), expected one on the path. Install g++ or "
        "clang++, or name one in the environment variable CXX."
    )
    raise ValueError(text)


def _flags() -> list[str]:
    arm = platform.machine().lower() in {"arm64", "aarch64"}
    return [*_FLAGS, "-mcpu=native" if arm else "-march=native"]


def _key(compiler: list[str]) -> str:
    # Its macros tell the compiler's version and every instruction set that it takes
    # this processor to have.
    told = _run([*compiler, *_flags(), "-dM", "-E", "-x", "c++", "-"])
    text = [path.read_bytes() for path in (*SOURCES, HEADER)]
    parts = (*text, " ".join(_flags()).encode(), told)
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def _build(compiler: list[str], path: Path) -> None:
    shared = ["-shared"] if sys.platform == "win32" else ["-shared", "-fPIC"]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as own:
            fresh = Path(own) / path.name
            _run([*compiler, *_flags(), *shared, *map(str, SOURCES), "-o", str(fresh)])
            _put(fresh, path)
    except OSError as error:
        text = (
            f"{path.parent}: {error}, expected a folder to keep the compiled kernel "
            f"in. Name one in the environment variable {CACHE}."
        )
        raise ValueError(text) from error


def _put(fresh: Path, path: Path) -> None:
    try:
        fresh.replace(path)
    except PermissionError:
        # Windows: another process has built, and loaded, the same meanwhile.
        if not path.exists():
            raise


def _run(words: list[str]) -> bytes:
    try:
        done = subprocess.run(  # noqa: S603 - the compiler of whoever runs this
            words,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        text = f"{words[0]}: {error}, expected a C++ compiler that runs"
        raise ValueError(text) from error
    if done.returncode != 0:
        said = done.stderr.decode("utf-8", "replace").strip()[-_TELLING:]
        text = (
            f"{words[0]}: exit code {done.returncode}, expected 0 (g++ 12 and clang++ "
            f"12 or newer will do): {said}"
        )
        raise ValueError(text)
    return done.stdout
