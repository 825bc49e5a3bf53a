"""NKT SuperK: registers on a binary bus, and a watchdog in the laser itself.

A telegram is ``0D, destination, source, type, register, data, checksum, 0A``: data
little-endian, checksum CRC-16 (0x1021) big-endian, and the bytes 0A, 0D and 5E between
the ends written as 5E and the byte plus 0x40. Registers depend on the type of the
module (register 0x61): an unknown type is refused.
"""

import binascii
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, final

from typing_extensions import override

from drivers.laser.wired import Head, WiredLaser
from drivers.wire import Line, Link, Monotonic, link, link_errors
from labctl.devices import Clock, Identity, Laser, Settings, Watchdog
from labctl.errors import DeviceError, DeviceTimeoutError, OutOfRangeError

START, END, ESCAPE = 0x0D, 0x0A, 0x5E
SHIFT: Final = 0x40
HOST: Final = 0xA2  # our address on the bus: any from 0xA1
REFUSED: Final = {0: "not understood", 1: "checksum was wrong", 2: "busy"}
ACKNOWLEDGED, READ, WRITE, ANSWER = 3, 4, 5, 8
LONGEST_WATCHDOG_S: Final = 255
_TYPE, _SERIAL, _FIRMWARE, _EMISSION, _INTERLOCK = 0x61, 0x65, 0x64, 0x30, 0x32
_SETUP, _STATUS, _ERROR = 0x31, 0x66, 0x67
_HAS_ERROR: Final = 15  # bit of the status; register 0x67 has its number


@dataclass(frozen=True, kw_only=True)
class Module:
    """Where a type of laser has what.

    Parameters
    ----------
    model
        Its name.
    lit
        Value of the emission register that switches it on.
    powers
        Registers of the power; each is set.
    per_mille
        Unit of those registers, in thousandths of full power.
    size
        Bytes of each of them.
    watchdog
        Register of the watchdog, in s.
    setup
        What the setup register must hold for them to decide over the light; nothing
        where it is about something else.
    faults
        What bits of the status mean, interlock and emission left out.
    """

    model: str
    lit: int
    powers: tuple[int, ...]
    per_mille: int = 1
    size: int = 2
    watchdog: int
    setup: bytes = b""
    faults: Mapping[int, str] = field(default_factory=dict)


# From the vendor's register files; 0x36 of a Compact limits its pulse frequency. An EVO
# has a setpoint of power and one of current, and the files do not say which of them
# counts in normal operation: both are set.
MODULES: Final = {
    0x60: Module(
        model="SuperK Extreme/Fianium",
        lit=3,
        powers=(0x37,),
        watchdog=0x36,
        setup=b"\1\0",  # constant power; in constant current 0x38 would decide
        faults={
            2: "interlock power failure",
            4: "disabled from outside",
            5: "supply voltage low",
            6: "temperature out of range",
        },
    ),
    0x7D: Module(
        model="SuperK EVO",
        lit=2,
        powers=(0x21, 0x27),
        watchdog=0x36,
        setup=b"\0",  # normal operation, nothing from outside
    ),
    0x74: Module(
        model="SuperK Compact",
        lit=1,
        powers=(0x3E,),
        per_mille=10,
        size=1,
        watchdog=0x35,
    ),
}


def crc16(data: bytes) -> int:
    """Checksum of the bus: CRC-16 of polynomial 0x1021 from 0."""
    return binascii.crc_hqx(data, 0)


def pack(body: bytes) -> bytes:
    """Make a telegram of what stands between its ends, checksum added.

    Parameters
    ----------
    body
        Destination, source, type, register, data.

    Returns
    -------
    telegram
        Escaped, with its ends.
    """
    whole = body + crc16(body).to_bytes(2, "big")
    escaped = b"".join(
        bytes((ESCAPE, byte + SHIFT))
        if byte in {START, END, ESCAPE}
        else bytes((byte,))
        for byte in whole
    )
    return bytes((START,)) + escaped + bytes((END,))


