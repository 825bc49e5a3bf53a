"""Phases in, outputs out, every exposure on the ledger."""

import math
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from typing_extensions import override

from drivers.sim.camera import SimCamera
from drivers.sim.laser import SimLaser
from drivers.sim.world import Shot, World
from labctl import bench as benches
from labctl import devices
from labctl.bench import Bench
from labctl.bounded import BoundedSequence
from labctl.calibration import CameraResponse, ReservoirEntry, Settle
from labctl.devices import CameraSettings, Levels, Played, Sequence
from labctl.errors import (
    BudgetError,
    CalibrationError,
    DeviceError,
    DeviceTimeoutError,
    FrameError,
    InputError,
    SafetyError,
)
from labctl.identity import REPEATABLE
from labctl.reservoir import (
    CATEGORIES,
    Blocks,
    Decoder,
    Exposer,
    Ledger,
    Panel,
    PhaseScale,
    Reservoir,
    Shots,
    calibration,
    macropixel_scale,
    pixel_scale,
    require_turn,
)

TURN = 2 * math.pi
LINE = np.arange(256) * TURN / 256


# -- ledger ----------------------------------------------------------------------


def test_refuses_to_overspend_and_books_nothing() -> None:
    ledger = Ledger(10)
    ledger.book("train", 8)
    with pytest.raises(BudgetError, match=r"probe=3 shots, expected at most 2"):
        ledger.book("probe", 3)
    assert ledger.counts["probe"] == 0
    assert ledger.left == 2


def test_shots_outside_the_budget_are_counted_but_not_charged() -> None:
    ledger = Ledger(10)
    with ledger.outside_budget():
        ledger.book("evaluate", 100)
    assert (ledger.total, ledger.spent, ledger.left) == (100, 0, 10)


def test_refuses_a_category_that_does_not_exist() -> None:
    with pytest.raises(ValueError, match="category=training"):
        Ledger(None).book("training", 1)


@given(
    bookings=st.lists(
        st.tuples(
            st.sampled_from(CATEGORIES),
            st.integers(0, 50),
            st.booleans(),
            st.floats(0, 1),
        )
    ),
    budget=st.integers(0, 200),
)
def test_ledger_conserves_exposures(
    bookings: list[tuple[str, int, bool, float]], budget: int
) -> None:
    ledger, made, charged = Ledger(budget), 0, 0
    for category, shots, free, share in bookings:
        try:
            if free:
                with ledger.outside_budget():
                    ledger.book(category, shots)
            else:
                ledger.book(category, shots)
        except BudgetError:
            assert not free
            assert charged + shots > budget
            continue
        made += shots
        rejected = 0 if free else int(share * shots)
        charged += 0 if free else shots - rejected
        ledger.refund(rejected)
    assert ledger.total == made
    assert ledger.spent == charged <= budget
    again = Ledger(budget)
    again.load_state_dict(ledger.state_dict())
    assert again.state_dict() == ledger.state_dict()


# -- phases, levels, panel -------------------------------------------------------


@given(st.lists(st.floats(-50, 50), min_size=1, max_size=20))
def test_shown_phase_is_within_half_a_level_on_the_circle(phases: list[float]) -> None:
    scale = PhaseScale(LINE)
    phase = np.array(phases)
    shown = scale.shown(scale.levels(phase))
    error = np.abs(np.angle(np.exp(1j * (shown - phase))))
    assert np.all(error <= TURN / 512 + 1e-9)


def test_levels_of_shown_phases_are_the_same_levels() -> None:
    curve = TURN * 1.05 * (np.arange(256) / 256) ** 1.2
    scale = PhaseScale(curve)
    levels = np.arange(len(scale.phase_rad), dtype=np.uint8)
    assert np.array_equal(scale.levels(scale.shown(levels)), levels)


def test_slope_is_the_derivative_of_the_curve() -> None:
    curve = TURN * (np.arange(256) / 256) ** 1.3
    scale = PhaseScale(curve)
    step = np.diff(curve)
    found = scale.slope(np.arange(len(scale.phase_rad), dtype=np.uint8))
    assert found[1:-1] == pytest.approx((step[1:] + step[:-1]) / 2)


SPANS = np.array([[1.02, 1.08, 1.2], [1.05, 1.1, 1.15]])
CURVES = SPANS[:, :, None] * TURN * np.arange(256) / 256


