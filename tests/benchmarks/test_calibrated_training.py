"""What calibrations are worth to a training on a bench that is out of order.

``make bench`` prints the table. With ``LABCTL_WRITE_TABLES=1`` the page
``docs/reference/calibrated-training.md`` is written anew.
"""

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from ruamel.yaml import YAML
from scipy import stats

from labctl.calibrate.execute import Options as Wanted
from labctl.calibrate.execute import execute as calibrate
from labctl.calibrate.execute import prepare as wanted
from labctl.run.execute import execute
from labctl.run.prepare import prepare
from labctl.run.progress import Silent
from labctl.run.setting import Options

SEEDS = range(5)
ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reference" / "calibrated-training.md"
# What a run applies, in the order of their measurement.
KINDS = ("camera", "settle", "slm-phase", "mapping", "wavefront")
# Everything that is out of order, against a bench as it was drawn: a tenth of a turn
# too much over the levels, a bowed backplane, a panel four times as slow as that of
# `sim` and sold as quick, and a camera that was taken off and put back.
PANEL = {
    "lut_error": 0.05,
    "lut_overshoot": 0.1,
    "curvature_rad": 1.8,
    "fast_s": 0.0077,
    "slow_s": 0.03125,
    "told_settle_s": 0.004,
}
CAMERA = {
    "mirrored": True,
    "turn_deg": 8.0,
    "shift_row_px": 9.0,
    "shift_column_px": -8.0,
}
CLEAN = {"lut_error": 0.0, "lut_overshoot": 0.0}
DRAWING = {"matrix_px": [[64.0, 0.0], [0.0, 64.0]], "offset_px": [32.0, 32.0]}
# The panel is slow: until its time is known this is waited.
CALIBRATE = {"settle_s": 0.25}
PROTOCOL = """\
schema_version: 1
kind: train
bench: lab
accept_unconverged: true # for aberrations this grid is a device of its own
data: {set: digits}
reservoir: {exposure_s: 0.005, macropixels: [8, 8]}
model:
  - {layer: device, encoding: additive, input_scale_rad: 3.141592653589793}
  - {layer: standardise}
  - {layer: linear}
surrogate: {name: twin-pairs, fits_per_step: 10}
probes: {dither_rad: [0.5, 0.2], held_out_per_step: 4, window: 300}
training: {batch: 64, learning_rate_theta: 0.1, learning_rate_digital: 0.01}
budget: {shots: 4000}
"""
HEAD = """\
# Training on a bench that is out of order, with calibrations and without

Digits through nine camera bins, 64 macropixels, 4,000 shots, on five specimens of the
simulated bench `sim` with a `drawing`: test accuracy on 397 digits.

- *clean*: the phase curve is the straight line on file, the backplane flat, the panel
  settles as it says, the camera is where it was drawn.
- *calibrated*: the levels cover 1.1 turns along a bent curve (5 % of a turn rms), the
  backplane is bowed by 1.8 rad rms, the panel is four times as slow and says that it
  settles in 4 ms, and the camera sees the light mirrored, turned by 8 degrees and
  shifted by 9 and 8 pixels. `labctl calibrate` has measured what a run uses.
- *uncalibrated*: the same bench, no calibration, `allow_uncalibrated: true`.

Every column of a row has the same specimen, seed, data and budget. Made by

```sh
LABCTL_WRITE_TABLES=1 make bench
```

| specimen | clean | calibrated | uncalibrated |
|---|---|---|---|
"""


def make(folder: Path, seed: int, *, clean: bool) -> Path:
    """Write a bench file, without calibrations."""
    shipped = ROOT / "calibrations" / "sim" / "bench.yaml"
    tree = YAML(typ="safe").load(shipped.read_text(encoding="utf-8"))
    world = tree["world"]["options"]
    world |= {"device_seed": 10 + seed, "kernel": "auto"}
    world["panel"] |= CLEAN if clean else PANEL
    world["sensor"] |= {} if clean else CAMERA
    tree |= {"name": "lab", "drawing": DRAWING, "calibrate": CALIBRATE}
    # In the middle, so that a camera that is out of place still sees all of it.
    tree["reservoir"]["region"] = [16, 16, 33, 33]
    folder.mkdir(parents=True)
    stream = io.StringIO()
    YAML().dump(tree, stream)
    path = folder / "bench.yaml"
    path.write_text(stream.getvalue(), encoding="utf-8")
    return path


def trained(here: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> float:
    """Train on the bench ``lab`` of a folder, and test."""
    monkeypatch.chdir(here)
    path = here / "digits.yaml"
    path.write_text(PROTOCOL, encoding="utf-8")
    # A clean bench is what nominal numbers say, and an uncalibrated one is not.
    overrides = ("allow_uncalibrated=true",)
    options = Options(seed=seed, overrides=overrides)
    return float(execute(prepare(str(path), options), Silent()).result["score_test"])


def calibrated(here: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Calibrate the bench ``lab`` of a folder, and say what was refused."""
    monkeypatch.chdir(here)
    options = Wanted(kinds=KINDS, bench="lab", seed=seed)
    outcome = calibrate(wanted(options), Silent())
    print(outcome.summary, flush=True)  # noqa: T201 - what make bench is for
    return [row.kind for row in outcome.rows if row.status != "passed"]


def told(gaps: NDArray[Any]) -> tuple[str, float, float]:
    """Mean of paired differences with its 95 % interval, as text and numbers."""
    mean = float(np.mean(gaps))
    half = float(stats.t.ppf(0.975, len(gaps) - 1) * stats.sem(gaps))
    low, high = mean - half, mean + half
    return f"{mean:+.3f} ({low:+.3f} to {high:+.3f})", low, high


@pytest.mark.bench
def test_calibrations_give_a_bench_out_of_order_the_score_of_a_clean_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, scores, refused = [], [], []
    for seed in SEEDS:
        at = {name: tmp_path / f"{name}-{seed}" for name in ("clean", "bad")}
        for name, here in at.items():
            make(here / "calibrations" / "lab", seed, clean=name == "clean")
        clean = trained(at["clean"], seed, monkeypatch)
        without = trained(at["bad"], seed, monkeypatch)
        refused += calibrated(at["bad"], seed, monkeypatch)
        with_all = trained(at["bad"], seed, monkeypatch)
        scores.append((clean, with_all, without))
        rows.append(f"| {seed} | {clean:.3f} | {with_all:.3f} | {without:.3f} |")
        print(rows[-1], flush=True)  # noqa: T201 - what make bench is for
    clean_, with_, without_ = np.array(scores).T
    kept, low, high = told(with_ - clean_)
    lost, _, most = told(without_ - clean_)
    closing = (
        f"\nPaired differences to the clean bench, mean and 95 % interval (Student, "
        f"{len(scores)} specimens): calibrated {kept}, uncalibrated {lost}. "
        f"Calibrations that failed: {', '.join(refused) or 'none'}.\n"
    )
    print(closing)  # noqa: T201 - what make bench is for
    if os.environ.get("LABCTL_WRITE_TABLES") == "1":
        PAGE.write_text(HEAD + "\n".join(rows) + "\n" + closing, encoding="utf-8")
    assert not refused
    assert high > 0
    assert most < low
