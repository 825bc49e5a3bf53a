"""Dark after open, after close, after every fault; known or taken for lit."""

from collections.abc import Callable
from typing import Any

import pytest
from typing_extensions import override

from drivers.laser.wired import Head, WiredLaser
from labctl.devices import Clock, Identity
from labctl.errors import DeviceError, InterlockError, LaserStillOnError


class Time(Clock):
    passed_s = 0.0
    on_sleep: Callable[[], None] | None = None

    @override
    def now(self) -> float:
        return self.passed_s

    @override
    def sleep(self, seconds: float) -> None:
        self.passed_s += seconds
        if self.on_sleep is not None:
            self.on_sleep()


class Diode(Head):
    """A head that does what its attributes say."""

    def __init__(self) -> None:
        self.demand_mw, self.lit = 30.0, True
        self.connected = 0
        self.starts, self.stops, self.loss = True, True, 1.0
        self.slip_mw = 0.0
        self.broken: set[str] = set()
        self.kept, self.ill = "", [""]
        self.serials = ["s"]
        self.lit_when_asked: list[bool] = []

    def _may(self, what: str) -> None:
        if what in self.broken or "all" in self.broken:
            raise DeviceError("laser", what, "silent")

    @override
    def connect(self) -> None:
        self._may("open")
        self.connected += 1

    @property
    @override
    def signature(self) -> str:
        return self.serials[0]

    @override
    def inquire(self) -> None:
        self._may("inquire")
        self.lit_when_asked.append(self.lit)

    @override
    def close(self) -> None:
        pass

    @property
    @override
    def identity(self) -> Identity:
        return Identity("v", "m", self.serials[0], "f")

    @property
    @override
    def wavelength_nm(self) -> float:
        return 600.0

    @property
    @override
    def limits_mw(self) -> tuple[float, float]:
        return (1.0, 50.0)

    @override
    def set_power_mw(self, power_mw: float) -> None:
        self._may("power")
        if "deaf" not in self.broken:
            self.demand_mw = power_mw

    @override
    def setpoint_mw(self) -> float:
        return self.demand_mw + self.slip_mw

    @override
    def power_mw(self) -> float:
        return self.demand_mw * self.loss if self.lit else 0.0

    @override
    def switch(self, on: bool) -> None:
        self._may("on" if on else "off")
        if on and self.starts:
            self.lit = True
        elif not on and self.stops:
            self.lit = False

    @override
    def is_emitting(self) -> bool:
        self._may("emitting")
        return self.lit

    @override
    def interlock(self) -> str:
        return self.kept

    @override
    def faults(self) -> list[str]:
        return [fault for fault in self.ill if fault]


@pytest.fixture
def head() -> Diode:
    return Diode()


def made(head: Diode, **options: Any) -> WiredLaser:  # noqa: ANN401 - any option
    return WiredLaser("laser", head, clock=Time(), **options)


def test_a_head_that_was_left_lit_is_dark_after_open(head: Diode) -> None:
    with made(head):
        assert (head.lit, head.demand_mw) == (False, 1.0)


def test_a_head_is_dark_before_it_is_asked_anything(head: Diode) -> None:
    with made(head):
        assert head.lit_when_asked == [False]


def test_a_head_that_does_not_answer_all_questions_is_dark(head: Diode) -> None:
    head.broken = {"inquire"}
    with pytest.raises(DeviceError, match="silent"):
        made(head).open()
    assert not head.lit


def test_what_does_not_go_dark_has_its_least_power(head: Diode) -> None:
    laser = made(head)
    laser.open()
    laser.set_power_mw(20)
    laser.emission(True)
    head.stops = False
    with pytest.raises(LaserStillOnError, match="emission=on, expected off"):
        laser.emission(False)
    assert head.demand_mw == 1.0
    laser.set_power_mw(20)
    head.broken = {"off"}  # refused, and again through a fresh connection
    with pytest.raises(LaserStillOnError, match="emission=unknown"):
        laser.emission(False)
    assert head.demand_mw == 1.0


def test_that_it_stays_lit_is_told_before_a_second_is_over(head: Diode) -> None:
    laser = made(head)
    laser.open()
    head.lit, head.stops = True, False
    start_s = laser._clock.now()
    with pytest.raises(LaserStillOnError):
        laser.emission(False)
    assert laser._clock.now() - start_s < 1.0
    head.stops = True
    laser.close()


def test_a_head_that_does_not_go_dark_at_open_is_an_error_and_let_go(
    head: Diode,
) -> None:
    head.stops = False
    laser = made(head)
    with pytest.raises(LaserStillOnError, match="emission=on, expected off"):
        laser.open()
    with pytest.raises(DeviceError, match="not open"):
        laser.identity()


def test_a_setpoint_that_is_not_taken_is_an_error(head: Diode) -> None:
    with made(head) as laser:
        head.broken = {"deaf"}
        with pytest.raises(DeviceError, match="power_mw=1 read back, expected 20"):
            laser.set_power_mw(20)


def test_an_open_interlock_refuses_before_anything_is_switched(head: Diode) -> None:
    with made(head) as laser:
        head.kept = "interlock open"
        with pytest.raises(InterlockError, match="interlock open, expected closed"):
            laser.emission(True)
        assert not head.lit


def test_a_fault_refuses_before_anything_is_switched(head: Diode) -> None:
    with made(head) as laser:
        head.ill = ["temperature"]
        with pytest.raises(DeviceError, match="temperature"):
            laser.emission(True)
        assert not head.lit


