"""Every study by the name that a protocol calls it."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from labctl.protocol import (
    Activations,
    DestroyJacobian,
    LossFields,
    RestoreJacobian,
)
from labctl.recording.layout import Column
from labctl.studies import (
    activations,
    destroy_jacobian,
    loss_fields,
    restore_jacobian,
)
from labctl.studies.job import Study

STUDIES: Final[Mapping[str, Study[Any]]] = MappingProxyType(
    {
        "loss-fields": loss_fields.STUDY,
        "restore-jacobian": restore_jacobian.STUDY,
        "destroy-jacobian": destroy_jacobian.STUDY,
        "activations": activations.STUDY,
    }
)
_DEFAULTS = (
    LossFields(name="loss-fields"),
    RestoreJacobian(name="restore-jacobian"),
    DestroyJacobian(name="destroy-jacobian"),
    Activations(name="activations"),
)
_HEAD = """# Studies

The experiments of the document that this project comes from. Each is a protocol of
`kind: study` in `protocols/studies`, in two sizes: `smoke` takes seconds and says
little, `full` takes minutes. What they found is in
[seed-claims.md](../explanations/seed-claims.md). This page is written by
`labctl.studies.catalogue`.

    labctl run protocols/studies/loss-fields-full.yaml
    labctl report records/<the file that it names>

A study is a list of jobs. Each leaves a row in `fits` as it ends, so an interrupted
study goes on with `labctl run --resume` where it stood: what stands is not done again.
At the end every claim is judged by the rows, in `claims`. Beside `job`, `seed` and
`score` the rows have columns of their own; axes in brackets depend on the protocol.
"""


def markdown() -> str:
    """Return the page ``docs/reference/studies.md``."""
    parts = [_HEAD]
    for spec in _DEFAULTS:
        study = STUDIES[spec.name]
        parts.append(f"## `{spec.name}`\n\n{study.about}.\n")
        rows = ["| column | type | unit | what it is |", "| --- | --- | --- | --- |"]
        rows += [_row(column) for column in study.columns(spec)]
        parts.append("\n".join(rows) + "\n")
    return "\n".join(parts)


def _row(column: Column) -> str:
    dims = ", ".join(("N", *column.dims))
    kind = f"{column.dtype} [{dims}]"
    return f"| `{column.name}` | {kind} | {column.units} | {column.text} |"
