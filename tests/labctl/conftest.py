"""A package outside this repository that brings drivers, made for a test."""

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

Package = Callable[[str, str, Mapping[str, str]], Path]


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Package]:
    """Install a package of one module: name, source, entry points.

    It is found by this process and by those that it starts.
    """
    site = tmp_path / "site"
    site.mkdir()
    made: list[str] = []

    def install(name: str, source: str, drivers: Mapping[str, str]) -> Path:
        (site / f"{name}.py").write_text(source, encoding="utf-8")
        info = site / f"{name}-1.0.dist-info"
        info.mkdir()
        entries = "\n".join(f"{key} = {value}" for key, value in drivers.items())
        (info / "entry_points.txt").write_text(f"[labctl.drivers]\n{entries}\n")
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\nProvides-Extra: acme\n"
        )
        made.append(name)
        return site

    monkeypatch.syspath_prepend(str(site))
    old = os.environ.get("PYTHONPATH")
    joined = str(site) if old is None else os.pathsep.join([str(site), old])
    monkeypatch.setenv("PYTHONPATH", joined)
    yield install
    for name in made:
        sys.modules.pop(name, None)
