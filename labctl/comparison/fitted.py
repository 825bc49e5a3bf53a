"""On which graphics cards the surrogates of a comparison were fitted."""

import json
from collections.abc import Iterable

from labctl.comparison.job import Job
from labctl.optics.cuda import card
from labctl.protocol import TrainProtocol
from labctl.recording.reader import Record
from labctl.run import method


def here(left: Iterable[Job]) -> str:
    """Name the card that trainings will be fitted on; empty where none is.

    Parameters
    ----------
    left
        Trainings that this computer does.
    """
    return card("cuda") if any(map(_is_on_card, left)) else ""


def apart(finished: Iterable[Job], now: str) -> str:
    """Say which trainings are finished on another card than those beside them.

    Parameters
    ----------
    finished
        Trainings that are read and not run again.
    now
        Card of those that are left; empty where they have none, or nobody knows.

    Returns
    -------
    said
        For a person; empty where all were fitted on one kind of card.
    """
    found: dict[str, list[str]] = {}
    for training in filter(_is_on_card, finished):
        with Record.open(training.out) as record:
            then = str(record.environment.get("fit_card", ""))
        found.setdefault(then or "a card that its record does not name", []).append(
            training.name
        )
    if len({*found, *([now] if now else [])}) < 2:
        return ""
    others = " and ".join(
        f"{then} ({'; '.join(names)})" for then, names in found.items() if then != now
    )
    left = f", and what is left is fitted on {now}" if now else ""
    return (
        f"finished trainings were fitted on {others}{left}: these cards round each in "
        "their own way, and their digital seconds do not compare. Run all on one card "
        "where that matters."
    )


def _is_on_card(training: Job) -> bool:
    protocol = TrainProtocol.model_validate(json.loads(training.text))
    return protocol.surrogate.device == "cuda" and method.fits(protocol)
