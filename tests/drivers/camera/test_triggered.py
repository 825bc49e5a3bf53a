"""No frame is taken for the answer to a trigger that it does not answer."""

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from typing_extensions import override

from drivers.camera.triggered import (
    Buffer,
    GainScale,
    Sensor,
    TriggeredCamera,
    scale_of_gain,
)
from labctl.devices import CameraSettings, Clock, Edge, Identity
from labctl.errors import DeviceError, FrameError, OutOfRangeError

if TYPE_CHECKING:
    from numpy.typing import NDArray

FULL = (0, 0, 6, 10)


class Time(Clock):
    passed_s = 0.0

    @override
    def now(self) -> float:
        return self.passed_s

    @override
    def sleep(self, seconds: float) -> None:
        self.passed_s += seconds


class Chip(Sensor):
    """A sensor whose buffers are laid out beforehand."""

    modulus: int | None = 65_535

    def __init__(self, clock: Time) -> None:
        self.clock, self.buffers = clock, list[Buffer]()
        self.taken = CameraSettings(0.001, 0.0, FULL)
        self.gone = False
        self.off, self.gain_off_db = 0.0, 0.0
        self.lines, self.extra_delay_s = ("Line1",), 0.0
        self.is_pulled_out = False
        self.size = (6, 10)
        self.closed = 0
        self.ends: list[int] = []
        self.forgotten = 0

    @override
    def forget_exposures(self) -> None:
        self.forgotten += 1

    @override
    def exposed(self, timeout_s: float) -> int | None:
        self.clock.sleep(0.006 if self.ends else timeout_s)
        return self.ends.pop(0) if self.ends else None

    @override
    def open(self) -> tuple[int, int]:
        return self.size

    @override
    def close(self) -> None:
        self.closed += 1

    @override
    def identity(self) -> Identity:
        return Identity("v", "m", "s", "f")

    @property
    @override
    def exposure_limits_s(self) -> tuple[float, float]:
        return (1e-5, 1.0)

    @property
    @override
    def gain_limits_db(self) -> tuple[float, float]:
        return (0.0, 12.0)

    @property
    @override
    def steps(self) -> tuple[int, int, int, int]:
        return (1, 2, 1, 2)

    @override
    def apply(
        self, exposure_s: float, gain_db: float, region: tuple[int, int, int, int]
    ) -> CameraSettings:
        gain_db += self.gain_off_db
        return CameraSettings(exposure_s * (1 + self.off), gain_db, region)

    @property
    @override
    def edge_lines(self) -> tuple[str, ...]:
        return self.lines

    @property
    @override
    def edge_delay_limits_s(self) -> tuple[float, float]:
        return (0.0, 0.1)

    @override
    def start_for_edges(self, frames: int, edge: Edge) -> float:
        return edge.delay_s + self.extra_delay_s

    @override
    def start(self, frames: int) -> None:
        pass

    @override
    def stop(self) -> None:
        pass

    @override
    def fire(self) -> None:
        pass

    @override
    def fetch(self, timeout_s: float) -> Buffer | None:
        self.clock.sleep(0.01)
        self.gone |= self.is_pulled_out
        return self.buffers.pop(0) if self.buffers else None

    @override
    def is_removed(self) -> bool:
        return self.gone


def whole(number: int, shape: tuple[int, int] = (6, 10), value: int = 7) -> Buffer:
    data: NDArray[Any] = np.full(shape, value, dtype=np.uint16)
    return Buffer(number, data)


@pytest.fixture
def chip() -> Chip:
    return Chip(Time())


@pytest.fixture
def camera(chip: Chip) -> TriggeredCamera:
    made = TriggeredCamera(
        "camera", chip, clock=chip.clock, shape=(6, 10), pixel_um=3.5, bits=12
    )
    made.open()
    made.configure(exposure_s=0.005)
    made.arm(10)
    return made


def refused(camera: TriggeredCamera) -> str:
    with pytest.raises(FrameError) as caught:
        camera.frame(1.0)
    return caught.value.kind


def test_a_frame_is_owned_and_timed_from_its_trigger(
    camera: TriggeredCamera, chip: Chip
) -> None:
    chip.buffers = [whole(1)]
    chip.clock.sleep(3)
    camera.trigger()
    frame = camera.frame(1.0)
    assert (frame.exposure_start_s, frame.exposure_end_s) == (3.0, 3.01)
    assert frame.host_time_s == pytest.approx(3.01)
    assert frame.data.dtype == np.uint16


