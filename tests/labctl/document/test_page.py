"""Pages and schemas that are made from models."""

import json
from typing import Annotated

from pydantic import Field

from labctl.document import Schema
from labctl.document.page import json_schema, reference_page, schema_text


class _Part(Schema):
    """A part.

    Parameters
    ----------
    size_um
        Size of ``it``, over
        two lines.
    low, high
        Both | ends.
    """

    size_um: Annotated[float, Field(gt=0)]
    low: int = 1
    high: int | None = None


class _Special(_Part):
    """A special part.

    Parameters
    ----------
    parts
        What is in it.
    """

    parts: list[_Part] = Field(default_factory=list)


PAGE = """\
# Parts

Read this.

## part.yaml

### _Special

A special part.

| key | takes | default | meaning |
|---|---|---|---|
| `size_um` | a number above 0 | needed | Size of `it`, over two lines. |
| `low` | a whole number | `1` | Both \\| ends. |
| `high` | a whole number | none | Both \\| ends. |
| `parts` | a list, each _Part | empty | What is in it. |

### _Part

A part.

| key | takes | default | meaning |
|---|---|---|---|
| `size_um` | a number above 0 | needed | Size of `it`, over two lines. |
| `low` | a whole number | `1` | Both \\| ends. |
| `high` | a whole number | none | Both \\| ends. |
"""


def test_a_page_has_a_table_for_every_section() -> None:
    assert reference_page("Parts", "Read this.", {"part.yaml": _Special}) == PAGE


def test_the_schema_carries_the_docstrings() -> None:
    schema = json_schema(_Special)
    assert schema["description"] == "A special part."
    assert schema["properties"]["parts"]["description"] == "What is in it."
    assert schema["additionalProperties"] is False
    assert json.loads(schema_text(_Special)) == schema
