"""A bench in the hands of a person: one thread that owns it, and requests to it.

The thread that opened the bench turns round: it does what was asked for, takes a
frame, and tells the guard that it is alive; should it hang, the guard makes the bench
dark as in any run. Others only hand requests in and take pictures out.

Requests are read at every turn, however long a frame takes, and while one is waited
for: a request ends the wait, as the frame would show what is no longer so. To be dark
and to leave come before all else. Longer than one call of a device nobody waits.
"""

import itertools
import queue
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from labctl.bench import Bench
from labctl.calibration import Settle
from labctl.devices import Counts, Levels
from labctl.errors import FrameError, InputError, OutOfRangeError
from labctl.identity import REPEATABLE
from labctl.live import command, pattern, picture
from labctl.reservoir import calibration, pixel_scale

FRAME_S: Final = 0.08  # least time between two frames: the page draws no faster
LISTEN_S: Final = 0.1  # a frame or a panel is waited for so long without listening
UNWATCHED_S: Final = 10.0  # nobody looked for so long: no light
ARMED: Final = 64  # frames between two starts of the camera


@dataclass(frozen=True, order=True)
class _Request:
    """Something to be done by the thread that owns the bench; the least comes first."""

    is_patient: bool
    number: int
    do: Callable[[], None] = field(compare=False)
    answer: "Future[None]" = field(compare=False, default_factory=Future)


class _AskedError(Exception):
    """A request ends what was waited for."""


