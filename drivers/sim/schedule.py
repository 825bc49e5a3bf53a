"""When faults meet a device: which exposure, or which moment, finds it broken.

A schedule is a pure function of shot number and virtual time, so a run that was
resumed meets the faults that the uninterrupted one would have met. What ended a run
is met once: a run that goes on finds it mended.
"""

from collections.abc import Collection, Iterable

from drivers.sim.faults import Fault
from drivers.sim.noise import PerShot, Stream


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
