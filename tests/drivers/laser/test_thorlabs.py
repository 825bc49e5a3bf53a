"""CLD101x and ITC4000 by scripts of bytes: unproved on a peer."""

from typing import Any

import pytest

from drivers.laser.thorlabs import COOL_S, diode
from labctl.errors import DeviceError

ID = ("*IDN?", "THORLABS,CLD1015,M00279876,1.3.0")
LEVEL = "source1:current:level:amplitude"
TRIPS = ["intl", "keyl", "otem", "conn"]
ABLE = [
    *((f"outp:prot:{trip}:trip?", "0") for trip in TRIPS),
    ("output2:state?", "1"),
]


def cooled(
    got: float = 25.013, ask: str = "sense2:temperature:data?"
) -> list[tuple[str, str | None]]:
    return [(ask, f"{got}"), ("source2:temperature:spoint?", "25.000")]


OPEN = [
    ID,
    ("output1:state off", None),
    ("source1:function:mode current", None),
    ("source1:am:state off", None),
    (f"{LEVEL} 0", None),
    ("output2:state on", None),
    ID,
    ID,
    ID,
    ("source1:current:limit:amplitude?", "0.150000"),
]
DARK = [
    ("output1:state off", None),
    ("output1:state?", "0"),
    (f"{LEVEL} 0.000000", None),
]
CURVE = [[0.04, 0.0], [0.1, 30.0], [0.2, 80.0]]


def said(
    *temperatures: tuple[str, str | None], who: tuple[str, str] = ID
) -> list[tuple[str, str | None]]:
    """What a driver hears while it opens, but for the last: no current."""
    start = [who if each == ID else each for each in OPEN]
    return [start[0], *DARK[:2], *start[1:], *temperatures]


def made(script: Any) -> Any:  # noqa: ANN401
    return diode(address="x", wavelength_nm=785, curve_a_mw=CURVE, clock=script.clock)


def opened(script: Any, lines: Any) -> Any:  # noqa: ANN401
    script.expect(*lines([*said(*cooled()), DARK[2]]))
    laser = made(script)
    laser.open()
    return laser


def test_a_diode_byte_by_byte_and_never_by_a_step(script: Any, lines: Any) -> None:  # noqa: ANN401
    laser = opened(script, lines)
    # 150 mA is the driver's own limit: half-way between two points of the curve.
    assert laser.power_limits_mw == (0.0, pytest.approx(55.0))
    assert laser.identity().serial == "M00279876"
    talk = [
        (f"{LEVEL} 0.070000", None),
        (f"{LEVEL}?", "0.070000"),
        *ABLE,
        *cooled(24.6),
        *cooled(24.6),
        (f"{LEVEL} 0.000000", None),
        ("output1:state on", None),
        (f"{LEVEL} 0.070000", None),
        ("output1:state?", "1"),
        ("sense3:current:data?", "6.990000E-02"),
        (f"{LEVEL}?", "0.070000"),
    ]
    script.expect(*lines(talk))
    laser.set_power_mw(15)
    laser.emission(True)
    script.expect(*lines([("sense3:current:data?", "0.070000")]))
    assert laser.power_mw() == pytest.approx(15)
    # The guard asks while it is lit: some warmth is no fault, a cooler that gave up is.
    script.expect(*lines([*ABLE, *cooled(26.9), *ABLE, *cooled(27.1)]))
    assert laser.faults() == []
    assert laser.faults() == ["temperature=27.1, expected 25 within 2"]
    script.expect(*lines(DARK))
    laser.close()


def test_an_itc_is_asked_in_its_own_words(script: Any, lines: Any) -> None:  # noqa: ANN401
    who = ("*IDN?", "Thorlabs,ITC4001,M00277475,1.4.0/2.0.3/1.6.0")
    cool = cooled(ask="measure:temperature?")
    script.expect(*lines([*said(*cool, who=who), DARK[2]]))
    laser = made(script)
    laser.open()
    assert laser.identity().model == "ITC4001"
    script.expect(*lines([("measure:current1?", "0.070000")]))
    assert laser.power_mw() == pytest.approx(15)
    script.expect(*lines(DARK))
    laser.close()


def test_a_driver_of_another_family_is_refused(script: Any, lines: Any) -> None:  # noqa: ANN401
    who = ("*IDN?", "THORLABS,LDC4005,M1,1.4.0/2.0.3")
    script.expect(*lines(said(who=who)))
    with pytest.raises(DeviceError, match="model=LDC4005, expected a CLD101x or an"):
        made(script).open()


def test_a_cooler_is_given_its_time(script: Any, lines: Any) -> None:  # noqa: ANN401
    warm = [*cooled(31.0), *cooled(27.4), *cooled(25.6), *cooled(25.4)]
    script.expect(*lines([*said(*warm), DARK[2]]))
    laser = made(script)
    laser.open()
    script.expect(*lines(DARK))
    laser.close()


def test_a_diode_does_not_emit_at_another_temperature(
    script: Any,  # noqa: ANN401
    lines: Any,  # noqa: ANN401
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("drivers.laser.thorlabs.POLL_S", COOL_S / 2)
    # Not in time: open all the same, for whoever wants it dark.
    script.expect(*lines([*said(*(3 * cooled(31.0))), DARK[2]]))
    laser = made(script)
    laser.open()
    # Nothing is switched on, and what may be is switched off.
    script.expect(*lines([*ABLE, *cooled(25.6), *cooled(25.6), *DARK[:2]]))
    match = r"emission: temperature=25.6, expected 25 within 0.5. Look at its cooler"
    with pytest.raises(DeviceError, match=match):
        laser.emission(True)
    script.expect(*lines(DARK))
    laser.close()


@pytest.mark.parametrize(
    "curve",
    [
        [],
        [[0.1, 0.0]],
        [[0.1, 1.0], [0.2, 2.0]],
        [[0.1, 0.0], [0.1, 2.0]],
        [[0.1, 0.0], [0.2, 5.0], [0.3, 4.0]],
    ],
)
def test_a_curve_that_does_not_rise_from_nothing_is_refused(
    curve: list[list[float]],
) -> None:
    with pytest.raises(ValueError, match="curve_a_mw"):
        diode(address="x", wavelength_nm=785, curve_a_mw=curve)
