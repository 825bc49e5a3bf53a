import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from drivers.sim.beam import Beam
from labctl import duty, state
from labctl.errors import (
    DeviceError,
    DeviceTimeoutError,
    InputError,
    InterlockError,
    LabctlError,
    LatchedError,
    OutOfRangeError,
    SafetyError,
    SilentRunError,
)
from labctl.guard import GuardedLaser, Patience, _Guard, _Heard, _Link

Package = Callable[[str, str, Mapping[str, str]], Path]

pytestmark = pytest.mark.usefixtures("cold_guards")
POSIX = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")

# A laser whose light is a line in a file, so that it outlives its process.
SOURCE = """
import sys
import threading
from pathlib import Path

from labctl.devices import Identity, Laser
from labctl.errors import DeviceError, InterlockError, OutOfRangeError


class FileLaser(Laser):
    def __init__(self, *, name, clock, light, fault="", top_mw=10.0):
        if top_mw <= 0:
            raise ValueError(f"top_mw={top_mw}, expected more than 0")
        self._name, self._light, self._fault = name, Path(light), fault
        self._top, self._power, self._on = top_mw, 0.0, False

    name = property(lambda self: self._name)
    wavelength_nm = property(lambda self: 532.0)
    power_limits_mw = property(lambda self: (0.0, self._top))
    repetition_rate_hz = property(lambda self: None)
    pulse_width_fs = property(lambda self: None)

    def _show(self):
        with self._light.open("a") as file:
            file.write("on\\n" if self._on else "dark\\n")

    def open(self):
        print("a vendor library prints its banner")
        if self._fault == "slow to open":
            threading.Event().wait(0.5)
        if self._fault == "crash":
            import os
            sys.stderr.write("the vendor library lost its mind")
            sys.stderr.flush()
            os._exit(9)
        self._on = False
        self._show()

    def close(self):
        self._on = False
        self._show()

    def identity(self):
        return Identity("acme", "file", "4711", "1")

    def settings(self):
        if self._fault == "hang":
            threading.Event().wait()
        if self._fault == "raise":
            raise KeyError("settings")
        if self._fault == "exotic":
            return {"power": object()}
        heavy = {"torch", "h5py", "pydantic", "matplotlib", "sklearn", "numpy"}
        return {"heavy": ",".join(sorted(heavy & set(sys.modules)))}

    def set_power_mw(self, power_mw):
        if not 0 <= power_mw <= self._top:
            raise OutOfRangeError(
                self._name, "power_mw", power_mw, low=0.0, high=self._top
            )
        self._power = power_mw

    def setpoint_mw(self):
        return self._power

    def power_mw(self):
        return self._power if self._on else 0.0

    def emission(self, on):
        if on and self._fault == "interlock":
            raise InterlockError("laser: the interlock is open. Close the door.")
        if on and self._fault == "late":
            threading.Event().wait(0.5)
        if not on and self._on and self._fault == "mute":
            raise DeviceError(self._name, "emission", "no answer")
        self._on = on
        self._show()

    def is_emitting(self):
        return self._on

    def faults(self):
        if self._fault == "faults hang":
            threading.Event().wait()
        if self._fault == "faults slow":
            threading.Event().wait(0.6)
        if self._fault == "faults break":
            raise KeyError("status")
        if self._fault in {"faults silent", "mute"}:
            raise DeviceError(self._name, "faults", "no answer")
        return [self._fault] if self._fault in {"warm", "interlock open"} else []
"""


@pytest.fixture(autouse=True)
def acme(package: Package) -> None:
    package("acme_laser", SOURCE, {"acme.laser": "acme_laser:FileLaser"})


@pytest.fixture
def light(tmp_path: Path) -> Path:
    return tmp_path / "light.txt"


Make = Callable[..., GuardedLaser]


@pytest.fixture
def make(light: Path) -> Iterator[Make]:
    made: list[GuardedLaser] = []

    def laser(*, patience: Patience | None = None, **options: object) -> GuardedLaser:
        options = {"light": str(light)} | options
        made.append(GuardedLaser("laser", "acme.laser", options, patience=patience))
        return made[-1]

    yield laser
    for each in made:
        each.close()


def _now(light: Path) -> str:
    return light.read_text().splitlines()[-1]


