"""A bench in the hands of a test, served by a thread of its own."""

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import pytest

from labctl import bench
from labctl.bench import Bench
from labctl.errors import LabctlError
from labctl.live import command
from labctl.live.server import serve
from labctl.live.session import Session


@dataclass
class Hand:
    """A session, its bench, the page's address, and what ended it."""

    session: Session
    table: Bench
    address: str
    thread: threading.Thread
    errors: list[LabctlError] = field(default_factory=list)

    def leave(self) -> None:
        """Give the bench back; may be called twice."""
        if not self.session.is_over:
            self.session.ask(command.Leave(do="leave"))
        self.thread.join(20)
        assert not self.thread.is_alive()


@contextmanager
def held(name: str, prepare: Callable[[Bench], None]) -> Iterator[Hand]:
    ready: queue.Queue[tuple[Session, Bench, str]] = queue.Queue()
    errors: list[LabctlError] = []

    def own() -> None:
        try:
            source = bench.load(name)
            with bench.open(source, allow_uncalibrated=True) as table:
                prepare(table)
                session = Session(table)
                with serve(session) as served:
                    ready.put((session, table, served.address))
                    session.run()
        except LabctlError as err:
            errors.append(err)

    thread = threading.Thread(target=own, daemon=True)
    thread.start()
    session, table, address = ready.get(timeout=30)
    hand = Hand(session, table, address, thread, errors)
    yield hand
    hand.leave()


@pytest.fixture
def hold() -> Iterator[Callable[..., Hand]]:
    """Take a bench in hand."""
    with ExitStack() as stack:

        def take(
            name: str = "sim-small", prepare: Callable[[Bench], None] = lambda _: None
        ) -> Hand:
            return stack.enter_context(held(name, prepare))

        yield take
