"""Proved on the demonstration camera of Micro-Manager's test adapters."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from labctl.bench import RealClock
from labctl.devices import Camera
from labctl.errors import DeviceError

pytestmark = pytest.mark.peer
Make = Callable[..., Camera]


@pytest.fixture
def make(need_module: Callable[..., ModuleType]) -> Make:
    need_module("pymmcore")
    folder = str(need_module("mm_test_adapters").device_adapter_path())
    library = need_module("drivers.camera.micromanager")

    def made(**options: object) -> Camera:
        named: dict[str, Any] = {
            "shape": [512, 512],
            "pixel_um": 6.5,
            "bits": 12,
            "adapter": "DemoCamera",
            "device": "DCam",
            "folder": folder,
            "properties": {"PixelType": "16bit", "BitDepth": "12"},
            "clock": RealClock(),
        }
        camera: Camera = library.micromanager(**named | options)
        return camera

    return made


def mean(camera: Camera, exposure_s: float) -> float:
    camera.configure(exposure_s=exposure_s, region=(3, 5, 60, 90))
    camera.arm(1)
    camera.trigger()
    frame = camera.frame(1.0)
    camera.disarm()
    assert frame.data.shape == (60, 90)
    return float(np.mean(frame.data))


def test_counts_grow_with_the_exposure(make: Make) -> None:
    with make() as camera:
        short, long = mean(camera, 0.005), mean(camera, 0.02)
    assert long == pytest.approx(4 * short, rel=0.05)


def test_padding_is_checked(make: Make) -> None:
    properties = {"PixelType": "16bit", "BitDepth": "16"}
    with (
        make(padding=4, properties=properties) as camera,
        pytest.raises(DeviceError, match="it is not left-justified"),
    ):
        mean(camera, 0.02)


def test_a_property_that_is_not_taken_is_refused(make: Make) -> None:
    with pytest.raises(DeviceError, match="camera: open: "):
        make(properties={"BitDepth": "13"}).open()
    with pytest.raises(DeviceError, match="camera: open: "):
        make(properties={"NoSuchThing": "1"}).open()


def test_a_property_that_reads_back_otherwise_is_refused(
    make: Make, need_module: Callable[..., ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    sdk = need_module("pymmcore")
    core: Any = sdk.CMMCore

    class Forgetful(core):  # type: ignore[misc]  # it has no types
        def getProperty(self, label: str, key: str) -> str:  # noqa: N802 - the vendor's
            return "8" if key == "BitDepth" else str(super().getProperty(label, key))

    monkeypatch.setattr(sdk, "CMMCore", Forgetful)
    with pytest.raises(DeviceError, match="BitDepth=8 read back, expected 12"):
        make().open()


def test_an_adapter_that_is_not_there_is_told(make: Make) -> None:
    with pytest.raises(DeviceError, match="camera: open: "):
        make(adapter="NoSuchAdapter").open()


def test_a_device_that_fails_in_a_snap_is_an_error_of_ours(make: Make) -> None:
    with make() as camera:
        core = camera._sensor._core  # type: ignore[attr-defined]  # the driver's own
        camera.arm(1)
        core.unloadDevice("camera")
        with pytest.raises(DeviceError, match="camera: trigger: "):
            camera.trigger()