def test_an_exposure_ends_when_the_camera_says_so(
    camera: TriggeredCamera, chip: Chip
) -> None:
    chip.tells_exposure_end = True
    assert camera.tells_exposure_end
    chip.buffers, chip.ends = [whole(1), whole(2), whole(3)], [40, 41]
    for number in (1, 2):
        camera.trigger()
        assert chip.forgotten == number
        start_s = chip.clock.now()
        camera.wait_exposed(1.0)
        camera.wait_exposed(1.0)  # it stays over
        frame = camera.frame(1.0)
        assert frame.exposure_start_s == start_s
        assert frame.exposure_end_s == pytest.approx(start_s + 0.006)
        assert frame.host_time_s == pytest.approx(start_s + 0.016)
    # Who does not ask knows no more than the frame tells.
    camera.trigger()
    frame = camera.frame(1.0)
    assert frame.exposure_end_s == frame.host_time_s


@pytest.mark.parametrize(
    ("ends", "text"),
    [
        ([40], "no exposure ended within 1"),
        ([40, 40], "exposure 40 over"),
        ([40, 42], "exposure 42 over"),
    ],
)
def test_an_end_that_is_not_told_as_expected_ends_belief_until_it_is_armed_anew(
    camera: TriggeredCamera, chip: Chip, ends: list[int], text: str
) -> None:
    chip.tells_exposure_end = True
    chip.buffers, chip.ends = [whole(1), whole(2), whole(3), whole(9)], ends
    camera.trigger()
    camera.wait_exposed(1.0)
    camera.frame(1.0)
    for said in (text, "no exposure ended"):
        camera.trigger()
        with pytest.raises(FrameError, match=said) as caught:
            camera.wait_exposed(1.0)
        assert caught.value.kind == "timeout"
        frame = camera.frame(1.0)  # which tells all that is needed
        assert frame.exposure_end_s == frame.host_time_s
        chip.ends = [41]
    camera.arm(1)
    camera.trigger()
    camera.wait_exposed(1.0)
    assert camera.frame(1.0).exposure_end_s < chip.clock.now()


def test_an_exposure_cannot_be_over_before_its_time(
    camera: TriggeredCamera, chip: Chip
) -> None:
    chip.tells_exposure_end = True
    camera.disarm()
    camera.configure(exposure_s=0.1)
    camera.arm(2)
    with pytest.raises(FrameError, match="no exposure ended"):
        camera.wait_exposed(1.0)
    camera.arm(2)
    chip.ends = [1]
    camera.trigger()
    with pytest.raises(FrameError, match="expected that of the trigger"):
        camera.wait_exposed(1.0)
    chip.gone = True
    with pytest.raises(FrameError) as caught:
        camera.wait_exposed(1.0)
    assert caught.value.kind == "removed"


def test_a_counter_that_wraps_is_no_gap_and_one_that_jumps_is(
    camera: TriggeredCamera, chip: Chip
) -> None:
    chip.buffers = [whole(65_534), whole(65_535), whole(1), whole(3)]
    for trigger in (1, 2, 3):
        camera.trigger()
        assert camera.frame(1.0).trigger == trigger
    camera.trigger()
    assert refused(camera) == "gap"


def test_a_counter_that_stands_still_is_a_gap(
    camera: TriggeredCamera, chip: Chip
) -> None:
    chip.buffers = [whole(5), whole(5)]
    camera.trigger()
    camera.frame(1.0)
    camera.trigger()
    assert refused(camera) == "gap"


def test_more_frames_than_triggers_are_stale(
    camera: TriggeredCamera, chip: Chip
) -> None:
    chip.buffers = [whole(1), whole(2)]
    camera.trigger()
    camera.frame(1.0)
    assert refused(camera) == "stale"


def test_times_hold_however_long_the_camera_takes(
    camera: TriggeredCamera, chip: Chip, monkeypatch: pytest.MonkeyPatch
) -> None:
    began_s = list[float]()

    def fire() -> None:
        chip.clock.sleep(0.02)
        began_s.append(chip.clock.now())

    monkeypatch.setattr(chip, "fire", fire)
    chip.buffers = [whole(1)]
    camera.trigger()
    frame = camera.frame(1.0)
    assert frame.time_error_s == camera.time_error_s == 0
    assert frame.exposure_start_s <= began_s[0]
    assert began_s[0] + 0.005 <= frame.exposure_end_s


def come_too_early(camera: TriggeredCamera, chip: Chip) -> None:
    """Hand out a frame before its exposure can have ended."""
    camera.disarm()
    camera.configure(exposure_s=0.02)
    camera.arm(1)
    chip.buffers = [whole(1)]
    camera.trigger()
    assert refused(camera) == "stale"


def test_a_frame_that_is_too_early_is_stale(
    camera: TriggeredCamera, chip: Chip
) -> None:
    come_too_early(camera, chip)


