"""The course of a study: its claims, then the figures of its own."""

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Final

from labctl.recording.reader import Record
from labctl.report.section import Section, Table
from labctl.report.study import (
    activations,
    destroy_jacobian,
    device_activations,
    evolution,
    loss_fields,
    manifold,
    restore_jacobian,
    superposition,
)

Draw = Callable[[Record], Iterator[Section]]
FIGURES: Final[Mapping[str, Draw]] = MappingProxyType(
    {
        "loss-fields": loss_fields.sections,
        "restore-jacobian": restore_jacobian.sections,
        "destroy-jacobian": destroy_jacobian.sections,
        "activations": activations.sections,
        "device-activations": device_activations.sections,
        "superposition": superposition.sections,
        "manifold": manifold.sections,
        "evolution": evolution.sections,
    }
)


def sections(record: Record) -> Iterator[Section]:
    """Say what a study found.

    Parameters
    ----------
    record
        Of kind ``study``.

    Yields
    ------
    section
        Claims first.
    """
    yield _claims(record)
    name = str(record.resolved.get("study", {}).get("name", ""))
    if name in FIGURES and record.lengths["fits"]:
        yield from FIGURES[name](record)


def _claims(record: Record) -> Section:
    title = "What the document claims, and what was found"
    found = record.table("claims")
    if not len(found["claim"]):
        done = record.lengths["fits"]
        text = f"{done} jobs have ended; claims are judged after the last one."
        return Section("claims", title, (text,))
    rows = tuple(
        (str(found["claim"][n]), str(found["measured"][n]), str(found["verdict"][n]))
        for n in range(len(found["claim"]))
    )
    note = "Brackets hold 95 % bootstrap intervals of the mean over the seeds."
    heads = ("claim", "measured here", "verdict")
    return Section("claims", title, table=Table(heads, rows, note))
