"""Proved on the camera emulator that the vendor ships inside pypylon."""

from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest
from typing_extensions import override

from labctl.bench import RealClock
from labctl.devices import Edge
from labctl.errors import DeviceError, FrameError, LabctlError, OutOfRangeError

pytestmark = pytest.mark.peer


@pytest.fixture
def basler(need_module: Callable[[str], ModuleType]) -> ModuleType:
    need_module("pypylon.pylon")
    return need_module("drivers.camera.basler")


@pytest.fixture
def camera(basler: ModuleType) -> Iterator[Any]:
    made = basler.basler(
        shape=[4096, 4096], pixel_um=3.45, clock=RealClock(), pixel_format="Mono8"
    )
    with made:
        yield made


def armed(camera: Any, frames: int = 10) -> None:  # noqa: ANN401 - the driver
    camera.configure(exposure_s=1e-3, region=(3, 5, 60, 90))
    camera.arm(frames)


def test_what_it_took_is_told_and_not_what_was_asked_for(camera: Any) -> None:  # noqa: ANN401
    taken = camera.configure(exposure_s=0.0050037)
    assert taken.exposure_s == pytest.approx(0.0050037, rel=1e-4)
    assert camera.identity().serial == "0815-0000"
    assert camera.bit_depth == 8


def test_padding_is_taken_away_and_checked(basler: ModuleType) -> None:
    def frame(**options: Any) -> Any:  # noqa: ANN401 - counts
        shape, clock = [4096, 4096], RealClock()
        with basler.basler(shape=shape, pixel_um=3.45, clock=clock, **options) as made:
            armed(made, 1)
            made.trigger()
            return made.bit_depth, made.saturation_dn, made.frame(2.0).data

    _, _, left = frame(pixel_format="Mono16")  # of the emulator: low bits are 0
    bits, saturation_dn, right = frame(pixel_format="Mono16", padding=4)
    assert (bits, saturation_dn) == (12, 4095)
    assert right.max() > 0
    assert (16 * right.astype(int) == left).all()
    with pytest.raises(DeviceError, match="it is not left-justified"):
        frame(pixel_format="Mono8", padding=4)
    with pytest.raises(ValueError, match=r"padding=8, expected 0 to 7 \(Mono8\)"):
        frame(pixel_format="Mono8", padding=8)


def test_a_failed_buffer_is_no_frame(camera: Any) -> None:  # noqa: ANN401
    armed(camera)
    vendor = camera._sensor._camera
    camera.trigger()
    assert camera.frame(2.0).data.shape == (60, 90)
    vendor.ForceFailedBufferCount.Value = 1
    vendor.ForceFailedBuffer.Execute()
    camera.trigger()
    with pytest.raises(FrameError) as caught:
        camera.frame(2.0)
    assert caught.value.kind == "incomplete"
    camera.trigger()
    assert camera.frame(2.0).trigger == 3


def test_a_frame_is_its_own_and_not_a_view_of_a_buffer(camera: Any) -> None:  # noqa: ANN401
    armed(camera)
    camera.trigger()
    buffer = camera._sensor.fetch(2.0)
    assert buffer.data.flags.owndata
    assert buffer.data.flags.writeable


def test_frames_that_wait_come_each_in_its_turn(camera: Any) -> None:  # noqa: ANN401
    armed(camera, 3)
    sensor = camera._sensor
    for _ in range(3):
        sensor.fire()
    # All three are in before the first is taken: none is left out for a newer one.
    assert sensor._camera.WaitForFrameTriggerReady(2000)
    numbers = [sensor.fetch(2.0).number for _ in range(3)]
    assert numbers == list(range(numbers[0], numbers[0] + 3))


