import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from labctl import duty, state
from labctl.errors import InputError, LatchedError
from labctl.state import LitLog, Ownership, Presence


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LABCTL_STATE", str(tmp_path / "state"))
    return tmp_path / "state"


def _elsewhere(code: str) -> str:
    """Run code in a process that dies without cleaning up."""
    text = f"import os\nfrom labctl import state\n{code}\nos._exit(9)"
    done = subprocess.run(  # noqa: S603 - our own interpreter and code
        [sys.executable, "-c", text], capture_output=True, text=True, check=False
    )
    assert done.returncode == 9, done.stderr
    return done.stdout


def test_a_bench_is_free_until_it_is_latched(here: Path) -> None:
    assert state.latched("lab") is None
    made = state.latch("lab", "the meter\nwas silent.")
    assert made.why == "the meter was silent."
    assert f"process {os.getpid()}" in made.who
    assert state.latched("lab") == made
    assert state.latched("other") is None
    assert json.loads((here / "lab.latch.json").read_text())["bench"] == "lab"


def test_the_first_reason_stays() -> None:
    first = state.latch("lab", "one")
    assert state.latch("lab", "two") == first


def test_a_latch_tells_who_when_why_and_how_to_lift_it() -> None:
    error = state.latch("lab", "the door opened.").error()
    assert isinstance(error, LatchedError)
    assert not error.latches
    for part in ("lab: latched dark since 2", "the door opened", "--reason TEXT"):
        assert part in str(error)


def test_clearing_keeps_the_reason_in_a_log(here: Path) -> None:
    latch = state.latch("lab", "the door opened.")
    assert state.clear("lab", "closed the door") == latch
    assert state.latched("lab") is None
    row = json.loads((here / "lab.cleared.jsonl").read_text())
    assert (row["why"], row["reason"]) == ("the door opened.", "closed the door")


def test_nothing_to_clear_and_no_reason_are_refused() -> None:
    with pytest.raises(InputError, match="latch=none, expected one"):
        state.clear("lab", "for fun")
    state.latch("lab", "why")
    with pytest.raises(InputError, match="reason is empty"):
        state.clear("lab", "  ")
    assert state.latched("lab") is not None


@pytest.mark.parametrize("text", ["{", "[]", '{"bench": "lab"}'])
def test_a_latch_that_cannot_be_read_holds(here: Path, text: str) -> None:
    here.mkdir()
    (here / "lab.latch.json").write_text(text)
    latch = state.latched("lab")
    assert latch is not None
    assert "cannot be read" in latch.why


def test_one_owner_at_a_time_and_the_other_is_told_who() -> None:
    mine = Ownership("lab")
    assert mine.stale is None
    with pytest.raises(InputError, match=rf"is held by process {os.getpid()} on"):
        Ownership("lab")
    Ownership("other").release()
    mine.release()
    Ownership("lab").release()


def test_a_lock_that_a_dead_process_left_is_told_apart() -> None:
    pid = int(
        _elsewhere("kept = state.Ownership('lab'); print(os.getpid(), flush=True)")
    )
    mine = Ownership("lab")
    assert mine.stale is not None
    assert mine.stale.pid == pid
    mine.release()


def test_guards_tell_whether_they_are_dark() -> None:
    guard = Presence("lab")
    me = state.Owner.me()
    assert state.lit_guards("lab") == [me], "not known dark yet"
    guard.tell(dark=True)
    assert state.lit_guards("lab") == []
    assert state.guards("lab") == {me: True}
    guard.tell(dark=False)
    assert state.lit_guards("lab") == [me]
    assert state.lit_guards("other") == []
    guard.end()
    assert state.guards("lab") == {}


def test_what_a_dead_guard_left_is_removed(here: Path) -> None:
    _elsewhere("kept = state.Presence('lab')")
    assert list(here.glob("lab.guard-*.json"))
    assert state.guards("lab") == {}
    assert not list(here.glob("lab.guard-*"))


@pytest.mark.parametrize("text", ["", "[]", '{"pid": "x", "host": 1, "dark": true}'])
def test_a_guard_whose_word_cannot_be_read_is_not_dark(here: Path, text: str) -> None:
    guard = Presence("lab")
    guard.tell(dark=True)
    (path,) = here.glob("lab.guard-*.json")
    path.write_text(text)
    (owner,) = state.lit_guards("lab")
    assert owner.pid == os.getpid()
    assert "cannot be read" in str(owner)
    guard.end()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
