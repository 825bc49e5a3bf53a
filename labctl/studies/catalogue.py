"""Every study by the name that a protocol calls it."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from labctl.calibration import ReservoirEntry
from labctl.protocol import (
    Activations,
    DestroyJacobian,
    DeviceActivations,
    Evolution,
    LossFields,
    Manifold,
    RestoreJacobian,
    Superposition,
)
from labctl.recording.layout import Column
from labctl.studies import (
    activations,
    destroy_jacobian,
    device_activations,
    evolution,
    loss_fields,
    manifold,
    restore_jacobian,
    superposition,
)
from labctl.studies.job import BenchStudy, Study

STUDIES: Final[Mapping[str, Study[Any]]] = MappingProxyType(
    {
        "loss-fields": loss_fields.STUDY,
        "restore-jacobian": restore_jacobian.STUDY,
        "destroy-jacobian": destroy_jacobian.STUDY,
        "activations": activations.STUDY,
    }
)
BENCH_STUDIES: Final[Mapping[str, BenchStudy[Any]]] = MappingProxyType(
    {
        "device-activations": device_activations.STUDY,
        "superposition": superposition.STUDY,
        "manifold": manifold.STUDY,
        "evolution": evolution.STUDY,
    }
)
_DEFAULTS = (
    LossFields(name="loss-fields"),
    RestoreJacobian(name="restore-jacobian"),
    DestroyJacobian(name="destroy-jacobian"),
    Activations(name="activations"),
)
_BENCH_DEFAULTS = (
    DeviceActivations(name="device-activations"),
    Superposition(name="superposition"),
    Manifold(name="manifold"),
    Evolution(name="evolution"),
)
# Of the shipped benches; the sizes of a column are not told.
_ENTRY: Final = ReservoirEntry(
    macropixels=(16, 16), region=(3, 3, 27, 27), bins=(3, 3), exposure_s=1, power_mw=1
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
Most are computed; those at the end of this page take a bench and leave every shot in
the record. At the end every claim is judged by the rows, in `claims`. Beside `job`,
`seed` and `score` the rows have columns of their own; axes in brackets depend on the
protocol.
"""


def markdown() -> str:
    """Return the page ``docs/reference/studies.md``."""
    parts = [_HEAD]
    for spec in _DEFAULTS:
        study = STUDIES[spec.name]
        parts.append(_section(spec.name, study.about, study.columns(spec)))
    for bench_spec in _BENCH_DEFAULTS:
        bench_study = BENCH_STUDIES[bench_spec.name]
        columns = bench_study.columns(bench_spec, _ENTRY)
        parts.append(_section(bench_spec.name, bench_study.about, columns))
    return "\n".join(parts)


def _section(name: str, about: str, columns: Sequence[Column]) -> str:
    rows = ["| column | type | unit | what it is |", "| --- | --- | --- | --- |"]
    rows += [_row(column) for column in columns]
    return f"## `{name}`\n\n{about}.\n\n" + "\n".join(rows) + "\n"


def _row(column: Column) -> str:
    dims = ", ".join(("N", *column.dims))
    kind = f"{column.dtype} [{dims}]"
    return f"| `{column.name}` | {kind} | {column.units} | {column.text} |"
