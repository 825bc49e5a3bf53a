"""ELL14 by scripts of bytes: unproved on a peer."""

from typing import Any

import pytest

from drivers.ell14 import ELL14
from labctl.errors import DeviceError, OutOfRangeError

TURN = 0x23000  # pulses a turn
INFO = "0IN0E1140012320231701016800023000"


def at(degrees: float) -> str:
    return f"0PO{round(degrees / 360 * TURN):08X}"


def move(degrees: float) -> list[tuple[str, str]]:
    pulses = f"{round(degrees / 360 * TURN):08X}"
    return [(f"0ma{pulses}", at(degrees)), ("0gp", at(degrees))]


def opened(script: Any, lines: Any) -> ELL14:  # noqa: ANN401
    start = [("0in", INFO), ("0ho0", "0PO00000000"), *move(10)]
    script.expect(*lines(start, ""))
    mount = ELL14(address="x", dark_deg=10, least=0.01, most=0.95, clock=script.clock)
    mount.open()
    return mount


def test_a_mount_byte_by_byte(script: Any, lines: Any) -> None:  # noqa: ANN401
    mount = opened(script, lines)
    assert mount.identity().serial == "11400123"
    assert mount.transmission_limits == (0.01, 0.95)
    # Half of the way between least and most is an eighth of a turn of the light,
    # which is half as much of the plate.
    script.expect(*lines([*move(32.5), ("0gp", at(32.5))], ""))
    mount.set_transmission(0.48)
    assert mount.transmission() == pytest.approx(0.48, abs=1e-4)
    script.expect(*lines([*move(55), ("0gp", at(55))], ""))
    mount.set_transmission(0.95)
    assert mount.transmission() == pytest.approx(0.95)
    script.expect(*lines(move(10), ""))
    mount.close()
    mount.close()


def test_what_it_cannot_transmit_is_refused_unsent(script: Any, lines: Any) -> None:  # noqa: ANN401
    mount = opened(script, lines)
    for wrong in (0.0, 0.96, float("nan")):
        with pytest.raises(OutOfRangeError, match="transmission"):
            mount.set_transmission(wrong)
    script.expect(*lines(move(10), ""))
    mount.close()


def test_a_fault_of_the_motor_is_told_and_the_move_not_repeated(
    script: Any,  # noqa: ANN401
    lines: Any,  # noqa: ANN401
) -> None:
    mount = opened(script, lines)
    script.expect(*lines([(move(55)[0][0], "0GS02")], ""))
    with pytest.raises(DeviceError, match="mechanical time-out"):
        mount.set_transmission(0.95)
    script.expect(*lines([move(55)[0], ("0gp", at(40))], ""))
    with pytest.raises(DeviceError, match=r"angle_deg=40.00 read back, expected 55"):
        mount.set_transmission(0.95)
    script.expect(*lines(move(10), ""))
    mount.close()


def test_just_before_its_home_is_a_small_negative_angle(
    script: Any,  # noqa: ANN401
    lines: Any,  # noqa: ANN401
) -> None:
    mount = opened(script, lines)
    script.expect(*lines([("0gp", "0POFFFFFFFE")], ""))
    assert 0.01 <= mount.transmission() <= 0.95
    script.expect(*lines(move(10), ""))
    mount.close()


def test_another_module_is_refused(script: Any, lines: Any) -> None:  # noqa: ANN401
    script.expect(*lines([("0in", INFO.replace("0IN0E", "0IN09"))], ""))
    mount = ELL14(address="x", dark_deg=10, least=0, most=1, clock=script.clock)
    with pytest.raises(DeviceError, match="module=ELL9, expected ELL14"):
        mount.open()


@pytest.mark.parametrize(
    "wrong", [{"least": 0.9}, {"most": 1.1}, {"dark_deg": 360}, {"bus": "G"}]
)
def test_options_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    options: dict[str, Any] = {"dark_deg": 0, "least": 0.1, "most": 0.9} | wrong
    with pytest.raises(ValueError, match="expected"):
        ELL14(address="x", **options)


def test_just_before_its_home_is_no_turn_away(script: Any, lines: Any) -> None:  # noqa: ANN401
    # Positions are in two's complement: two pulses before the zero.
    before = ("0gp", "0POFFFFFFFE")
    least = [("0ma00000000", "0POFFFFFFFE"), before]
    script.expect(*lines([("0in", INFO), ("0ho0", "0PO00000000"), *least], ""))
    mount = ELL14(address="x", dark_deg=0, least=0.0, most=1.0, clock=script.clock)
    mount.open()
    script.expect(*lines([before, before], ""))
    assert mount.settings()["angle_deg"] == pytest.approx(-720 / TURN)
    assert mount.transmission() == pytest.approx(0.0, abs=1e-6)
    script.expect(*lines(least, ""))
    mount.close()