@pytest.mark.parametrize(
    "stray", [whole(1), Buffer(1, None, "cleared"), Buffer(None, None, "timeout")]
)
def test_the_frame_behind_one_that_came_too_early_is_not_left_for_the_next_trigger(
    camera: TriggeredCamera, chip: Chip, stray: Buffer
) -> None:
    camera.disarm()
    camera.configure(exposure_s=0.02)
    camera.arm(1)
    chip.buffers = [stray, whole(2), whole(3)]
    camera.trigger()
    assert refused(camera) in {"stale", "incomplete"}
    # This camera goes on with what it was making, whoever arms it.
    camera.arm(1)
    camera.trigger()
    chip.clock.sleep(0.02)
    assert camera.frame(1.0).frame_id == 3


def test_nothing_is_waited_for_behind_a_frame_in_time(
    camera: TriggeredCamera, chip: Chip
) -> None:
    chip.buffers = [Buffer(1, None, "missing packets"), whole(2)]
    camera.trigger()
    assert refused(camera) == "incomplete"
    camera.arm(1)
    camera.trigger()
    assert camera.frame(1.0).frame_id == 2


def test_a_camera_that_fails_while_a_frame_is_owed_is_stopped_all_the_same(
    camera: TriggeredCamera, chip: Chip, monkeypatch: pytest.MonkeyPatch
) -> None:
    come_too_early(camera, chip)
    stopped = list[bool]()
    monkeypatch.setattr(chip, "stop", lambda: stopped.append(True))

    def fail(timeout_s: float) -> None:
        raise DeviceError("camera", "frame", f"unplugged, {timeout_s:g} s")

    monkeypatch.setattr(chip, "fetch", fail)
    with pytest.raises(DeviceError, match=r"unplugged, 0\.32 s"):
        camera.disarm()
    assert stopped == [True]
    camera.disarm()  # owed once


def test_failed_misshapen_and_missing_buffers_have_their_class(
    camera: TriggeredCamera, chip: Chip
) -> None:
    chip.buffers = [Buffer(1, None, "missing packets"), whole(2, (0, 10))]
    camera.trigger()
    assert refused(camera) == "incomplete"
    camera.trigger()
    assert refused(camera) == "wrong_shape"
    assert refused(camera) == "timeout"
    chip.gone = True
    assert refused(camera) == "removed"


def test_counts_that_are_left_justified_are_noticed(
    camera: TriggeredCamera, chip: Chip
) -> None:
    chip.buffers = [whole(1, value=4096)]
    camera.trigger()
    with pytest.raises(DeviceError, match=r"4096, expected at most 4095"):
        camera.frame(1.0)


def test_padding_is_taken_away_and_checked(chip: Chip) -> None:
    made = TriggeredCamera(
        "camera",
        chip,
        clock=chip.clock,
        shape=(6, 10),
        pixel_um=3.5,
        bits=12,
        padding=4,
    )
    with made:
        assert made.saturation_dn == 4095
        made.arm(2)
        chip.buffers = [whole(1, value=0xFFF0), whole(2, value=0x0108)]
        made.trigger()
        assert (made.frame(1.0).data == 4095).all()
        made.trigger()
        with pytest.raises(DeviceError, match="low bits 0b1000 are set, expected 4"):
            made.frame(1.0)
    with pytest.raises(ValueError, match="padding=5, expected 0 to 4"):
        TriggeredCamera(
            "camera",
            chip,
            clock=chip.clock,
            shape=(6, 10),
            pixel_um=3.5,
            bits=12,
            padding=5,
        )


def test_a_failed_buffer_without_a_counter_counts_as_the_next(
    camera: TriggeredCamera, chip: Chip
) -> None:
    failed = Buffer(None, None, "incomplete")
    chip.buffers = [failed, whole(65_535), failed, whole(2), failed, whole(5)]
    for expected in ("incomplete", "", "incomplete", "", "incomplete", "gap"):
        camera.trigger()
        if expected:
            assert refused(camera) == expected
        else:
            camera.frame(1.0)


def test_what_it_did_not_take_is_an_error(camera: TriggeredCamera, chip: Chip) -> None:
    camera.disarm()
    chip.off = 0.02
    with pytest.raises(DeviceError, match=r"expected exposure_s=0\.005"):
        camera.configure(exposure_s=0.005)


def test_a_gain_that_it_did_not_take_is_an_error(
    camera: TriggeredCamera, chip: Chip
) -> None:
    camera.disarm()
    chip.gain_off_db = 0.09  # a step of its own
    assert camera.configure(exposure_s=0.005, gain_db=6).gain_db == 6.09
    chip.gain_off_db = 0.2
    with pytest.raises(DeviceError, match="gain_db=6,"):
        camera.configure(exposure_s=0.005, gain_db=6)


def test_a_frame_of_a_camera_that_is_pulled_out_meanwhile_is_refused(
    camera: TriggeredCamera, chip: Chip
) -> None:
    chip.buffers, chip.is_pulled_out = [whole(1)], True
    camera.trigger()
    assert refused(camera) == "removed"


