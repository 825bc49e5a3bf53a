"""Claims come first; a study that has not ended says how far it is."""

from collections.abc import Callable
from pathlib import Path

import pytest

from labctl.recording.header import Header
from labctl.recording.layout import study_layout
from labctl.recording.reader import Record
from labctl.recording.writer import Recorder
from labctl.report.study.course import sections


@pytest.fixture
def begun(tmp_path: Path, make_header: Callable[..., Header], markup: str) -> Path:
    """A study that was interrupted, with markup in every text of its own."""
    path = tmp_path / "run.h5"
    header = make_header("study", {"study": {"name": markup}}, markup)
    with Recorder.create(path, layout=study_layout(()), header=header) as recorder:
        recorder.append("fits", job=[markup], seed=[0], score=[0.5])
        recorder.set_status("interrupted")
    return path


def test_a_study_that_has_not_ended_says_how_far_it_is(begun: Path) -> None:
    with Record.open(begun) as record:
        (section,) = sections(record)
    assert section.sentences == (
        "1 jobs have ended; claims are judged after the last one.",
    )