def unpack(telegram: bytes) -> bytes:
    """Take a telegram apart.

    Parameters
    ----------
    telegram
        With its ends.

    Returns
    -------
    body
        Destination, source, type, register, data.

    Raises
    ------
    ValueError
        It is damaged.
    """
    if len(telegram) < 2 or (telegram[0], telegram[-1]) != (START, END):
        text = f"{telegram.hex(' ')} has no ends"
        raise ValueError(text)
    whole = bytearray()
    inner = iter(telegram[1:-1])
    for byte in inner:
        if byte == ESCAPE:
            byte = next(inner, -1) - SHIFT
            if byte not in {START, END, ESCAPE}:
                text = f"{telegram.hex(' ')} has an escape of nothing"
                raise ValueError(text)
        whole.append(byte)
    body, check = bytes(whole[:-2]), bytes(whole[-2:])
    if len(body) < 4 or crc16(body).to_bytes(2, "big") != check:
        text = f"{telegram.hex(' ')} is cut short, or its checksum is wrong"
        raise ValueError(text)
    return body


@final
class SuperKHead(Head):
    """Registers of a SuperK as a laser's head.

    It sets a share of its full power, and does not measure: what it gives as
    measured is the setpoint while it says that it emits.

    Parameters
    ----------
    name
        Name of the laser in the bench file.
    connection
        Bytes to and from the bus.
    full_mw
        Power at 100 %, measured, in the band that is used.
    wavelength_nm
        Middle of that band.
    device
        Its address on the bus.
    timeout_s
        Greatest time to an answer.
    clock
        Time.
    """

    def __init__(  # noqa: PLR0913 - one parameter an option
        self,
        name: str,
        connection: Link,
        *,
        full_mw: float,
        wavelength_nm: float,
        device: int,
        timeout_s: float,
        clock: Clock,
    ) -> None:
        if not full_mw > 0 or not wavelength_nm > 0 or not 1 <= device <= 160:
            text = (
                f"{name}: full_mw={full_mw}, wavelength_nm={wavelength_nm}, device="
                f"{device}, expected above 0, above 0 and 1 to 160"
            )
            raise ValueError(text)
        self._name, self._link, self._device = name, connection, device
        self._full_mw, self._wavelength = full_mw, wavelength_nm
        self._timeout_s, self._clock = timeout_s, clock
        self._module = Module(model="", lit=0, powers=(), watchdog=0)
        self._identity = Identity("NKT Photonics", "", "", "")
        self._lock = threading.Lock()
        self._is_open = False
        self.armed_s = 0

    @override
    def connect(self) -> None:
        with link_errors(self._name, "open"):
            self._link.open()
        self._is_open = True
        kind = self.read(_TYPE)[0]
        if kind not in MODULES:
            text = (
                f"module type=0x{kind:02X}, expected one of "
                f"{', '.join(f'0x{each:02X}' for each in MODULES)}: registers depend "
                "on it. Correct device, or add the type's registers."
            )
            raise DeviceError(self._name, "open", text)
        self._module = MODULES[kind]
        serial = self.read(_SERIAL).decode("latin-1").strip("\0 ")
        firmware = self.read(_FIRMWARE)
        version = f"{firmware[1]}.{firmware[0]:02d}" if len(firmware) > 1 else ""
        self._identity = Identity("NKT Photonics", self._module.model, serial, version)

    @property
    @override
    def signature(self) -> str:
        return f"{self._identity.model} {self._identity.serial}"

    @override
    def inquire(self) -> None:
        # Not before it is dark: a watchdog that somebody left may be all that works.
        self.arm(0)
        wanted = self._module.setup
        if wanted:
            self.write(_SETUP, wanted)
            got = self.read(_SETUP)
            if got[: len(wanted)] != wanted:
                text = (
                    f"setup=0x{got[::-1].hex()} read back, expected "
                    f"0x{wanted[::-1].hex()}: it does not take powers. Look at what "
                    "holds its mode: the front panel, an external input."
                )
                raise DeviceError(self._name, "set up", text)

    @override
    def close(self) -> None:
        self._is_open = False
        with link_errors(self._name, "close"):
            self._link.close()

    @property
    @override
    def identity(self) -> Identity:
        return self._identity

    @property
    @override
    def wavelength_nm(self) -> float:
        return self._wavelength

    @property
    @override
    def limits_mw(self) -> tuple[float, float]:
        return 0.0, self._full_mw

    @override
    def set_power_mw(self, power_mw: float) -> None:
        steps = 1000 // self._module.per_mille
        share = round(power_mw / self._full_mw * steps)
        for register in self._module.powers:
            self.write(register, share.to_bytes(self._module.size, "little"))

    @override
    def setpoint_mw(self) -> float:
        steps = 1000 // self._module.per_mille
        most = max(
            int.from_bytes(self.read(register)[: self._module.size], "little")
            for register in self._module.powers
        )
        return self._full_mw * most / steps

    @override
    def power_mw(self) -> float:
        return self.setpoint_mw() if self.is_emitting() else 0.0

    @override
    def switch(self, on: bool) -> None:
        self.write(_EMISSION, bytes((self._module.lit if on else 0,)))

    @override
    def is_emitting(self) -> bool:
        return bool(self._status() & 1)

    @override
    def interlock(self) -> str:
        # Above 0 resets it; what it answers is 2 where it is closed and reset.
        return "" if self.read(_INTERLOCK)[0] == 2 else "interlock open or not reset"

    @override
    def faults(self) -> list[str]:
        status = self._status()
        found = [text for bit, text in self._module.faults.items() if status >> bit & 1]
        if status >> _HAS_ERROR & 1:
            found.append(f"error {self.read(_ERROR)[0]}")
        return found

    def _status(self) -> int:
        return int.from_bytes(self.read(_STATUS)[:2], "little")

    def arm(self, seconds: int) -> None:
        """Set the watchdog of the laser and read it back; 0 stops it.

        Raises
        ------
        DeviceError
            It did not take it.
        """
        self.armed_s = seconds
        self.write(self._module.watchdog, bytes((seconds,)))
        got = self.read(self._module.watchdog)[0]
        if got != seconds:
            text = f"watchdog={got} s read back, expected {seconds} s."
            raise DeviceError(self._name, "watchdog", text)

    def kick(self) -> None:
        """Start the time of the watchdog anew; nothing where it is stopped."""
        if self.armed_s:
            self.arm(self.armed_s)

    def read(self, register: int) -> bytes:
        """Read a register; asked twice if need be.

        Parameters
        ----------
        register
            Its number.

        Returns
        -------
        data
            At least one byte.
        """
        try:
            return self._exchange(READ, register, b"", ANSWER)
        except DeviceTimeoutError:
            return self._exchange(READ, register, b"", ANSWER)

    def write(self, register: int, data: bytes) -> None:
        """Write a register, once, and see it acknowledged."""
        self._exchange(WRITE, register, data, ACKNOWLEDGED)

    def _exchange(self, kind: int, register: int, data: bytes, wanted: int) -> bytes:
        if not self._lock.acquire(timeout=4 * self._timeout_s):
            text = "another exchange does not end. Close it."
            raise DeviceTimeoutError(self._name, "wait", text)
        try:
            if not self._is_open:
                text = "not open, or given up after a fault. Open it first."
                raise DeviceError(self._name, f"register 0x{register:02X}", text)
            with link_errors(self._name, f"register 0x{register:02X}"):
                self._link.drop()
                self._link.write(
                    pack(bytes((self._device, HOST, kind, register)) + data)
                )
                return self._answer(register, wanted)
        finally:
            self._lock.release()

    def _answer(self, register: int, wanted: int) -> bytes:
        """Read telegrams until the one that answers; a late one names another register.

        Raises
        ------
        DeviceTimeoutError
            None comes in time.
        """
        due, got = self._clock.now() + self._timeout_s, b""
        while True:
            start = got.find(START)
            end = got.find(END, max(start, 0))
            if start < 0 or end < 0:
                left_s = due - self._clock.now()
                if left_s <= 0:
                    text = f"no answer in {self._timeout_s:g} s (got {got.hex(' ')})."
                    raise DeviceTimeoutError(self._name, "answer", text)
                got += self._link.read(left_s)
                continue
            telegram, got = got[start : end + 1], got[end + 1 :]
            data = self._fitting(telegram, register, wanted)
            if data is not None:
                return data

    def _fitting(self, telegram: bytes, register: int, wanted: int) -> bytes | None:
        """Return the data of the answer; None where it answers something else.

        Raises
        ------
        DeviceError
            It refuses.
        """
        try:
            body = unpack(telegram)
        except ValueError:
            return None  # damaged: the deadline decides
        if body[:2] != bytes((HOST, self._device)) or body[3] != register:
            return None
        if body[2] in REFUSED:
            text = f"refused: {REFUSED[body[2]]}."
            raise DeviceError(self._name, f"register 0x{register:02X}", text)
        fits = body[2] == wanted and (wanted == ACKNOWLEDGED or len(body) > 4)
        return body[4:] if fits else None


