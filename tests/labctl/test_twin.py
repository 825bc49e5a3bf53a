from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from labctl import twin
from labctl.calibration import BenchFile, CameraResponse, PhaseCurve, Settle
from labctl.errors import (
    CalibrationError,
    DeviceError,
    InputError,
    MissingLibraryError,
)

TREE: dict[str, Any] = {
    "schema_version": 1,
    "name": "lab",
    "devices": {
        role: {"driver": f"acme.{role}"} for role in ("slm", "laser", "camera")
    },
    "limits": {"power_mw": 50, "exposure_s": 0.1},
    "reservoir": {
        "macropixels": [12, 16],
        "region": [100, 200, 400, 500],
        "bins": [2, 5],
        "exposure_s": 0.002,
        "power_mw": 40,
    },
}
PATH = Path("lab") / "bench.yaml"


class Known:
    """A panel or a sensor that knows itself before it is open."""

    pixel_um = 3.45
    pitch_um = 12.5

    def __init__(self, shape: tuple[int, int], settle_s: float = 0.0) -> None:
        self.shape, self.settle_s = shape, settle_s


class Mute:
    """A device that only tells once it is open."""

    @property
    def shape(self) -> tuple[int, int]:
        name = "device"
        raise DeviceError(name, "shape", "not open. Open it first.")

    settle_s = pitch_um = pixel_um = shape


def made(
    slm: object = None, camera: object = None, **changes: object
) -> tuple[BenchFile, dict[str, Any]]:
    def give(device: object) -> Callable[[], Any]:
        return lambda: device

    source = BenchFile.model_validate(TREE | changes)
    slm_of = give(slm or Known((1080, 1920), 0.03))
    camera_of = give(camera or Known((1024, 1280)))
    file = twin.stand_in(source, PATH, slm=slm_of, camera=camera_of)
    assert file.world is not None
    return file, file.world.options


def test_shapes_and_settling_come_from_the_devices() -> None:
    file, world = made()
    assert file.devices.slm.options == {"pitch_um": 12.5}
    assert file.devices.camera.options == {"pixel_um": 3.45}
    assert world["panel"]["shape"] == [1080, 1920]
    assert world["sensor"]["shape"] == [1024, 1280]
    assert world["panel"]["slow_s"] == pytest.approx(0.03 / 6.234, rel=1e-3)
    assert world["panel"]["fast_s"] < world["panel"]["slow_s"]


def test_grid_and_light_come_from_the_operating_point() -> None:
    file, world = made()
    assert (world["grid"], world["macropixel_px"]) == ([48, 64], 4)
    assert world["nominal_mw"] == 40
    electrons = world["sensor"]["photons_per_s"] * 0.002 * 0.8 * 0.95
    assert electrons / (400 * 500) == pytest.approx(750)
    assert file.devices.laser.options["power_limits_mw"] == [0, 50]
    assert (file.name, file.limits.power_mw) == ("lab", 50)


def test_what_the_twin_section_says_comes_first() -> None:
    section = {
        "world": {
            "grid": [64, 96],
            "nominal_mw": 30,
            "panel": {"shape": [768, 1024], "slow_s": 0.02},
            "sensor": {"shape": [100, 120], "photons_per_s": 1e6},
        },
        "laser": {"power_limits_mw": [1, 60]},
    }
    file, world = made(Mute(), Mute(), twin=section)
    assert (world["grid"], world["nominal_mw"]) == ([64, 96], 30)
    assert "macropixel_px" not in world
    assert world["panel"] == {"shape": [768, 1024], "slow_s": 0.02}
    assert world["sensor"] == {"shape": [100, 120], "photons_per_s": 1e6}
    assert file.devices.laser.options == {"power_limits_mw": [1, 60]}


@pytest.mark.parametrize(
    ("devices", "part"),
    [((Mute(), None), "panel"), ((None, Mute()), "sensor")],
)
def test_a_shape_that_nobody_knows_is_asked_for(
    devices: tuple[object, object], part: str
) -> None:
    with pytest.raises(
        InputError, match=rf"twin\.world\.{part}\.shape is missing.*Add"
    ):
        made(*devices)


def missing() -> Any:  # noqa: ANN401 - SLM or camera
    text = "driver=acme.slm: the module acme is missing"
    raise MissingLibraryError(text)


