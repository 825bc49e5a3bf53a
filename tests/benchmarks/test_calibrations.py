"""What every kind of calibration makes of injected truth, over five specimens.

And what slmsuite's make of it on the same light paths. ``make bench`` prints the
tables. With ``LABCTL_WRITE_TABLES=1`` the sections of
``docs/reference/calibration-accuracy.md`` are written anew.
"""

import io
import math
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from ruamel.yaml import YAML

from drivers.sim.light import (
    Illumination,
    LightPath,
    curvature,
    gaussian,
    phase_curve,
)
from drivers.sim.options import Options as Truth
from drivers.sim.options import parse
from labctl import bench as benches
from labctl.calibrate import execute as room
from labctl.calibrate import patterns
from labctl.calibrate.execute import Options, Outcome, execute, prepare
from labctl.calibrate.kind import Finding
from labctl.calibrate.kinds import KINDS
from labctl.calibrate.mapping import middle
from labctl.calibrate.settle import LEFT
from labctl.calibrate.stand import Stand
from labctl.calibration import (
    CalibrationRecord,
    CameraResponse,
    Crosstalk,
    LaserPower,
    PanelMap,
    PhaseCurve,
    Wavefront,
)
from labctl.errors import OutcomeError
from labctl.reservoir import PhaseScale
from labctl.run.progress import Silent

V = TypeVar("V")
SEEDS = range(5)
ROOT = Path(__file__).parents[2]
PAGE = "calibration-accuracy"
Section = Callable[[str, str, str], None]
BEND, HYSTERESIS, CURVATURE_RAD = 0.02, 0.004, 1.8
COLUMNS = (
    "specimen",
    "gain %",
    "read noise %",
    "linearity %",
    "power curve %",
    "settle %",
    "phase rad rms",
    "mapping px",
    "spots px",
    "crosstalk px",
    "Strehl",
    "writes",
    "seconds",
)


def make(folder: Path, seed: int, world: Mapping[str, Any] | None = None) -> Path:
    shipped = ROOT / "calibrations" / "sim" / "bench.yaml"
    tree = YAML(typ="safe").load(shipped.read_text(encoding="utf-8"))
    tree["name"] = "lab"
    options = tree["world"]["options"]
    options["device_seed"] = 10 + seed
    options["panel"]["curvature_rad"] = CURVATURE_RAD
    for key, value in (world or {}).items():
        options[key] = options[key] | value if isinstance(value, dict) else value
    laser = tree["devices"]["laser"]["options"]
    laser |= {"bend": BEND, "hysteresis": HYSTERESIS}
    folder.mkdir(parents=True)
    stream = io.StringIO()
    YAML().dump(tree, stream)
    path = folder / "bench.yaml"
    path.write_text(stream.getvalue(), encoding="utf-8")
    return path


def strehl(beam: NDArray[Any], phase: NDArray[Any]) -> float:
    field = beam * np.exp(1j * phase)
    return float(np.abs(field.sum()) ** 2 / beam.sum() ** 2)


def values(found: Mapping[str, CalibrationRecord], kind: str, cls: type[V]) -> V:
    taken = found[kind].values
    assert isinstance(taken, cls)
    return taken


def errors(path: Path, found: Mapping[str, CalibrationRecord]) -> dict[str, float]:
    """Compare every record with the truth."""
    source = benches.load(path)
    assert source.file.world is not None
    truth = parse(Truth, source.file.world.options)
    camera = values(found, "camera", CameraResponse)
    settled, _ = found["settle"].quantities["settled_s"]
    curve = values(found, "slm-phase", PhaseCurve).curve(8, path.parent)
    u = torch.arange(256, dtype=torch.float64) / 256
    sigma_px = truth.panel.crosstalk_macropixels * truth.macropixel_px
    before = after = math.nan
    if "wavefront" in found:
        before, after = strehls(
            truth, values(found, "wavefront", Wavefront).phase_rad.load(path.parent)
        )
    return {
        "gain": 100 * (camera.gain_dn_per_e / truth.sensor.gain_dn_per_e - 1),
        "read noise": 100 * (camera.read_noise_e / truth.sensor.read_noise_e - 1),
        "linearity": found["camera"].figure_of_merit["linearity_percent"],
        "power": power_error(values(found, "laser-power", LaserPower)),
        "settle": 100 * (settled / (truth.panel.slow_s * math.log(1 / LEFT)) - 1),
        "phase": float((curve - phase_curve(truth)(u).numpy()).std()),
        "mapping": found["mapping"].figure_of_merit["residual_px"],
        "spots": spots_px(path, truth, found),
        "crosstalk": values(found, "crosstalk", Crosstalk).sigma_px - sigma_px,
        "before": before,
        "after": after,
    }