@final
class SuperKLaser(Laser, Watchdog):
    """A SuperK: a laser on a wire with a watchdog of its own.

    Parameters
    ----------
    head
        Its registers.
    laser
        Its life cycle.
    """

    def __init__(self, head: SuperKHead, laser: WiredLaser) -> None:
        self._head, self._laser = head, laser

    @property
    @override
    def name(self) -> str:
        return self._laser.name

    @property
    @override
    def wavelength_nm(self) -> float:
        return self._laser.wavelength_nm

    @property
    @override
    def power_limits_mw(self) -> tuple[float, float]:
        return self._laser.power_limits_mw

    @property
    @override
    def repetition_rate_hz(self) -> float | None:
        return self._laser.repetition_rate_hz

    @property
    @override
    def pulse_width_fs(self) -> float | None:
        return self._laser.pulse_width_fs

    @override
    def open(self) -> None:
        self._laser.open()

    @override
    def close(self) -> None:
        self._laser.close()

    @override
    def identity(self) -> Identity:
        return self._laser.identity()

    @override
    def settings(self) -> Settings:
        return {**self._laser.settings(), "watchdog_s": self._head.armed_s}

    @override
    def set_power_mw(self, power_mw: float) -> None:
        self._laser.set_power_mw(power_mw)

    @override
    def setpoint_mw(self) -> float:
        return self._laser.setpoint_mw()

    @override
    def power_mw(self) -> float:
        return self._laser.power_mw()

    @override
    def emission(self, on: bool) -> None:
        try:
            self._laser.emission(on)
        finally:
            # Only where it is dark: else the watchdog is the last that may end it.
            if self._head.armed_s and not self._laser.counts_as_lit:
                self._head.arm(0)

    @override
    def is_emitting(self) -> bool:
        return self._laser.is_emitting()

    @override
    def faults(self) -> list[str]:
        return self._laser.faults()

    @override
    def arm(self, timeout_s: float) -> None:
        # Whole seconds: rounded down, so that it is never later than asked for.
        if not 1 <= timeout_s <= LONGEST_WATCHDOG_S:
            raise OutOfRangeError(
                self.name, "timeout_s", timeout_s, low=1, high=LONGEST_WATCHDOG_S
            )
        self._head.arm(int(timeout_s))

    @override
    def kick(self) -> None:
        self._head.kick()


