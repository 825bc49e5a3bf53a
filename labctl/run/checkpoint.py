"""What a training goes on from: everything at the boundary of two steps.

::

    trainer, ledger, light path --Keeper.state--> a checkpoint of the record
    newest checkpoint that is whole --newest--> Keeper.restore --> the same again

Rows after the checkpoint are made again and compared with those in the record.
"""

import math
import re
from dataclasses import dataclass
from typing import Any

from labctl.errors import RecordError
from labctl.protocol import TrainProtocol
from labctl.recording.layout import BLOB, CHECKPOINT_INDEX
from labctl.recording.reader import Record
from labctl.reservoir import Reservoir
from labctl.run.memory import Memory
from labctl.run.setting import Session
from labctl.training.trainer import Trainer

State = dict[str, Any]
KIND = "step"
FINAL = "final"
"""What a checkpoint is for: to go on from, or the model of a training that ended."""
SPENT = "spent"
_TOLD = re.compile(r"step (\d{1,12}): (\d+\.\d{3}) s of digital work in (\d+\.\d{3}) s")
# Counters of what a training makes; events and writers belong to a process.
TABLES = ("shots", "steps", "probes")
# So much of a training a kill may cost, where its protocol does not say.
SHARES = 10


@dataclass
class Schedule:
    """When the end of a step is kept: by what would be lost.

    It asks for nothing but counts, so that a run that was resumed keeps the same.

    Parameters
    ----------
    steps, shots
        Steps of the course, and exposures since the last checkpoint, that are kept at
        the latest.
    last
        Exposures at the last checkpoint.
    """

    steps: int
    shots: int
    last: int = 0

    def is_due(self, step: int, shots: int) -> bool:
        """Say whether a step ends with a checkpoint.

        Parameters
        ----------
        step
            Steps done.
        shots
            Exposures that the course has made.
        """
        return step % self.steps == 0 or shots - self.last >= self.shots


def schedule(protocol: TrainProtocol) -> Schedule:
    """Say when a training keeps its state.

    Parameters
    ----------
    protocol
        The protocol.
    """
    entry = protocol.record
    shots = entry.checkpoint_every_shots
    if shots is None:
        shots = math.ceil(protocol.budget.shots / SHARES)
    return Schedule(entry.checkpoint_every, shots)


def newest(record: Record) -> State | None:
    """Read the newest checkpoint that a run can go on from.

    Parameters
    ----------
    record
        The record; checkpoints whose bytes are damaged are passed over.

    Returns
    -------
    state
        With the lengths that the record had; None where there is none.
    """
    entries = record.checkpoints()
    for number in range(len(entries) - 1, -1, -1):
        entry = entries[number]
        if entry.kind != KIND:
            continue
        try:
            _, _, state = record.checkpoint(number)
        except RecordError:
            continue
        # A stranger's state is looked at no further here than it is used here.
        if isinstance(state.get("lengths"), dict):
            end = {
                CHECKPOINT_INDEX.counter: number + 1,
                BLOB.name: entry.offset + entry.nbytes,
            }
            return {
                **state,
                "lengths": {**state["lengths"], **end},
                "spent_s": _spent(record, entry.step),
            }
    return None


def told(step: int, spent_s: tuple[float, float]) -> str:
    """Say what a training has cost up to a checkpoint, as an event.

    It is no part of the checkpoint: that is the same to the bit however long it took.

    Parameters
    ----------
    step
        Of the checkpoint.
    spent_s
        Seconds of digital work, and seconds in all.
    """
    digital_s, whole_s = spent_s
    return f"step {step}: {digital_s:.3f} s of digital work in {whole_s:.3f} s"


def _spent(record: Record, step: int) -> tuple[float, float]:
    """Find what :func:`told` said at a checkpoint; older records say nothing."""
    for event in reversed(record.events()):
        found = _TOLD.fullmatch(event.text)
        if event.source == SPENT and found and int(found[1]) == step:
            return float(found[2]), float(found[3])
    return 0.0, 0.0


class Keeper:
    """Takes the state of a training, and puts it back.

    ``stages`` counts what was done between the first fit and the first step.

    Parameters
    ----------
    session
        Record and bench.
    reservoir
        The device.
    protocol
        Says how much a surrogate remembers, and when it is kept.
    data_sha256
        Hash of the data.
    """

    def __init__(
        self,
        session: Session,
        reservoir: Reservoir,
        protocol: TrainProtocol,
        data_sha256: str,
    ) -> None:
        self._session, self._reservoir = session, reservoir
        capacity = protocol.surrogate.replay
        self._memory = Memory(session.recorder, reservoir.scale, capacity)
        self._data_sha256 = data_sha256
        self.schedule = schedule(protocol)
        self.stages = 0
        self.untrained = math.nan
        self.spent_s = (0.0, 0.0)

    def state(self, trainer: Trainer) -> State:
        """Give everything that going on needs, at the boundary of two steps.

        Parameters
        ----------
        trainer
            The training.
        """
        world, course = self._session.bench.world, trainer.state_dict()
        lengths = self._session.recorder.lengths
        evidence = course["evidence"]
        if evidence["fitter"] is not None:
            fitter = self._memory.pack(evidence["fitter"])
            course = {**course, "evidence": {**evidence, "fitter": fitter}}
        return {
            "course": course,
            "world": None if world is None else world.state(),
            "shots": self._reservoir.shots,
            "untrained": self.untrained,
            "stages": self.stages,
            "lengths": {name: lengths[name] for name in TABLES},
            "data_sha256": self._data_sha256,
        }

    def restore(self, trainer: Trainer) -> bool:
        """Go on from the checkpoint of an unfinished run, if it has one.

        Parameters
        ----------
        trainer
            A training that was made with the same arguments.

        Returns
        -------
        restored
            False for a new run, and for one that has to begin anew.

        Raises
        ------
        RecordError
            The checkpoint does not fit the protocol, or the data are others.
        """
        left = self._session.setting.unfinished
        state = None if left is None else left.checkpoint
        if state is None:
            return False
        where = self._session.setting.out
        if state["data_sha256"] != self._data_sha256:
            text = (
                f"{where}: data sha256={self._data_sha256[:12]}, expected "
                f"{state['data_sha256'][:12]}. Restore the data of the run."
            )
            raise RecordError(text)
        try:
            self._put_back(trainer, state)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            text = (
                f"{where}: checkpoint: {error!r}, expected the state of this "
                "protocol. Restore the file from a copy, or run the protocol anew."
            )
            raise RecordError(text) from error
        return True

    def _put_back(self, trainer: Trainer, state: State) -> None:
        course = state["course"]
        evidence = course["evidence"]
        if evidence["fitter"] is not None:
            fitter = self._memory.unpack(evidence["fitter"])
            course = {**course, "evidence": {**evidence, "fitter": fitter}}
        self._session.recorder.rewind(state["lengths"])
        self._reservoir.ledger.load_state_dict(state["ledger"])
        self._reservoir.shots = int(state["shots"])
        if self._session.bench.world is not None:
            self._session.bench.world.restore(state["world"])
        trainer.load_state_dict(course)
        self.schedule.last = trainer.evidence.shots
        self.stages = int(state["stages"])
        self.untrained = float(state["untrained"])
        self.spent_s = state["spent_s"]