def corrected(e: Mapping[str, float]) -> str:
    """Strehl before and after, or that there was too little light to tell."""
    if math.isnan(e["after"]):
        return "refused"
    return f"{e['before']:.2f} to {e['after']:.2f}"


def power_error(power: LaserPower) -> float:
    setpoint = np.array(power.setpoint_mw)
    share = setpoint / 10
    true = setpoint + 40 * (BEND + HYSTERESIS / 2) * share * (1 - share)
    return 100 * float(np.abs(np.array(power.power_mw) / true - 1).max())


def spots_px(path: Path, truth: Truth, found: Mapping[str, CalibrationRecord]) -> float:
    """Distance of spots from where the map says that a run's are, rms.

    Of directions that it was not measured with, without noise, at little power.
    """
    curve = values(found, "slm-phase", PhaseCurve).curve(8, path.parent)
    mapped = values(found, "mapping", PanelMap)
    drawn = np.random.default_rng(11).uniform(-0.1, 0.1, (60, 2))
    tilts = drawn[np.linalg.norm(drawn, axis=1) > 0.06]
    rows, columns = (np.arange(side) - (side - 1) / 2 for side in truth.grid)
    lean = tilts[:, 0, None, None] * rows[:, None] + tilts[:, 1, None, None] * columns
    phase = 2 * math.pi * lean
    if "wavefront" in found:
        phase = phase + values(found, "wavefront", Wavefront).phase_rad.load(
            path.parent
        )
    light = LightPath(truth)
    levels = torch.from_numpy(PhaseScale(curve).levels(phase)).to(light.real)
    frames = np.concatenate(
        [
            light.fraction(part, Illumination(part.new_full((len(part),), 1e-3)))
            for part in torch.tensor_split(levels, math.ceil(60 / light.chunk))
        ]
    ).astype(np.float64)
    places = np.stack([middle(frame, 2)[0] for frame in frames])
    return math.sqrt(float(((mapped.places(tilts) - places) ** 2).sum(axis=1).mean()))


def strehls(truth: Truth, correction: NDArray[np.float64]) -> tuple[float, float]:
    bow = curvature(truth, torch.float64)
    assert bow is not None
    beam = gaussian(truth.grid, truth.light.radius).numpy()
    return strehl(beam, bow.numpy()), strehl(beam, bow.numpy() + correction)


@dataclass(frozen=True, eq=False)
class Specimen:
    """A bench that was calibrated.

    Parameters
    ----------
    seed
        Of the specimen.
    path
        The bench file.
    outcome
        How each kind ended.
    records
        In force.
    errors
        Against the truth.
    seconds
        Of this computer.
    """

    seed: int
    path: Path
    outcome: Outcome
    records: Mapping[str, CalibrationRecord]
    errors: Mapping[str, float]
    seconds: float


@pytest.fixture(scope="module")
def specimens(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Specimen]]:
    """All kinds on every specimen."""
    made = []
    with pytest.MonkeyPatch.context() as patch:
        for seed in SEEDS:
            here = tmp_path_factory.mktemp(f"specimen-{seed}")
            patch.chdir(here)
            path = make(here / "calibrations" / "lab", seed)
            start_s = time.perf_counter()
            outcome = execute(prepare(Options(bench="lab", seed=seed)), Silent())
            seconds = time.perf_counter() - start_s
            print(outcome.summary, flush=True)  # noqa: T201 - what make bench is for
            records = benches.load(path).records()
            found = errors(path, records)
            made.append(Specimen(seed, path, outcome, records, found, seconds))
        yield made


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def accuracy(each: Specimen) -> list[str]:
    e = each.errors
    settled_s, error_s = each.records["settle"].quantities["settled_s"]
    within = 2 * 100 * error_s / settled_s
    return [
        str(each.seed),
        f"{e['gain']:+.1f}",
        f"{e['read noise']:+.1f}",
        f"{e['linearity']:.2f}",
        f"{e['power']:.2f}",
        f"{e['settle']:+.1f} ± {within:.1f}",
        f"{e['phase']:.4f}",
        f"{e['mapping']:.3f}",
        f"{e['spots']:.3f}",
        f"{e['crosstalk']:+.2f}",
        corrected(e),
        str(each.outcome.shots["calibrate"]),
        f"{each.seconds:.0f}",
    ]


def covers(each: Specimen) -> bool:
    """Whether the interval of two standard errors holds the true settle time."""
    settled_s, error_s = each.records["settle"].quantities["settled_s"]
    true_s = settled_s / (1 + each.errors["settle"] / 100)
    return abs(settled_s - true_s) <= 2 * error_s


