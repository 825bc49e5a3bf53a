"""A shutter that speaks text, by a map of commands in the bench file: no Python."""

import re
from collections.abc import Iterator, Mapping
from typing import Final, final

from typing_extensions import override

from drivers.wire import (
    Framing,
    Line,
    Monotonic,
    Wire,
    fault,
    is_command,
    is_done,
    is_pattern,
    is_sent,
    link,
    refuse,
    wrong_keys,
)
from labctl.devices import Clock, Identity, Settings, Shutter
from labctl.errors import DeviceError, Fault

POLL_S: Final = 0.02
KEYS: Final = {
    "identify": "question, and",
    "identity": "pattern of its whole reply, whose first group is the serial number",
    "open": "command that opens",
    "close": "command that closes",
    "position": "question after the position, and",
    "reply": "pattern of its whole reply, whose first group is the position",
    "is_open": "pattern of that group where it is open",
    "is_closed": "pattern of that group where it is closed",
}

_COMMANDS: Final = ("identify", "open", "close", "position")
# How many groups each has at least.
_PATTERNS: Final = {
    "identity": 1,
    "reply": 1,
    "is_open": 0,
    "is_closed": 0,
    "accepted": 0,
}


@final
class TextShutter(Shutter):
    """A shutter with a text protocol; its position is read back.

    Parameters
    ----------
    address
        Serial port, ``socket://host:port`` or VISA resource.
    commands
        Its language: the keys of :data:`KEYS`, and ``accepted``, the pattern of what
        comes back from a command, where something does.
    name
        Name in the bench file.
    clock
        Time; None takes the computer's.
    move_s
        How long a move may take.
    baudrate
        Of a serial line.
    send, done
        What ends a command, and a reply.
    timeout_s
        Greatest time to a reply.

    Raises
    ------
    ProtocolError
        A command is missing, unknown or no pattern, or another option is impossible.
    """

    def __init__(  # noqa: PLR0913 - one parameter an option
        self,
        *,
        address: str,
        commands: Mapping[str, str],
        name: str = "shutter",
        clock: Clock | None = None,
        move_s: float = 0.5,
        baudrate: int = 115_200,
        send: str = "\r\n",
        done: str = "\r\n",
        timeout_s: float = 0.4,
    ) -> None:
        refuse(
            [*_wrong(commands), *is_sent("send", send), *is_done("done", done)],
        )
        if not move_s > 0:
            refuse([fault("move_s", move_s, "a time above 0")])
        self._name, self._commands = name, dict(commands)
        self._clock, self._move_s = clock or Monotonic(), move_s
        self._identity: Identity | None = None
        framing = Framing(
            send=send.encode("ascii"),
            done=re.compile(done.encode("ascii")),
            last=send.encode("ascii")[-1:] or b"\n",
        )
        self._wire = Wire(
            name,
            link(
                address,
                line=Line(baudrate=baudrate),
                last=framing.last,
                timeout_s=timeout_s,
            ),
            framing=framing,
            identify=(commands["identify"], commands["identity"]),
            timeout_s=timeout_s,
            clock=clock,
        )

    @property
    @override
    def name(self) -> str:
        return self._name

    @override
    def open(self) -> None:
        self._wire.open()
        try:
            who = self._wire.ask(self._commands["identify"], self._commands["identity"])
            self._identity = Identity("text", "shutter", who[1], "")
            self._move(is_open=False)
        except BaseException:
            self._release()
            raise

    @override
    def close(self) -> None:
        if self._identity is None:
            return
        try:
            self.set_open(False)
        finally:
            self._release()

    def _release(self) -> None:
        self._identity = None
        self._wire.close()

    @override
    def identity(self) -> Identity:
        if self._identity is None:
            raise DeviceError(self._name, "identity", "not open. Open it first.")
        return self._identity

    @override
    def settings(self) -> Settings:
        return {"move_s": self._move_s, "is_open": self.is_open()}

    @override
    def set_open(self, is_open: bool) -> None:
        try:
            self._move(is_open=is_open)
        except DeviceError as first:
            if is_open or self._identity is None:
                raise
            self._insist(self._identity, first)

    def _insist(self, before: Identity, first: DeviceError) -> None:
        """Close once more, through a fresh connection.

        Raises
        ------
        DeviceError
            Whether it is closed is not known.
        """
        try:
            self._wire.close()
            self._wire.open()
            self._check_same(before)
            self._move(is_open=False)
        except DeviceError as err:
            text = f"position=unknown, expected closed ({first}; again: {err})."
            text += " Block the beam by hand."
            raise DeviceError(self._name, "close", text) from err

    def _check_same(self, before: Identity) -> None:
        """Refuse another shutter: the names of ports are given anew.

        Raises
        ------
        DeviceError
            It is not the one that was opened; it is let go of.
        """
        who = self._wire.ask(self._commands["identify"], self._commands["identity"])
        if who[1] != before.serial:
            self._wire.close()
            text = f"serial={who[1]} answers there, expected {before.serial}."
            raise DeviceError(self._name, "close", text)

    def _move(self, *, is_open: bool) -> None:
        """Move the blade and read its position back.

        Raises
        ------
        DeviceError
            It does not get there.
        """
        command = self._commands["open" if is_open else "close"]
        self._wire.tell(command, self._commands.get("accepted"))
        due = self._clock.now() + self._move_s
        wanted = self._commands["is_open" if is_open else "is_closed"]
        while re.fullmatch(wanted, got := self._position()) is None:
            if self._clock.now() >= due:
                text = (
                    f"position={got!r} after {self._move_s:g} s, expected {wanted!r} "
                    f"({'open' if is_open else 'closed'}). Free the blade."
                )
                raise DeviceError(self._name, "move", text)
            self._clock.sleep(POLL_S)

    @override
    def is_open(self) -> bool:
        # Whatever is not surely closed lets light through.
        return re.fullmatch(self._commands["is_closed"], self._position()) is None

    def _position(self) -> str:
        return self._wire.ask(self._commands["position"], self._commands["reply"])[1]


def _wrong(commands: Mapping[str, str]) -> Iterator[Fault]:
    yield from wrong_keys("commands", commands, [*KEYS, "accepted"], KEYS)
    for name in _COMMANDS:
        if name in commands:
            yield from is_command(f"commands.{name}", commands[name])
    for name, groups in _PATTERNS.items():
        if name in commands:
            yield from is_pattern(f"commands.{name}", commands[name], groups)
