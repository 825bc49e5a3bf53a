"""Records of each kind, small and complete, written with the recorder."""

import base64
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.image import imread

from labctl.devices import Identity
from labctl.recording.header import CalibrationEntry, DeviceEntry, Header
from labctl.recording.layout import (
    Kind,
    Layout,
    ShotSpec,
    calibrate_layout,
    comparison_layout,
    evaluate_layout,
    scan_layout,
    train_layout,
)
from labctl.recording.writer import Recorder
from labctl.report import page
from labctl.run.execute import execute
from labctl.run.prepare import prepare
from labctl.run.progress import Silent
from labctl.run.setting import Options

MACROPIXELS, BINS, FRAME = (3, 5), (2, 3), (6, 9)
MARKUP = "<script>alert('x')</script>\"&<b>"
MakeHeader = Callable[..., Header]


@pytest.fixture(scope="session")
def markup() -> str:
    return MARKUP


@pytest.fixture(scope="session")
def make_header() -> MakeHeader:
    """A header of a kind; ``mark`` is put into every text that has room."""

    def header(kind: Kind, resolved: dict[str, Any], mark: str = "") -> Header:
        return Header(
            title=f"Digits through $9$ bins{mark}",
            kind=kind,
            protocol_text=f"kind: {kind}\n# {mark}\n",
            protocol_resolved={"seed": 7, "data": {"set": f"digits{mark}"}, **resolved},
            bench_name=f"sim{mark}",
            bench_text=f"name: sim\n# {mark}\n",
            bench_sha256="ab" * 32,
            simulated=True,
            notice=f"devices did not answer{mark}",
            seeds={f"run{mark}": 7},
            instrument={
                "slm": DeviceEntry(
                    Identity(f"labctl{mark}", f"SimSLM{mark}", f"1{mark}", "0.1"),
                    {"note": mark},
                    {"pitch_um": 8.0, "shape": [24, 40]},
                ),
                "beam": DeviceEntry(fields={"incident_wavelength": 1550.0}),
            },
            calibrations={
                f"slm-phase{'_b' if mark else ''}": CalibrationEntry(
                    {"span_rad": 6.3, "curve_rad": np.linspace(0, 6, 256)},
                    f"slm-phase.yaml{mark}",
                    "1" * 64,
                    f"2026-01-02T10:00:00+00:00{mark}",
                    {f"rms_rad{mark}": 0.01},
                )
            },
            reservoir={
                "exposure_s": 1e-3,
                "gain_db": 0.0,
                "power_mw": 5.0,
                "region": [4, 6, *FRAME],
                "bins": list(BINS),
                "macropixels": list(MACROPIXELS),
            },
        )

    return header


def shot_rows(count: int, *, frames: bool) -> dict[str, Any]:
    generator = np.random.default_rng(count)
    categories = np.array(["train", "probe", "warm-up", "evaluate"])
    rows: dict[str, Any] = {
        "outputs": generator.uniform(100, 300, (count, 6)).astype("f4"),
        "levels": generator.integers(0, 256, (count, 15)).astype("u1"),
        "category": categories[np.arange(count) % 4],
        "quality": np.where(np.arange(count) % 11 == 3, "stale", "ok"),
        "attempt": np.zeros(count, "u1"),
        "saturated_px": np.zeros(count, "i4"),
        "step": np.arange(count),
        "layer": np.zeros(count, "i8"),
    }
    for name in ("frame_id", "pattern_id", "trigger"):
        rows[name] = np.arange(count, dtype="u8")
    for name in (
        "host_time_s",
        "device_time_s",
        "laser_power_mw",
        "power_mw",
        "exposure_start_s",
        "exposure_end_s",
    ):
        rows[name] = np.linspace(0, 1, count)
    if frames:
        x = np.linspace(-1, 1, FRAME[1])
        y = np.linspace(-1, 1, FRAME[0])[:, None]
        blob = 3000 * np.exp(-3 * (x**2 + y**2))
        rows["frames"] = generator.poisson(blob, (count, *FRAME)).astype("u2")
    return rows


