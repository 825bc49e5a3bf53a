"""The newest state that is whole is taken; one that does not fit is refused."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import h5py
import numpy as np
import pytest

from labctl.errors import RecordError
from labctl.recording.header import Header
from labctl.recording.layout import ShotSpec, train_layout
from labctl.recording.reader import Record
from labctl.recording.writer import Recorder
from labctl.reservoir import Ledger, PhaseScale
from labctl.run.checkpoint import SPENT, Keeper, newest, schedule, told

LENGTHS = {"shots": 0, "steps": 0, "probes": 0}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A record with two states to go on from and a model alone."""
    header = Header(
        title="t", kind="train", protocol_text="", protocol_resolved={},
        bench_name="b", bench_text="", bench_sha256="", simulated=True, notice="",
        seeds={}, instrument={}, calibrations={},
        reservoir={
            "exposure_s": 1.0, "gain_db": 0.0, "power_mw": 1.0,
            "region": [0, 0, 2, 3], "bins": [1, 2], "macropixels": [2, 3],
        },
    )  # fmt: skip
    out = tmp_path / "run.h5"
    layout = train_layout(ShotSpec(6, 2))
    with Recorder.create(out, layout=layout, header=header) as recorder:
        for step in (1, 2):
            state = {"course": {"step": step}, "lengths": LENGTHS}
            recorder.checkpoint(step, "step", {**state, "w": np.full(99, step)})
            recorder.event("info", SPENT, told(step, (1.5 * step, 4.0 * step)))
        recorder.checkpoint(2, "final", {"network": {}})
        recorder.commit()
    return out


def test_takes_the_newest_and_knows_where_it_ended(path: Path) -> None:
    with Record.open(path) as record:
        found = newest(record)
        end = record.checkpoints()[1]
    assert found is not None
    assert found["course"] == {"step": 2}
    assert found["spent_s"] == (3.0, 8.0)
    assert found["lengths"] == {
        **LENGTHS, "ckpts": 2, "blob": end.offset + end.nbytes
    }  # fmt: skip


def test_passes_over_what_is_damaged(path: Path) -> None:
    with Record.open(path) as record:
        last = record.checkpoints()[1]
    with h5py.File(path, "r+", libver="v110") as file:
        blob = file["entry/checkpoints/blob"]
        blob[last.offset + last.nbytes - 1] ^= 1
    with Record.open(path) as record:
        found = newest(record)
    assert found is not None
    assert found["course"] == {"step": 1}
    assert found["spent_s"] == (1.5, 4.0)
    with h5py.File(path, "r+", libver="v110") as file:
        file["entry/checkpoints/blob"][:] = 0
    with Record.open(path) as record:
        assert newest(record) is None


def protocol_of(steps: int, shots: int | None, budget: int = 3000) -> Any:  # noqa: ANN401 - a stand-in
    return SimpleNamespace(
        record=SimpleNamespace(checkpoint_every=steps, checkpoint_every_shots=shots),
        budget=SimpleNamespace(shots=budget),
    )


@pytest.mark.parametrize(
    ("steps", "shots", "kept"),
    [
        # Of 26 steps of 66 exposures after 1300: 300, a tenth, are five steps.
        (50, None, [5, 10, 15, 20, 25]),
        (50, 700, [11, 22]),
        (10, 700, [10, 20]),
        (2, None, [2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26]),
        (50, 10**6, []),
    ],
)
def test_what_a_loss_would_cost_decides_which_steps_are_kept(
    steps: int, shots: int | None, kept: list[int]
) -> None:
    found, plan = [], schedule(protocol_of(steps, shots))
    plan.last = 1300
    for step in range(1, 27):
        made = 1300 + 66 * step
        if plan.is_due(step, made):
            plan.last = made
            found.append(step)
    assert found == kept


@pytest.fixture
def keeper() -> Any:  # noqa: ANN401 - a factory of keepers on stand-ins
    """A keeper whose unfinished run left a state."""

    def make(state: dict[str, Any] | None) -> Keeper:
        unfinished = None if state is None else SimpleNamespace(checkpoint=state)
        session = SimpleNamespace(
            setting=SimpleNamespace(unfinished=unfinished, out=Path("run.h5")),
            bench=SimpleNamespace(world=None),
            recorder=SimpleNamespace(lengths=LENGTHS, rewind=lambda _lengths: None),
        )
        reservoir = SimpleNamespace(
            scale=PhaseScale(np.linspace(0, 2 * np.pi, 256)), ledger=Ledger(None)
        )
        protocol = SimpleNamespace(
            surrogate=SimpleNamespace(replay=10), **vars(protocol_of(50, None))
        )
        return Keeper(
            cast("Any", session), cast("Any", reservoir), cast("Any", protocol), "abc"
        )

    return make


def test_a_new_run_begins_anew(keeper: Any) -> None:  # noqa: ANN401 - see there
    assert not keeper(None).restore(None)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"data_sha256": "xyz"}, r"data sha256=abc, expected xyz"),
        (
            {"data_sha256": "abc", "course": {}},
            r"checkpoint: KeyError.*expected the state of this protocol",
        ),
        (
            {"data_sha256": "abc", "course": {"evidence": 3}},
            r"checkpoint: TypeError.*expected the state of this protocol",
        ),
    ],
)
def test_refuses_what_does_not_fit(
    keeper: Any,  # noqa: ANN401 - see there
    state: dict[str, Any],
    message: str,
) -> None:
    with pytest.raises(RecordError, match=message):
        keeper(state).restore(None)
