import re

import numpy as np
import pytest

from labctl.recording import layout
from labctl.recording.layout import Layout

NAME = re.compile(r"[a-z_][a-z0-9_]*")


def test_names_are_small_letters_digits_and_underscores(
    layouts: dict[str, Layout],
) -> None:
    for plan in layouts.values():
        for table, column in plan.columns():
            assert NAME.fullmatch(table.name)
            assert NAME.fullmatch(column.name)
        for rows in plan.rows:
            assert all(NAME.fullmatch(name) for name, _ in rows.fields)


def test_a_signal_has_one_axis_a_dimension(layouts: dict[str, Layout]) -> None:
    for plan in layouts.values():
        for table in plan.tables:
            if not table.signal:
                continue
            known = {c.name for c in table.columns} | {a.name for a in table.fixed}
            assert len(table.axes) == 1 + len(table.column(table.signal).shape)
            assert set(table.axes) <= known
            for name in table.auxiliary:
                assert table.column(name).shape == table.column(table.signal).shape


def test_columns_of_tables_that_grow_together_differ(
    layouts: dict[str, Layout],
) -> None:
    for plan in layouts.values():
        for counter in plan.counters[: -len(("events", "ckpts", "blob", "writers"))]:
            names = [
                column.name
                for table, column in plan.columns()
                if table.counter == counter and not column.filled
            ]
            assert len(names) == len(set(names))


def test_commits_count_every_table_and_every_row(layouts: dict[str, Layout]) -> None:
    for plan in layouts.values():
        commits = plan.rows[-1]
        counted = {table.counter for table in plan.tables}
        counted |= {rows.counter for rows in plan.rows[:-1]} | {"blob"}
        assert commits.path == "commits"
        assert [name for name, _ in commits.fields] == ["time_s", *plan.counters]
        assert counted == set(plan.counters)


def test_a_frame_is_a_chunk_and_wide_rows_share_32_kib(plan: Layout) -> None:
    frames = plan.table("shots").column("frames")
    levels = plan.table("shots_meta").column("levels")
    assert frames.chunk == (1, 5, 7)
    assert levels.chunk == (32768 // 15, 15)
    assert plan.table("shots").column("shot").chunk == (1024,)


def test_a_row_wider_than_a_chunk_is_a_chunk() -> None:
    column = layout.Column("wide", "f8", "Wide", shape=(9999,), dims=("pixel",))
    assert column.chunk == (1, 9999)
    assert column.row_bytes == 9999 * np.dtype("f8").itemsize


def test_an_unknown_table_is_refused_with_the_known_ones(plan: Layout) -> None:
    with pytest.raises(ValueError, match=r"table=points, expected one of shots, sh"):
        plan.table("points")


def test_further_metrics_become_curves(plan: Layout) -> None:
    training = plan.table("training")
    assert training.column("entropy").dtype == "f8"
    assert "entropy" in training.auxiliary


def test_an_unknown_column_is_a_key_error(plan: Layout) -> None:
    with pytest.raises(KeyError, match="nothing"):
        plan.table("shots").column("nothing")
