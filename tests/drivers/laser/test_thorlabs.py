"""CLD101x and ITC4000 by scripts of bytes: unproved on a peer."""

from typing import Any

import pytest

from drivers.laser.thorlabs import diode

ID = ("*IDN?", "THORLABS,CLD1015,M00279876,1.3.0")
LEVEL = "source1:current:level:amplitude"
OPEN = [
    ID,
    ("output1:state off", None),
    ("source1:function:mode current", None),
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


def opened(script: Any, lines: Any) -> Any:  # noqa: ANN401
    script.expect(*lines([OPEN[0], *DARK[:2], *OPEN[1:], DARK[2]]))
    laser = diode(address="x", wavelength_nm=785, curve_a_mw=CURVE, clock=script.clock)
    laser.open()
    return laser


def test_a_diode_byte_by_byte_and_never_by_a_step(script: Any, lines: Any) -> None:  # noqa: ANN401
    laser = opened(script, lines)
    # 150 mA is the driver's own limit: half-way between two points of the curve.
    assert laser.power_limits_mw == (0.0, pytest.approx(55.0))
    assert laser.identity().serial == "M00279876"
    trips = ["intl", "keyl", "otem", "conn"]
    talk = [
        (f"{LEVEL} 0.070000", None),
        (f"{LEVEL}?", "0.070000"),
        *((f"outp:prot:{trip}:trip?", "0") for trip in trips),
        ("output2:state?", "1"),
        (f"{LEVEL} 0.000000", None),
        ("output1:state on", None),
        (f"{LEVEL} 0.070000", None),
        ("output1:state?", "1"),
        ("measure:current1?", "6.990000E-02"),
        (f"{LEVEL}?", "0.070000"),
    ]
    script.expect(*lines(talk))
    laser.set_power_mw(15)
    laser.emission(True)
    script.expect(*lines([("measure:current1?", "0.070000")]))
    assert laser.power_mw() == pytest.approx(15)
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