class Session:
    """A bench and the person at its page.

    Parameters
    ----------
    bench
        Open, and dark.
    """

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        entry = bench.file.reservoir
        self._scale = pixel_scale(bench.phase_curve_rad(), bench.slm.shape)
        self._settle_s = calibration(bench, Settle).settle_s
        self._expose = command.Expose(
            do="expose", exposure_s=entry.exposure_s, gain_db=entry.gain_db
        )
        self._power_mw = 0.0
        self._measured_mw = 0.0
        self._pattern = "flat, level 0"
        self._requests: queue.PriorityQueue[_Request] = queue.PriorityQueue()
        self._numbers = itertools.count(1)
        self._darkened = 0  # number of the last request to be dark
        self._settled_s = 0.0
        self._news = threading.Condition()
        self._message, self._number = b"", 0
        self._left = self._rejected = 0
        self._seen_s = time.monotonic()
        self._is_over = False
        self._why = ""

    @property
    def frames(self) -> int:
        """Frames that were shown."""
        return self._number

    @property
    def waiting(self) -> int:
        """Requests that were not begun yet, those given up among them."""
        return self._requests.qsize()

    def facts(self) -> dict[str, Any]:
        """Tell what does not change: identities, shapes and limits."""
        bench, limits = self._bench, self._bench.file.limits
        low_s, high_s = bench.camera.exposure_limits_s
        _, high_db = bench.camera.gain_limits_db
        _, laser_mw = bench.laser.power_limits_mw
        return {
            "bench": bench.file.name,
            "note": bench.file.note,
            "simulated": bench.simulated,
            "notice": bench.notice,
            "doubts": dict(bench.doubts),
            "devices": {role: asdict(who) for role, who in bench.identities().items()},
            "panel": {"shape": list(bench.slm.shape), "bits": bench.slm.bit_depth},
            "sensor": {
                "shape": list(bench.camera.shape),
                "saturation_dn": bench.camera.saturation_dn,
            },
            "region": list(bench.file.reservoir.region),
            "power_mw": [0.0, min(limits.power_mw, laser_mw)],
            "suggested_mw": bench.file.reservoir.power_mw,
            "exposure_s": [low_s, min(limits.exposure_s, high_s)],
            "gain_db": [0.0, high_db],
            "unwatched_s": UNWATCHED_S,
        }

    # What other threads may call.

    def ask(self, wanted: command.Command, timeout_s: float = 30.0) -> None:
        """Have something done.

        Parameters
        ----------
        wanted
            What.
        timeout_s
            How long to wait.

        Raises
        ------
        LabctlError
            It was refused, or failed.
        TimeoutError
            It was not begun in time and is forgotten; to be dark never is. Or it is
            being done.
        """
        urgent = isinstance(wanted, command.Dark | command.Leave)
        number = next(self._numbers)

        def do() -> None:
            if urgent:
                self._darkened = number
            if isinstance(wanted, command.Light) and number < self._darkened:
                raise _outdated()
            self._do(wanted)

        self._hand_in(_Request(not urgent, number, do), timeout_s)

    def show_file(self, name: str, data: bytes, timeout_s: float = 30.0) -> None:
        """Have the levels of a file shown.

        Parameters
        ----------
        name, data
            The file.
        timeout_s
            How long to wait.

        Raises
        ------
        LabctlError
            It was refused, or failed.
        TimeoutError
            As :meth:`ask`.
        """
        slm = self._bench.slm

        def show() -> None:
            levels = pattern.from_file(name, data, slm.shape, slm.bit_depth)
            self._show(levels, f"file {name}")

        self._hand_in(_Request(True, next(self._numbers), show), timeout_s)

    def look(self, after: int, timeout_s: float = 1.0) -> bytes:
        """Wait for a newer picture, and return the newest.

        Parameters
        ----------
        after
            Number of the one that was seen.
        timeout_s
            How long to wait.

        Returns
        -------
        message
            As :func:`labctl.live.picture.packed` makes it; empty where there is none.
        """
        self._seen_s = time.monotonic()
        with self._news:
            self._news.wait_for(
                lambda: self._number > after or self._is_over, timeout_s
            )
            return self._message if self._number > after else b""

    @property
    def is_over(self) -> bool:
        """Whether the bench was given back."""
        return self._is_over

    @property
    def why(self) -> str:
        """What ended it; empty where a person did."""
        return self._why

    def _hand_in(self, request: _Request, timeout_s: float) -> None:
        self._seen_s = time.monotonic()
        self._requests.put(request)
        if self._is_over:  # nobody may be left to do it
            self._refuse_all()
        try:
            request.answer.result(timeout_s)
        except TimeoutError:
            # Who was told that it failed must not see it happen later, but for dark.
            if request.is_patient:
                request.answer.cancel()
            raise

    def _refuse_all(self) -> None:
        while not self._requests.empty():
            try:
                request = self._requests.get_nowait()
            except queue.Empty:
                return
            text = "live: the bench was given back. Start labctl live again."
            if request.answer.set_running_or_notify_cancel():
                request.answer.set_exception(InputError(text))

    # What only the thread that owns the bench does.

    def run(self) -> None:
        """Serve until somebody leaves; the bench is dark afterwards.

        Raises
        ------
        LabctlError
            A device failed, or a safety limit stopped it.
        """
        try:
            with self._bench.dark_after():
                self._do(self._expose)
                self._do(command.Flat(do="flat"))
                while not self._is_over:
                    self._turn()
        except Exception as err:
            self._why = str(err) or type(err).__name__
            raise
        finally:
            self._end()

    def _end(self) -> None:
        with self._news:
            self._is_over = True
            self._news.notify_all()
        self._refuse_all()

    def _turn(self) -> None:
        start_s = time.monotonic()
        self._answer_all()
        if self._is_over:
            return
        self._watch(time.monotonic())
        # Meters take their time: a rest that falls due meanwhile is for the next watch.
        self._bench.beat(rests=False)
        try:
            self._wait_settled()
            self._take_frame()
        except _AskedError:
            self._left = 0  # that exposure is for nobody
            return
        left_s = start_s + FRAME_S - time.monotonic()
        if left_s > 0:
            with suppress(queue.Empty):
                self._answer(self._requests.get(timeout=left_s))

    def _listen(self) -> None:
        """End what is waited for, where there is a request.

        Raises
        ------
        _AskedError
            There is one.
        """
        if not self._requests.empty():
            raise _AskedError

    def _listen_for_dark(self) -> None:
        """End what brings light, where somebody wants it dark or leaves.

        Raises
        ------
        _AskedError
            Somebody does.
        """
        with self._requests.mutex:
            waiting = self._requests.queue[:1]  # the first of a heap is the least
        if waiting and not waiting[0].is_patient:
            raise _AskedError

    def _answer_all(self) -> None:
        """Do what has been asked for by now; what comes meanwhile is for later."""
        for _ in range(self._requests.qsize()):
            try:
                self._answer(self._requests.get_nowait())
            except queue.Empty:
                return
            if self._is_over:
                return
            self._bench.beat(rests=False)

    def _answer(self, request: _Request) -> None:
        """Do what was asked for; a refusal is for who asked, a failure ends it all."""
        if not request.answer.set_running_or_notify_cancel():
            return  # who asked has given up
        try:
            request.do()
        except BaseException as err:
            request.answer.set_exception(err)
            # Nothing was sent: a value beyond a limit, or a file that does not fit.
            if not isinstance(err, InputError | OutOfRangeError):
                raise
        else:
            request.answer.set_result(None)

    def _watch(self, now_s: float) -> None:
        # A run rests for its duty and goes on; a person is asked again.
        unseen = now_s - self._seen_s > UNWATCHED_S
        if self._power_mw and (unseen or self._bench.rest_s()):
            self._dark()

    def _take_frame(self) -> None:
        camera = self._bench.camera
        if self._left == 0:
            camera.disarm()
            camera.arm(ARMED)
            self._left = ARMED
        self._left -= 1
        patience_s = self._bench.file.frame_s
        camera.trigger()
        try:
            frame = self._bench.frame(
                self._expose.exposure_s + patience_s,
                listen=self._listen,
                listen_s=LISTEN_S,
            )
        except FrameError as err:
            if err.kind not in REPEATABLE:
                raise
            self._rejected += 1
            self._left = 0
            return
        if self._power_mw:
            self._measured_mw = self._bench.laser.power_mw()
        saturated = int((frame.data >= self._bench.camera.saturation_dn).sum())
        self._publish(frame.data, saturated)
        if self._power_mw:
            self._bench.judge_saturation(saturated)

    def _publish(self, data: Counts, saturated: int) -> None:
        warning = f"{saturated} saturated pixels. Lower the power or the exposure."
        self._bench.beat(rests=False)  # a picture of a large frame takes its time
        made = picture.of(data, self._bench.camera.saturation_dn)
        state = {
            "number": self._number + 1,
            "lit": bool(self._power_mw),
            "power_mw": self._power_mw,
            "measured_mw": self._measured_mw if self._power_mw else 0.0,
            "exposure_s": self._expose.exposure_s,
            "gain_db": self._expose.gain_db,
            "view": self._expose.view,
            "pattern": self._pattern,
            "rejected": self._rejected,
            "warning": warning if saturated and self._power_mw else "",
            "rest_s": 0.0 if self._power_mw else self._bench.rest_s(),
        }
        message = picture.packed(made, state)
        with self._news:
            self._message, self._number = message, self._number + 1
            self._news.notify_all()

    def _do(self, wanted: command.Command) -> None:
        match wanted:
            case command.Light():
                self._light(wanted.power_mw)
            case command.Dark():
                self._dark()
            case command.Expose():
                self._configure(wanted)
            case command.Leave():
                self._dark()
                self._is_over = True
            case _:
                self._show(self._levels(wanted), _told(wanted))

    def _light(self, power_mw: float) -> None:
        rest_s = 0.0 if self._power_mw else self._bench.rest_s()
        if rest_s:
            text = (
                f"power_mw={power_mw:g}: the beam rests {rest_s:.1f} s more (bench "
                "file: limits.duty), expected a request after that. Ask again then."
            )
            raise InputError(text)
        try:
            self._bench.light(power_mw, listen=self._listen_for_dark)
        except _AskedError:
            self._power_mw = 0.0
            raise _outdated() from None
        except OutOfRangeError:
            # The bench's limit changes nothing, the laser's own leaves it dark.
            if not self._bench.laser.is_emitting():
                self._power_mw = 0.0
            raise
        self._power_mw = power_mw

    def _dark(self) -> None:
        # No ramp: nothing is listened to meanwhile, and whoever wants it dark wants
        # it now.
        self._power_mw = 0.0
        self._bench.dark(at_once=True)

    def _configure(self, wanted: command.Expose) -> None:
        region = self._bench.file.reservoir.region if wanted.view == "region" else None
        with self._disarmed():
            taken = self._bench.configure_camera(
                exposure_s=wanted.exposure_s, gain_db=wanted.gain_db, region=region
            )
        self._expose = wanted.model_copy(
            update={"exposure_s": taken.exposure_s, "gain_db": taken.gain_db}
        )

    @contextmanager
    def _disarmed(self) -> Iterator[None]:
        self._bench.camera.disarm()
        self._left = 0
        yield

    def _levels(
        self, wanted: command.Flat | command.Grating | command.Checker
    ) -> Levels:
        slm, scale = self._bench.slm, self._scale.levels
        match wanted:
            case command.Flat():
                return pattern.flat(slm.shape, slm.bit_depth, wanted.level)
            case command.Grating():
                period, angle = wanted.period_px, wanted.angle_deg
                return pattern.grating(slm.shape, scale, period, angle)
            case command.Checker():
                return pattern.checker(slm.shape, scale, wanted.size_px)

    def _show(self, levels: Levels, name: str) -> None:
        self._bench.slm.write(levels)
        self._settled_s = self._bench.clock.now() + self._settle_s
        self._pattern = name

    def _wait_settled(self) -> None:
        clock = self._bench.clock
        while (left_s := self._settled_s - clock.now()) > 0:
            clock.sleep(min(left_s, LISTEN_S))
            self._bench.beat(rests=False)
            self._listen()


def _outdated() -> InputError:
    text = "light: dark was asked for meanwhile, expected nothing. Ask again."
    return InputError(text)


def _told(wanted: command.Flat | command.Grating | command.Checker) -> str:
    match wanted:
        case command.Flat():
            return f"flat, level {wanted.level}"
        case command.Grating():
            return f"grating, {wanted.period_px:g} px at {wanted.angle_deg:g}°"
        case command.Checker():
            return f"checker, {wanted.size_px} px"