def test_each_pixel_is_shown_by_the_curve_of_its_region() -> None:
    scale = pixel_scale(CURVES, (4, 6))
    phase = np.random.default_rng(1).uniform(-9, 9, (3, 4, 6))
    levels = scale.levels(phase)
    assert levels.dtype == np.uint8
    for row, column in np.ndindex(4, 6):
        own = PhaseScale(CURVES[row // 2, column // 2])
        at = levels[:, row, column]
        assert (at == own.levels(phase[:, row, column])).all()
        assert (scale.shown(levels)[:, row, column] == own.shown(at)).all()
        assert (scale.slope(levels)[:, row, column] == own.slope(at)).all()
        assert scale.turn[row, column] == own.turn


def test_a_macropixel_in_several_regions_has_their_mean_curve() -> None:
    blocks = Blocks((4, 6), (2, 2))  # three pixels wide, regions two
    found = macropixel_scale(blocks, CURVES).shown(np.full((1, 4), 200, np.uint8))
    left, middle, right = CURVES[:, :, 200].T
    mixed = np.stack([2 * left + middle, middle + 2 * right], axis=1) / 3
    assert found[0] == pytest.approx(mixed.ravel())


def test_one_curve_for_all_is_the_same_to_the_bit() -> None:
    phase = np.random.default_rng(2).uniform(-9, 9, (5, 4))
    blocks = Blocks((4, 6), (2, 2))
    one = Panel(blocks, CURVES[0, 0], None)
    same = Panel(blocks, np.tile(CURVES[0, 0], (2, 3, 1)), None)
    levels = one.levels(phase)
    assert (levels == PhaseScale(CURVES[0, 0]).levels(phase)).all()
    assert (levels == same.levels(phase)).all()
    assert one.shown(levels) == pytest.approx(same.shown(levels))


def test_refuses_a_region_short_of_a_turn() -> None:
    short = CURVES.copy()
    short[1, 2] *= 0.7
    require_turn(CURVES)
    with pytest.raises(CalibrationError, match="the curve spans"):
        require_turn(short)


def test_refuses_a_curve_short_of_a_turn() -> None:
    with pytest.raises(CalibrationError, match=r"spans 5\.\d+ rad, expected 6\.283"):
        PhaseScale(LINE * 0.85)


def test_refuses_phases_that_are_no_numbers() -> None:
    with pytest.raises(ValueError, match="not finite"):
        PhaseScale(LINE).levels(np.array([[0.0, np.nan]]))


def test_blocks_are_centred_and_in_row_order() -> None:
    blocks = Blocks((7, 10), (2, 3))
    panel = blocks.expand(np.array([[1, 2, 3, 4, 5, 6]], dtype=np.uint8))
    assert panel.shape == (1, 7, 10)
    assert panel[0, 0].tolist() == [1, 1, 1, 2, 2, 2, 3, 3, 3, 0]
    assert panel[0, 3].tolist() == [4, 4, 4, 5, 5, 5, 6, 6, 6, 0]
    assert panel[0, 6].tolist() == [0] * 10


def test_gather_is_the_transpose_of_expand() -> None:
    blocks = Blocks((7, 10), (2, 3))
    rng = np.random.default_rng(0)
    levels = rng.integers(0, 255, (4, 6)).astype(np.uint8)
    weight = rng.normal(size=(4, 7, 10))
    left = (blocks.expand(levels) * weight).sum()
    assert left == pytest.approx((levels * blocks.gather(weight)).sum())


def test_refuses_a_panel_smaller_than_the_encoding() -> None:
    with pytest.raises(InputError, match=r"macropixels=16 x 16, expected at most 8 x"):
        Blocks((8, 32), (16, 16))


# -- frames to outputs -----------------------------------------------------------

ENTRY = ReservoirEntry(
    macropixels=(4, 4),
    region=(2, 3, 6, 10),
    bins=(2, 3),
    exposure_s=0.01,
    gain_db=20.0,
    power_mw=2.0,
)
RESPONSE = CameraResponse(
    kind="camera",
    offset_dn=100.0,
    dark_dn_per_s=50.0,
    gain_dn_per_e=0.5,
    read_noise_e=1.0,
)


def test_decoding_gives_electrons_at_nominal_exposure_and_power() -> None:
    # 20 dB is ten times: 5 DN an electron; dark level 100 + 50 * 0.02 = 101 DN.
    decoder = Decoder(ENTRY, RESPONSE, exposure_s=0.02)
    electrons = np.arange(60).reshape(1, 6, 10)
    frames = (101 + 5 * electrons).astype(np.uint16)
    outputs = decoder.outputs(frames, np.array([1.0]))
    # Twice the exposure at half the power: what was counted is what is nominal.
    expected = [
        electrons[0, rows, columns].sum()
        for rows in (slice(0, 3), slice(3, 6))
        for columns in (slice(0, 3), slice(3, 7), slice(7, 10))
    ]
    assert outputs[0] == pytest.approx(expected)


def test_outputs_without_light_vary_by_read_noise_and_dark_current() -> None:
    decoder = Decoder(ENTRY, RESPONSE, exposure_s=0.02)
    rng = np.random.default_rng(2)
    dark_e = 50 * 0.02 / 0.5  # as counted at 0 dB
    shape = (4000, 6, 10)
    electrons = rng.poisson(dark_e, shape) - dark_e + rng.normal(size=shape)
    frames = np.rint(101 + 5 * electrons).astype(np.uint16)
    found = decoder.outputs(frames, np.full(4000, 2.0)).var(axis=0)
    # Half of what is counted: the exposure is twice the nominal one.
    expected = np.array([9, 12, 9, 9, 12, 9]) * (1.0 + dark_e) / 4
    assert decoder.dark_variance() == pytest.approx(expected)
    assert found == pytest.approx(expected, rel=0.1)


def test_spread_is_the_derivative_of_decoding() -> None:
    decoder = Decoder(ENTRY, RESPONSE, exposure_s=0.01)
    rng = np.random.default_rng(1)
    frames = rng.integers(100, 400, (1, 6, 10)).astype(np.uint16)
    cotangent = rng.normal(size=(1, 6))
    moved = frames.copy()
    moved[0, 4, 8] += 10
    power = np.array([2.0])
    change = decoder.outputs(moved, power) - decoder.outputs(frames, power)
    slope = decoder.spread(cotangent)[0, 4, 8]
    assert (change * cotangent).sum() / 10 == pytest.approx(slope)


# -- the whole, on the simulated bench -------------------------------------------


def some_phases(reservoir: Reservoir, count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return TURN * torch.rand(count, reservoir.pixels, generator=generator)


def test_outputs_do_not_depend_on_how_a_batch_is_split_or_played() -> None:
    batches = [[12], [1] * 12, [5, 7]]
    found = []
    for sizes in batches:
        with benches.open(benches.load("sim-small"), seed=5) as bench:
            reservoir = Reservoir(bench)
            phase = some_phases(reservoir, 12)
            parts = [
                reservoir(part, category="train") for part in torch.split(phase, sizes)
            ]
            found.append(torch.cat([part.y for part in parts]))
    with benches.open(benches.load("sim-small"), seed=5) as bench:
        bench.sequence = None
        found.append(Reservoir(bench)(phase, category="train").y)
    for other in found[1:]:
        assert torch.equal(found[0], other)


def test_a_batch_is_no_longer_than_a_sequence_and_the_heartbeat_allow() -> None:
    with near(benches.load("sim-small")) as bench:
        assert isinstance(bench.sequence, BoundedSequence)
        bench.sequence.driver = Short(bench.sequence.driver)
        rows: list[Shots] = []
        reservoir = Reservoir(bench, sink=rows.append)
        reservoir(some_phases(reservoir, 12), category="train")
        assert [len(shots.levels) for shots in rows] == [5, 5, 2]
        taken = CameraSettings(0.01, 0.0, (0, 0, 4, 6))
        lengths = []
        # On a real clock: a third of two seconds, for settling and exposure.
        for settle_s in (0.01, 0.19, 3.0):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(
                    bench, "file", bench.file.model_copy(update={"world": None})
                )
                made = Exposer(bench, Ledger(None), taken, settle_s)
            lengths.append(made.longest)
    assert lengths == [5, 3, 1]


class Short(devices.Sequence):
    """A panel with room for five patterns."""

    longest = 5

    def __init__(self, whole: devices.Sequence) -> None:
        self._whole = whole

    @override
    def play(self, levels: Levels, *, settle_s: float) -> Played:
        assert len(levels) <= self.longest
        return self._whole.play(levels, settle_s=settle_s)


def test_every_shot_reaches_the_sink_with_its_identity() -> None:
    rows: list[Shots] = []
    with benches.open(benches.load("sim-small"), seed=5) as bench:
        reservoir = Reservoir(bench, sink=rows.append)
        response = reservoir(some_phases(reservoir, 9), category="probe", step=4)
        assert bench.world is not None
        assert bench.world.shots == reservoir.ledger.total == 9
    (shots,) = rows
    assert (shots.category, shots.step, shots.first) == ("probe", 4, 0)
    assert shots.levels.shape == (9, reservoir.pixels)
    assert np.all(np.diff(shots.played.pattern_id) == 1)
    assert np.all(shots.played.exposure_start_s >= shots.played.written_s)
    assert response.shot.tolist() == list(range(9))


@pytest.mark.parametrize("on_saturation", ["warn", "stop"])
def test_a_saturated_frame_stops_where_the_bench_file_says_so(
    on_saturation: str,
) -> None:
    rows: list[Shots] = []
    with near(benches.load("sim-small")) as bench:
        limits = bench.file.limits.model_copy(update={"on_saturation": on_saturation})
        bright = bench.file.reservoir.model_copy(update={"exposure_s": 0.02})
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                bench, "file", bench.file.model_copy(update={"limits": limits})
            )
            patch.setattr(type(bench.camera), "saturation_dn", 300)
            for sink in (None, rows.append):
                reservoir = Reservoir(bench, bright, sink=sink)
                phase = some_phases(reservoir, 2)
                if on_saturation == "warn":
                    reservoir(phase, category="train")
                    continue
                with pytest.raises(SafetyError, match=r"saturated_px=\d+, expected 0"):
                    reservoir(phase, category="train")
    assert [len(shots.levels) for shots in rows] == [2], "in the record all the same"


def test_a_correction_is_added_on_the_panel_and_nowhere_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = np.linspace(-9, 9, 32)[:, None] * np.ones(32)
    seen: list[Shots] = []
    with benches.open(benches.load("sim-small")) as bench:
        plain = Reservoir(bench)
        phase = some_phases(plain, 2)
        expected = phase.numpy() + plain.blocks.gather(rows[None]) / math.prod(
            plain.blocks.block
        )
        with monkeypatch.context() as patch:
            patch.setattr(Bench, "correction_rad", lambda _: rows)
            reservoir = Reservoir(bench, sink=seen.append)
        found = reservoir(phase, category="evaluate")
        assert np.array_equal(seen[0].levels, plain.scale.levels(expected))
    gap = np.mod(found.shown.numpy() - phase.numpy() + math.pi, TURN) - math.pi
    assert np.abs(gap).max() < 0.02


def test_overspending_exposes_nothing() -> None:
    with benches.open(benches.load("sim-small"), seed=5) as bench:
        reservoir = Reservoir(bench, ledger=Ledger(8))
        with pytest.raises(BudgetError):
            reservoir(some_phases(reservoir, 9), category="train")
        assert bench.world is not None
        assert bench.world.shots == 0


def test_gradient_source_agrees_with_finite_differences() -> None:
    with benches.open(benches.load("sim-ideal"), seed=5) as bench:
        reservoir = Reservoir(bench)
        base = torch.from_numpy(
            reservoir.scale.shown(
                np.random.default_rng(2)
                .integers(60, 190, (1, reservoir.pixels))
                .astype(np.uint8)
            )
        )
        cotangent = torch.randn(
            1,
            reservoir.outputs,
            generator=torch.Generator().manual_seed(0),
            dtype=torch.float64,
        )
        slope = reservoir.gradient_source()(base, cotangent)
        along = torch.sign(slope) * 4 * TURN / 256
        plus = reservoir(base + along, category="probe").y
        minus = reservoir(base - along, category="probe").y
        measured = ((plus - minus) * cotangent).sum() / 2
        predicted = (slope * along).sum()
        assert float(measured) == pytest.approx(float(predicted), rel=0.1)


# -- faults: what is judged, exposed again, refunded -----------------------------

# In one go; one by one; and with the next one written while a frame is read out.
WAYS = ("played", "stepped", "overlapped")


def with_options(
    source: benches.BenchSource, role: str, **options: object
) -> benches.BenchSource:
    devices = source.file.devices
    entry = getattr(devices, role)
    entry = entry.model_copy(update={"options": {**entry.options, **options}})
    devices = devices.model_copy(update={role: entry})
    return replace(source, file=source.file.model_copy(update={"devices": devices}))


def with_times(
    source: benches.BenchSource, *, write_s: float, readout_s: float
) -> benches.BenchSource:
    world = source.file.world
    assert world is not None
    parts: dict[str, Any] = dict(world.options)
    parts["panel"] = {**parts["panel"], "write_s": write_s}
    parts["sensor"] = {**parts["sensor"], "readout_s": readout_s}
    world = world.model_copy(update={"options": parts})
    return replace(source, file=source.file.model_copy(update={"world": world}))


def broken(
    camera: list[dict[str, object]] | None = None,
    slm: list[dict[str, object]] | None = None,
    meter: list[dict[str, object]] | None = None,
) -> benches.BenchSource:
    source = benches.load("sim-small")
    for role, faults in (("camera", camera), ("slm", slm), ("meter", meter)):
        source = with_options(source, role, faults=faults or [])
    return source


@dataclass
class Watched:
    """What really happened on a bench, beside what the reservoir says."""

    reservoir: Reservoir
    rows: list[Shots]
    exposures: dict[float, Shot]
    world: World

    def column(self, name: str) -> NDArray[Any]:
        return np.concatenate([getattr(shots, name) for shots in self.rows])

    def check(self, by_hand: int = 0) -> None:
        """Every accepted frame is the exposure of its own pattern."""
        ledger = self.reservoir.ledger
        quality = self.column("quality")
        assert self.world.shots - by_hand == ledger.total == len(quality)
        assert ledger.refunded == np.sum(quality != "ok")
        for shots in self.rows:
            panel = self.reservoir.blocks.expand(shots.levels)
            good = np.flatnonzero(shots.quality == "ok")
            starts = shots.played.exposure_start_s[good]
            made = [self.exposures[start] for start in starts]
            for row, shot in zip(good, made, strict=True):
                np.testing.assert_allclose(shot.pictures[-1][0], panel[row], atol=0.5)
            if len(made):
                truth = self.world.render(made)
                assert np.array_equal(truth, shots.played.frames[good])


@contextmanager
def near(source: benches.BenchSource) -> Iterator[Bench]:
    """Open a bench with its laser in this process: no guard to wait for."""
    bench = benches.construct(source, seed=5)
    assert bench.beam is not None
    assert bench.world is not None
    assert bench.meter is not None
    bench.calibrations = source.records()
    bench.beam.parent.mkdir()
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, bench.beam.parent)
        stack.callback(bench.world.close)
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        laser = stack.enter_context(SimLaser(beam=bench.beam))
        patch.setattr(bench, "laser", laser)
        patch.setattr(bench, "beat", lambda **_how: None)
        for device in (bench.slm, bench.camera, bench.meter):
            stack.enter_context(device)
        yield bench


@contextmanager
def watched(source: benches.BenchSource, *, way: str) -> Iterator[Watched]:
    rows: list[Shots] = []
    if way == "overlapped":
        source = with_options(source, "camera", tells_exposure_end=True)
    with near(source) as bench:
        if way != "played":
            bench.sequence = None
        assert isinstance(bench.world, World)
        exposures, expose = {}, bench.world.expose

        def remember(settings: CameraSettings) -> Shot:
            shot = expose(settings)
            exposures[shot.start_s] = shot
            return shot

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(bench.world, "expose", remember)
            reservoir = Reservoir(bench, sink=rows.append)
            yield Watched(reservoir, rows, exposures, bench.world)


MENDED = [
    ("dropped", "gap"),
    ("late", "late"),
    ("reordered", "late"),
    ("truncated", "incomplete"),
]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("kind", "quality"), MENDED)
def test_a_lost_frame_is_exposed_again_and_refunded(
    kind: str, quality: str, way: str
) -> None:
    fault = {"kind": kind, "at_shot": 4, "delay_s": 60.0}
    with watched(broken(camera=[fault]), way=way) as seen:
        response = seen.reservoir(some_phases(seen.reservoir, 7), category="probe")
        seen.check()
    assert torch.isfinite(response.y).all()
    said = seen.column("quality")
    assert np.sum(said == "ok") == 7
    assert said[4] in {quality, "gap"} if way == "played" else said[4] == quality
    assert np.array_equal(response.shot.numpy(), np.flatnonzero(said == "ok")[-7:])
    assert seen.column("attempt").max() == 1
    assert np.isnan(seen.column("outputs")[4]).all()
    assert seen.reservoir.ledger.spent == 7


