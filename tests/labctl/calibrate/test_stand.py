"""What a procedure sees: frames, the exposure that fits, and why there is no light."""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from labctl.calibrate import execute as room
from labctl.calibrate.execute import Outcome
from labctl.calibrate.kind import Finding, Kind
from labctl.calibrate.stand import Stand, glimpse
from labctl.calibration import CalibrationRecord, CameraResponse, Settle
from labctl.errors import OutcomeError
from labctl.recording.reader import Record

MakeBench = Callable[..., Path]
Calibrate = Callable[..., Outcome]
RESPONSE = CameraResponse(
    kind="camera",
    offset_dn=100,
    dark_dn_per_s=2,
    gain_dn_per_e=4,
    read_noise_e=0.7,
)


@pytest.fixture
def on_stand(
    make_bench: MakeBench, calibrate: Calibrate, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Outcome]:
    """Run a procedure on the bench ``lab``, its camera known."""

    def run(
        procedure: Callable[[Stand], object],
        changes: Mapping[str, object] | None = None,
    ) -> Outcome:
        def measure(stand: Stand, _limits: Mapping[str, float]) -> Finding:
            record = CalibrationRecord(
                schema_version=1,
                origin="given",
                created=datetime.now(UTC),
                bench_sha256="0" * 64,
                values=RESPONSE,
            )
            stand.bench.calibrations["camera"] = record
            procedure(stand)
            return Finding({"settle_s": 0.0}, {}, ())

        kind = Kind("settle", "a test", ("slm",), measure)
        monkeypatch.setattr(room, "KINDS", (kind,))
        make_bench(changes)
        return calibrate("settle")

    return run


def test_patterns_are_recorded_once_however_often_they_are_shown(
    on_stand: Callable[..., Outcome],
) -> None:
    def show(stand: Stand) -> None:
        stand.stage("here")
        stand.light(1.0)
        both = np.concatenate([stand.flat(), stand.flat(9)])
        exposed = stand.repeated(both, 3)
        assert exposed.frames.shape == (6, 32, 48)
        assert len(exposed.power_mw) == len(exposed.start_s) == 6

    (row,) = on_stand(show).rows
    assert row.record is not None
    with Record.open(row.record) as record:
        assert record.column("patterns", "levels")[:, 0, 0].tolist() == [0, 9]
        assert record.column("shots_meta", "pattern").tolist() == [0, 0, 0, 1, 1, 1]
        assert set(record.column("shots_meta", "stage").tolist()) == {"here"}
        assert record.column("shots_meta", "setpoint_mw").tolist() == [1.0] * 6


def test_the_exposure_is_chosen_so_that_the_peak_fits(
    on_stand: Callable[..., Outcome],
) -> None:
    def brighten(stand: Stand) -> None:
        stand.light(5.0)
        exposed = stand.brighten(stand.flat().repeat(4, axis=0), share=0.5)
        peak = exposed.frames.max() / stand.bench.camera.saturation_dn
        assert 0.25 < peak < 0.6

    on_stand(brighten).raise_failures()


@pytest.mark.parametrize(
    ("power_mw", "changes", "said"),
    [
        (
            5.0,
            {"world.options.sensor.photons_per_s": 0.0},
            r"the camera sees nothing, light=.* The beam is blocked",
        ),
        (
            5.0,
            {"world.options.sensor.photons_per_s": 1e13},
            "settle: saturated at exposure_s=1e-05 .* Put a filter before the camera",
        ),
        (
            5.0,
            {"world.options.sensor.photons_per_s": 5e4},
            r"settle: too few photons: peak=\d+ .* It can be had at \d+\.\d times",
        ),
    ],
    ids=["blocked", "saturated", "too few"],
)
def test_why_there_is_no_good_light_is_named(
    on_stand: Callable[..., Outcome],
    power_mw: float,
    changes: Mapping[str, object],
    said: str,
) -> None:
    def brighten(stand: Stand) -> None:
        stand.light(power_mw)
        with pytest.raises(OutcomeError, match=said):
            stand.brighten(stand.flat(), least_e=5000)

    on_stand(brighten, changes).raise_failures()


@pytest.mark.parametrize(
    ("spread_e", "spot_e", "said"),
    [
        (0.0, 0.0, "dark, or too few photons to be told from it: "),
        (0.1, 0.0, "too few photons: light=.* over the whole sensor at "),
        (0.0, 4.0, "too few photons: light=.* in its brightest spot at "),
    ],
    ids=["nothing", "everywhere", "in a spot"],
)
def test_what_little_light_there_is_is_found_and_told(
    spread_e: float, spot_e: float, said: str
) -> None:
    for seed in range(20):
        level = np.random.default_rng(seed).normal(spread_e, 0.5, (40, 60))
        level[7:10, 50:53] += spot_e
        seen = glimpse(level, 0.5, 1000.0, "electrons", 0.02)
        assert re.match(said, seen.text()), seen.text()
        light = 9 * spot_e if spot_e else spread_e * level.size
        assert abs(seen.light - light) < 5 * seen.error
        assert seen.is_seen == (light > 0)