def superk(  # noqa: PLR0913 - one parameter an option
    *,
    address: str,
    full_mw: float,
    wavelength_nm: float,
    name: str = "laser",
    clock: Clock | None = None,
    device: int = 15,
    timeout_s: float = 0.4,
    start_s: float = 8.0,
    repetition_rate_hz: float | None = None,
    pulse_width_fs: float | None = None,
) -> SuperKLaser:
    """Make a SuperK.

    Parameters
    ----------
    address
        Serial port or ``socket://host:port``.
    full_mw
        Power at 100 % in the band used, measured.
    wavelength_nm
        Middle of that band.
    name
        Name in the bench file.
    clock
        Time; None takes the computer's.
    device
        Its address on the bus.
    timeout_s
        Greatest time to an answer.
    start_s
        How long emission may take to start.
    repetition_rate_hz, pulse_width_fs
        Of its pulses.

    Returns
    -------
    laser
        Not open.
    """
    time = clock or Monotonic()
    head = SuperKHead(
        name,
        link(address, line=Line(), last=b"\n", timeout_s=timeout_s),
        full_mw=full_mw,
        wavelength_nm=wavelength_nm,
        device=device,
        timeout_s=timeout_s,
        clock=time,
    )
    laser = WiredLaser(
        name,
        head,
        clock=time,
        start_s=start_s,
        tolerance=None,
        repetition_rate_hz=repetition_rate_hz,
        pulse_width_fs=pulse_width_fs,
        on_wait=head.kick,
    )
    return SuperKLaser(head, laser)