def test_an_overtaken_frame_is_never_taken_for_the_next() -> None:
    fault = {"kind": "reordered", "at_shot": 2}
    with watched(broken(camera=[fault]), way="stepped") as seen:
        seen.reservoir(some_phases(seen.reservoir, 6), category="probe")
        seen.check()
    # First it does not come; then it comes behind the next, and is stale.
    assert seen.column("quality").tolist() == [
        *("ok", "ok", "late", "ok", "stale", "ok", "ok", "ok")
    ]


@pytest.mark.parametrize("way", WAYS)
def test_a_copy_costs_nothing(way: str) -> None:
    fault = {"kind": "duplicated", "at_shot": 1, "count": 3}
    with watched(broken(camera=[fault]), way=way) as seen:
        seen.reservoir(some_phases(seen.reservoir, 6), category="probe")
        seen.check()
    assert seen.reservoir.ledger.refunded == 0


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", ["lost", "behind"])
def test_a_panel_that_shows_another_pattern_is_noticed(kind: str, way: str) -> None:
    fault = {"kind": kind, "at_shot": 3, "count": 2}
    with watched(broken(slm=[fault]), way=way) as seen:
        seen.reservoir(some_phases(seen.reservoir, 6), category="probe")
        seen.check()
    assert "stale" in seen.column("quality")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("kind", "quality"),
    [
        ("trigger_refused", "trigger_refused"),
        ("hung", "timeout"),
        ("removed", "removed"),
        ("wrong_shape", "wrong_shape"),
    ],
)
def test_what_is_not_safe_to_repeat_ends_the_run(
    kind: str, quality: str, way: str
) -> None:
    fault = {"kind": kind, "at_shot": 3}
    with watched(broken(camera=[fault]), way=way) as seen:
        with pytest.raises(FrameError) as caught:
            seen.reservoir(some_phases(seen.reservoir, 6), category="probe")
        seen.check()
    assert caught.value.kind == quality
    assert seen.column("attempt").max() == 0


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("clock", [(0.0, 0.0), (-1e8, 0.0), (50.0, 9e3), (0.0, -9e3)])
def test_frames_are_judged_by_the_cameras_own_clock(
    clock: tuple[float, float], way: str
) -> None:
    own = {"clock_offset_s": clock[0], "clock_ppm": clock[1]}
    source = with_options(broken(), "camera", **own)
    with watched(source, way=way) as seen:
        phase = some_phases(seen.reservoir, 40)
        response = seen.reservoir(phase, category="probe")
        assert seen.column("quality").tolist() == ["ok"] * 40
        (shots,) = seen.rows
        made = list(seen.exposures.values())
        true_s = np.array([shot.start_s for shot in made])
        told_s = shots.played.exposure_start_s
        assert np.all(abs(told_s - true_s) <= shots.played.time_error_s)
        # What was shown is what was exposed, and after it had settled.
        panel = seen.reservoir.blocks.expand(shots.levels)
        for shot, levels in zip(made, panel, strict=True):
            np.testing.assert_allclose(shot.pictures[-1][0], levels, atol=0.5)
        settle_s = calibration(seen.reservoir.bench, Settle).settle_s
        room_s = np.min(true_s - shots.played.written_s - settle_s)
        assert room_s >= -1e-9
    assert torch.isfinite(response.y).all()
    if way == "played" or clock == (0.0, 0.0):
        assert (shots.played.time_error_s, room_s) == pytest.approx((0, 0), abs=1e-9)
        return
    assert shots.played.time_error_s > 0
    # Whoever leaves no room has no frame that is known to be fresh.
    with watched(source, way="stepped") as seen:
        with (
            pytest.MonkeyPatch.context() as patch,
            pytest.raises(FrameError, match="attempt 3 of 3") as caught,
        ):
            patch.setattr(SimCamera, "time_error_s", 0.0)
            seen.reservoir(phase, category="probe")
        assert caught.value.kind == "stale"


