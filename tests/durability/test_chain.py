"""One record, killed at random and gone on with, again and again."""

import json
import random
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Nursery = Callable[..., tuple[int, str]]


@pytest.mark.slow
def test_a_chain_of_kills_repairs_and_resumes_loses_nothing(
    nursery: Nursery,
    tmp_path: Path,
    soaked: bool,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path, told = tmp_path / "run.h5", tmp_path / "told"
    source = random.Random(20)  # noqa: S311 - no secret
    acknowledged: dict[str, int] = {}
    killed = 60 if soaked else 10
    for _ in range(killed):
        told.unlink(missing_ok=True)
        delay_s = source.uniform(0.02, 0.35 if soaked else 0.15)
        code, said = nursery(
            do="write", path=str(path), told=str(told), kill_after_s=delay_s
        )
        assert code == -9, said
        last = told.read_text().split("\n")[-2]
        assert json.loads(last)["shots"] >= acknowledged.get("shots", 0)
        acknowledged = json.loads(last)
        code, said = nursery(
            do="verify", path=str(path), acknowledged=acknowledged, limit_s=120
        )
        assert code == 0, said
    code, said = nursery(do="check", path=str(path), acknowledged=acknowledged)
    assert code == 0, said
    with capsys.disabled():
        sys.stdout.write(
            f"\n| one record, killed and gone on with at random | {killed} kills, "
            f"{acknowledged['shots']} shots, {acknowledged['ckpts']} checkpoints | 0 |"
        )
    assert acknowledged["writers"] == killed
