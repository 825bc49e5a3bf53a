"""Proved on the simulated panel and camera of slmsuite."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from labctl.bench import RealClock
from labctl.devices import Camera
from labctl.errors import DeviceError, FrameError

pytestmark = pytest.mark.peer
SIZE = (160, 128)  # columns, rows
Make = Callable[..., Camera]


@pytest.fixture
def panel(need_module: Callable[..., ModuleType]) -> Any:  # noqa: ANN401 - slmsuite's
    return need_module("slmsuite.hardware.slms.simulated").SimulatedSLM(resolution=SIZE)


@pytest.fixture
def make(panel: Any, need_module: Callable[..., ModuleType]) -> Make:  # noqa: ANN401
    library = need_module("drivers.camera.slmsuite")

    def made(**options: object) -> Camera:
        named: dict[str, Any] = {
            "camera": "simulated.SimulatedCamera",
            "arguments": {"slm": panel, "bitdepth": 12, "gain": 1e5},
            "shape": [128, 160],
            "pixel_um": 5,
            "bits": 12,
            "clock": RealClock(),
        }
        camera: Camera = library.slmsuite(**named | options)
        return camera

    return made


def vendor(camera: Camera) -> Any:  # noqa: ANN401 - slmsuite's
    return camera._sensor._camera  # type: ignore[attr-defined]  # the driver's own


def shot(camera: Camera) -> np.ndarray[Any, Any]:
    camera.arm(1)
    camera.trigger()
    frame = camera.frame(1.0)
    camera.disarm()
    return frame.data


def brightest(data: np.ndarray[Any, Any]) -> tuple[int, ...]:
    return tuple(int(at) for at in np.unravel_index(data.argmax(), data.shape))


def test_a_grating_moves_the_spot_by_its_periods_and_a_region_cuts_it_out(
    make: Make,
    panel: Any,  # noqa: ANN401 - slmsuite's
) -> None:
    with make() as camera:
        camera.configure(exposure_s=1e-5)
        middle = brightest(shot(camera))
        # Sixteen periods across the panel; levels falling, as slmsuite counts phase.
        levels = (-16 * 256 * np.arange(SIZE[0]) // SIZE[0]) % 256
        panel.set_phase(
            np.tile(levels, (SIZE[1], 1)).astype(np.uint8), phase_correct=False
        )
        whole = shot(camera)
        row, column = brightest(whole)
        assert row == middle[0]
        assert abs(column - middle[1]) == 16
        region = (row - 8, column - 10, 30, 20)
        assert camera.configure(exposure_s=1e-5, region=region).region == region
        cut = (slice(row - 8, row + 22), slice(column - 10, column + 10))
        assert np.array_equal(shot(camera), whole[cut])


def test_an_error_is_not_followed_by_another_trigger(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    with make() as camera:
        camera.configure(exposure_s=1e-5)
        calls = list[str]()

        def fails(**_: object) -> None:
            calls.append("image")
            text = "no image"
            raise RuntimeError(text)

        camera.arm(1)
        with monkeypatch.context() as patch:
            patch.setattr(vendor(camera), "_get_image_hw", fails)
            with pytest.raises(DeviceError, match="trigger: RuntimeError: no image"):
                camera.trigger()
        assert calls == ["image"]
        # What it has not handed out may come late: it is emptied before it goes on.
        flushed = list[str]()
        with monkeypatch.context() as patch:
            patch.setattr(vendor(camera), "flush", lambda: flushed.append("flush"))
            shot(camera)
            shot(camera)
        assert flushed == ["flush"]


def test_a_mean_over_colours_is_no_frame(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    with make() as camera:
        camera.configure(exposure_s=1e-5)
        monkeypatch.setattr(
            vendor(camera), "get_image", lambda **_: np.zeros((128, 160))
        )
        camera.arm(1)
        camera.trigger()
        with pytest.raises(FrameError, match="float64, expected counts"):
            camera.frame(1.0)


def test_another_camera_is_refused(
    make: Make,
    panel: Any,  # noqa: ANN401 - slmsuite's
) -> None:
    with pytest.raises(DeviceError, match="bitdepth=12, binning"):
        make(bits=8).open()
    with pytest.raises(DeviceError, match=r"shape=\[128, 160\], expected \[160, 128\]"):
        make(shape=[160, 128]).open()
    with pytest.raises(DeviceError, match="camera: open: TypeError"):
        make(arguments={"slm": panel, "no_such": 1}).open()


@pytest.mark.parametrize("camera", ["webcam.Webcam", "remote.RemoteCamera", "os.path"])
def test_a_camera_that_is_not_triggered_is_refused(make: Make, camera: str) -> None:
    with pytest.raises(ValueError, match="expected one that is triggered"):
        make(camera=camera)


def test_a_frame_is_one_image_whatever_the_camera_averages_by_itself(
    make: Make,
) -> None:
    with make() as camera:
        vendor(camera).averaging = 4
        take, taken = vendor(camera)._get_image_hw, []

        def heard(*words: object, **options: object) -> object:
            taken.append(options)
            return take(*words, **options)

        vendor(camera)._get_image_hw = heard
        shot(camera)
    assert len(taken) == 1