# Write, settle, expose, read out: what a shot of each way takes, as the bench has it.
TIMES = [
    # An LCoS panel and a quick camera: the readout is hidden.
    (0.002, 0.05, 0.004, 0.015),
    # A slow readout, which the next exposure awaits.
    (0.002, 0.01, 0.004, 0.03),
]


@pytest.mark.parametrize(("write_s", "settle_s", "exposure_s", "readout_s"), TIMES)
@pytest.mark.parametrize("way", WAYS)
def test_a_pattern_is_written_while_the_frame_before_is_read_out(
    way: str, write_s: float, settle_s: float, exposure_s: float, readout_s: float
) -> None:
    count, source = 9, with_times(broken(), write_s=write_s, readout_s=readout_s)
    with watched(source, way=way) as seen:
        bench = seen.reservoir.bench
        bench.light(5.0)
        taken = bench.configure_camera(exposure_s=exposure_s)
        exposer = Exposer(bench, Ledger(None), taken, settle_s)
        panel = np.random.default_rng(1).integers(0, 256, (count, *bench.slm.shape))
        start_s = bench.clock.now()
        with exposer.booked("probe", count):
            batch = exposer.expose(panel.astype(np.uint8), "probe", lambda batch: batch)
        took_s = bench.clock.now() - start_s
    assert batch.quality.tolist() == ["ok"] * count
    if way == "overlapped":
        cycle_s = max(write_s + settle_s, readout_s) + exposure_s
        last_s = write_s + settle_s + exposure_s + readout_s
        expected_s = (count - 1) * cycle_s + last_s
    else:
        expected_s = count * (write_s + settle_s + exposure_s + readout_s)
    assert took_s == pytest.approx(expected_s, rel=1e-9)
    # Nothing was written before the exposure before was over, and nothing exposed
    # before it had settled.
    played = batch.played
    issued_s = played.written_s[1:] - write_s
    assert np.all(issued_s >= played.exposure_end_s[:-1] - 1e-9)
    assert np.all(played.exposure_start_s >= played.written_s + settle_s - 1e-9)
    is_ahead = played.written_s[1:] < played.host_time_s[:-1]
    assert is_ahead.all() == is_ahead.any() == (way == "overlapped")