def training_rows(steps: int) -> dict[str, Any]:
    generator = np.random.default_rng(steps)
    part = np.arange(steps) / steps
    cosine = 0.9 * (1 - np.exp(-6 * part)) + 0.01 * generator.normal(size=steps)
    cosine[: steps // 20] = np.nan  # before the window is full
    return {
        "step": np.arange(steps),
        "loss": 2.3 * np.exp(-3 * part) + 0.1 * generator.uniform(size=steps),
        "loss_surrogate": np.exp(-part),
        "lr": np.full(steps, 0.03),
        "accuracy": 1 - 0.9 * np.exp(-3 * part) * generator.uniform(0.9, 1, steps),
        "cosine": cosine,
        "cosine_error": np.full(steps, 0.03),
        "shots": 1300 + 66 * np.arange(steps),
        "time_s": np.arange(steps) * 0.5,
        "score_validation": np.where(
            np.arange(steps) % 50 == 49, 0.2 + part / 2, np.nan
        ),
    }


METRICS = ("score_validation",)
MODEL = [
    {"layer": "device", "encoding": "additive"},
    {"layer": "linear"},
    {"layer": "device", "encoding": "modes"},
]
RESULT = {
    "metric": "accuracy",
    "direction": "up",
    "score_readout": 0.512,
    "score_test": 0.788,
    "score_oracle": 0.874,
    "steps": 500,
}


def fill_training(recorder: Recorder, mark: str, *, frames: bool) -> None:
    recorder.append_shots(**shot_rows(60, frames=frames))
    recorder.append("training", **training_rows(500))
    thetas = {
        "layers.0.theta": torch.linspace(-1, 9, 15),
        "layers.2.theta": torch.linspace(-1, 1, 30),
    }
    recorder.checkpoint(400, "step", {"network": thetas, "step": 400})
    recorder.event("info", "run", f"started{mark}")
    recorder.event("warning", f"cam{mark}"[:32], f"frame stale{mark}" * 6)
    recorder.set_result({**RESULT, "metric": f"accuracy{mark}", "note": mark})


@pytest.fixture(scope="session")
def training_record(
    tmp_path_factory: pytest.TempPathFactory, make_header: MakeHeader
) -> Path:
    """A finished training run that kept its frames."""
    path = tmp_path_factory.mktemp("training") / "run.h5"
    spec = ShotSpec(15, 6, frame_shape=FRAME, frame_origin=(4, 6))
    header = make_header("train", {"model": MODEL})
    with Recorder.create(
        path, layout=train_layout(spec, metrics=METRICS), header=header
    ) as recorder:
        fill_training(recorder, "", frames=True)
    return path


@pytest.fixture(scope="session")
def marked_record(
    tmp_path_factory: pytest.TempPathFactory, make_header: MakeHeader
) -> Path:
    """A training run with markup in every text that a record has room for."""
    path = tmp_path_factory.mktemp("marked") / "run.h5"
    header = make_header("train", {"model": MODEL, MARKUP: MARKUP}, MARKUP)
    layout = train_layout(ShotSpec(15, 6), metrics=METRICS)
    with Recorder.create(path, layout=layout, header=header) as recorder:
        fill_training(recorder, MARKUP, frames=False)
        rows = shot_rows(4, frames=False)
        recorder.append_shots(**{**rows, "category": np.full(4, "<b>&\"'")})
    return path


@pytest.fixture(scope="session")
def empty_record(
    tmp_path_factory: pytest.TempPathFactory, make_header: MakeHeader
) -> Path:
    """A run that ended before its first shot."""
    path = tmp_path_factory.mktemp("empty") / "run.h5"
    header = make_header("train", {"model": MODEL})
    with Recorder.create(
        path, layout=train_layout(ShotSpec(15, 6)), header=header
    ) as recorder:
        recorder.set_status("failed")
    return path


def write_evaluation(path: Path, make_header: MakeHeader, mark: str = "") -> Path:
    layout = evaluate_layout(ShotSpec(15, 6), n_predictions=4, n_targets=1)
    header = make_header("evaluate", {"source": f"run.h5{mark}"}, mark)
    with Recorder.create(path, layout=layout, header=header) as recorder:
        recorder.append_shots(**shot_rows(40, frames=False))
        repeats = np.arange(3)
        recorder.append(
            "scores",
            repeat=repeats,
            score=np.array([0.7, 0.75, 0.72]),
            loss=np.ones(3),
            shots=40 * (1 + repeats),
            time_s=repeats / 2,
        )
        target = np.arange(40) % 4
        answer = np.eye(4)[np.where(np.arange(40) < 30, target, 0)]
        recorder.append(
            "predictions",
            repeat=np.zeros(40, int),
            sample=np.arange(40),
            shot=np.arange(40),
            prediction=answer,
            target=target[:, None].astype(float),
        )
        recorder.set_result(
            {
                "metric": f"accuracy{mark}",
                "direction": "up",
                "score_then": 0.74,
                "score_test": 0.723,
                "scores": [0.7, 0.75, 0.72],
            }
        )
    return path


def write_scan(path: Path, make_header: MakeHeader, mark: str = "") -> Path:
    layout: Layout = scan_layout(ShotSpec(15, 6))
    header = make_header("scan", {"sweep": f"reservoir.power_mw{mark}"}, mark)
    with Recorder.create(path, layout=layout, header=header) as recorder:
        recorder.append_shots(**shot_rows(10, frames=False))
        value = np.repeat(np.array([5.0, 1.0, 2.0, 3.0, 4.0]), 2)
        recorder.append(
            "points",
            value=value,
            text=np.array([f"{number}{mark}" for number in value]),
            pattern=np.tile([0, 1], 5),
            repeat=np.zeros(10, int),
            shot=np.arange(10),
            outputs=(value[:, None] * np.arange(1, 7)).astype("f4"),
        )
        recorder.set_result(
            {
                "points": 5,
                f"note{mark}": mark,
                "unit": f"electron{mark}",
                "sweep": f"reservoir.power_mw{mark}",
                "values": [f"1{mark}", f"2{mark}"],
                "mean_outputs": [[1.0, 2.0], [3.0, 4.0]],
            }
        )
    return path


def write_comparison(path: Path, make_header: MakeHeader, mark: str = "") -> Path:
    plan = comparison_layout()
    header = make_header("comparison", {}, mark)
    with Recorder.create(path, layout=plan, header=header) as recorder:
        for budget, gain in ((1000, 0.3), (4000, 0.6), (10000, 0.8)):
            for method, own in (("readout", 0.0), ("mine", gain), ("oracle", 1.0)):
                row: dict[str, list[Any]] = {
                    column.name: [0 if column.dtype.startswith("i") else 0.0]
                    for column in plan.table("summary").columns
                    if not column.filled
                }
                row |= {
                    "task": [f"d{mark}"[:32]],
                    "method": [f"{method[:1]}{mark}"[:32]],
                }
                row |= {"budget": [budget], "seeds": [2], "mean": [0.3 + own / 2]}
                row |= {"mean_low": [0.2 + own / 2], "mean_high": [0.4 + own / 2]}
                row |= {
                    "gain": [own],
                    "gain_low": [own - 0.1],
                    "gain_high": [own + 0.1],
                }
                recorder.append("summary", **row)
        recorder.set_result({"trainings": 9, f"note{mark}": mark})
    return path


def calibration_shots(layout: Layout, stage: str) -> dict[str, Any]:
    """Three exposures: in the dark, of the second pattern, and a stale one."""
    rows: dict[str, Any] = {
        column.name: np.zeros((3, *column.shape), column.dtype)
        for table in layout.together("shots")
        for column in table.columns
        if not column.filled
    }
    return rows | {
        "pattern": [0, 1, 1],
        "stage": [stage] * 3,
        "category": ["calibrate"] * 3,
        "quality": ["ok", "ok", "stale"],
        "exposure_s": [1.0, 0.5, 0.5],
        "setpoint_mw": [0.0, 2.0, 9.0],
        "frames": shot_rows(3, frames=True)["frames"],
    }


def write_calibration(path: Path, make_header: MakeHeader, mark: str = "") -> Path:
    layout = calibrate_layout((4, 6), FRAME, "u1")
    header = make_header("calibrate", {"calibration": f"settle{mark}"}, mark)
    with Recorder.create(path, layout=layout, header=header) as recorder:
        patterns = np.arange(48, dtype="u1").reshape(2, 4, 6)
        recorder.append("patterns", levels=patterns)
        recorder.append("shots", **calibration_shots(layout, f"dark{mark}"[:32]))
        for name, error in (("measured", 0.1), ("fitted", np.nan)):
            x = np.linspace(0, 1, 9)
            recorder.append(
                "fits",
                figure=[f"rise{mark}"[:32]] * 9,
                series=[f"{name}{mark}"[:64]] * 9,
                x=x,
                y=1 - np.exp(-5 * x),
                error=np.full(9, error),
                u=np.full(9, np.nan),
                v=np.full(9, np.nan),
            )
        recorder.set_result(
            {
                "passed": False,
                "why": f"too slow{mark}",
                "remarks": [f"a remark{mark}"],
                "merits": {f"rest{mark}": [0.2, 0.01, 0.1]},
                "quantities": {f"settle_s{mark}": [0.02, None]},
                "conditions": {f"bench{mark}": mark},
                "figures": [
                    {
                        "name": f"rise{mark}"[:32],
                        "title": f"Rise{mark}",
                        "caption": f"A caption{mark}",
                        "x": f"time{mark}",
                        "y": f"phase{mark}",
                        "scale": "linear",
                        "lines": [f"fitted{mark}"[:64]],
                    }
                ],
            }
        )
    return path


WRITERS: dict[Kind, Callable[..., Path]] = {
    "evaluate": write_evaluation,
    "scan": write_scan,
    "comparison": write_comparison,
    "calibrate": write_calibration,
}
WriteRecord = Callable[..., Path]


@pytest.fixture(scope="session")
def write_record(
    tmp_path_factory: pytest.TempPathFactory, make_header: MakeHeader
) -> WriteRecord:
    """Write a complete record of a kind; ``mark`` goes into every text of it."""

    def write(kind: Kind, mark: str = "") -> Path:
        path = tmp_path_factory.mktemp(kind) / "run.h5"
        return WRITERS[kind](path, make_header, mark)

    return write


@pytest.fixture(scope="session")
def evaluation_record(write_record: WriteRecord) -> Path:
    """A trained model, measured again three times."""
    return write_record("evaluate")


@pytest.fixture(scope="session")
def scan_record(write_record: WriteRecord) -> Path:
    """The power swept over five values, two patterns each."""
    return write_record("scan")


# Enough for a page that has every figure of its study.
SMALL = {
    "loss-fields": (
        'study.losses=[mse, "cos+mse", gen]',
        "study.a=[1]",
        "study.steps=5",
        "seeds=1",
    ),
    "restore-jacobian": ("seeds=1", "study.reach=[2]", "study.reach_steps=24"),
    "destroy-jacobian": ("seeds=1",),
    "activations": ("seeds=1",),
    "evolution": ("seeds=1",),
    "manifold": ("seeds=1",),
}
STUDIES = Path(__file__).parents[3] / "protocols" / "studies"
Once = Callable[[str, Callable[[Path], Any]], Any]
MakeStudy = Callable[[str], Path]


@pytest.fixture(scope="session")
def training_page(once: Once, training_record: Path) -> Path:
    """The page of a training, with figures beside it; once for all workers."""

    def make(folder: Path) -> Path:
        return page.write(training_record, folder / "run.html", folder / "figures")

    found: Path = once("training-page", make)
    return found


@pytest.fixture(scope="session")
def make_study(once: Once) -> MakeStudy:
    """Run a shipped study in a small form, and write its page beside it.

    Once for all workers.
    """

    def make(name: str) -> Path:
        def run(folder: Path) -> Path:
            out = folder / "run.h5"
            options = Options(
                out=out, overwrite=True, overrides=SMALL.get(name, ("seeds=2",))
            )
            execute(prepare(str(STUDIES / f"{name}-smoke.yaml"), options), Silent())
            page.write(out, out.with_suffix(".html"))
            return out

        found: Path = once(f"study-{name}", run)
        return found

    return make


# ---- a browser -------------------------------------------------------------------

Visit = Callable[[Path], Any]


@pytest.fixture
def visit(browser: Any) -> Iterator[Visit]:  # noqa: ANN401 - selenium is untyped here
    """Open a page; refuse one that complains or asks for anything beside itself."""

    def go(path: Path) -> Any:  # noqa: ANN401 - selenium is untyped here
        browser.get_log("performance")
        browser.get_log("browser")  # what a page before had to say
        browser.get(path.as_uri())
        assert browser.get_log("browser") == []
        asked = {
            event["params"]["request"]["url"]
            for row in browser.get_log("performance")
            for event in [json.loads(row["message"])["message"]]
            if event["method"] == "Network.requestWillBeSent"
        }
        assert {url for url in asked if not url.startswith("data:")} == {path.as_uri()}
        return browser

    yield go
    browser.get("about:blank")  # a page that moves would take a core from the rest


CheckPage = Callable[[Path], str]
# Every node that passes is not told: that takes longer than to judge them.
IN_LIGHT = {"resultTypes": ["violations"]}
# The scheme changes colours, and which images are shown: nothing else.
IN_DARK = IN_LIGHT | {"runOnly": ["color-contrast", "image-alt", "image-redundant-alt"]}


@pytest.fixture
def check_page(visit: Visit, need_module: Callable[..., ModuleType]) -> CheckPage:
    """Open a page and judge it as axe-core does, in light and in dark.

    Returns its text.
    """
    axe = need_module("axe_core_python.selenium")

    def check(path: Path) -> str:
        driver = visit(path)
        try:
            for scheme, rules in (("light", IN_LIGHT), ("dark", IN_DARK)):
                feature = {"name": "prefers-color-scheme", "value": scheme}
                driver.execute_cdp_cmd(
                    "Emulation.setEmulatedMedia", {"features": [feature]}
                )
                found = axe.Axe().run(driver, options=rules)["violations"]
                told = [
                    (each["id"], node["html"])
                    for each in found
                    for node in each["nodes"]
                ]
                assert told == [], scheme
            _is_drawn(driver)
            assert _nameless(driver) == []
        finally:
            driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
        assert driver.get_log("browser") == []
        text: str = driver.find_element("tag name", "body").text
        return text

    return check


CONTROLS = ("button", "slider", "combobox", "application", "link", "region", "group")


def _nameless(driver: Any) -> list[str]:  # noqa: ANN401 - selenium is untyped here
    """Controls that a screen reader cannot name: a label may have gone elsewhere."""
    tree = driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    shown = [node for node in tree if not node["ignored"] and "role" in node]
    assert any(node["role"]["value"] == "region" for node in shown)
    return [
        node["role"]["value"]
        for node in shown
        if node["role"]["value"] in CONTROLS
        and not node.get("name", {}).get("value", "").strip()
    ]


RECTANGLES = """
const all = [...document.querySelectorAll("figure img, figure canvas")].filter(
  (each) => each.checkVisibility());
return [document.documentElement, ...all].map((each) => {
  const { x, y, width, height } = each.getBoundingClientRect();
  return [x + scrollX, y + scrollY, width, height];
});
"""
SCALE = 0.5


def _is_drawn(driver: Any) -> None:  # noqa: ANN401 - selenium is untyped here
    """Photograph the whole page, and look at each of its figures: none is blank."""
    page, *figures = driver.execute_script(RECTANGLES)
    clip = {"x": 0, "y": 0, "width": page[2], "height": page[3], "scale": SCALE}
    asked = {"clip": clip, "captureBeyondViewport": True}
    taken = driver.execute_cdp_cmd("Page.captureScreenshot", asked)["data"]
    shown = np.asarray(imread(io.BytesIO(base64.b64decode(taken))))[..., :3]
    assert np.ptp(shown) > 0.5
    for place in figures:
        x, y, width, height = (round(SCALE * side) for side in place)
        part = shown[y : y + height, x : x + width]
        assert min(part.shape[:2]) > 10
        assert np.ptp(part) > 0.3
