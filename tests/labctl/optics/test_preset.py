"""The presets, and the benches that hold their numbers."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from labctl import bench as benches
from labctl.optics.preset import GradedIndexFibre, QuadraticSlab, RubidiumVapour
from labctl.run.execute import execute
from labctl.run.prepare import prepare
from labctl.run.progress import Silent
from labctl.run.setting import Options

SCAN = """\
schema_version: 1
kind: scan
bench: {name}
sweep: reservoir.exposure_s
values: [0.001]
patterns: {{count: 6}}
"""


@pytest.mark.parametrize(
    ("name", "preset"),
    [
        ("rubidium-vapour", RubidiumVapour()),
        ("grin-fibre", GradedIndexFibre()),
        ("chi2-slab", QuadraticSlab()),
    ],
)
def test_the_bench_holds_the_numbers_of_its_preset(
    name: str, preset: RubidiumVapour | GradedIndexFibre | QuadraticSlab
) -> None:
    world = benches.load(name).file.world
    assert world is not None
    medium = world.options["medium"]
    assert isinstance(medium, Mapping)
    for key, value in preset.knobs().items():
        assert medium[key] == pytest.approx(value, rel=1e-4), key


def test_vapour_defocuses_and_absorbs() -> None:
    knobs = RubidiumVapour().knobs()
    assert knobs["b"] == pytest.approx(-17, abs=0.5)
    assert knobs["saturation"] == pytest.approx(1 / 1.34, rel=5e-3)
    assert knobs["loss"] == pytest.approx(0.2)


@pytest.mark.parametrize(
    "name", ["sim-fine", "rubidium-vapour", "grin-fibre", "chi2-slab", "powder"]
)
def test_the_bench_runs_and_gives_the_light_that_it_says(
    name: str, tmp_path: Path
) -> None:
    path = tmp_path / "scan.yaml"
    path.write_text(SCAN.format(name=name), encoding="utf-8")
    done = execute(prepare(str(path), Options(out=tmp_path / "a.h5")), Silent())
    assert np.mean(done.result["mean_outputs"]) == pytest.approx(200, rel=0.15)