@pytest.mark.parametrize("way", ["stepped", "overlapped"])
@pytest.mark.parametrize("frame_s", [None, 3.0])
def test_a_camera_that_is_slow_to_read_out_is_waited_for_alive(
    way: str, frame_s: float | None
) -> None:
    source = with_times(broken(), write_s=0.001, readout_s=2.5)
    limits = source.file.limits.model_copy(update={"frame_s": frame_s})
    source = replace(source, file=source.file.model_copy(update={"limits": limits}))
    beats_s: list[float] = []
    with watched(source, way=way) as seen, pytest.MonkeyPatch.context() as patch:
        bench = seen.reservoir.bench
        phases = some_phases(seen.reservoir, 3)
        patch.setattr(bench, "beat", lambda **_: beats_s.append(bench.clock.now()))
        if frame_s is None:
            with pytest.raises(FrameError, match="no frame within") as caught:
                seen.reservoir(phases, category="probe")
            assert caught.value.kind == "timeout"
            return
        seen.reservoir(phases, category="probe")
        seen.check()
    assert seen.column("quality").tolist() == ["ok"] * 3
    # The guard acts after three quarters of it.
    assert np.diff(beats_s).max() < 0.75 * source.file.heartbeat_s


def test_a_write_during_an_exposure_would_be_noticed() -> None:
    """A camera that says too early that an exposure is over is not believed."""
    source = with_options(broken(), "camera", tells_exposure_end=True)
    with watched(source, way="overlapped") as seen:
        with (
            pytest.MonkeyPatch.context() as patch,
            pytest.raises(FrameError, match="the next write") as caught,
        ):
            patch.setattr(SimCamera, "wait_exposed", lambda *_: None)
            seen.reservoir(some_phases(seen.reservoir, 4), category="probe")
        seen.check()
    assert caught.value.kind == "late"


