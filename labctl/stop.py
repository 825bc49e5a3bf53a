"""Make a bench dark from any terminal, and lift the latch that keeps it so.

::

    labctl dark    latch -> every guard of the bench sees it, goes dark, says so
                   nobody has the bench -> its laser is opened, which makes it dark
                   no bench is named -> every real bench of the current directory
    labctl clear   a person has looked: the latch is lifted, the reason is kept
"""

import os
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from labctl import bench, document, registry, state
from labctl.bench import BenchSource
from labctl.errors import (
    InputError,
    LabctlError,
    LaserStillOnError,
    ProtocolError,
    SafetyError,
)
from labctl.guard import GuardedLaser
from labctl.state import Latch, Owner, Ownership

# A guard looks for the latch ten times a second, then has a laser call to make.
ANSWER_S: Final = 5.0
LOOK_S: Final = 0.05
WHY: Final = "a person asked for dark."


@dataclass(frozen=True)
class Stopped:
    """What was made dark.

    Parameters
    ----------
    latch
        What keeps the bench dark.
    guards
        Guards that held its laser, and said that it is dark.
    opened
        Whether nobody held the laser and it was opened to make it dark.
    """

    latch: Latch
    guards: list[Owner]
    opened: bool

    def text(self) -> str:
        """Say it to a person."""
        if self.guards:
            who = ", ".join(str(owner) for owner in self.guards)
            how = f"the guard that has its laser ({who}) made it dark"
        elif self.opened:
            how = "nobody had its laser: it was opened, which makes it dark, and closed"
        else:
            how = "no run has it"
        return (
            f"bench {self.latch.bench}: dark; {how}.\n"
            f"next:  labctl clear --bench {self.latch.bench} --reason TEXT"
        )

    def as_json(self) -> dict[str, object]:
        """For ``--json``."""
        return {
            "bench": self.latch.bench,
            "dark": True,
            "guards": [owner.pid for owner in self.guards],
            "opened": self.opened,
        }


@dataclass(frozen=True)
class Target:
    """A bench that is to be dark, whether its file can be used or not.

    Parameters
    ----------
    name
        Its name, which its guards know it by.
    reason
        Why it is this one.
    source
        Its file; None where that has faults.
    path
        Where the file lies.
    faults
        What is wrong with it; empty where nothing is.
    """

    name: str
    reason: str
    source: BenchSource | None
    path: Path
    faults: str = ""

    def line(self) -> str:
        """Say which bench it is, and why."""
        return f"bench: {self.name} ({self.reason})"

    def dark(self) -> Stopped:
        """Make it dark now, and keep it dark until a person lifts the latch.

        Returns
        -------
        stopped
            What was made dark.

        Raises
        ------
        SafetyError
            Nobody has its laser, and its file has faults: it cannot be opened.
        """
        if self.source is not None:
            return dark(self.source)
        latch, there = _latch(self.name)
        if there or bench.seems_simulated(self.path):
            return Stopped(latch, there, opened=False)
        text = (
            f"bench {self.name}: latched, and no guard has its laser; it was not "
            f"opened to make it dark, as its file has faults. If it emits, turn its "
            f"key by hand. Then correct the file and repeat labctl dark:\n{self.faults}"
        )
        raise SafetyError(text)


@dataclass(frozen=True)
class Targets:
    """What ``labctl dark`` means.

    Parameters
    ----------
    benches
        At least one.
    notes
        Bench files that are passed over as they have faults, a line each.
    """

    benches: tuple[Target, ...]
    notes: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """Say it to a person."""
        return [*(each.line() for each in self.benches), *self.notes]

    def dark(self) -> "Darkness":
        """Make each of them dark, whatever becomes of the others."""
        made: list[Stopped] = []
        failures: list[LabctlError] = []
        for each in self.benches:  # guards first: a laser to open may take its time
            state.latch(each.name, WHY)
        for each in self.benches:
            try:
                made.append(each.dark())
            except LabctlError as err:
                failures.append(err)
        return Darkness(tuple(made), tuple(failures))


