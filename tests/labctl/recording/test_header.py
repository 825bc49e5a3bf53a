from dataclasses import replace

import numpy as np
import pytest

from labctl.recording import environment, layout
from labctl.recording.header import (
    CalibrationEntry,
    DeviceEntry,
    Header,
    check_name,
    compose,
    unit,
)


@pytest.fixture(scope="module")
def machine() -> environment.Environment:
    return environment.capture()


def test_every_scalar_of_the_layout_is_given(
    header: Header, machine: environment.Environment
) -> None:
    paths = {scalar.path for scalar, _ in compose(header, machine).scalars}
    assert {scalar.path for scalar in layout.SCALARS} <= paths
    assert {f"reservoir/{scalar.path}" for scalar in layout.RESERVOIR} <= paths


def test_an_unknown_field_of_a_device_is_refused(
    header: Header, machine: environment.Environment
) -> None:
    entry = DeviceEntry(fields={"powr": 1.0})
    wrong = replace(header, instrument={"laser": entry})
    with pytest.raises(ValueError, match=r"\['powr'\], expected some of \['name'"):
        compose(wrong, machine)


def test_a_missing_field_of_the_operating_point_is_refused(
    header: Header, machine: environment.Environment
) -> None:
    wrong = replace(header, reservoir={"exposure_s": 1.0})
    with pytest.raises(ValueError, match=r"reservoir=\['exposure_s'\], expected"):
        compose(wrong, machine)


def test_a_calibration_keeps_values_units_and_kind(
    header: Header, machine: environment.Environment
) -> None:
    entry = CalibrationEntry(
        {"offset_dn": 3, "curve_rad": np.zeros(4, "f4"), "note": "a", "none": None},
        "a.yaml",
        "0" * 64,
        "now",
    )
    written = compose(replace(header, calibrations={"slm-phase": entry}), machine)
    found = {s.path: (s.dtype, s.units) for s, _ in written.scalars}
    base = "calibration/slm_phase"
    assert found[f"{base}/offset_dn"] == (np.dtype(int).str, "counts")
    assert found[f"{base}/curve_rad"] == ("<f4", "rad")
    assert found[f"{base}/note"] == ("str", "")
    assert f"{base}/none" not in found
    assert written.groups[-1].kind == "slm-phase"


@pytest.mark.parametrize("name", ["", "A", "a-b", "1a", "a/b", "..", "ä"])
def test_names_that_a_record_cannot_hold_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="expected small letters"):
        check_name(name)


def test_the_unit_of_a_name_is_its_ending() -> None:
    assert unit("settle_s") == "s"
    assert unit("power_mw") == "mW"
    assert unit("s") == ""
    assert unit("name") == ""