def test_a_camera_that_does_not_say_is_waited_for() -> None:
    def silent(_: object, timeout_s: float) -> None:
        text = f"no exposure ended within {timeout_s} s"
        raise FrameError("camera", "timeout", text)

    with watched(broken(), way="overlapped") as seen:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(SimCamera, "wait_exposed", silent)
            seen.reservoir(some_phases(seen.reservoir, 4), category="probe")
        seen.check()
        (shots,) = seen.rows
    assert shots.quality.tolist() == ["ok"] * 4
    played = shots.played
    assert np.all(played.written_s[1:] > played.host_time_s[:-1])


@pytest.mark.parametrize(
    ("camera", "quality"),
    [
        ([], ["ok"]),
        ([{"kind": "dropped", "at_shot": 2}], ["gap"]),
        ([{"kind": "truncated", "at_shot": 2}], ["incomplete"]),
        ([{"kind": "hung", "at_shot": 2}], ["timeout"]),
        ([{"kind": "removed", "at_shot": 3}], ["removed"]),
    ],
)
def test_a_frame_on_its_way_outlives_a_panel_that_fails(
    camera: list[dict[str, object]], quality: list[str]
) -> None:
    """Three exposed, the third on its way when the panel is gone."""
    gone: list[dict[str, object]] = [{"kind": "removed", "at_shot": 3}]
    with watched(broken(camera=camera, slm=gone), way="overlapped") as seen:
        with pytest.raises(DeviceError):
            seen.reservoir(some_phases(seen.reservoir, 6), category="probe")
        seen.check()
    assert seen.column("quality").tolist() == ["ok", "ok", *quality]