@pytest.mark.parametrize(("mode", "expected"), [(0o770, 0o660), (0o700, 0o600)])
def test_a_common_folder_has_common_files(here: Path, mode: int, expected: int) -> None:
    here.mkdir()
    here.chmod(mode)
    mine, guard = Ownership("lab"), Presence("lab")
    state.latch("lab", "the door opened.")
    state.clear("lab", "closed the door")
    state.latch("lab", "the door opened again.")
    modes = {path.name: path.stat().st_mode & 0o777 for path in here.iterdir()}
    assert len(modes) == 6
    assert set(modes.values()) == {expected}, modes
    guard.end()
    mine.release()


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs two users: root"
)
def test_what_another_user_keeps_to_himself_stops_in_words(here: Path) -> None:
    here.mkdir()
    here.chmod(0o755)
    mine, guard = Ownership("lab"), Presence("lab")
    guard.tell(dark=True)
    state.latch("lab", "the door opened.")
    for path in here.iterdir():
        path.chmod(0o600)
    here.chmod(0o777)
    for each in here.parents:
        if not each.stat().st_mode & 0o001:
            each.chmod(0o711)
    try:
        os.seteuid(65534)
        latch = state.latched("lab")
        assert latch is not None
        assert "cannot be read" in latch.why
        assert [owner.pid for owner in state.lit_guards("lab")] == [os.getpid()]
        with pytest.raises(InputError, match=r"belongs to another user.*mode 2770"):
            Ownership("lab")
    finally:
        os.seteuid(0)
    guard.end()
    mine.release()


def test_ten_runs_in_a_row_have_one_duty() -> None:
    limits = {"duty": 0.5, "window_s": 60.0}
    now_s, true_s = 1000.0, 0.0
    for _ in range(10):
        log = LitLog("lab", now_s)
        now_s += duty.Lit(log.spans).rest_s(now_s, **limits)
        log.begin(now_s)
        now_s, true_s = now_s + 20, true_s + 20
        log.end(now_s)
        now_s += 1.0
    # 40 s of light, then 30 s of dark; nobody waits without a cause.
    assert now_s - 1000 == pytest.approx(true_s + 5 * 1 + 4 * 30 + 1)
    assert LitLog("other", now_s).spans == ()


def test_light_whose_end_nobody_saw_lasted_until_now(here: Path) -> None:
    LitLog("lab", 500.0).begin(500.0)
    log = LitLog("lab", 501.0)
    assert log.spans == ((501.0 - duty.LONGEST_S, 501.0),)
    assert not log.doubt
    assert json.loads((here / "lab.lit.json").read_text())["since_s"] is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "[" * 5000,
        '{"host": "a", "spans": [[0, 1]]}',
        '{"host": "a", "spans": [[0, NaN]], "since_s": null}',
        '{"host": "a", "spans": [[2, 1]], "since_s": null}',
        '{"host": "a", "spans": [[0, 1], [0.5, 2]], "since_s": null}',
        '{"host": "a", "spans": [[0, 1]], "since_s": 0.5}',
        '{"host": "a", "spans": [[0, 1, 2]], "since_s": null}',
        '{"host": "a", "spans": [["x", 1]], "since_s": null}',
        f'{{"host": "a", "spans": [[0, 1{"0" * 400}]], "since_s": null}}',
        " " * 300_000,
    ],
)
def test_a_damaged_history_counts_as_light_and_is_named(here: Path, text: str) -> None:
    LitLog("lab", 1000.0)
    path = here / "lab.lit.json"
    path.write_text(text)
    log = LitLog("lab", 1000.0)
    assert log.spans == ((1000.0 - duty.LONGEST_S, 1000.0),)
    assert str(path) in log.doubt
    assert not LitLog("lab", 1000.0).doubt, "it is whole again"


def test_the_history_of_another_computer_ends_now(here: Path) -> None:
    LitLog("lab", 1000.0)
    content = {"host": "elsewhere", "spans": [[7.0, 9.0]], "since_s": None}
    (here / "lab.lit.json").write_text(json.dumps(content))
    assert LitLog("lab", 1000.0).spans == ((998.0, 1000.0),)


def test_no_light_without_a_note_of_it(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = LitLog("lab", 1.0)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr(state, "_write", full)
    with pytest.raises(InputError, match=r"lab\.lit\.json.*no space left"):
        log.begin(2.0)
    with pytest.raises(InputError, match="Make room"):
        LitLog("lab", 3.0)
    monkeypatch.undo()
    monkeypatch.setenv("LABCTL_STATE", str(here))
    log.begin(4.0)
    log.begin(4.5)
    monkeypatch.setattr(state, "_write", full)
    with pytest.raises(InputError, match="no space left"):
        log.end(5.0)
    assert json.loads((here / "lab.lit.json").read_text())["since_s"] == 4.0


def test_the_state_folder_is_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LABCTL_STATE")
    assert state.folder().name == "labctl"
    assert state.folder().is_absolute()
