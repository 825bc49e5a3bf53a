"""The notebook page says what is true: its code runs, and prints what it shows."""

import contextlib
import io
import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parent.parent / "docs" / "tutorials" / "notebook.md"


def test_the_code_of_the_notebook_page_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = PAGE.read_text(encoding="utf-8")
    blocks = re.findall(
        r"```python\n(.*?)```(?:\n\n```text\n(.*?)```)?", text, re.DOTALL
    )
    assert len(blocks) == text.count("```python") > 3
    notebook: dict[str, object] = {"__name__": "notebook"}
    for code, shown in blocks:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code, str(PAGE), "exec"), notebook)  # noqa: S102 - our own page
        if shown:
            assert printed.getvalue() == shown
    assert [path.suffix for path in (tmp_path / "records").glob("*.h5")] == [".h5"]


def test_the_core_of_the_notebook_page_is_ten_lines() -> None:
    text = PAGE.read_text(encoding="utf-8")
    first = text.split("```python\n")[1].split("```")[0]
    assert len([line for line in first.splitlines() if line]) <= 10
