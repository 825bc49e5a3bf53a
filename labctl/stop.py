"""Make a bench dark from any terminal, and lift the latch that keeps it so.

::

    labctl dark    latch -> every guard of the bench sees it, goes dark, says so
                   nobody has the bench -> its laser is opened, which makes it dark
    labctl clear   a person has looked: the latch is lifted, the reason is kept
"""

import time
from dataclasses import dataclass
from typing import Final

from labctl import registry, state
from labctl.bench import BenchSource
from labctl.errors import InputError, LaserStillOnError
from labctl.guard import GuardedLaser
from labctl.state import Latch, Owner, Ownership

# A guard looks for the latch ten times a second, then has a laser call to make.
ANSWER_S: Final = 5.0
LOOK_S: Final = 0.05


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

    Raises
    ------
    LaserStillOnError
        A guard did not say that its laser is dark, or nobody can reach it.
    """
    name = source.file.name
    latch = state.latch(name, "a person asked for dark.")
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
