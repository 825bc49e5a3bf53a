"""Sapphire on a simulator that others wrote; OBIS and Chameleon by scripts of bytes."""

from collections.abc import Callable
from typing import Any

import pytest

from drivers.laser.coherent import chameleon, obis, sapphire
from labctl.errors import DeviceError, InterlockError, OutOfRangeError

Bridge = Callable[[str], Any]


@pytest.mark.peer
def test_a_sapphire_that_came_up_lit_is_dark_at_its_least(bridge: Bridge) -> None:
    end = bridge("CoherentSapphireLaserMock")
    assert end.mock.light
    with sapphire(address=end.port, timeout_s=2.0) as laser:
        assert (end.mock.light, end.mock.power) == (False, 20.0)
        assert laser.power_limits_mw == (20.0, 220.0)
        assert laser.wavelength_nm == 561
        with pytest.raises(OutOfRangeError, match="power_mw=5, expected 20"):
            laser.set_power_mw(5)
        laser.set_power_mw(150)
        laser.emission(True)
        assert (end.mock.light, end.mock.power) == (True, 150.0)
    assert end.mock.light is False


@pytest.mark.peer
def test_a_sapphire_with_its_key_in_standby_does_not_emit(bridge: Bridge) -> None:
    end = bridge("CoherentSapphireLaserMock")
    with sapphire(address=end.port, timeout_s=2.0) as laser:
        end.mock.key = "standby"
        with pytest.raises(InterlockError, match="key in standby"):
            laser.emission(True)
        assert not end.mock.light


OBIS_OPEN = [
    ("SYST:COMM:HAND ON", "OK"),
    ("SYST:INF:SNUM?", "O-1234\r\nOK"),
    ("SOUR:AM:STAT OFF", "OK"),  # before anything else: it may have come up lit
    ("SOUR:AM:STAT?", "OFF\r\nOK"),
    ("SYST:AUT OFF", "OK"),
    ("SOUR:AM:INT CWP", "OK"),
    ("SOUR:TEMP:APR ON", "OK"),
    ("SYST:AUT?", "OFF\r\nOK"),
    ("SYST:INF:MOD?", "OBIS 660-75 LX\r\nOK"),
    ("SYST:INF:SNUM?", "O-1234\r\nOK"),
    ("SOUR:POW:LIM:LOW?", "0.00100\r\nOK"),
    ("SOUR:POW:LIM:HIGH?", "0.08250\r\nOK"),
    ("SYST:INF:WAV?", "660\r\nOK"),
    ("SOUR:POW:LEV:IMM:AMPL 0.00100", "OK"),
]
OBIS_DARK = [
    ("SOUR:AM:STAT OFF", "OK"),
    ("SOUR:AM:STAT?", "OFF\r\nOK"),
    ("SOUR:POW:LEV:IMM:AMPL 0.00100", "OK"),
]


def test_an_obis_that_would_start_by_itself_is_refused(script: Any, lines: Any) -> None:  # noqa: ANN401
    at = OBIS_OPEN.index(("SYST:AUT?", "OFF\r\nOK"))
    script.expect(*lines([*OBIS_OPEN[:at], ("SYST:AUT?", "ON\r\nOK")]))
    laser = obis(address="x", clock=script.clock)
    match = r"SYST:AUT\?: got 'ON', expected 'OFF'.*switch of its remote"
    with pytest.raises(DeviceError, match=match):
        laser.open()
    with pytest.raises(DeviceError, match="not open"):
        laser.emission(True)


def test_an_obis_without_a_temperature_of_its_own_is_one(
    script: Any,  # noqa: ANN401
    lines: Any,  # noqa: ANN401
) -> None:
    told = ("SOUR:TEMP:APR ON", "OK")
    script.expect(
        *lines([(each[0], "ERR-100") if each == told else each for each in OBIS_OPEN])
    )
    with obis(address="x", clock=script.clock) as laser:
        assert laser.identity().model == "OBIS 660-75 LX"
        script.expect(*lines(OBIS_DARK))
    at = OBIS_OPEN.index(told)
    script.expect(*lines([*OBIS_OPEN[:at], (told[0], "ERR-200")]))
    with pytest.raises(DeviceError, match="refused with 'ERR-200'"):
        obis(address="x", clock=script.clock).open()


def test_obis_byte_by_byte(script: Any, lines: Any) -> None:  # noqa: ANN401
    script.expect(*lines(OBIS_OPEN))
    laser = obis(address="x", clock=script.clock)
    laser.open()
    assert laser.identity().model == "OBIS 660-75 LX"
    assert laser.power_limits_mw == (1.0, 82.5)
    assert laser.wavelength_nm == 660
    script.expect(
        *lines(
            [
                ("SOUR:POW:LEV:IMM:AMPL 0.05000", "OK"),
                ("SOUR:POW:LEV:IMM:AMPL?", "0.05000\r\nOK"),
                ("SYST:LOCK?", "ON\r\nOK"),
                ("SYST:FAUL?", "00000000\r\nOK"),
                ("SOUR:AM:STAT ON", "OK"),
                ("SOUR:AM:STAT?", "OFF\r\nOK"),  # by law it waits
                ("SOUR:AM:STAT?", "ON\r\nOK"),
                ("SOUR:POW:LEV?", "0.04990\r\nOK"),
                ("SOUR:POW:LEV:IMM:AMPL?", "0.05000\r\nOK"),
            ]
        )
    )
    laser.set_power_mw(50)
    laser.emission(True)
    script.expect(*lines(OBIS_DARK))
    laser.close()


