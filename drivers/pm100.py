"""Thorlabs PM100: an optical power meter; its wavelength is set, and read back."""

import re
from typing import Final, final

from typing_extensions import override

from drivers.wire import Framing, Line, Monotonic, Wire, link, number
from labctl.devices import Clock, Identity, Meter, Reading, Settings
from labctl.errors import DeviceError

#: From here on SCPI means no number (SCPI-99, 7.2.1.4): 9.9E37 is beyond the range,
#: 9.91E37 none at all.
NO_NUMBER: Final = 9e37
_NUMBER: Final = r"([-+]?[\d.]+(?:[eE][-+]?\d+)?)"


@final
class PM100(Meter):
    """A power meter with its sensor head.

    Parameters
    ----------
    address
        VISA resource, such as ``USB0::0x1313::0x8078::P0000001::INSTR``.
    wavelength_nm
        Of the light: the meter's correction depends on it.
    name
        Name in the bench file.
    clock
        Time of the readings; None takes the computer's.
    timeout_s
        Greatest time to a reply.

    Raises
    ------
    ValueError
        An option is impossible.
    """

    def __init__(
        self,
        *,
        address: str,
        wavelength_nm: float,
        name: str = "meter",
        clock: Clock | None = None,
        timeout_s: float = 1.0,
    ) -> None:
        if not wavelength_nm > 0:
            text = f"{name}: wavelength_nm={wavelength_nm}, expected more than 0"
            raise ValueError(text)
        self._name, self._clock = name, clock or Monotonic()
        self._wavelength_nm, self._sensor = float(wavelength_nm), ""
        self._identity: Identity | None = None
        self._wire = Wire(
            name,
            link(address, line=Line(), last=b"\n", timeout_s=timeout_s),
            framing=Framing(send=b"\n", done=re.compile(rb"\n")),
            identify=("*IDN?", r"Thorlabs,[^\r\n]*"),
            timeout_s=timeout_s,
            clock=clock,
        )

    @property
    @override
    def name(self) -> str:
        return self._name

    @property
    @override
    def unit(self) -> str:
        return "mW"

    @override
    def open(self) -> None:
        self._wire.open()
        try:
            who = self._wire.ask("*IDN?", r"Thorlabs,([^,]*),([^,]*),([^\r\n]*)")
            self._identity = Identity("Thorlabs", who[1], who[2], who[3])
            self._sensor = self._wire.ask("SYST:SENS:IDN?", r"([^,]*),.*")[1]
            self._set_up()
        except BaseException:
            self.close()
            raise

    def _set_up(self) -> None:
        """Ask for watts at the wavelength, and see it taken.

        Raises
        ------
        DeviceError
            The meter has another wavelength.
        """
        self._wire.tell("SENS:POW:UNIT W")
        self._wire.tell("SENS:POW:RANG:AUTO ON")
        self._wire.tell(f"SENS:CORR:WAV {self._wavelength_nm:g}")
        match = self._wire.ask("SENS:CORR:WAV?", _NUMBER)
        got = number(match, self._name, "wavelength")
        if abs(got - self._wavelength_nm) > 1:
            text = (
                f"wavelength_nm={got:g} read back, expected {self._wavelength_nm:g}. "
                "Look at the range of its sensor."
            )
            raise DeviceError(self._name, "open", text)

    @override
    def close(self) -> None:
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
            "unit": self.unit,
            "wavelength_nm": self._wavelength_nm,
            "sensor": self._sensor,
        }

    @override
    def reading(self) -> Reading:
        # The time before: a reading is never younger than it says.
        time_s = self._clock.now()
        watts = number(self._wire.ask("MEAS:POW?", _NUMBER), self._name, "reading")
        if abs(watts) >= NO_NUMBER:
            text = f"{watts:g} W: beyond its range. Take light away, or its filter in."
            raise DeviceError(self._name, "reading", text)
        return Reading(1000 * watts, time_s)
