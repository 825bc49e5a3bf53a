"""Scripts of bytes: every byte that goes out, every reply that comes, none left."""

from collections.abc import Callable, Iterator, Sequence
from typing import Final

import pytest
from typing_extensions import override

from drivers import ell14, pm100, text
from drivers.laser import dialect, superk
from drivers.wire import Link
from tests.contracts.models import Time

Pair = tuple[bytes, bytes]
REPLY_S: Final = 0.01


class Script(Link):
    """The other end of a link: what it must hear, what it says to it."""

    def __init__(self) -> None:
        self.clock = Time()
        self.pairs: list[Pair] = []
        self.said = b""
        self.opened = self.closed = 0

    def expect(self, *pairs: Pair) -> None:
        """Add to what comes next; nothing may be left of what came before."""
        assert self.pairs == []
        self.pairs.extend(pairs)

    @override
    def open(self) -> None:
        self.opened += 1
        self.said = b""

    @override
    def close(self) -> None:
        self.closed += 1

    @override
    def write(self, data: bytes) -> None:
        assert self.pairs, f"{data!r} was sent, expected nothing more"
        wanted, reply = self.pairs.pop(0)
        assert data == wanted
        self.said += reply

    @override
    def read(self, timeout_s: float) -> bytes:
        if not self.said:
            self.clock.sleep(timeout_s)
            return b""
        self.clock.sleep(REPLY_S)
        return self.drop()

    @override
    def drop(self) -> bytes:
        said, self.said = self.said, b""
        return said


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[Script]:
    made = Script()

    def link(address: str, **options: object) -> Link:
        del address, options
        return made

    for module in (dialect, superk, ell14, pm100, text):
        monkeypatch.setattr(module, "link", link)
    yield made
    assert made.pairs == []


@pytest.fixture
def lines() -> Callable[..., list[Pair]]:
    """Make pairs of text; the ends of commands and replies are added."""

    def make(
        pairs: Sequence[tuple[str, str | None]], send: str = "\r\n", end: str = "\r\n"
    ) -> list[Pair]:
        return [
            (
                f"{command}{send}".encode(),
                f"{reply}{end}".encode() if reply is not None else b"",
            )
            for command, reply in pairs
        ]

    return make
