"""Faults on command: what breaks in a device, as a bench file has it.

The laser's process imports this, so it needs no random numbers; when a fault meets a
device is :mod:`drivers.sim.schedule`.
"""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

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