def costs(made: Sequence[Specimen]) -> list[list[str]]:
    rows = []
    for kind in KINDS:
        own = [
            each.records[kind.name].conditions
            for each in made
            if kind.name in each.records
        ]
        keys = ("writes", "exposures", "took_s")
        columns = ([cost[key] for cost in own] for key in keys)
        rows.append([f"`{kind.name}`", *(spread(c, "{:.0f}") for c in columns)])
    return rows


def spread(values: Sequence[float], how: str) -> str:
    """Least and most of some numbers."""
    low, high = how.format(min(values)), how.format(max(values))
    return low if low == high else f"{low} to {high}"


@pytest.mark.bench
def test_every_calibration_finds_the_truth(
    specimens: list[Specimen], section: Section
) -> None:
    covered = sum(map(covers, specimens))
    text = (
        table(COLUMNS, [accuracy(each) for each in specimens])
        + f"\n\nThe interval of the settle time, two standard errors to either side, "
        f"holds the truth in {covered} of {len(specimens)} specimens."
    )
    section(PAGE, "Every kind against the truth", text)
    heads = ("kind", "writes", "exposures", "seconds on the bench clock")
    section(PAGE, "What each kind takes", table(heads, costs(specimens)))
    refused = [
        (each.seed, row.kind, row.why)
        for each in specimens
        for row in each.outcome.rows
        if row.status != "passed"
    ]
    assert refused == []
    assert covered >= len(specimens) - 1
    for each in specimens:
        e = each.errors
        assert abs(e["gain"]) < 2
        assert abs(e["read noise"]) < 10
        assert e["linearity"] < 0.5
        assert e["power"] < 0.5
        assert abs(e["settle"]) < 10
        assert e["phase"] < 0.012
        assert each.records["slm-phase"].conditions["exposures"] <= 600
        assert e["mapping"] < 0.1
        assert e["spots"] < 0.1
        assert e["after"] > 0.9


# ---- a camera that was moved -----------------------------------------------------


def gone_along(
    each: Specimen, here: Path, view: str, monkeypatch: pytest.MonkeyPatch
) -> tuple[float, str]:
    """Share that the check finds in a view, and what the calibration makes of it."""
    shutil.copytree(each.path.parents[1], here / "calibrations")
    path = here / "calibrations" / "lab" / "bench.yaml"
    tree = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    tree["world"]["options"]["view"] = tree["view"] = view
    # Of the view that the camera is in, whatever a person was asked for and said.
    tree["calibrate"] = {"views": {"through_medium": "Flip mirror M2 out."}}
    with path.open("w", encoding="utf-8") as stream:
        YAML().dump(tree, stream)
    shares = []
    kept = patterns.gone_along

    def keep(stand: Stand) -> float:
        shares.append(kept(stand))
        return shares[-1]

    def measure(stand: Stand, limits: Mapping[str, float]) -> Finding:
        del limits
        raise OutcomeError(stand.name)

    (kind,) = [kind for kind in KINDS if kind.name == "crosstalk"]
    moved = replace(kind, views=("through_medium",), measure=measure)
    kinds = tuple(moved if kind.name == "crosstalk" else kind for kind in KINDS)
    with monkeypatch.context() as patch:
        patch.chdir(here)
        patch.setattr(patterns, "gone_along", keep)
        patch.setattr(room, "KINDS", kinds)
        job = prepare(Options(kinds=("crosstalk",), bench="lab", seed=each.seed))
        (row,) = execute(job, Silent(), lambda _: True).rows
    return shares[0], row.why


@pytest.mark.bench
def test_a_camera_that_nobody_moved_is_found_out(
    specimens: list[Specimen],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    section: Section,
) -> None:
    rows = []
    for each in specimens:
        cells = [str(each.seed)]
        for view in ("far_field", "image"):
            here = tmp_path / f"{each.seed}-{view}"
            share, why = gone_along(each, here, view, monkeypatch)
            cells.append(f"{100 * share:.1f}")
            does = "the camera does not look at the far field" not in why
            assert does == (view == "far_field"), why
        rows.append(cells)
    heads = ("specimen", "at the far field, %", "in the image, %")
    text = (
        "Share of the light that goes where `mapping` says that two tilts send it, of "
        "which a kind asks for "
        f"{100 * patterns.GONE_ALONG:.0f} % where a person moved the camera.\n\n"
    )
    section(PAGE, "Whether the camera was moved", text + table(heads, rows))


# ---- beside slmsuite's -----------------------------------------------------------

