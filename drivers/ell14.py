"""Thorlabs ELL14: a rotation mount; with a half-wave plate in it, an attenuator."""

import math
import re
from typing import Final, final

from typing_extensions import override

from drivers.wire import Framing, Line, Wire, link
from labctl.devices import Attenuator, Clock, Identity, Settings
from labctl.errors import DeviceError, OutOfRangeError

# Words of the status byte; the mount answers a move with it or with a position.
STATUS: Final = {
    1: "communication time-out",
    2: "mechanical time-out",
    3: "command not understood",
    4: "value out of range",
    5: "module isolated",
    6: "module out of isolation",
    7: "initialising",
    8: "thermal",
    9: "busy",
    10: "sensor",
    11: "motor",
    12: "out of range",
    13: "over-current",
}
MOVE_S: Final = 3.0  # a full turn takes about one
NEAR_DEG: Final = 0.2


@final
class ELL14(Attenuator):
    """A half-wave plate before a polariser, turned by an ELL14.

    The transmission is ``least + (most - least) sin²(2 (angle - dark_deg))``.

    Parameters
    ----------
    address
        Serial port.
    dark_deg
        Angle of the mount at which least light goes through, measured.
    least, most
        Transmission there and 45 degrees on, measured.
    name
        Name in the bench file.
    clock
        Time; None takes the computer's.
    bus
        Address of the mount on its bus: 0 to F.

    Raises
    ------
    ValueError
        An option is impossible.
    """

    def __init__(  # noqa: PLR0913 - one parameter an option
        self,
        *,
        address: str,
        dark_deg: float,
        least: float,
        most: float,
        name: str = "attenuator",
        clock: Clock | None = None,
        bus: str = "0",
    ) -> None:
        if not 0 <= least < most <= 1 or not 0 <= dark_deg < 360:
            text = (
                f"{name}: least={least}, most={most}, dark_deg={dark_deg}, expected "
                "two rising fractions and an angle from 0 below 360"
            )
            raise ValueError(text)
        if re.fullmatch("[0-9A-F]", bus) is None:
            text = f"{name}: bus={bus!r}, expected one of 0 to 9, A to F"
            raise ValueError(text)
        self._name, self._bus = name, bus
        self._least, self._most, self._dark_deg = least, most, dark_deg
        self._identity: Identity | None = None
        self._per_turn = 0
        self._wire = Wire(
            name,
            link(address, line=Line(baudrate=9600), last=b"\n", timeout_s=MOVE_S),
            framing=Framing(send=b""),
            identify=(f"{bus}in", f"{bus}IN[0-9A-F]{{30}}"),
            timeout_s=MOVE_S,
            clock=clock,
        )

    @property
    @override
    def name(self) -> str:
        return self._name

    @property
    @override
    def transmission_limits(self) -> tuple[float, float]:
        return self._least, self._most

    @override
    def open(self) -> None:
        self._wire.open()
        try:
            self._meet()
            self._home()
            self.set_transmission(self._least)
        except BaseException:
            self._release()
            raise

    def _meet(self) -> None:
        # Type, serial, year, firmware, thread and hardware, travel, pulses a turn.
        said = self._wire.ask(
            f"{self._bus}in",
            f"{self._bus}IN([0-9A-F]{{2}})([0-9A-F]{{8}})([0-9A-F]{{4}})([0-9A-F]{{2}})"
            "[0-9A-F]{2}[0-9A-F]{4}([0-9A-F]{8})",
        )
        if said[1] != "0E":
            text = f"module=ELL{int(said[1], 16)}, expected ELL14. Name another mount."
            raise DeviceError(self._name, "open", text)
        self._identity = Identity("Thorlabs", "ELL14", said[2], said[4])
        self._per_turn = int(said[5], 16)

    def _home(self) -> None:
        self._moved(f"{self._bus}ho0", f"{self._bus}(PO|GS)([0-9A-F]+)")

    def _moved(self, command: str, reply: str) -> None:
        """Send a move, once, and judge its answer.

        Raises
        ------
        DeviceError
            It did not get there.
        """
        said = self._wire.command(command, reply)
        if said[1] == "GS" and int(said[2], 16):
            code = int(said[2], 16)
            words = STATUS.get(code, f"status {code}")
            raise DeviceError(self._name, "move", f"{words}. Look at the mount.")

    @override
    def close(self) -> None:
        if self._identity is None:
            return
        try:
            self.set_transmission(self._least)
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
        return {
            "dark_deg": self._dark_deg,
            "least": self._least,
            "most": self._most,
            "angle_deg": self._angle_deg(),
        }

    @override
    def set_transmission(self, transmission: float) -> None:
        if not self._least <= transmission <= self._most:
            raise OutOfRangeError(
                self._name,
                "transmission",
                transmission,
                low=self._least,
                high=self._most,
            )
        share = (transmission - self._least) / (self._most - self._least)
        half = math.degrees(math.asin(math.sqrt(share))) / 2
        wanted = (self._dark_deg + half) % 360
        pulses = round(wanted / 360 * self._per_turn)
        self._moved(
            f"{self._bus}ma{pulses:08X}", f"{self._bus}(PO|GS)([0-9A-F]{{2,8}})"
        )
        got = self._angle_deg()
        if abs((got - wanted + 180) % 360 - 180) > NEAR_DEG:
            text = f"angle_deg={got:.2f} read back, expected {wanted:.2f}."
            raise DeviceError(self._name, "move", text)

    @override
    def transmission(self) -> float:
        turned = math.radians(2 * (self._angle_deg() - self._dark_deg))
        return self._least + (self._most - self._least) * math.sin(turned) ** 2

    def _angle_deg(self) -> float:
        said = self._wire.ask(f"{self._bus}gp", f"{self._bus}PO([0-9A-F]{{8}})")
        pulses = int(said[1], 16)
        if pulses >= 1 << 31:  # two's complement: it may stand just before its home
            pulses -= 1 << 32
        return pulses / self._per_turn * 360