def test_an_obis_that_refuses_or_has_a_fault_says_so(script: Any, lines: Any) -> None:  # noqa: ANN401
    script.expect(*lines(OBIS_OPEN))
    laser = obis(address="x", clock=script.clock)
    laser.open()
    script.expect(*lines([("SOUR:POW:LEV:IMM:AMPL 0.05000", "ERR-220")]))
    with pytest.raises(DeviceError, match=r"refused with 'ERR-220'"):
        laser.set_power_mw(50)
    script.expect(
        *lines(
            [
                ("SYST:INF:SNUM?", "O-1234\r\nOK"),  # the way back
                ("SYST:LOCK?", "OFF\r\nOK"),
            ]
        )
    )
    with pytest.raises(InterlockError, match="interlock open"):
        laser.emission(True)
    talk = [("SYST:LOCK?", "OFF\r\nOK"), ("SYST:FAUL?", "00000004\r\nOK")]
    script.expect(*lines(talk))
    assert laser.faults() == ["interlock open", "fault 00000004"]
    script.expect(*lines(OBIS_DARK))
    laser.close()


CHAMELEON_OPEN = [
    ("PROMPT=0", ""),
    ("ECHO=0", ""),
    ("HEARTBEAT=0", ""),
    ("?SN", "GDP.1"),
    ("SHUTTER=0", ""),
    ("?S", "0"),
]
CHAMELEON_TUNES = [
    ("?TMIN", "680"),
    ("?TMAX", "1080"),
    ("WAVELENGTH=800", ""),
    ("?TS", "2"),  # on its way
    ("?TS", "0"),
    ("?VW", "800"),
]
CHAMELEON_TELLS = [
    ("?SN", "GDP.1"),
    ("?SV", "8.83"),
    ("?VW", "800"),
]


def test_chameleon_byte_by_byte(script: Any, lines: Any) -> None:  # noqa: ANN401
    opening = [*CHAMELEON_OPEN, *CHAMELEON_TUNES, *CHAMELEON_TELLS]
    script.expect(*lines(opening))
    laser = chameleon(address="x", power_mw=2900, tune_nm=800, clock=script.clock)
    laser.open()
    assert laser.power_limits_mw == (2900.0, 2900.0)
    assert (laser.repetition_rate_hz, laser.pulse_width_fs) == (80e6, 140.0)
    script.expect(*lines([("?K", "1"), ("?TS", "2")]))
    with pytest.raises(InterlockError, match="not tuned yet"):
        laser.emission(True)
    script.expect(
        *lines(
            [
                ("?K", "1"),
                ("?TS", "0"),
                ("?F", "0"),
                ("SHUTTER=1", ""),
                ("?S", "1"),
                ("?UF", "2873"),
            ]
        )
    )
    laser.emission(True)
    assert laser.power_mw() == 2873
    tuned = [("?K", "1"), ("?TS", "0")]
    script.expect(*lines([*tuned, ("?F", "5"), *tuned, ("?F", "5&12")]))
    assert laser.faults() == ["fault 5"]
    assert laser.faults() == ["fault 5", "fault 12"]
    script.expect(*lines([("SHUTTER=0", ""), ("?S", "0")]))
    laser.close()


@pytest.mark.parametrize(
    ("talk", "told"),
    [
        ([("?TMIN", "680"), ("?TMAX", "790")], "tune_nm=800, expected 680.0 to 790.0"),
        (
            [*CHAMELEON_TUNES[:3], *[("?TS", "2")] * 400],
            "tune_nm=800 not reached within 20 s",
        ),
        (
            [*CHAMELEON_TUNES[:3], ("?TS", "0"), ("?VW", "795")],
            "wavelength_nm=795 read back, expected 800",
        ),
    ],
)
def test_a_chameleon_that_does_not_get_there_is_told(
    script: Any,  # noqa: ANN401
    lines: Any,  # noqa: ANN401
    talk: list[tuple[str, str]],
    told: str,
) -> None:
    script.expect(*lines([*CHAMELEON_OPEN, *talk]))
    laser = chameleon(address="x", power_mw=2900, tune_nm=800, clock=script.clock)
    with pytest.raises(DeviceError, match=told):
        laser.open()
    script.pairs.clear()  # of those that it did not wait for


def test_where_a_chameleon_goes_is_a_number_of_nanometres() -> None:
    for wrong in (-5, 800.5, "800\r\nSHUTTER=1"):
        with pytest.raises(ValueError, match="expected whole nanometres"):
            chameleon(address="x", power_mw=2900, tune_nm=wrong)  # type: ignore[arg-type]


def test_a_chameleon_needs_its_measured_power() -> None:
    with pytest.raises(ValueError, match="power_mw=0, expected more than 0"):
        chameleon(address="x", power_mw=0)