def gone_after(shots: int, world: World) -> None:
    """Fail as a panel that went off while so many shots were exposed.

    Raises
    ------
    DeviceError
        So many were.
    """
    if world.shots >= shots:
        text = "the monitor is gone"
        raise DeviceError("slm", "check", text)


@pytest.mark.parametrize("way", ["stepped", "overlapped"])
@pytest.mark.parametrize("count", [3, 6])
def test_the_frame_of_a_panel_that_went_off_meanwhile_is_not_let_in(
    way: str, count: int
) -> None:
    """The third is refused, given back and told: as the last, too, and ahead."""
    with watched(broken(), way=way) as seen:
        slm = seen.reservoir.bench.slm
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(slm, "check_shown", lambda: gone_after(3, seen.world))
            with pytest.raises(DeviceError, match="slm: check: the monitor is gone"):
                seen.reservoir(some_phases(seen.reservoir, count), category="probe")
        seen.check()
    assert seen.column("quality").tolist() == ["ok", "ok", "removed"]
    assert seen.column("attempt").tolist() == [0, 0, 0]


def test_a_frame_on_its_way_when_the_next_write_finds_no_panel_is_not_let_in() -> None:
    gone: list[dict[str, object]] = [{"kind": "removed", "at_shot": 3}]
    with watched(broken(slm=gone), way="overlapped") as seen:
        slm = seen.reservoir.bench.slm
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(slm, "check_shown", lambda: gone_after(3, seen.world))
            with pytest.raises(DeviceError, match="slm: write: no longer there"):
                seen.reservoir(some_phases(seen.reservoir, 6), category="probe")
        seen.check()
    assert seen.column("quality").tolist() == ["ok", "ok", "removed"]


def test_an_interrupt_between_two_shots_leaves_an_exact_ledger() -> None:
    with watched(broken(), way="overlapped") as seen:
        bench, beats = seen.reservoir.bench, list[int]()

        def beat(*, rests: bool = True) -> None:
            beats.extend([1] * rests)  # those at which a beam may rest
            if len(beats) == 5:  # of the batch, and of four shots
                raise KeyboardInterrupt

        with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(bench, "beat", beat)
            seen.reservoir(some_phases(seen.reservoir, 9), category="probe")
        ledger = seen.reservoir.ledger
        assert seen.world.shots == ledger.total == 3
        # The camera is idle, and the next batch finds nothing of this one.
        seen.reservoir(some_phases(seen.reservoir, 4), category="probe")
    assert seen.column("quality").tolist() == ["ok"] * 4
    assert seen.world.shots == ledger.total == 7


def test_three_attempts_are_all() -> None:
    fault = {"kind": "dropped", "at_shot": 3, "count": 9}
    with watched(broken(camera=[fault]), way="stepped") as seen:
        with pytest.raises(FrameError, match="attempt 3 of 3") as caught:
            seen.reservoir(some_phases(seen.reservoir, 6), category="probe")
        seen.check()
    assert caught.value.kind == "gap"
    assert seen.column("quality").tolist() == ["ok"] * 3 + ["gap"] * 3
    assert seen.column("attempt").tolist() == [0, 0, 0, 0, 1, 2]
    assert seen.reservoir.ledger.spent == 3


def test_a_silent_meter_ends_the_run_and_the_ledger_still_adds_up() -> None:
    fault = {"kind": "silent", "at_shot": 3}
    with watched(broken(meter=[fault]), way="stepped") as seen:
        with pytest.raises(DeviceTimeoutError, match="meter"):
            seen.reservoir(some_phases(seen.reservoir, 6), category="probe")
        assert seen.world.shots == seen.reservoir.ledger.total == 3