@pytest.fixture
def edged(camera: TriggeredCamera) -> TriggeredCamera:
    camera.arm_for_edges(2, Edge("Line1", is_rising=True, delay_s=0.03))
    return camera


def test_a_frame_before_the_edge_was_waited_for_is_stale(
    edged: TriggeredCamera, chip: Chip
) -> None:
    for waited_s, kind in ((0.02, "stale"), (0.03, "")):
        chip.buffers = [whole(7 if kind else 8)]
        edged.trigger()
        chip.clock.sleep(waited_s - 0.002)  # and .01 until the frame is there
        if kind:
            assert refused(edged) == kind
        else:
            chip.buffers = [whole(8)]
            assert edged.frame(1.0).frame_id == 8


def test_an_edge_too_many_is_noticed_at_the_last_frame(
    edged: TriggeredCamera, chip: Chip
) -> None:
    chip.buffers = [whole(1), whole(2), whole(3)]
    edged.trigger()
    chip.clock.sleep(0.03)
    edged.frame(1.0)
    edged.trigger()
    chip.clock.sleep(0.03)
    with pytest.raises(FrameError, match="more than 2 frames: an edge came") as caught:
        edged.frame(1.0)
    assert caught.value.kind == "gap"


def test_a_delay_that_it_did_not_take_is_an_error(
    camera: TriggeredCamera, chip: Chip
) -> None:
    for extra_s in (-1e-6, 0.001):
        chip.extra_delay_s = extra_s
        with pytest.raises(DeviceError, match=r"read back, expected 0\.03"):
            camera.arm_for_edges(2, Edge("Line1", is_rising=True, delay_s=0.03))
    with pytest.raises(OutOfRangeError, match="line=Line9"):
        camera.arm_for_edges(2, Edge("Line9", is_rising=True, delay_s=0.03))


def test_a_region_off_the_grid_of_the_sensor_is_refused(
    camera: TriggeredCamera,
) -> None:
    camera.disarm()
    for region in ((0, 1, 2, 2), (0, 0, 2, 3), (5, 0, 2, 2)):
        with pytest.raises(OutOfRangeError, match=r"in steps of \[1, 2, 1, 2\]"):
            camera.configure(exposure_s=0.005, region=region)
    assert camera.configure(exposure_s=0.005, region=(1, 2, 3, 4)).region[2:] == (3, 4)


def test_another_sensor_is_refused_and_let_go(chip: Chip) -> None:
    chip.size = (6, 12)
    made = TriggeredCamera(
        "camera", chip, clock=chip.clock, shape=(6, 10), pixel_um=3.5, bits=12
    )
    with pytest.raises(DeviceError, match=r"shape=\[6, 12\], expected \[6, 10\]"):
        made.open()
    assert chip.closed == 1


@pytest.mark.parametrize("wrong", [{"shape": (6,)}, {"pixel_um": 0}, {"bits": 17}])
def test_options_that_make_no_sense_are_refused(
    chip: Chip, wrong: dict[str, Any]
) -> None:
    options: dict[str, Any] = {"shape": (6, 10), "pixel_um": 3.5, "bits": 12} | wrong
    with pytest.raises(ValueError, match="expected rows and columns"):
        TriggeredCamera("camera", chip, clock=chip.clock, **options)


@pytest.mark.parametrize(
    ("told", "number", "gain_db"),
    [
        ({"db_per_step": 0.5}, 12, 6.0),
        ({"db_per_step": 0.5, "zero": 192}, 204, 6.0),
        ({"unity": 32}, 320, 20.0),
    ],
)
def test_a_gain_goes_to_db_and_back(
    told: dict[str, float], number: float, gain_db: float
) -> None:
    scale = GainScale.of("camera", told)
    assert scale is not None
    assert scale.as_db(number) == pytest.approx(gain_db)
    assert scale.as_number(gain_db) == pytest.approx(number)


def test_a_factor_of_nothing_is_no_gain() -> None:
    assert GainScale(4.0, 0.0).limits_db(0, 40)[0] == pytest.approx(-12.04, abs=0.01)


@pytest.mark.parametrize(
    "told",
    [{}, {"zero": 3}, {"db_per_step": 0}, {"unity": -1}, {"unity": 1, "zero": 0}],
)
def test_a_gain_that_nobody_can_turn_into_db_is_refused(told: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"expected \{db_per_step: …, zero: …\}"):
        GainScale.of("camera", told)


def test_a_scale_for_a_gain_in_db_is_refused() -> None:
    assert scale_of_gain("camera", "", None) is None
    assert scale_of_gain("camera", "dB", None) == GainScale()
    with pytest.raises(DeviceError, match="its gain is in dB"):
        scale_of_gain("camera", "dB", GainScale(0.0, 0.5))