# Of the imperfections, what is switched off.
FLAT, SHARP = {"curvature_rad": 0.0}, {"crosstalk_macropixels": 0.0}
EMPTY = {"b": 0.0, "saturation": None, "screens": 0}
PATHS: Mapping[str, Mapping[str, Any]] = {
    "without the bow": {"panel": FLAT},
    "nor crosstalk": {"panel": FLAT | SHARP},
    "nor light that is not modulated": {"panel": FLAT | SHARP | {"zero_order": 0.0}},
    "nor any imperfection, nor a medium": {"ideal": True, "medium": EMPTY},
}
CALIBRATIONS = {
    "mapped": ("mapping", "map, px rms", "{:.2f}"),
    "phases": ("slm-phase", "phase curve, rad rms", "{:.4f}"),
    "settled": ("settle", "settle time, % off", "{:+.0f}"),
    "corrected": ("wavefront", "Strehl after correction", "{:.2f}"),
}


@pytest.fixture(scope="module")
def peer(need_module: Callable[..., ModuleType]) -> Any:  # noqa: ANN401 - a module
    """The adapter of slmsuite."""
    need_module("slmsuite.hardware.cameraslms")
    return need_module("tests.benchmarks.slmsuite_path")


def by_slmsuite(
    peer: Any,  # noqa: ANN401 - a module
    path: Path,
    seed: int,
    names: Sequence[str],
    power_mw: float,
) -> dict[str, Any]:
    """What slmsuite's calibrations find on a bench, at a power."""
    source = benches.load(path)
    opened = benches.open(source, seed=seed, allow_uncalibrated=True)
    with opened as bench, peer.at(bench, power_mw) as suite:
        return {name: getattr(suite, name)() for name in names}


def told(found: Sequence[Any], how: str, scale: float) -> list[str]:
    """Cells of what slmsuite found on several specimens."""
    good = [scale * each.error for each in found if not each.why]
    cells = [spread(good, how)] if good else []
    bad = [each.why for each in found if each.why]
    if bad:
        cells.append(f"failed in {len(bad)} of {len(found)}: {bad[0]}")
    return ["; ".join(cells)] + [
        spread([getattr(each, key) for each in found], "{:.0f}")
        for key in ("writes", "exposures", "bench_s", "computer_s")
    ]


def ours(made: Sequence[Specimen], name: str) -> list[str]:
    """Cells of what labctl found on them."""
    kind, _, how = CALIBRATIONS[name]
    key = {"mapped": "mapping", "phases": "phase", "settled": "settle"}.get(name)
    found = [each.errors[key or "after"] for each in made]
    good = [value for value in found if not math.isnan(value)]
    lost = len(found) - len(good)
    cell = spread(good, how) + (f"; refused in {lost}" if lost else "")
    cost = [each.records[kind].conditions for each in made if kind in each.records]
    return [cell] + [
        spread([each[key] for each in cost], "{:.0f}")
        for key in ("writes", "exposures", "took_s")
    ]


@pytest.mark.bench
def test_slmsuites_calibrations_on_the_same_light_paths(
    specimens: list[Specimen],
    peer: Any,  # noqa: ANN401 - a module
    tmp_path: Path,
    section: Section,
) -> None:
    every = [
        by_slmsuite(
            peer,
            each.path,
            each.seed,
            list(CALIBRATIONS),
            each.records["mapping"].conditions["power_mw"],
        )
        for each in specimens
    ]
    rows = []
    for name, (_, label, how) in CALIBRATIONS.items():
        scale = 100 if name == "settled" else 1
        found = [each[name] for each in every]
        rows.append([label, *told(found, how, scale), *ours(specimens, name)])
    off = []
    for number, (label, world) in enumerate(PATHS.items()):
        path = make(tmp_path / str(number) / "lab", 0, world)
        power_mw = specimens[0].records["mapping"].conditions["power_mw"]
        one = by_slmsuite(peer, path, 0, ["mapped", "phases"], power_mw)
        off.append([label])
        for name, found in one.items():
            off[-1] += told([found], CALIBRATIONS[name][2], 1)[:1]
    names = ("writes", "exposures", "bench s")
    heads = ("calibration", "slmsuite", *names, "computer s", "labctl", *names)
    text = (
        table(heads, rows)
        + "\n\nOn specimen 0, imperfections switched off one after the other:\n\n"
        + table(("slmsuite's on", "map, px rms", "phase curve, rad rms"), off)
    )
    section(PAGE, "Beside slmsuite's", text)
    # The adapter is right where nothing is in the way.
    assert one["mapped"].error < 0.2
    assert one["phases"].error < 0.01
    for specimen, each in zip(specimens, every, strict=True):
        assert each["phases"].writes > 4000
        assert specimen.errors["phase"] < each["phases"].error
