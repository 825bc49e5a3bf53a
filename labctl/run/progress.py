"""How a run tells a person how far it is: live on a terminal, plain lines elsewhere."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, TextIO

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

# Off a terminal a line is written when this much of the stage has passed …
PLAIN_SHARE = 0.1
# … but a slow stage speaks at least this often.
PLAIN_PAUSE_S = 20.0


@dataclass(frozen=True)
class Update:
    """Where a stage stands.

    Parameters
    ----------
    stage
        What is going on, such as ``training``.
    done, total
        Steps of this stage.
    shots, budget
        Exposures spent, and what the protocol allows; None without a budget.
    figures
        Named numbers of the moment, such as loss and surrogate cosine.
    """

    stage: str
    done: int
    total: int
    shots: int
    budget: int | None
    figures: dict[str, float]

    def text(self) -> str:
        """All of it in one line."""
        parts = [f"{self.stage} {self.done}/{self.total}"]
        of = "" if self.budget is None else f" of {self.budget}"
        parts.append(f"shots {self.shots}{of}")
        parts += [
            f"{name} {value:.3f}"
            for name, value in self.figures.items()
            if value == value
        ]
        return "  ".join(parts)


class Progress(Protocol):
    """Whoever listens to a run."""

    def say(self, text: str) -> None:
        """Show a line that stays."""

    def update(self, update: Update) -> None:
        """Show where the run stands."""


class Silent:
    """Shows nothing: for notebooks and tests."""

    def say(self, text: str) -> None:
        """Keep quiet."""

    def update(self, update: Update) -> None:
        """Keep quiet."""


class Plain:
    """Plain lines, not too many.

    Parameters
    ----------
    stream
        Where they go.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._last: tuple[str, float, float] = ("", 0.0, 0.0)

    def say(self, text: str) -> None:
        """Write a line."""
        print(text, file=self._stream, flush=True)

    def update(self, update: Update) -> None:
        """Write a line when enough has passed since the last one."""
        stage, share, moment = self._last
        now = time.monotonic()
        new_share = update.done / max(update.total, 1)
        if (
            update.stage == stage
            and update.done < update.total
            and new_share < share + PLAIN_SHARE
            and now < moment + PLAIN_PAUSE_S
        ):
            return
        self._last = (update.stage, new_share, now)
        self.say(update.text())


class Live:
    """A bar with the figures of the moment beside it.

    Parameters
    ----------
    bars
        An open rich progress display.
    """

    def __init__(self, bars: RichProgress) -> None:
        self._bars = bars
        self._stage = ""
        self._task = bars.add_task("starting", total=None)

    def say(self, text: str) -> None:
        """Write a line above the bar."""
        self._bars.console.print(text, markup=False, highlight=False)

    def update(self, update: Update) -> None:
        """Move the bar; a new stage leaves the last line of the old one."""
        if update.stage != self._stage:
            self._stage = update.stage
            self._bars.reset(self._task, total=update.total)
        self._bars.update(
            self._task,
            completed=update.done,
            total=update.total,
            description=update.text(),
        )
        if update.done == update.total:
            self.say(update.text())


@contextmanager
def shown_on(stream: TextIO) -> Iterator[Progress]:
    """Show progress on a stream: live when it is a terminal, else plain lines.

    Parameters
    ----------
    stream
        Where to.

    Yields
    ------
    progress
        To be handed to the run.
    """
    if not stream.isatty():
        yield Plain(stream)
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TimeRemainingColumn(),
    )
    console = Console(file=stream)
    with RichProgress(*columns, console=console, transient=True) as bars:
        yield Live(bars)