def test_a_silent_meter_ends_a_batch_that_was_played() -> None:
    fault = {"kind": "silent", "at_shot": 3}
    with watched(broken(meter=[fault]), way="played") as seen:
        with pytest.raises(DeviceTimeoutError, match="meter"):
            seen.reservoir(some_phases(seen.reservoir, 6), category="probe")
        assert seen.world.shots == seen.reservoir.ledger.total == 3
    assert seen.column("quality").tolist() == ["timeout"] * 3


class Aside(Sequence):
    """A sequence whose meter does not follow single exposures."""

    def __init__(self, of: Sequence) -> None:
        self._of = of

    @property
    @override
    def longest(self) -> int:
        return self._of.longest

    @override
    def play(self, levels: Levels, *, settle_s: float) -> Played:
        return replace(self._of.play(levels, settle_s=settle_s), power_mw=None)


def test_a_meter_that_does_not_follow_a_batch_is_asked_after_it() -> None:
    fault = {"kind": "silent", "at_shot": 8}
    with watched(broken(meter=[fault]), way="played") as seen:
        bench = seen.reservoir.bench
        assert bench.sequence is not None
        assert bench.meter is not None
        bench.sequence = Aside(bench.sequence)
        seen.reservoir(some_phases(seen.reservoir, 6), category="probe")
        assert set(seen.column("power_mw")) == {bench.meter.reading().value}
        # Of one that says nothing no frame is let in, and no other power taken.
        bench.sequence = Aside(bench.sequence)
        with pytest.raises(DeviceTimeoutError, match="meter"):
            seen.reservoir(some_phases(seen.reservoir, 2), category="probe")
        assert seen.world.shots == seen.reservoir.ledger.total == 8
    assert seen.column("quality").tolist() == ["ok"] * 6 + ["timeout"] * 2
    assert np.isnan(seen.column("power_mw")[6:]).all()


def test_rejected_shots_outside_the_budget_give_nothing_back() -> None:
    ledger = Ledger(10)
    with ledger.outside_budget():
        ledger.book("evaluate", 5)
        ledger.refund(2)
    assert (ledger.total, ledger.spent, ledger.refunded) == (5, 0, 2)
    ledger.book("train", 4)
    ledger.release("train", 1)
    assert (ledger.total, ledger.spent) == (8, 3)


@pytest.fixture
def soaked() -> bool:
    return os.environ.get("LABCTL_SOAK", "") == "1"


# What ends a run at once, and how it says so; the others are mended, or end it at the
# third attempt.
ENDING = {
    "camera": {
        "wrong_shape": "wrong_shape",
        "trigger_refused": "trigger_refused",
        "hung": "timeout",
        "removed": "removed",
    },
    "slm": {"hung": "timeout", "removed": "removed"},
}


@pytest.mark.parametrize("way", WAYS)
def test_every_fault_at_random_mends_or_ends_and_never_pairs_wrongly(
    soaked: bool, way: str
) -> None:
    """One bench, one ledger; where a run would end, the next begins on the spot."""

    def often(role: str, *kinds: str) -> list[dict[str, object]]:
        mended = [{"kind": kind, "probability": 0.012} for kind in kinds]
        return mended + [{"kind": kind, "probability": 0.001} for kind in ENDING[role]]

    source = broken(
        camera=often(
            "camera", "dropped", "duplicated", "late", "reordered", "truncated"
        ),
        slm=often("slm", "lost", "behind"),
    )
    wanted, batch = (10_000 if soaked else 600), 12
    with watched(source, way=way) as seen:
        ends = list[str]()
        while seen.world.shots < wanted:
            phase = some_phases(seen.reservoir, batch)
            try:
                seen.reservoir(phase, category="probe")
            except DeviceError as error:
                ends.append(_told(error))
                seen.reservoir.bench.camera.close()
                seen.reservoir.bench.camera.open()
                # A fault that let nothing be exposed is at this number for ever.
                seen.world.expose(seen.reservoir.bench.camera.driver.taken)  # type: ignore[attr-defined]  # the simulated one
        seen.check(by_hand=len(ends))
        quality = set(seen.column("quality").tolist())
    ending = {told for kinds in ENDING.values() for told in kinds.values()}
    assert {"ok", "gap", "late", "stale"} <= quality <= {"ok", *REPEATABLE, *ending}
    assert set(ends) <= REPEATABLE | ending
    # Three refusals in a row of what can be mended are rare, and no habit.
    assert sum(end in REPEATABLE for end in ends) < wanted / 500
    if soaked:
        # What lets nothing be exposed is told, and where it is stepped has no row.
        assert quality | set(ends) == {"ok", *REPEATABLE, *ending}


def _told(error: DeviceError) -> str:
    if isinstance(error, FrameError):
        return error.kind
    return "timeout" if isinstance(error, DeviceTimeoutError) else "removed"
