"""PM100 by scripts of bytes: unproved on a peer."""

from typing import Any

import pytest

from drivers.pm100 import PM100
from labctl.errors import DeviceError, DeviceTimeoutError

OPEN = [
    ("*IDN?", "Thorlabs,PM100D,P0012345,2.8.0"),
    ("SYST:SENS:IDN?", "S130C,14061234,21-Mar-2024,1,18,289"),
    ("SENS:POW:UNIT W", None),
    ("SENS:POW:RANG:AUTO ON", None),
    ("SENS:CORR:WAV 785", None),
]


def opened(script: Any, lines: Any, wavelength: str = "7.85E+02") -> PM100:  # noqa: ANN401
    script.expect(*lines([*OPEN, ("SENS:CORR:WAV?", wavelength)], "\n", "\n"))
    meter = PM100(address="x", wavelength_nm=785, clock=script.clock)
    meter.open()
    return meter


def test_a_meter_byte_by_byte(script: Any, lines: Any) -> None:  # noqa: ANN401
    meter = opened(script, lines)
    assert meter.identity().serial == "P0012345"
    assert meter.settings()["sensor"] == "S130C"
    script.clock.sleep(5)
    before_s = script.clock.now()
    script.expect(*lines([("MEAS:POW?", "1.234500E-03")], "\n", "\n"))
    reading = meter.reading()
    assert reading.value == pytest.approx(1.2345)
    assert meter.unit == "mW"
    # Never younger than it says: what is too old is judged by it.
    assert reading.time_s == before_s
    meter.close()
    meter.close()
    with pytest.raises(DeviceError, match="not open"):
        meter.identity()


def test_a_wavelength_that_is_not_taken_is_refused(script: Any, lines: Any) -> None:  # noqa: ANN401
    with pytest.raises(DeviceError, match="wavelength_nm=1100 read back, expected 785"):
        opened(script, lines, "1.1E+03")
    assert script.closed == 1


@pytest.mark.parametrize("said", ["9.90000000E+37", "-9.9E+37", "9.91E+37"])
def test_what_is_beyond_its_range_is_no_reading(
    script: Any,  # noqa: ANN401
    lines: Any,  # noqa: ANN401
    said: str,
) -> None:
    meter = opened(script, lines)
    script.expect(*lines([("MEAS:POW?", said)], "\n", "\n"))
    with pytest.raises(DeviceError, match="beyond its range"):
        meter.reading()


def test_a_silent_meter_is_a_time_out(script: Any, lines: Any) -> None:  # noqa: ANN401
    meter = opened(script, lines)
    silent = [("MEAS:POW?", ""), ("*IDN?", "")]
    script.expect(*lines(silent, "\n", ""))
    with pytest.raises(DeviceTimeoutError, match="no reply"):
        meter.reading()


def test_a_wavelength_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="wavelength_nm=0"):
        PM100(address="x", wavelength_nm=0)
