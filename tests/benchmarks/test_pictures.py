"""Frames of the simulated benches at rising power: the pictures of the docs.

With ``LABCTL_WRITE_TABLES=1`` they are drawn anew into
``docs/explanations/simulated-bench.png``.
"""

import io
import os
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from labctl import bench as benches
from labctl.bench import Bench
from labctl.reservoir import Blocks

PICTURE = Path(__file__).parents[2] / "docs" / "explanations" / "simulated-bench.png"
SHARES = (0.05, 0.5, 1.0, 1.5)
# Bench, whether the panel is flat, more light for a picture than for a reservoir,
# and what the row is called.
ROWS = (
    ("sim", True, 20, "sim\nflat panel, middle"),
    ("sim", False, 100, "sim\nrandom panel"),
    ("rubidium-vapour", True, 20, "rubidium-vapour\nflat panel, middle"),
    ("rubidium-vapour", False, 100, "rubidium-vapour\nrandom panel"),
    ("grin-fibre", False, 100, "grin-fibre\nrandom panel, image"),
    ("chi2-slab", False, 100, "chi2-slab\nrandom panel, 2nd harmonic"),
    ("powder", False, 100, "powder\nrandom panel, 2nd harmonic"),
)


def frames(name: str, light: float, *, flat: bool) -> list[NDArray[np.float64]]:
    """One frame at each power, without its offset, brought to the same exposure."""
    given = benches.load(name).file.world
    assert given is not None
    sensor = given.options["sensor"]
    assert isinstance(sensor, dict)
    photons = light * float(str(sensor["photons_per_s"]))
    source = benches.load(name, [f"world.options.sensor.photons_per_s={photons}"])
    with benches.open(source, seed=1) as bench:
        entry = bench.file.reservoir
        blocks = Blocks(bench.slm.shape, entry.macropixels)
        count = entry.macropixels[0] * entry.macropixels[1]
        drawn = np.random.default_rng(3).integers(0, 256, (1, count)).astype(np.uint8)
        bench.slm.write(blocks.expand(drawn * (not flat))[0])
        bench.clock.sleep(0.1)
        bench.camera.arm(len(SHARES))
        return [_frame(bench, share) for share in SHARES]


def _frame(bench: Bench, share: float) -> NDArray[np.float64]:
    entry = bench.file.reservoir
    # The weaker the light, the longer the exposure.
    exposure = entry.exposure_s / share
    bench.camera.disarm()
    bench.configure_camera(exposure_s=exposure)
    bench.camera.arm(1)
    bench.light(share * entry.power_mw)
    bench.camera.trigger()
    return bench.camera.frame(1.0).data.astype(np.float64) - 100.0


def change(shown: list[NDArray[np.float64]]) -> float:
    """How much of the light is elsewhere at the highest power than at the lowest."""
    low, high = (each.clip(0) / each.clip(0).sum() for each in (shown[0], shown[-1]))
    return float(np.abs(high - low).sum() / 2)


@pytest.mark.bench
def test_every_medium_shows_its_nonlinearity_at_rising_power() -> None:
    rows = [frames(name, light, flat=flat) for name, flat, light, _ in ROWS]
    for (*_, label), shown in zip(ROWS, rows, strict=True):
        print(f"{' '.join(label.split()):45s} {change(shown):.2f}")  # noqa: T201 - this is what make bench is for
    if os.environ.get("LABCTL_WRITE_TABLES") == "1":
        _draw(rows)
    assert all(change(shown) > 0.1 for shown in rows[:-1])
    # The powder alone keeps its pattern: only the amount of light grows, with the
    # square of the power, and the exposure falls with it.
    brightness = [float(shown.sum()) for shown in rows[-1]]
    assert brightness[-1] / brightness[-2] == pytest.approx(1.5, rel=0.1)


def _difference(shown: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Where the light of the highest power is and that of the lowest is not."""
    low, high = (each.clip(0) / each.clip(0).sum() for each in (shown[0], shown[-1]))
    moved: NDArray[np.float64] = (high - low) / max(high.max(), low.max())
    return np.sign(moved) * np.sqrt(np.abs(moved))


def _draw(rows: list[list[NDArray[np.float64]]]) -> None:
    titles = [f"{share:.0%} of nominal power" for share in SHARES]
    titles.append(f"{SHARES[-1]:.0%} less {SHARES[0]:.0%}")
    figure = Figure(figsize=(8.2, 1.53 * len(rows)), facecolor="white")
    grid = figure.add_gridspec(
        len(rows),
        len(titles),
        left=0.09,
        right=0.995,
        top=0.975,
        bottom=0.005,
        wspace=0.035,
        hspace=0.035,
    )
    for line, ((_, flat, _, label), shown) in enumerate(zip(ROWS, rows, strict=True)):
        pictures = [*(np.sqrt(each.clip(0)) for each in shown), _difference(shown)]
        for column, picture in enumerate(pictures):
            axis = figure.add_subplot(grid[line, column])
            if flat:  # all that there is to see is in the middle
                quarter = 3 * len(picture) // 8
                picture = picture[quarter:-quarter, quarter:-quarter]
            last = column == len(SHARES)
            # The root of the intensity shows the wings beside the peak.
            axis.imshow(
                picture,
                cmap="RdBu_r" if last else "magma",
                vmin=-0.7 if last else 0,
                vmax=0.7 if last else None,
                interpolation="nearest",
            )
            axis.set_xticks([])
            axis.set_yticks([])
            for spine in axis.spines.values():
                spine.set_visible(last)
                spine.set_color("0.8")
            if line == 0:
                axis.set_title(titles[column], fontsize=8, pad=4)
            if column == 0:
                axis.set_ylabel(label.replace(", ", "\n"), fontsize=7.5, labelpad=4)
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=130)
    few = (
        Image.open(drawn)
        .convert("RGB")
        .quantize(200, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    )
    few.save(PICTURE, optimize=True)