def _wait_dark(light: Path, within_s: float = 2.0) -> None:
    # The subject is another process on real time, so this test has to watch it.
    due = time.monotonic() + within_s
    while _now(light) != "dark":
        assert time.monotonic() < due, "not dark in time"


def test_every_call_of_the_role_goes_through(make: Make, light: Path) -> None:
    with make() as laser:
        assert _now(light) == "dark"
        assert laser.identity().serial == "4711"
        assert laser.wavelength_nm == 532.0
        assert laser.power_limits_mw == (0.0, 10.0)
        assert laser.repetition_rate_hz is None
        assert laser.pulse_width_fs is None
        laser.set_power_mw(3.0)
        assert laser.setpoint_mw() == 3.0
        assert laser.power_mw() == 0.0
        laser.emission(True)
        assert laser.is_emitting()
        assert laser.power_mw() == 3.0
        assert laser.faults() == []
        laser.beat()
        assert _now(light) == "on"
    assert _now(light) == "dark"


def test_a_simulated_laser_is_handed_the_beam_file(
    tmp_path: Path, package: Package
) -> None:
    source = SOURCE.replace("light, fault", "beam, fault").replace(
        "Path(light)", "beam.resolve()"
    )
    package("acme_beam", source, {"acme.beam": "acme_beam:FileLaser"})
    beam = tmp_path / "beam"
    with GuardedLaser("laser", "acme.beam", {}, beam=beam):
        assert _now(beam) == "dark"


def test_the_guard_imports_nothing_heavy(make: Make) -> None:
    with make() as laser:
        assert laser.settings() == {"heavy": ""}


def test_errors_come_back_as_what_they_were(make: Make, light: Path) -> None:
    with make(fault="interlock") as laser:
        with pytest.raises(OutOfRangeError, match="power_mw=11") as caught:
            laser.set_power_mw(11)
        assert (caught.value.got, caught.value.high) == (11, 10.0)
        with pytest.raises(InterlockError, match="Close the door"):
            laser.emission(True)
    assert "on" not in light.read_text().split()


def test_options_and_drivers_are_refused_before_a_device_is_touched(
    make: Make, light: Path
) -> None:
    with pytest.raises(
        InputError, match=r"options\.watts: is not known, expected one of .*top_mw"
    ):
        make(watts=1).open()
    with pytest.raises(InputError, match="top_mw=-1, expected more than 0"):
        make(top_mw=-1).open()
    with pytest.raises(InputError, match=r"driver: got acme\.maser.*acme\.laser"):
        GuardedLaser("laser", "acme.maser", {}).open()
    assert not light.exists()


def test_a_guard_that_dies_at_the_start_shows_its_last_words(make: Make) -> None:
    with pytest.raises(DeviceError, match=r"(?s)exit code 9.*lost its mind"):
        make(fault="crash").open()


def test_calls_before_open_and_after_close_are_refused(make: Make) -> None:
    laser = make()
    with pytest.raises(DeviceError, match="is not open"):
        laser.emission(True)
    laser.open()
    with pytest.raises(DeviceError, match="is open already"):
        laser.open()
    laser.close()
    laser.close()
    with pytest.raises(DeviceError, match="is not open"):
        _ = laser.wavelength_nm


def test_an_exception_in_the_run_makes_dark(make: Make, light: Path) -> None:
    with pytest.raises(ZeroDivisionError), make() as laser:
        laser.emission(True)
        raise ZeroDivisionError
    assert _now(light) == "dark"


def test_a_hung_call_ends_dark_and_emission_is_refused_afterwards(
    make: Make, light: Path
) -> None:
    with make(fault="hang", patience=Patience(call_s=0.2)) as laser:
        laser.emission(True)
        with pytest.raises(
            DeviceTimeoutError, match=r"settings: .*laser was made dark"
        ):
            laser.settings()
        assert _now(light) == "dark"
        with pytest.raises(SafetyError, match="settings did not return in time"):
            laser.emission(True)
    assert _now(light) == "dark"


def test_light_that_comes_after_its_call_was_given_up_is_put_out(
    make: Make, light: Path
) -> None:
    with make(fault="late", patience=Patience(call_s=0.1)) as laser:
        with pytest.raises(DeviceTimeoutError, match="emission: no answer in time"):
            laser.emission(True)
        _wait_lines(light, 4)
        assert light.read_text().split()[:4] == ["dark", "dark", "on", "dark"]


