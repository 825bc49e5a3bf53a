"""The benches that the documentation shows can be copied as they are."""

import hashlib
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from typer.testing import CliRunner

from labctl import bench, cli, registry
from labctl.errors import MissingLibraryError
from labctl.run.prepare import prepare
from labctl.run.setting import Options
from labctl.run.train import TrainJob
from labctl.run.validate import validate

FOLDER = Path(__file__).parents[1] / "docs" / "reference" / "benches"
BENCHES = sorted(FOLDER.glob("*.yaml"))
OVERRIDES = ("reference.oracle=false",)


def test_every_one_is_a_valid_bench_file() -> None:
    checked = validate([str(path) for path in BENCHES])
    assert [str(fault) for fault in checked.faults] == []
    assert len(checked.good) == 3


@pytest.mark.peer
@pytest.mark.parametrize("path", BENCHES, ids=lambda path: path.stem)
def test_its_drivers_take_its_options_and_a_twin_stands_in(
    path: Path, need_module: Callable[[str], ModuleType]
) -> None:
    for peer in ("glfw", "moderngl", "pypylon.pylon", "harvesters.core", "slmsuite"):
        need_module(peer)
    source = bench.load(path)
    made = bench.construct(source)
    assert made.slm.shape != made.camera.shape
    twin = bench.construct(source, simulate=True)
    assert "SIMULATED by its twin" in twin.notice
    assert (twin.slm.shape, twin.camera.shape) == (made.slm.shape, made.camera.shape)


VENDORS = {"screen.slm", "slmsuite.slm", "basler.camera", "genicam.camera"} | {
    "ell14.attenuator"
}


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """A computer on which no vendor's library is installed."""
    load = registry.load

    def loaded(key: str, group: str = registry.GROUP) -> Callable[..., object]:
        if key in VENDORS:
            text = f"driver={key}: the module vendor is missing. Install it."
            raise MissingLibraryError(text)
        return load(key, group)

    monkeypatch.setattr(registry, "load", loaded)


@pytest.mark.slow
@pytest.mark.usefixtures("bare")
@pytest.mark.parametrize("path", BENCHES, ids=lambda path: path.stem)
def test_without_a_vendors_library_it_is_rehearsed_and_falls_back(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    own = tmp_path / "calibrations" / path.stem / "bench.yaml"
    own.parent.mkdir(parents=True)
    text = path.read_text(encoding="utf-8")
    if path.stem != "desk":  # of the others a person decides each time
        assert "fallback" not in text
        text += "fallback: sim\n"
    own.write_text(text, encoding="utf-8")
    ((_, what),) = validate([str(own)]).good
    panel = "slmsuite" if path.stem == "crystal" else "screen"
    assert what.startswith(f"bench file; not checked: devices.slm: driver={panel}.slm")
    for simulate in (True, False) if path.stem == "desk" else (False,):
        options = Options(bench=path.stem, simulate=simulate, overrides=OVERRIDES)
        job = prepare("tasks/digits.yaml", options)
        assert isinstance(job, TrainJob)
        assert "SIMULATED" in job.setting.headline.splitlines()[0]
        assert job.setting.simulated
        twin = bench.construct(job.setting.source, simulate=simulate, fall_back=True)
        assert "SIMULATED by its twin" in twin.notice
        assert simulate or twin.notice in job.setting.headline
        given = job.setting.source.file.devices
        assert list(twin.slm.shape) == given.slm.options["shape"]
        assert twin.slm.pitch_um == given.slm.options["pitch_um"]
        assert list(twin.camera.shape) == given.camera.options["shape"]
        assert twin.camera.pixel_um == given.camera.options["pixel_um"]
        assert twin.file.limits == job.setting.source.file.limits


TUTORIAL = Path(__file__).parents[1] / "docs" / "tutorials" / "first-real-bench.md"


def test_every_command_of_the_tutorial_of_a_first_bench_is_one() -> None:
    text = TUTORIAL.read_text(encoding="utf-8")
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.M | re.S)
    lines = re.findall(r"^labctl (.*)$", "".join(blocks), re.M)
    assert len(lines) > 8
    for line in lines:
        words = shlex.split(line, comments=True)
        done = CliRunner().invoke(cli.app, [*words, "--help"])
        assert done.exit_code == 0, f"{line}: {done.output}"
    wrong = CliRunner().invoke(cli.app, ["run", "--no-such-option", "--help"])
    assert wrong.exit_code != 0


SHIPPED = Path(__file__).parents[1] / "calibrations"
# Of the file as it was committed, before any comparison.
FROZEN = "09a5e920142cf3594e8a034c2bfffd6382adf80f0f039b0d0c5167582ede6bd4"


def _section(text: str, name: str) -> str:
    found = re.search(rf"^{name}:.*?(?=^\S)", text, re.M | re.S)
    assert found is not None, name
    return found[0]


def test_the_bench_of_record_is_the_one_that_was_frozen() -> None:
    text = (SHIPPED / "sim-small" / "bench.yaml").read_text(encoding="utf-8")
    # The section came later: it tells a surrogate where things are, no device reads it.
    before = text.replace(_section(text, "optics"), "")
    assert hashlib.sha256(before.encode()).hexdigest() == FROZEN


@pytest.mark.parametrize(
    ("name", "drift"),
    [
        ("sim-small-drift", "      element_rad: 0.3\n      element_s: 750.0\n"),
        (
            "sim-small-common",
            "      power: 0.02\n      power_s: 750.0\n"
            "      pointing_px: 0.1\n      pointing_s: 750.0\n",
        ),
    ],
)
def test_a_drifting_bench_of_record_differs_by_its_drift_alone(
    name: str, drift: str
) -> None:
    still, drifting = (
        (SHIPPED / each / "bench.yaml").read_text(encoding="utf-8")
        for each in ("sim-small", name)
    )
    drift = f"    drift:\n{drift}"
    assert drifting.count(drift) == 1
    for section in ("world", "devices", "sequence", "oracle", "optics", "limits"):
        other = _section(drifting, section).replace(drift, "")
        assert other == _section(still, section)
    ends = (text[text.index("reservoir:") :] for text in (still, drifting))
    assert len(set(ends)) == 1
