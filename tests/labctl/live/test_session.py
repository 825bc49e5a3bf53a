"""A bench in the hands of a person: within limits, watched, given back dark."""

import json
import re
import struct
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import pytest

from drivers.sim.beam import Beam
from labctl import state
from labctl.bench import Bench
from labctl.calibration import Settle
from labctl.errors import (
    DeviceError,
    FrameError,
    InputError,
    OutOfRangeError,
    SafetyError,
)
from labctl.live import command, session


class Hand(Protocol):
    """What ``conftest.py`` gives."""

    session: session.Session
    table: Bench
    errors: list[Exception]

    def leave(self) -> None: ...


Hold = Callable[..., Hand]
LIGHT = command.Light(do="light", power_mw=5)


def seen(hand: Hand, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Look until a picture tells what is wanted."""
    number, end_s = 0, time.monotonic() + 20
    while time.monotonic() < end_s:
        message = hand.session.look(number)
        if not message:
            continue
        (size,) = struct.unpack("<I", message[:4])
        state: dict[str, Any] = json.loads(message[4 : 4 + size])
        number = state["number"]
        if wanted(state):
            return state
    pytest.fail(f"not so within 20 s, {number} frames")


def test_what_is_asked_for_is_done_within_limits(hold: Hold) -> None:
    hand = hold()
    ask = hand.session.ask
    assert seen(hand, bool)["lit"] is False
    ask(LIGHT)
    lit = seen(hand, lambda state: bool(state["lit"]))
    assert lit["measured_mw"] == pytest.approx(5, rel=0.1)
    with pytest.raises(OutOfRangeError, match=r"power_mw=9.0, expected 0 to 8.0"):
        ask(command.Light(do="light", power_mw=9))
    with pytest.raises(OutOfRangeError, match=r"exposure_s=1.0, expected 0 to 0.02"):
        ask(command.Expose(do="expose", exposure_s=1))
    with pytest.raises(InputError, match="level=256"):
        ask(command.Flat(do="flat", level=256))
    # A refusal changes nothing.
    after = hand.session.frames
    assert seen(hand, lambda state: state["number"] > after)["power_mw"] == 5
    ask(command.Expose(do="expose", exposure_s=0.002, view="region"))
    cut = seen(hand, lambda state: state["view"] == "region")
    assert cut["picture"]["shape"] == [27, 27]
    assert cut["exposure_s"] == pytest.approx(0.002)
    ask(command.Grating(do="grating", period_px=8, angle_deg=90))
    assert seen(hand, lambda state: state["pattern"] == "grating, 8 px at 90°")
    ask(command.Checker(do="checker", size_px=4))
    assert seen(hand, lambda state: state["pattern"] == "checker, 4 px")
    ask(command.Dark(do="dark"))
    assert seen(hand, lambda state: not state["lit"])["measured_mw"] == 0
    hand.leave()
    assert hand.errors == []
    with pytest.raises(InputError, match="was given back"):
        ask(LIGHT)


def test_nobody_looking_makes_it_dark(
    hold: Hold, monkeypatch: pytest.MonkeyPatch
) -> None:
    hand = hold()
    assert hand.table.beam is not None
    with Beam.open(hand.table.beam) as beam:
        hand.session.ask(LIGHT)
        assert beam.read().power_mw > 0
        monkeypatch.setattr(session, "UNWATCHED_S", 0.0)
        end_s = time.monotonic() + 10
        while beam.read().power_mw > 0 and time.monotonic() < end_s:
            time.sleep(0.01)  # another thread makes it so
        assert beam.read().power_mw == 0


def test_a_device_that_fails_ends_it_dark(hold: Hold) -> None:
    def break_later(table: Bench) -> None:
        frame = table.camera.frame

        def failing(timeout_s: float) -> Any:  # noqa: ANN401 - a frame
            if hand_lit:
                raise FrameError("camera", "removed", "no longer there.")
            return frame(timeout_s)

        table.camera.frame = failing  # type: ignore[method-assign]  # breaks

    hand_lit: list[bool] = []
    hand = hold(prepare=break_later)
    hand.session.ask(LIGHT)
    hand_lit.append(True)
    end_s = time.monotonic() + 10
    while not hand.session.is_over and time.monotonic() < end_s:
        hand.session.look(1_000_000, 0.1)
    hand.leave()
    (error,) = hand.errors
    assert isinstance(error, DeviceError)
    assert not hand.table.laser.is_open


BRIGHT = command.Light(do="light", power_mw=8)
LONG = command.Expose(do="expose", exposure_s=0.02)


def limited(**limits: object) -> Callable[[Bench], None]:
    """Change what the bench file says of its limits."""

    def change(table: Bench) -> None:
        changed = table.file.limits.model_copy(update=limits)
        table.file = table.file.model_copy(update={"limits": changed})

    return change


def test_saturation_warns_where_the_bench_says_so(hold: Hold) -> None:
    hand = hold()
    hand.session.ask(LONG)
    assert seen(hand, lambda state: state["exposure_s"] == 0.02)["warning"] == ""
    hand.session.ask(BRIGHT)
    told = seen(hand, lambda state: bool(state["warning"]))
    assert re.fullmatch(r"\d+ saturated pixels\. Lower the power.*", told["warning"])
    hand.session.ask(command.Dark(do="dark"))
    assert seen(hand, lambda state: not state["lit"])["warning"] == ""
    hand.leave()
    assert (hand.errors, hand.session.why) == ([], "")


def test_saturation_stops_where_the_bench_says_so(
    hold: Hold, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LABCTL_STATE", str(tmp_path))
    hand = hold(prepare=limited(on_saturation="stop"))
    assert hand.table.beam is not None
    with Beam.open(hand.table.beam) as beam:
        hand.session.ask(BRIGHT)
        assert beam.read().power_mw > 0
        hand.session.ask(LONG)
        end_s = time.monotonic() + 10
        while not hand.session.is_over and time.monotonic() < end_s:
            hand.session.look(1_000_000, 0.1)
        assert beam.read().power_mw == 0
    hand.leave()
    (error,) = hand.errors
    assert isinstance(error, SafetyError)  # exit code 4
    assert "expected 0 (bench file: on_saturation)" in hand.session.why
    latched = state.latched("sim-small")
    assert latched is not None
    assert "saturated_px=" in latched.why


def test_a_beam_that_has_to_rest_is_dark_until_it_is_asked_for_again(
    hold: Hold,
) -> None:
    hand = hold(prepare=limited(duty=0.001, duty_window_s=300.0))
    hand.session.ask(LONG)
    hand.session.ask(LIGHT)
    # 0.3 s of virtual time are soon over.
    resting = seen(hand, lambda state: state["rest_s"] > 0)
    assert not resting["lit"]
    assert 0 < resting["rest_s"] <= 299.7
    with pytest.raises(InputError, match=r"rests \d+\.\d s more .*limits\.duty"):
        hand.session.ask(LIGHT)


def test_a_rest_that_falls_due_while_meters_are_read_is_not_ended_with_light(
    hold: Hold,
) -> None:
    def slow_meters(table: Bench) -> None:
        limited(duty=0.001, duty_window_s=300.0)(table)
        beat = table.laser.beat

        def late() -> None:
            beat()
            if table.laser.is_emitting():
                table.clock.sleep(1.0)

        table.laser.beat = late  # type: ignore[method-assign]  # slow

    hand = hold(prepare=slow_meters)
    hand.session.ask(LIGHT)
    resting = seen(hand, lambda state: state["rest_s"] > 0)
    assert not resting["lit"]
    assert not hand.table.laser.is_emitting()


DARK = command.Dark(do="dark")


def test_requests_are_read_however_long_a_frame_takes(
    hold: Hold, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "FRAME_S", 0.0)  # any frame takes longer
    hand = hold()
    hand.session.ask(LIGHT, 10)
    assert seen(hand, lambda state: bool(state["lit"]))
    hand.session.ask(DARK, 10)
    assert not hand.table.laser.is_emitting()


def test_requests_are_read_while_a_frame_is_waited_for(hold: Hold) -> None:
    def never(timeout_s: float) -> Any:  # noqa: ANN401 - a frame
        raise FrameError("camera", "timeout", f"no frame within {timeout_s} s")

    def silent(table: Bench) -> None:
        limited(frame_s=1e9)(table)
        table.camera.frame = never  # type: ignore[method-assign]  # silent

    hand = hold(prepare=silent)
    hand.session.ask(LIGHT, 10)
    hand.session.ask(command.Checker(do="checker", size_px=4), 10)
    hand.session.ask(DARK, 10)
    assert hand.session.frames == 0


def test_requests_are_read_while_a_panel_settles(
    hold: Hold, monkeypatch: pytest.MonkeyPatch
) -> None:
    never = Settle(kind="settle", settle_s=1e9)
    monkeypatch.setattr(session, "calibration", lambda *_: never)
    hand = hold()
    hand.session.ask(LIGHT, 10)
    hand.session.ask(DARK, 10)
    assert hand.session.frames == 0


def test_a_ramp_ends_where_dark_is_asked_for(hold: Hold) -> None:
    # So slow that it would last for minutes, also in virtual time.
    hand = hold(prepare=limited(ramp_mw_per_s=1e-4))
    assert hand.table.beam is not None
    with Beam.open(hand.table.beam) as beam, ThreadPoolExecutor() as pool:
        light = pool.submit(hand.session.ask, LIGHT)
        end_s = time.monotonic() + 20
        while beam.read().power_mw == 0 and time.monotonic() < end_s:
            time.sleep(0.01)  # another thread makes it so
        assert beam.read().power_mw > 0
        hand.session.ask(DARK, 10)
        assert beam.read().power_mw == 0
        with pytest.raises(InputError, match="dark was asked for meanwhile"):
            light.result(10)
    hand.leave()
    assert hand.errors == []


def leave_page(hand: Hand) -> None:
    hand.leave()


def rest(hand: Hand) -> None:
    limited(duty=1e-6, duty_window_s=300.0)(hand.table)


def turn_away(hand: Hand) -> None:
    del hand
    session.UNWATCHED_S = 0.0  # type: ignore[misc]  # put back by the test


@pytest.mark.parametrize(
    "darken",
    [lambda hand: hand.session.ask(DARK), leave_page, rest, turn_away],
    ids=["dark", "leave", "rest", "unwatched"],
)
def test_dark_does_not_ramp(
    hold: Hold, monkeypatch: pytest.MonkeyPatch, darken: Callable[[Hand], None]
) -> None:
    monkeypatch.setattr(session, "UNWATCHED_S", session.UNWATCHED_S)
    levels: list[float] = []

    def told(table: Bench) -> None:
        limited(ramp_mw_per_s=100.0)(table)
        set_power, emission = table.laser.set_power_mw, table.laser.emission

        def power(power_mw: float) -> None:
            levels.append(power_mw)
            set_power(power_mw)

        def emit(on: bool) -> None:
            if not on:
                levels.append(0.0)
            emission(on)

        table.laser.set_power_mw = power  # type: ignore[method-assign]  # told
        table.laser.emission = emit  # type: ignore[method-assign]  # told

    hand = hold(prepare=told)
    hand.session.ask(LIGHT)
    hand.session.ask(command.Light(do="light", power_mw=1))
    # The slider ramps, in both ways: by 2 mW at most in each step of 20 ms.
    assert levels == pytest.approx([0, 5 / 3, 10 / 3, 5, 5, 3, 1])
    levels.clear()
    hand.session.ask(LIGHT)
    levels.clear()
    darken(hand)
    seen_dark_s = time.monotonic() + 10
    while 0.0 not in levels and time.monotonic() < seen_dark_s:
        time.sleep(0.01)  # another thread makes it so
    assert levels[0] == 0.0


def test_what_was_given_up_or_is_outdated_is_not_done_later(hold: Hold) -> None:
    gate, held = threading.Event(), threading.Event()
    gate.set()

    def gated(table: Bench) -> None:
        frame = table.camera.frame

        def wait(timeout_s: float) -> Any:  # noqa: ANN401 - a frame
            if not gate.is_set():
                held.set()
                gate.wait(20)
            return frame(timeout_s)

        table.camera.frame = wait  # type: ignore[method-assign]  # held up

    hand = hold(prepare=gated)
    gate.clear()
    assert held.wait(20)
    with pytest.raises(TimeoutError):
        hand.session.ask(command.Flat(do="flat", level=7), 0.01)
    with ThreadPoolExecutor() as pool:
        light = pool.submit(hand.session.ask, LIGHT)
        while hand.session.waiting < 2:
            time.sleep(0.01)  # another thread makes it so
        # Nobody waits for it, and it is done all the same.
        with pytest.raises(TimeoutError):
            hand.session.ask(DARK, 0.01)
        gate.set()
        with pytest.raises(InputError, match="dark was asked for meanwhile"):
            light.result(20)
    after = hand.session.frames
    told = seen(hand, lambda state: state["number"] > after)
    assert (told["lit"], told["pattern"]) == (False, "flat, level 0")