def test_a_guard_that_is_told_nonsense_goes_dark_and_ends(light: Path) -> None:
    patience = {"start_s": 30.0, "call_s": 10.0, "heartbeat_s": None}
    start = {
        "bench": None,
        "keeps_lit": False,
        "name": "laser",
        "driver": "acme.laser",
        "options": {"light": str(light)},
        "beam": None,
        "patience": patience,
    }
    lines = [
        json.dumps({"id": 1, "call": "start", "args": [start]}),
        json.dumps({"id": 2, "call": "identity_theft", "args": []}),
        json.dumps({"id": 3, "call": "emission", "args": [True]}),
    ]
    with subprocess.Popen(
        [sys.executable, "-m", "labctl.guard"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("\n".join(lines) + "\n")
        process.stdin.flush()
        answers = [json.loads(process.stdout.readline()) for _ in lines]
        assert answers[1]["error"]["type"] == "DeviceError"
        assert "is no call of a laser" in answers[1]["error"]["message"]
        assert answers[2] == {"id": 3, "result": None}
        assert _now(light) == "on"
        _, last_words = process.communicate("not JSON\n")
    assert "JSONDecodeError" in last_words
    assert process.returncode == 1
    assert _now(light) == "dark"


@pytest.mark.parametrize("fault", ["raise", "exotic"])
def test_a_driver_that_breaks_its_word_ends_dark(
    make: Make, light: Path, fault: str
) -> None:
    with make(fault=fault) as laser:
        laser.emission(True)
        with pytest.raises(
            DeviceError, match=r"driver failed; the laser was made dark"
        ):
            laser.settings()
        assert _now(light) == "dark"


def test_a_silent_run_ends_dark_and_emission_is_refused_afterwards(
    make: Make, light: Path
) -> None:
    with make(patience=Patience(heartbeat_s=0.2)) as laser:
        laser.emission(True)
        _wait_dark(light)
        with pytest.raises(SafetyError, match=r"silent for more than heartbeat_s=0\.2"):
            laser.emission(True)
        assert not laser.is_emitting()


def test_beats_keep_the_light_on(make: Make, light: Path) -> None:
    with make(patience=Patience(heartbeat_s=1.0)) as laser:
        laser.emission(True)
        due = time.monotonic() + 1.3
        while time.monotonic() < due:
            laser.beat()
        assert laser.is_emitting()
        assert light.read_text().split() == ["dark", "on"]


def test_modules_of_the_current_folder_do_not_stand_in_for_the_guard(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "here" / "labctl"
    other.mkdir(parents=True)
    (other / "__init__.py").write_text("raise SystemExit(3)", encoding="utf-8")
    monkeypatch.chdir(other.parent)
    laser = make()
    laser.open()
    assert laser.wavelength_nm == 532.0


@pytest.fixture
def hands(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A clock of the run that stands still until it is set, and what was sent."""
    hands, send = SimpleNamespace(now_s=100.0, sent=[]), _Link.send

    def told(link: _Link, message: Mapping[str, Any]) -> None:
        hands.sent.append(message["call"])
        send(link, message)

    clock = SimpleNamespace(monotonic=lambda: hands.now_s)
    monkeypatch.setattr("labctl.guard.time", clock)
    monkeypatch.setattr(_Link, "send", told)
    return hands


def test_signs_of_life_that_follow_at_once_are_sent_as_one(
    make: Make, hands: SimpleNamespace
) -> None:
    with make(patience=Patience(heartbeat_s=2.0)) as laser:
        hands.sent.clear()
        sent_s = []
        for at_s in (0.0, 0.004, 0.009, 0.012, 0.013, 0.05):
            hands.now_s = 100 + at_s
            before = len(hands.sent)
            laser.beat()
            sent_s += [at_s] * (len(hands.sent) - before)
        assert sent_s == [0.0, 0.012, 0.05]
        # The one that ends an announced phase is sent whenever it comes.
        laser.deadline(30.0)
        laser.beat()
        laser.beat()
        assert hands.sent == [*["beat"] * 3, "deadline", "beat"]


def test_a_sign_of_life_that_is_not_sent_says_that_the_guard_stopped_the_run(
    make: Make, hands: SimpleNamespace
) -> None:
    with make(fault="warm", patience=Patience(heartbeat_s=5.0)) as laser:
        laser.beat()
        laser.emission(True)
        _stopped(laser)
        hands.sent.clear()
        with pytest.raises(SafetyError, match="faults=warm"):
            laser.beat()
        assert hands.sent == []


@POSIX
def test_a_sign_of_life_that_is_not_sent_says_that_the_guard_is_gone(
    make: Make, light: Path, hands: SimpleNamespace
) -> None:
    laser = make(patience=Patience(heartbeat_s=5.0))
    laser.open()
    laser.emission(True)
    laser.beat()
    os.kill(laser.pid, signal.SIGKILL)
    due = time.monotonic() + 10.0
    while not laser._linked("beat").has_ended:
        assert time.monotonic() < due, "its end was not noticed"
    with pytest.raises(DeviceError, match=r"beat: the guard ended .*new guard made"):
        laser.beat()
    assert hands.now_s == 100.0
    assert _now(light) == "dark"


def test_a_dark_laser_needs_no_beat(make: Make) -> None:
    with make(patience=Patience(heartbeat_s=0.1)) as laser:
        laser.emission(True)
        laser.emission(False)
        due = time.monotonic() + 0.4
        while time.monotonic() < due:
            pass
        laser.emission(True)


def test_a_heartbeat_slower_than_five_seconds_is_refused() -> None:
    with pytest.raises(InputError, match=r"heartbeat_s=6, expected .* at most 5"):
        Patience(heartbeat_s=6)


@POSIX
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_to_the_guard_makes_dark_first(
    make: Make, light: Path, name: str
) -> None:
    laser = make()
    laser.open()
    laser.emission(True)
    os.kill(laser.pid, getattr(signal, name))
    _wait_dark(light)
    with pytest.raises(DeviceError, match=rf"(?s)stopped by {name}.*new guard made"):
        laser.is_emitting()


@POSIX
def test_a_killed_guard_is_replaced_by_one_that_makes_dark(
    make: Make, light: Path
) -> None:
    laser = make()
    laser.open()
    laser.emission(True)
    os.kill(laser.pid, signal.SIGKILL)
    with pytest.raises(DeviceError, match=r"exit code -9.*made the laser dark"):
        laser.set_power_mw(1.0)
    assert _now(light) == "dark"
    # Whoever asks next is told the same, and not that it was never opened.
    with pytest.raises(DeviceError, match=r"power_mw: the guard ended .*code -9"):
        laser.power_mw()
    laser.close()


@POSIX
def test_what_a_killed_guard_left_in_the_state_folder_is_removed(
    light: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LABCTL_STATE", str(tmp_path / "state"))
    options = {"light": str(light)}
    laser = GuardedLaser("laser", "acme.laser", options, bench="lab")
    laser.open()
    left = f"lab.guard-{laser.pid}.json"
    assert (tmp_path / "state" / left).exists()
    os.kill(laser.pid, signal.SIGKILL)
    with pytest.raises(DeviceError, match="exit code -9"):
        laser.set_power_mw(1.0)
    assert not list((tmp_path / "state").glob("*guard*"))


RUN = """
import json, sys
from labctl.guard import GuardedLaser

laser = GuardedLaser("laser", "acme.laser", json.loads(sys.argv[1]))
laser.open()
laser.emission(True)
print("lit", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def run(light: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that has a lit laser and waits."""
    process = subprocess.Popen(  # noqa: S603 - our own interpreter and text
        [sys.executable, "-c", RUN, json.dumps({"light": str(light)})],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == b"lit"
        assert _now(light) == "on"
        yield process
        process.kill()


def test_a_killed_run_leaves_the_laser_dark(
    run: subprocess.Popen[bytes], light: Path
) -> None:
    run.kill()
    _wait_dark(light)


KEEPING = """
import json, sys
from labctl.guard import GuardedLaser

laser = GuardedLaser(
    "laser", "acme.laser", json.loads(sys.argv[1]), bench="lab", keeps_lit=True
)
laser.open()
laser.beam(True)
laser.emission(True)
print(laser.pid, flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("both", [False, pytest.param(True, marks=POSIX)])
def test_the_light_of_a_killed_run_is_on_the_books(
    light: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, both: bool
) -> None:
    monkeypatch.setenv("LABCTL_STATE", str(tmp_path / "state"))
    kept = tmp_path / "state" / "lab.lit.json"
    before_s = time.monotonic()
    with subprocess.Popen(  # noqa: S603 - our own interpreter and text
        [sys.executable, "-c", KEEPING, json.dumps({"light": str(light)})],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        guard = int(process.stdout.readline())
        since_s = json.loads(kept.read_text())["since_s"]
        assert before_s <= since_s <= time.monotonic()
        if both:
            os.kill(guard, signal.SIGKILL)
        process.kill()
    if not both:
        _wait_dark(light)
        due = time.monotonic() + 2.0
        while json.loads(kept.read_text())["since_s"] is not None:
            assert time.monotonic() < due, "the guard noted no end"
        ((start_s, end_s),) = state.LitLog("lab", time.monotonic()).spans
        assert start_s == since_s
        assert since_s < end_s <= time.monotonic()
        return
    laser = GuardedLaser(
        "laser", "acme.laser", {"light": str(light)}, bench="lab", keeps_lit=True
    )
    with laser:
        ((start_s, end_s),) = laser.lit_spans
        assert _now(light) == "dark"
        assert end_s - start_s == pytest.approx(duty.LONGEST_S)
        assert end_s <= time.monotonic()


def test_when_the_beam_was_open_is_kept_where_it_is_asked_for(
    light: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LABCTL_STATE", str(tmp_path / "state"))
    kept = tmp_path / "state" / "lab.lit.json"
    options = {"light": str(light)}
    with GuardedLaser("laser", "acme.laser", options, bench="lab") as laser:
        laser.beam(True)
        assert laser.lit_spans == []
    assert not kept.exists()
    kept.write_text("?", encoding="utf-8")
    with GuardedLaser(
        "laser", "acme.laser", options, bench="lab", keeps_lit=True
    ) as laser:
        assert str(kept) in laser.lit_doubt
        laser.beam(True)
        laser.emission(True)
        laser.emission(False)  # whatever the run says after it
        assert json.loads(kept.read_text())["since_s"] is None
        laser.beam(True)
        laser.beam(False)
        assert len(json.loads(kept.read_text())["spans"]) == 3


@POSIX
def test_ctrl_c_reaches_the_run_and_not_its_guard(
    run: subprocess.Popen[bytes], light: Path
) -> None:
    before = light.read_text()
    os.killpg(run.pid, signal.SIGINT)
    _wait_dark(light)
    # The guard lived to make dark and to close, which it does one after the other.
    assert run.wait(5) != 0
    _wait_lines(light, before.count("\n") + 2)


def _wait_lines(light: Path, lines: int) -> None:
    due = time.monotonic() + 2.0
    while light.read_text().count("\n") < lines:
        assert time.monotonic() < due, "the guard did not finish"


def _stopped(laser: GuardedLaser, within_s: float = 2.0) -> SafetyError:
    due = time.monotonic() + within_s
    while (error := laser.stopped()) is None:
        assert time.monotonic() < due, "the guard said nothing"
    return error


def test_a_hung_call_is_as_bad_as_a_silent_run_while_the_laser_emits(
    make: Make, light: Path
) -> None:
    patience = Patience(call_s=60.0, heartbeat_s=0.4)
    with make(fault="hang", patience=patience) as laser:
        laser.emission(True)
        with pytest.raises(DeviceTimeoutError, match="laser was made dark"):
            laser.settings()
        assert _now(light) == "dark"


def test_a_silent_run_is_told_at_its_next_sign_of_life(make: Make, light: Path) -> None:
    with make(patience=Patience(heartbeat_s=0.2)) as laser:
        laser.emission(True)
        error = _stopped(laser)
        assert isinstance(error, SilentRunError)
        assert not error.latches
        with pytest.raises(SilentRunError, match="was made dark"):
            laser.beat()
        assert _now(light) == "dark"


def test_a_laser_that_is_just_being_asked_is_not_to_blame_for_a_silent_run(
    make: Make, light: Path
) -> None:
    patience = Patience(call_s=10.0, heartbeat_s=1.2)
    with make(fault="faults slow", patience=patience) as laser:
        laser.emission(True)
        error = _stopped(laser)
        assert isinstance(error, SilentRunError)
        assert _now(light) == "dark"


def test_an_announced_phase_may_be_silent_until_its_deadline(make: Make) -> None:
    with make(patience=Patience(heartbeat_s=0.2)) as laser:
        laser.deadline(0.6)
        due = time.monotonic() + 0.4
        while time.monotonic() < due:
            assert laser.stopped() is None
        assert isinstance(_stopped(laser), SilentRunError)
        with pytest.raises(SilentRunError):
            laser.emission(True)


@pytest.mark.parametrize(
    ("fault", "kind", "said"),
    [
        ("warm", SafetyError, r"faults=warm, expected none; the laser was made dark"),
        ("interlock open", InterlockError, r"faults=interlock open, expected none"),
        ("faults silent", SafetyError, r"faults cannot be read \(.*no answer"),
        ("faults break", SafetyError, r"faults: its driver failed with KeyError"),
        (
            "faults hang",
            SafetyError,
            r"faults: no answer in time; the laser was made dark",
        ),
    ],
)
def test_a_lit_laser_is_asked_for_its_faults(
    make: Make, light: Path, fault: str, kind: type[SafetyError], said: str
) -> None:
    with make(fault=fault, patience=Patience(heartbeat_s=1.5)) as laser:
        laser.emission(True)
        due = time.monotonic() + 4.0
        with pytest.raises(kind, match=said):
            while time.monotonic() < due:  # it lives, and its beats hide nothing
                laser.beat()
        assert _now(light) == "dark"
        with pytest.raises(SafetyError):
            laser.emission(True)


def test_a_fault_of_the_laser_latches_even_if_the_run_dies_of_it(
    light: Path, latched: str
) -> None:
    options = {"light": str(light), "fault": "warm"}
    with GuardedLaser("laser", "acme.laser", options, bench=latched) as laser:
        assert laser.faults() == ["warm"]
        laser.emission(True)
        _stopped(laser)
    latch = state.latched(latched)
    assert latch is not None
    assert "faults=warm" in latch.why


def test_a_laser_that_answers_nothing_is_not_said_to_be_dark(
    light: Path, latched: str
) -> None:
    options = {"light": str(light), "fault": "mute"}
    with (
        suppress(LabctlError),  # of its end: it is lit
        GuardedLaser("laser", "acme.laser", options, bench=latched) as laser,
    ):
        laser.emission(True)
        error = str(_stopped(laser, within_s=4.0))
        assert "the laser could not be made dark: turn its key" in error
    latch = state.latched(latched)
    assert latch is not None
    assert "could not be made dark" in latch.why
    assert "was made dark" not in error + latch.why


@pytest.mark.parametrize("seconds", [0.0, 601.0, float("nan")])
def test_a_deadline_is_bounded(make: Make, seconds: float) -> None:
    with make() as laser, pytest.raises(ValueError, match="expected more than 0"):
        laser.deadline(seconds)


@pytest.fixture
def latched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("LABCTL_STATE", str(tmp_path / "state"))
    return "lab"


def test_a_latch_makes_dark_and_holds(light: Path, latched: str) -> None:
    laser = GuardedLaser("laser", "acme.laser", {"light": str(light)}, bench=latched)
    with laser:
        assert state.guards(latched) == {state.Owner(laser.pid, _host()): True}
        laser.emission(True)
        assert state.lit_guards(latched) == [state.Owner(laser.pid, _host())]
        state.latch(latched, "the door opened.")
        assert isinstance(_stopped(laser), LatchedError)
        assert _now(light) == "dark"
        assert state.lit_guards(latched) == []
        with pytest.raises(LatchedError, match="the door opened"):
            laser.emission(True)
    assert state.guards(latched) == {}
    with laser, pytest.raises(LatchedError, match="the door opened"):
        laser.emission(True)


def test_a_laser_that_takes_its_time_to_open_opens_under_a_latch(
    light: Path, latched: str
) -> None:
    state.latch(latched, "the door opened.")
    options = {"light": str(light), "fault": "slow to open"}
    with GuardedLaser("laser", "acme.laser", options, bench=latched) as laser:
        assert laser.identity().serial == "4711"
        with pytest.raises(LatchedError, match="the door opened"):
            laser.emission(True)
    assert set(light.read_text().split()) == {"dark"}


def _host() -> str:
    return state.Owner.me().host


# A run that beats until it is told otherwise, with a simulated laser.
BEATING = """
import sys, threading
from pathlib import Path
from labctl.guard import GuardedLaser, Patience

laser = GuardedLaser(
    "laser", "sim.laser", {}, beam=Path(sys.argv[1]), patience=Patience(heartbeat_s=1.0)
)
laser.open()
laser.set_power_mw(2.0)
laser.emission(True)
print(laser.pid, flush=True)
while sys.argv[2] == "beats":
    threading.Event().wait(0.05)
    laser.beat()
threading.Event().wait()
"""
Beating = Callable[[str], tuple["subprocess.Popen[str]", int]]


@pytest.fixture
def beating(tmp_path: Path) -> Iterator[Beating]:
    runs: list[subprocess.Popen[str]] = []

    def start(mode: str) -> tuple["subprocess.Popen[str]", int]:
        words = [sys.executable, "-c", BEATING, str(tmp_path / "beam"), mode]
        run = subprocess.Popen(  # noqa: S603 - our own interpreter and text
            words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        runs.append(run)
        assert run.stdout is not None
        return run, int(run.stdout.readline())

    yield start
    for run in runs:
        run.kill()
        run.communicate()


@pytest.fixture
def beam(tmp_path: Path) -> Path:
    return tmp_path / "beam"


def _wait_beam_dark(path: Path, within_s: float) -> None:
    with Beam.open(path) as beam:
        due = time.monotonic() + within_s
        while beam.read().emission:
            assert time.monotonic() < due, "not dark in time"


@POSIX
def test_a_frozen_run_is_made_dark_and_finds_itself_failed(
    beating: Beating, beam: Path
) -> None:
    run, _ = beating("beats")
    with Beam.open(beam) as lit:
        assert lit.read().emission
    os.kill(run.pid, signal.SIGSTOP)
    _wait_beam_dark(beam, 1.0)
    os.kill(run.pid, signal.SIGCONT)
    _, err = run.communicate(timeout=10)
    assert "SilentRunError" in err
    with Beam.open(beam) as after:
        assert not after.read().emission


def test_a_run_that_hangs_in_a_driver_is_made_dark(
    beating: Beating, beam: Path
) -> None:
    beating("hangs")
    _wait_beam_dark(beam, 1.0)


@POSIX
def test_a_frozen_guard_ends_dark_by_the_lasers_own_watchdog(
    beating: Beating, beam: Path
) -> None:
    _, guard = beating("beats")
    os.kill(guard, signal.SIGSTOP)
    try:
        _wait_beam_dark(beam, 1.2)
    finally:
        os.kill(guard, signal.SIGKILL)


@POSIX
def test_run_and_guard_killed_in_one_moment_end_dark_by_the_watchdog(
    beating: Beating, beam: Path
) -> None:
    run, guard = beating("beats")
    os.kill(guard, signal.SIGSTOP)
    run.kill()
    os.kill(guard, signal.SIGKILL)
    _wait_beam_dark(beam, 1.2)


@POSIX
def test_the_watchdog_is_kicked_for_as_long_as_the_run_lives(
    beating: Beating, beam: Path
) -> None:
    beating("beats")
    with Beam.open(beam) as lit:
        first = lit.read().watchdog_due_s
        due = time.monotonic() + 5.0
        while lit.read().watchdog_due_s < first + 1.5:
            assert lit.read().emission
            assert time.monotonic() < due, "nobody kicks"


def test_a_guard_that_had_no_turn_reads_before_it_judges(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seconds = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: seconds)
    refused: list[Callable[[str], SafetyError]] = []
    for beats in (True, False):
        kept = _Guard(io.BytesIO(), io.BytesIO())
        kept._lit, kept._patience = True, Patience(heartbeat_s=2.0)
        monkeypatch.setattr(kept, "_refuse", refused.append)
        seconds += 10  # it was stopped, and the beats of the run lie in the pipe
        kept._watch()
        assert refused == []
        if beats:
            kept._events.put(_Heard(b'{"call": "beat"}\n'))
            kept._step()
            assert refused == []
    # Only once: a run that was silent as well is found out at the next turn.
    seconds += 10
    kept._watch()
    assert [type(told("dark")) for told in refused] == [SilentRunError]
