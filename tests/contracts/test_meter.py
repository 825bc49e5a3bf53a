"""What every meter must do."""

import math

import pytest

from labctl.devices import Meter
from labctl.errors import DeviceError


def test_reads_a_value_with_a_unit_and_a_time(meter: Meter) -> None:
    assert isinstance(meter, Meter)
    assert meter.unit
    with meter:
        first, second = meter.reading(), meter.reading()
    assert math.isfinite(first.value)
    assert second.time_s >= first.time_s


def test_refuses_to_read_while_closed(meter: Meter) -> None:
    with pytest.raises(DeviceError, match="not open"):
        meter.reading()