@pytest.mark.parametrize("shape", [{}, {"shape": [3]}, {"shape": "3 x 4"}])
def test_a_driver_that_is_not_installed_is_named(shape: dict[str, object]) -> None:
    slm = {"driver": "acme.slm", "options": shape}
    tree = TREE | {"devices": TREE["devices"] | {"slm": slm}}
    source = BenchFile.model_validate(tree)
    with pytest.raises(InputError, match=r"panel\.shape.*the module acme is missing"):
        twin.stand_in(source, PATH, slm=missing, camera=missing)


def test_options_in_the_bench_file_stand_in_for_a_missing_library() -> None:
    options = {
        "slm": {"shape": [1024, 1280], "pitch_um": 12.5, "settle_s": 0.06},
        "camera": {"shape": [30, 40], "pixel_um": 3.45, "pixel_format": "Mono12"},
    }
    devices = {
        role: {"driver": f"acme.{role}", "options": options.get(role, {})}
        for role in ("slm", "laser", "camera")
    }
    source = BenchFile.model_validate(TREE | {"devices": devices})
    file = twin.stand_in(source, PATH, slm=missing, camera=missing)
    assert file.world is not None
    known, _ = made(Known((1024, 1280), 0.06), Known((30, 40)))
    assert known.world is not None
    assert file.world.options == known.world.options
    assert (file.devices.slm, file.devices.camera) == (
        known.devices.slm,
        known.devices.camera,
    )


def test_too_many_macropixels_ask_for_a_grid() -> None:
    reservoir = TREE["reservoir"] | {"macropixels": [200, 16]}
    with pytest.raises(InputError, match=r"expected at most 128.*grid: \[ROWS"):
        made(reservoir=reservoir)


def test_a_view_that_is_not_simulated_asks_for_another() -> None:
    with pytest.raises(InputError, match=r"through_medium, expected far_field or im"):
        made(view="through_medium")
    _, world = made(view="through_medium", twin={"world": {"view": "image"}})
    assert world["view"] == "image"


def test_a_part_that_is_no_section_is_refused() -> None:
    with pytest.raises(InputError, match=r"twin\.world\.panel=3, expected keys"):
        made(twin={"world": {"panel": 3}})


def test_a_shutter_is_simulated_and_a_meter_only_where_it_is_described() -> None:
    devices = TREE["devices"] | {
        role: {"driver": f"acme.{role}"} for role in ("shutter", "meter", "attenuator")
    }
    limits = TREE["limits"] | {"meter": {"low": 1, "high": 9, "oldest_s": 1}}
    file, _ = made(devices=devices, limits=limits, dark="shutter_closed")
    assert file.devices.shutter is not None
    assert file.devices.shutter.driver == "sim.shutter"
    assert file.dark == "shutter_closed"
    assert file.devices.meter is None
    source = BenchFile.model_validate(TREE | {"devices": devices, "limits": limits})
    assert twin.unlike(source) == (
        "It has not a meter (twin.meter, whose limits then do not hold) nor an "
        "attenuator."
    )
    file, _ = made(devices=devices, twin={"meter": {"serial": "7"}})
    assert file.devices.meter is not None
    assert file.devices.meter.options == {"serial": "7"}


def test_a_bench_without_more_lacks_nothing() -> None:
    assert twin.unlike(BenchFile.model_validate(TREE)) == ""


def test_calibrations_are_those_of_the_simulated_sensor() -> None:
    described = {
        "sensor.offset_dn": 100,
        "dark_e_per_s": 2.0,
        "sensor.gain_dn_per_e": 4.0,
        "sensor.read_noise_e": 0.7,
    }
    found = twin.calibrations("lab", "0" * 64, 0.03, described)
    camera, settle = found["camera"].values, found["settle"].values
    assert isinstance(camera, CameraResponse)
    assert (camera.offset_dn, camera.dark_dn_per_s) == (100, 8)
    assert isinstance(settle, Settle)
    assert settle.settle_s == 0.03
    assert isinstance(found["slm-phase"].values, PhaseCurve)


def test_a_light_path_that_says_nothing_of_its_sensor_is_refused() -> None:
    with pytest.raises(CalibrationError, match="describes its sensor as"):
        twin.calibrations("lab", "0" * 64, 0.03, {})
