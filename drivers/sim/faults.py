"""Faults on command: which exposure, or which moment, finds a device broken.

A schedule is a pure function of shot number and virtual time, so a run that was
resumed meets the faults that the uninterrupted one would have met. What ended a run
is met once: a run that goes on finds it mended.
"""

import threading
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from drivers.sim.noise import PerShot, Stream

#: A call that does not return at all, as in a library that waits for ever.
NO_RETURN: Final = "no_return"
_KEYS = frozenset(
    {"kind", "at_shot", "count", "at_s", "duration_s", "probability", "delay_s"}
)
_WHEN = ("at_shot", "at_s", "probability")


@dataclass(frozen=True)
class Fault:
    """One entry of a schedule.

    Parameters
    ----------
    kind
        What breaks.
    at_shot, count
        First exposure that it meets, and how many in a row.
    at_s, duration_s
        Virtual time at which it starts, and for how long.
    probability
        Of each exposure, alone; seeded.
    delay_s
        How late what is late comes.
    """

    kind: str
    at_shot: int | None = None
    count: int = 1
    at_s: float | None = None
    duration_s: float = 0.0
    probability: float | None = None
    delay_s: float = 0.1

    def meets(self, shot: int, time_s: float, chance: float) -> bool:
        """Whether it meets an exposure.

        Parameters
        ----------
        shot
            Number of the exposure.
        time_s
            Virtual time.
        chance
            Uniform number of this entry and exposure, in [0, 1).
        """
        if self.at_shot is not None:
            return self.at_shot <= shot < self.at_shot + self.count
        if self.at_s is not None:
            return self.at_s <= time_s < self.at_s + self.duration_s
        return chance < (self.probability or 0.0)


def parse_faults(
    entries: Sequence[Mapping[str, object]], kinds: Sequence[str], where: str
) -> tuple[Fault, ...]:
    """Make a schedule from a bench file's list.

    Parameters
    ----------
    entries
        Each with ``kind`` and one of ``at_shot`` (with ``count``), ``at_s``
        (with ``duration_s``) and ``probability``; ``delay_s`` for what is late.
    kinds
        What can break.
    where
        Where the list stands, for the messages.

    Returns
    -------
    faults
        Checked.

    Raises
    ------
    ValueError
        An entry is impossible.
    """
    return tuple(
        _parsed(entry, kinds, f"{where}.faults.{number}")
        for number, entry in enumerate(entries)
    )


def _parsed(entry: Mapping[str, object], kinds: Sequence[str], where: str) -> Fault:
    unknown = sorted(set(entry) - _KEYS)
    if unknown:
        text = f"{where}.{unknown[0]} is not known, expected one of {sorted(_KEYS)}"
        raise ValueError(text)
    kind = entry.get("kind")
    if kind not in kinds:
        text = f"{where}.kind={kind!r}, expected one of {', '.join(kinds)}"
        raise ValueError(text)
    if sum(key in entry for key in _WHEN) != 1:
        text = f"{where}: got {sorted(entry)}, expected one of {', '.join(_WHEN)}"
        raise ValueError(text)
    if ("at_s" in entry) != ("duration_s" in entry):
        text = f"{where}: got {sorted(entry)}, expected duration_s with at_s"
        raise ValueError(text)
    for key in entry.keys() - {"kind"}:
        _check_number(f"{where}.{key}", key, entry[key])
    return Fault(**entry)  # type: ignore[arg-type]  # keys and values were checked


def _check_number(where: str, key: str, got: object) -> None:
    whole = key in {"at_shot", "count"}
    if isinstance(got, bool) or not isinstance(got, int if whole else (int, float)):
        wanted = "a whole number" if whole else "a number"
        text = f"{where}={got!r}, expected {wanted}"
        raise ValueError(text)  # noqa: TRY004 - one kind of error for a whole list
    high = 1.0 if key == "probability" else 1e12
    if not 0 <= got <= high:
        text = f"{where}={got}, expected 0 to {high:g}"
        raise ValueError(text)


def never_return() -> None:
    """Wait for ever: only another thread, or the end of the process, helps."""
    threading.Event().wait()


class Schedule:
    """The faults of one device.

    Parameters
    ----------
    faults
        In order: of two that meet an exposure, the first counts.
    seed
        Of the run.
    stream
        Of the device's chances.
    ending
        Kinds that end a run.
    """

    def __init__(
        self,
        faults: Iterable[Fault],
        seed: int,
        stream: Stream,
        *,
        ending: Collection[str] = (),
    ) -> None:
        self._faults, self._ending = tuple(faults), frozenset(ending)
        self._mended = set[int]()
        self._chances = PerShot(seed, stream, max(1, len(self._faults)))

    def __bool__(self) -> bool:
        return bool(self._faults)

    def at(self, shot: int, time_s: float, spared: int = -1) -> Fault | None:
        """Return the fault that meets an exposure, if any.

        Parameters
        ----------
        shot
            Number of the exposure.
        time_s
            Virtual time.
        spared
            What ends a run and meets an exposure up to this one did so before: it
            is left out, and so is the rest of an entry that is not by chance.

        Returns
        -------
        fault
            The first in the list.
        """
        if not self._faults:
            return None
        chances = self._chances.uniform(shot)
        for number, fault in enumerate(self._faults):
            if number in self._mended:
                continue
            if not fault.meets(shot, time_s, float(chances[number])):
                continue
            if shot > spared or fault.kind not in self._ending:
                return fault
            if fault.probability is None:
                self._mended.add(number)
        return None