def test_a_trigger_that_it_would_lose_is_not_sent(
    camera: Any,  # noqa: ANN401
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    armed(camera)
    vendor = camera._sensor._camera
    sent: list[str] = []
    kind = type(vendor)
    monkeypatch.setattr(kind, "WaitForFrameTriggerReady", lambda *_: False)
    monkeypatch.setattr(kind, "ExecuteSoftwareTrigger", lambda _: sent.append("x"))
    with pytest.raises(FrameError, match="not ready within") as caught:
        camera.trigger()
    assert caught.value.kind == "trigger_refused"
    assert sent == []


def test_what_is_automatic_is_switched_off_at_open(
    basler: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The emulator comes up with nothing automatic: each is switched on first.
    switch = basler.BaslerSensor._switch
    told: dict[str, object] = {}

    def switched(sensor: object, vendor: Any, node: str, wanted: object) -> None:  # noqa: ANN401
        at = getattr(vendor, node)
        if basler.genicam.IsWritable(at):
            at.Value = "Continuous" if wanted == "Off" else not wanted
            assert at.Value != wanted
        switch(sensor, vendor, node, wanted)
        told[node] = wanted
        if basler.genicam.IsReadable(at):
            assert at.Value == wanted

    monkeypatch.setattr(basler.BaslerSensor, "_switch", switched)
    made = basler.basler(
        shape=[4096, 4096], pixel_um=3.45, clock=RealClock(), pixel_format="Mono8"
    )
    with made:
        assert told == {"ExposureAuto": "Off", "GainAuto": "Off", "GammaEnable": False}


def test_a_camera_that_was_unplugged_delivers_no_more(camera: Any) -> None:  # noqa: ANN401
    armed(camera)
    camera.trigger()
    vendor = camera._sensor._camera
    vendor.FirePnPCallback.Execute()
    while not vendor.IsCameraDeviceRemoved():
        pass  # the vendor's own thread says so
    assert vendor.IsGrabbing()
    for action in (
        lambda: camera.frame(1.0),
        camera.trigger,
        lambda: camera.configure(exposure_s=1e-3),
    ):
        with pytest.raises(FrameError) as caught:
            action()
        assert caught.value.kind == "removed"


def test_a_frame_before_its_exposure_can_have_ended_is_stale(camera: Any) -> None:  # noqa: ANN401
    # The emulator ignores the exposure: on a real camera such a frame is an old one.
    camera.configure(exposure_s=9.0, region=(0, 0, 60, 90))
    camera.arm(1)
    camera.trigger()
    with pytest.raises(FrameError) as caught:
        camera.frame(2.0)
    assert caught.value.kind == "stale"


def test_a_hundred_triggers_give_a_hundred_frames_in_order(camera: Any) -> None:  # noqa: ANN401
    armed(camera, 30)
    frames = []
    for _ in range(30):
        camera.trigger()
        frames.append(camera.frame(2.0))
    assert [frame.trigger for frame in frames] == list(range(1, 31))
    ids = [frame.frame_id for frame in frames]
    assert ids == list(range(ids[0], ids[0] + 30))


def test_the_end_of_each_exposure_is_heard_before_its_frame(basler: ModuleType) -> None:
    made = basler.basler(
        shape=[4096, 4096],
        pixel_um=3.45,
        clock=RealClock(),
        tells_exposure_end=True,
    )
    with made as camera:
        for _ in range(2):  # its counters start again
            armed(camera, 12)
            for number in range(1, 13):
                camera.trigger()
                camera.wait_exposed(2.0)
                over_s = RealClock().now()
                frame = camera.frame(2.0)
                assert frame.trigger == number
                assert frame.exposure_start_s < frame.exposure_end_s <= over_s
                assert over_s < frame.host_time_s
            camera.disarm()


def test_a_frame_whose_exposure_was_not_waited_for_is_as_good(
    basler: ModuleType,
) -> None:
    made = basler.basler(
        shape=[4096, 4096],
        pixel_um=3.45,
        clock=RealClock(),
        tells_exposure_end=True,
    )
    with made as camera:
        armed(camera, 6)
        for number in range(1, 7):
            camera.trigger()
            if number % 2:
                camera.wait_exposed(2.0)
            frame = camera.frame(2.0)
            assert frame.trigger == number
            assert (frame.exposure_end_s < frame.host_time_s) == (number % 2 == 1)
        vendor = camera._sensor._camera
        vendor.FirePnPCallback.Execute()
        while not vendor.IsCameraDeviceRemoved():
            pass  # the vendor's own thread says so
        with pytest.raises(FrameError) as caught:
            camera.wait_exposed(1.0)
        assert caught.value.kind == "removed"


def test_a_camera_that_cannot_tell_the_end_of_an_exposure_is_refused(
    basler: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = basler.basler(
        shape=[4096, 4096], pixel_um=3.45, clock=RealClock(), tells_exposure_end=True
    )
    monkeypatch.setattr(basler.genicam, "IsWritable", lambda _: False)
    with pytest.raises(DeviceError, match="Remove tells_exposure_end"):
        made.open()
    made.close()


def test_armed_for_edges_the_line_starts_exposures_and_software_again(
    camera: Any,  # noqa: ANN401
) -> None:
    camera.configure(exposure_s=1e-3, region=(3, 5, 60, 90))
    assert camera.edge_lines == ("Line1", "Line2", "Line3")
    assert camera.edge_delay_limits_s == pytest.approx((0, 0.01))
    camera.arm_for_edges(3, Edge("Line2", is_rising=False, delay_s=0.0025))
    vendor = camera._sensor._camera
    assert vendor.TriggerSource.Value == "Line2"
    assert vendor.TriggerActivation.Value == "FallingEdge"
    assert vendor.TriggerDelay.Value == 2500
    assert vendor.LineMode.Value == "Input"
    camera.trigger()  # an edge may come from now on
    with pytest.raises(FrameError, match="no frame within"):
        camera.frame(0.2)
    # The emulator takes a software trigger as an edge, and has no delay.
    camera.arm_for_edges(3, Edge("Line1", is_rising=True, delay_s=0.0))
    for number in (1, 2, 3):
        camera.trigger()
        vendor.WaitForFrameTriggerReady(500)
        vendor.ExecuteSoftwareTrigger()
        assert camera.frame(2.0).trigger == number
    camera.disarm()
    armed(camera, 1)
    assert vendor.TriggerSource.Value == "Software"
    assert vendor.TriggerDelay.Value == 0
    camera.trigger()
    assert camera.frame(2.0).trigger == 1
    with pytest.raises(OutOfRangeError, match="line=Line9"):
        camera.arm_for_edges(1, Edge("Line9", is_rising=True, delay_s=0.0))
    with pytest.raises(OutOfRangeError, match="delay_s=1"):
        camera.arm_for_edges(1, Edge("Line1", is_rising=True, delay_s=1.0))


def test_another_sensor_or_another_camera_is_refused(basler: ModuleType) -> None:
    def opened(**options: Any) -> None:  # noqa: ANN401 - any option
        made = {"shape": [4096, 4096], "pixel_um": 3.45, "clock": RealClock()}
        with basler.basler(**made | options):
            pass

    with pytest.raises(DeviceError, match=r"shape=\[4096, 4096\], expected \[3000"):
        opened(shape=[3000, 4096])
    with pytest.raises(DeviceError, match="camera=4711: 0 of those plugged in"):
        opened(camera="4711")
    opened(camera="0815-0000")
    for wrong in ({"shape": [1]}, {"pixel_um": 0}, {"pixel_format": "Mono9"}):
        with pytest.raises(ValueError, match="expected"):
            opened(**wrong)


def test_a_delay_is_rounded_up_so_that_the_pattern_has_settled(camera: Any) -> None:  # noqa: ANN401
    camera.configure(exposure_s=1e-3)
    for asked_s, taken_us in ((12.3e-6, 13), (12e-6, 12)):
        camera.arm_for_edges(1, Edge("Line1", is_rising=True, delay_s=asked_s))
        assert camera._sensor._camera.TriggerDelay.Value == taken_us
        camera.disarm()


class Older:
    """pylon's emulator under the names of SFNC 1, as an ace on Ethernet has them."""

    _camera: Any = None

    def __init__(self, camera: Any) -> None:  # noqa: ANN401
        object.__setattr__(self, "_camera", camera)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        hidden = {"ExposureTime", "Gain", "TriggerDelay", "EventExposureEndFrameID"}
        return getattr(self._camera, "NoSuchNode" if name in hidden else name)

    @override
    def __setattr__(self, name: str, value: object) -> None:
        setattr(self._camera, name, value)


@pytest.fixture
def older(basler: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    new = basler.pylon.InstantCamera
    monkeypatch.setattr(
        basler.pylon, "InstantCamera", lambda device: Older(new(device))
    )

    def make(**options: object) -> Any:  # noqa: ANN401
        return basler.basler(
            shape=[4096, 4096],
            pixel_um=3.45,
            clock=RealClock(),
            pixel_format="Mono8",
            **options,
        )

    return make


def test_a_camera_with_the_names_of_sfnc_1_is_one(older: Callable[..., Any]) -> None:
    with older() as camera:
        vendor = camera._sensor._camera
        assert camera.exposure_limits_s[0] == pytest.approx(1e-4)
        assert camera.gain_limits_db == (0.0, 0.0)  # nobody says what it counts in
        armed(camera, 1)
        assert vendor.ExposureTimeAbs.Value == pytest.approx(1000)
        assert vendor.GainRaw.Value == vendor.GainRaw.Min
        camera.trigger()
        assert camera.frame(5.0).data.shape == (60, 90)
    with older(gain={"unity": 192}) as camera:
        assert camera.gain_limits_db == pytest.approx((0.0, 14.53), abs=0.01)
        assert camera.configure(exposure_s=1e-3, gain_db=6).gain_db == pytest.approx(
            6, abs=0.03
        )
        assert camera._sensor._camera.GainRaw.Value == 383
    with pytest.raises(DeviceError, match="Remove tells_exposure_end"):
        older(tells_exposure_end=True).open()


def test_a_camera_without_an_exposure_is_refused(
    older: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        Older,
        "ExposureTimeAbs",
        property(lambda camera: camera.NoSuchNode),
        raising=False,
    )
    with pytest.raises(DeviceError, match="no ExposureTime, expected one"):
        older().open()


def test_a_scale_for_a_gain_in_db_is_refused(basler: ModuleType) -> None:
    with pytest.raises(DeviceError, match="its gain is in dB"):
        basler.basler(
            shape=[4096, 4096],
            pixel_um=3.45,
            clock=RealClock(),
            pixel_format="Mono8",
            gain={"unity": 192},
        ).open()


class OnEthernet:
    """pylon's emulator, said to be a camera on Ethernet.

    It has no node for the length of its counter: the trigger mode stands in.
    """

    def __init__(self, camera: Any, name: str) -> None:  # noqa: ANN401
        self._camera, self._name = camera, name

    def IsGigE(self) -> bool:  # noqa: N802 - pylon's name
        return True

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self._camera, "TriggerMode" if name == self._name else name)


@pytest.mark.parametrize(
    ("name", "modulus"),
    [
        ("GevGVSPExtendedIDMode", None),
        ("BslGevGVSPExtendedIDMode", None),
        ("nothing of the kind", 65_535),
    ],
)
def test_frames_on_ethernet_are_counted_with_64_bits_where_it_can(
    basler: ModuleType,
    camera: Any,  # noqa: ANN401
    name: str,
    modulus: int | None,
) -> None:
    vendor = camera._sensor._camera
    assert basler.count_without_end(vendor) is None
    vendor.TriggerMode.Value = "Off"
    assert basler.count_without_end(OnEthernet(vendor, name)) == modulus
    assert vendor.TriggerMode.Value == ("Off" if modulus else "On")


def test_every_error_of_the_vendor_becomes_ours(
    basler: ModuleType,
    camera: Any,  # noqa: ANN401
) -> None:
    kinds = [
        each
        for each in vars(basler.genicam).values()
        if isinstance(each, type)
        and issubclass(each, Exception)
        and not issubclass(each, Warning)
    ]
    assert len(kinds) > 7
    for kind in kinds:
        error = kind("x", "file", 1) if kind is not Exception else kind("x")
        with pytest.raises(LabctlError) as caught, basler.vendor_errors("c", "a"):
            raise error
        assert caught.value.__cause__ is error
    with pytest.raises(OutOfRangeError, match="exposure_s"):
        camera.configure(exposure_s=1e6)


def test_what_is_plugged_in_is_found_with_the_lines_to_paste(
    basler: ModuleType,
) -> None:
    (found,) = basler.find()
    assert found.lines() == (
        'camera: {driver: basler.camera, serial: "0815-0000", '
        'options: {camera: "0815-0000"}}'
    )