@dataclass(frozen=True)
class Darkness:
    """What ``labctl dark`` did.

    Parameters
    ----------
    made
        Benches that are dark.
    failures
        Why others may not be.
    """

    made: Sequence[Stopped]
    failures: Sequence[LabctlError]

    def text(self) -> str:
        """Say it to a person."""
        return "\n".join(each.text() for each in self.made)

    def as_json(self) -> dict[str, object]:
        """For ``--json``: of several benches the first, and all in a list."""
        said: list[dict[str, Any]] = [each.as_json() for each in self.made]
        if len(said) + len(self.failures) > 1:
            return {"dark": not self.failures, "benches": said}
        return said[0] if said else {}

    def raise_failures(self) -> None:
        """Raise the gravest of what failed, with the others as notes on it."""
        ordered = sorted(
            self.failures, key=lambda error: not isinstance(error, SafetyError)
        )
        for error in ordered:
            for other in ordered[1:]:
                error.add_note(f"and: {other}")
            raise error


def targets(option: str | None) -> Targets:
    """Decide which benches are to be dark.

    A person who names none means the light that is there: every real bench of the
    current directory. A file with faults stops nobody: its guards are reached by the
    name of the bench alone.

    Parameters
    ----------
    option
        What the command line names, if it does.

    Returns
    -------
    targets
        At least one.

    Raises
    ------
    InputError
        A bench is named that is not there.
    """
    if option is not None or os.environ.get(bench.ENVIRONMENT, ""):
        return Targets((_target(*bench.choose(None, option)),))
    there = bench.survey()
    reason = f"the only real bench in {bench.FOLDER}"
    if len(there.real) > 1:
        reason = f"one of {len(there.real)} real benches in {bench.FOLDER}"
    found = [_target(name, reason) for name in there.real]
    notes = []
    for path in there.broken:
        each = _target(str(path), "its file has faults, its guard does not need it")
        # Without a real bench that can be read, the one that cannot is meant.
        if state.guards(each.name) or (not there.real and path in there.doubtful):
            found.append(each)
        else:
            notes.append(
                f"passed over: {path.as_posix()} has faults, and no guard has its "
                f"laser. See: labctl validate {path.as_posix()}"
            )
    if not found:
        found = [_target(bench.DEFAULT, f"no real bench in {bench.FOLDER}")]
    return Targets(tuple(found), tuple(notes))


_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]*")


def _target(name: str, reason: str) -> Target:
    path = document.find_bench(name)
    try:
        source = bench.load(path)
    except ProtocolError as err:
        return Target(_called(path), reason, None, path, str(err))
    return Target(source.file.name, reason, source, path)


def _called(path: Path) -> str:
    """Name a bench whose file has faults: as the file does, else by its folder."""
    try:
        name = document.glance(path).get("name")
    except ProtocolError:
        name = None
    if isinstance(name, str) and _NAME.fullmatch(name):
        return name
    return path.absolute().parent.name


def _latch(name: str) -> tuple[Latch, list[Owner]]:
    """Latch a bench, and wait until every guard says that its laser is dark.

    Raises
    ------
    LaserStillOnError
        One does not say so.
    """
    latch = state.latch(name, WHY)
    there = list(state.guards(name))
    due = time.monotonic() + ANSWER_S
    while lit := state.lit_guards(name):
        if time.monotonic() > due:
            text = (
                f"bench {name}: no word from the guard ({lit[0]}) within {ANSWER_S:g} "
                "s, expected that its laser is dark. Turn the laser's key by hand."
            )
            raise LaserStillOnError(text)
        time.sleep(LOOK_S)
    return latch, there


def dark(source: BenchSource) -> Stopped:
    """Make a bench dark now, and keep it dark until a person lifts the latch.

    Parameters
    ----------
    source
        The bench file.

    Returns
    -------
    stopped
        What was made dark.
    """
    latch, there = _latch(source.file.name)
    opened = not there and not source.file.simulated
    if opened:
        _open_and_close(source)
    return Stopped(latch, there, opened)


def clear(source: BenchSource, reason: str) -> Latch:
    """Lift the latch of a bench.

    Parameters
    ----------
    source
        The bench file.
    reason
        Why a person thinks that it is safe.

    Returns
    -------
    latch
        The one that was lifted.
    """
    return state.clear(source.file.name, reason)


def _open_and_close(source: BenchSource) -> None:
    """Let a guard open the laser, after which it is dark.

    Raises
    ------
    LaserStillOnError
        A run has the bench and no guard answers.
    """
    name, laser = source.file.name, source.file.devices.laser
    try:
        owned = Ownership(name)
    except InputError as err:
        text = (
            f"bench {name}: a run has it, and no guard answers ({err}) Turn the "
            "laser's key by hand, then end that run."
        )
        raise LaserStillOnError(text) from err
    try:
        registry.load(laser.driver)
        with GuardedLaser("laser", laser.driver, laser.options):
            pass  # dark after open, dark after close
    finally:
        owned.release()