def test_a_part_of_the_sensor_is_looked_at_where_the_bench_file_says_so(
    on_stand: Callable[..., Outcome],
) -> None:
    def look(stand: Stand) -> None:
        stand.light(5.0)
        exposed = stand.expose(stand.flat())
        assert exposed.frames.shape == (1, *stand.frame) == (1, 27, 37)
        assert stand.corner == (2, 3)
        assert (stand.signal_e(exposed) > 0).any()
        every = stand.outputs(exposed)
        assert every.shape == (1, 9)
        held = exposed.frames[:, :, 1:37].sum()
        # The region of the outputs begins one column further: all of it counts.
        gain = stand.response.gain_dn_per_e
        dark = stand.response.offset_dn * 27 * 36
        power = stand.nominal_mw / exposed.power_mw[0]
        assert every.sum() == pytest.approx((held - dark) / gain * power, rel=0.02)

    on_stand(look, {"calibrate.region": [2, 3, 27, 37]}).raise_failures()


def test_outputs_that_lie_elsewhere_are_refused(
    on_stand: Callable[..., Outcome],
) -> None:
    def look(stand: Stand) -> None:
        stand.light(5.0)
        with pytest.raises(OutcomeError, match=r"outputs lie at \[2, 4, 27, 36\], exp"):
            stand.outputs(stand.expose(stand.flat()))

    on_stand(look, {"calibrate.region": [3, 4, 26, 36]}).raise_failures()


def test_hot_pixels_are_those_of_the_sensor(on_stand: Callable[..., Outcome]) -> None:
    def look(stand: Stand) -> None:
        hot = RESPONSE.model_copy(update={"hot_px": [(4, 6), (0, 0), (31, 47)]})
        frames = np.full((2, 5, 7), 500, np.uint16)
        seen = hot.electrons(frames, 0.0, stand.corner)
        assert np.argwhere(seen[0] == 0).tolist() == [[2, 3]]

    on_stand(look, {"calibrate.region": [2, 3, 27, 37]}).raise_failures()


def test_a_laser_that_does_not_emit_is_named(on_stand: Callable[..., Outcome]) -> None:
    def dark(stand: Stand) -> None:
        exposed = stand.expose(stand.flat())
        with pytest.raises(OutcomeError, match="the laser is off, expected emission"):
            stand.require_light(exposed)
        stand.light(5.0)
        lost = replace(exposed, power_mw=np.zeros(1))
        with pytest.raises(OutcomeError, match="dark: power_mw=0 metered, expected ab"):
            stand.require_light(lost)

    on_stand(dark).raise_failures()


def test_what_pixels_differ_by_in_the_dark_is_not_taken_for_light(
    on_stand: Callable[..., Outcome],
) -> None:
    rng = np.random.default_rng(6)
    uneven_dn = 0.8 * rng.standard_normal((32, 48))  # 0.2 electrons
    frames = 100 + uneven_dn + 2.8 * rng.standard_normal((300, 32, 48))

    def dark(stand: Stand) -> None:
        stand.light(5.0)
        taken = stand.expose(stand.flat())
        power_mw = np.full(len(frames), 5.0)
        seen = replace(taken, frames=frames.round().astype("u2"), power_mw=power_mw)
        record = stand.bench.calibrations["camera"]
        known = {"quantities": {"dsnu_e": (0.2, 0.01)}}
        stand.bench.calibrations["camera"] = record.model_copy(update=known)
        with pytest.raises(OutcomeError, match="dark, or too few photons to be told"):
            stand.require_light(seen)
        stand.bench.calibrations["camera"] = record
        stand.require_light(seen)  # by itself it looks like light

    on_stand(dark).raise_failures()


def test_the_wait_is_the_longest_that_is_known(
    on_stand: Callable[..., Outcome],
) -> None:
    def wait(stand: Stand) -> None:
        rough = stand.settle_s
        assert rough == 2 * stand.bench.slm.settle_s
        record = stand.bench.calibrations["camera"]
        slow = Settle(kind="settle", settle_s=3.0)
        stand.bench.calibrations["settle"] = record.model_copy(update={"values": slow})
        assert stand.settle_s == 3.0

    on_stand(wait).raise_failures()


def test_what_is_needed_and_missing_is_named(on_stand: Callable[..., Outcome]) -> None:
    def ask(stand: Stand) -> None:
        stand.bench.calibrations.clear()
        with pytest.raises(OutcomeError, match="settle: no CameraResponse in force"):
            stand.response.electrons(np.zeros((1, 1), np.uint16), 1.0)

    on_stand(ask).raise_failures()
