"""A bench of its own for every test, with a truth that no record knows."""

import io
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from labctl import bench
from labctl.calibrate import store
from labctl.calibrate.execute import Options, Outcome, execute, prepare
from labctl.run.progress import Plain, Silent

ROOT = Path(__file__).parents[3]
MakeBench = Callable[..., Path]
Calibrate = Callable[..., Outcome]

# A quick light path with every imperfection: no medium, and a panel and a sensor
# that are not square.
QUICK = {
    "world.options.grid": [32, 48],
    "world.options.medium.b": 0.0,
    "world.options.medium.saturation": None,
    "world.options.medium.steps": 2,
    "world.options.medium.screens": 0,
    "world.options.device_seed": 3,
    "reservoir.region": [2, 4, 27, 36],
    "reservoir.macropixels": [8, 12],
}


def write_bench(folder: Path, changes: Mapping[str, Any], base: str = "sim") -> Path:
    """Write a bench file: a shipped one with changes, and no records."""
    text = (ROOT / "calibrations" / base / "bench.yaml").read_text(encoding="utf-8")
    tree = YAML(typ="safe").load(text)
    tree["name"] = folder.name
    for key, value in changes.items():
        *above, last = key.split(".")
        inner = tree
        for part in above:
            inner = inner.setdefault(part, {})
        inner[last] = value
    folder.mkdir(parents=True)
    stream = io.StringIO()
    YAML().dump(tree, stream)
    path = folder / "bench.yaml"
    path.write_text(stream.getvalue(), encoding="utf-8")
    return path


@pytest.fixture
def make_bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeBench:
    """Write the bench ``lab`` in the current folder: quick, with changes."""
    monkeypatch.chdir(tmp_path)

    def make(changes: Mapping[str, Any] | None = None, *, quick: bool = True) -> Path:
        every = {**(QUICK if quick else {}), **(changes or {})}
        return write_bench(tmp_path / "calibrations" / "lab", every)

    return make


Known = Callable[..., None]
CAMERA = {
    "kind": "camera",
    "offset_dn": 100.0,
    "dark_dn_per_s": 2.0,
    "gain_dn_per_e": 4.0,
    "read_noise_e": 0.7,
}


@pytest.fixture
def known() -> Known:
    """Put values in force on a bench, as if measured: a camera's first."""

    def put(path: Path, *values: Mapping[str, Any]) -> None:
        for each in (CAMERA, *values):
            kind, digest = each["kind"], bench.load(path).sha256
            made = {
                "schema_version": 1,
                "created": datetime.now(UTC),
                "bench_sha256": digest,
            }
            store.install(path.parent, f"{kind}-told", made, each)

    return put


@pytest.fixture
def calibrate() -> Calibrate:
    """Calibrate the bench ``lab`` of the current folder."""

    def run(
        *kinds: str, check: bool = False, seed: int = 0, loud: bool = False
    ) -> Outcome:
        options = Options(kinds=kinds, bench="lab", check=check, seed=seed)
        return execute(prepare(options), Plain(sys.stdout) if loud else Silent())

    return run
