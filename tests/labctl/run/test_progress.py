"""What a person sees of a run."""

import io
import math

from rich.console import Console
from rich.progress import Progress as RichProgress

from labctl.run.progress import Live, Plain, Silent, Update, shown_on


def update(done: int, stage: str = "training") -> Update:
    figures = {"loss": 1.25, "cosine": math.nan}
    return Update(stage, done, 100, 7 * done, 700, figures)


def test_plain_lines_are_not_too_many() -> None:
    stream = io.StringIO()
    plain = Plain(stream)
    for done in range(1, 101):
        plain.update(update(done))
    lines = stream.getvalue().splitlines()
    assert 10 <= len(lines) <= 12
    assert lines[-1] == "training 100/100  shots 700 of 700  loss 1.250"


def test_every_stage_begins_with_a_line() -> None:
    stream = io.StringIO()
    plain = Plain(stream)
    plain.update(update(1))
    plain.update(update(1, "reference"))
    assert "reference 1/100" in stream.getvalue()


def test_no_bar_off_a_terminal() -> None:
    stream = io.StringIO()
    with shown_on(stream) as progress:
        progress.say("hello [red]you[/red]")
    assert stream.getvalue() == "hello [red]you[/red]\n"


def test_live_display_keeps_the_last_line_of_a_stage() -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=120)
    with RichProgress(console=console, transient=True) as bars:
        live = Live(bars)
        live.say("[not markup]")
        live.update(update(50))
        live.update(update(100))
    assert "[not markup]" in stream.getvalue()
    assert "training 100/100" in stream.getvalue()


def test_silence_is_silent() -> None:
    silent = Silent()
    silent.say("nothing")
    silent.update(update(1))