def test_emission_that_does_not_start_ends_dark_and_in_bounded_time(
    head: Diode,
) -> None:
    laser = made(head, start_s=2.0)
    with laser:
        head.starts = False
        with pytest.raises(DeviceError, match="emission=off, expected on after 2 s"):
            laser.emission(True)
        assert not head.lit


@pytest.mark.parametrize(("loss", "lit_s"), [(0.5, 1.0), (1.5, 0.15)])
def test_a_power_that_is_not_the_demanded_one_ends_dark(
    head: Diode, loss: float, lit_s: float
) -> None:
    clock = Time()
    with WiredLaser("laser", head, clock=clock, start_s=1.0) as laser:
        laser.set_power_mw(40)
        head.loss = loss
        begun_s = clock.now()
        said = rf"power_mw={40 * loss:g}, expected 40 after {lit_s:g} s"
        with pytest.raises(DeviceError, match=said):
            laser.emission(True)
        # Too little may be a start that takes its time; too much is not waited for.
        assert clock.now() - begun_s == pytest.approx(lit_s, abs=0.051)
        assert not head.lit


def test_a_start_that_overshoots_for_a_moment_is_a_start(head: Diode) -> None:
    clock = Time()
    with WiredLaser("laser", head, clock=clock, start_s=1.0) as laser:
        laser.set_power_mw(40)
        head.loss, looks = 1.5, [1.5, 0.5, 1.5, 1.5, 1.0]

        def settle() -> None:
            head.loss = looks.pop(0)

        clock.on_sleep = settle
        laser.emission(True)
        clock.on_sleep = None
        assert looks == []
        assert head.lit


def test_a_head_may_take_a_moment_to_stop_and_no_more(head: Diode) -> None:
    clock = Time()
    with WiredLaser("laser", head, clock=clock) as laser:
        laser.set_power_mw(40)
        laser.emission(True)
        head.stops = False
        begun_s = clock.now()
        with pytest.raises(LaserStillOnError, match="emission=on, expected off"):
            laser.emission(False)
        assert clock.now() - begun_s == pytest.approx(0.3, abs=0.051)
        head.stops = True


@pytest.mark.parametrize(("off_by", "taken"), [(0.005, True), (0.008, False)])
def test_a_setpoint_is_what_was_sent_within_half_a_percent_of_the_greatest(
    head: Diode, off_by: float, taken: bool
) -> None:
    with made(head) as laser:
        head.slip_mw = off_by * laser.power_limits_mw[1]
        if taken:
            laser.set_power_mw(40)
        else:
            with pytest.raises(DeviceError, match="read back, expected 40"):
                laser.set_power_mw(40)
        head.slip_mw = 0.0


def test_whoever_wants_dark_ends_the_wait_for_light(head: Diode) -> None:
    clock = Time()
    laser = WiredLaser("laser", head, clock=clock)
    with laser:
        head.starts = False
        clock.on_sleep = lambda: laser.emission(False)
        with pytest.raises(DeviceError, match="told to go dark"):
            laser.emission(True)
        clock.on_sleep = None
        assert clock.passed_s < 1


def test_a_head_that_falls_silent_while_lit_counts_as_lit(head: Diode) -> None:
    laser = made(head)
    laser.open()
    laser.set_power_mw(20)
    laser.emission(True)
    head.broken = {"off"}
    with pytest.raises(LaserStillOnError, match=r"unknown.*turn|Turn its key"):
        laser.emission(False)
    head.broken = {"all"}
    with pytest.raises(LaserStillOnError, match="Turn its key"):
        laser.close()
    laser.close()


def test_a_head_that_answers_again_is_made_dark_through_a_fresh_connection(
    head: Diode,
) -> None:
    with made(head) as laser:
        laser.emission(True)
        calls: list[int] = []
        real = head.switch

        def once_deaf(on: bool) -> None:
            calls.append(on)
            if len(calls) == 1:
                raise DeviceError("laser", "off", "silent")
            real(on)

        head.switch = once_deaf  # type: ignore[method-assign]  # breaks once
        laser.emission(False)
        assert head.connected == 2
        assert not head.lit


def test_another_head_behind_the_name_of_the_port_is_left_as_it_is(head: Diode) -> None:
    laser = made(head)
    laser.open()
    laser.emission(True)
    told: list[int] = []

    def heard(on: bool) -> None:
        told.append(on)
        raise DeviceError("laser", "off", "silent")

    head.switch = heard  # type: ignore[method-assign]  # gone
    head.serials = ["other"]
    for count in (1, 2):  # and every time anew
        with pytest.raises(LaserStillOnError, match=r"'other' answers.*expected 's'"):
            laser.emission(False)
        assert told == [False] * count
        assert head.connected == 1 + count
    with pytest.raises(LaserStillOnError, match="Turn its key"):
        laser.close()


def test_a_head_that_falls_silent_in_the_dark_is_a_device_that_failed(
    head: Diode,
) -> None:
    laser = made(head)
    laser.open()
    head.broken = {"all"}
    with pytest.raises(DeviceError, match="silent"):
        laser.close()


def test_options_that_make_no_sense_are_refused(head: Diode) -> None:
    for wrong in ({"start_s": 0.0}, {"tolerance": 0.0}, {"tolerance": 2.0}):
        with pytest.raises(ValueError, match="expected more than 0"):
            made(head, **wrong)
