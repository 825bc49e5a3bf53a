"""Thorlabs CLD101x and ITC4000: diode drivers, which set a current and no power."""

from bisect import bisect_left
from collections.abc import Sequence
from itertools import pairwise
from typing import Final, final

from typing_extensions import override

from drivers.laser.dialect import Dialect, Query, State, TextHead
from drivers.laser.wired import POLL_S, Head, WiredLaser
from drivers.wire import Monotonic
from labctl.devices import Clock, Identity
from labctl.errors import DeviceError

# In mA wherever another head has mW: the curve makes milliwatts of them. The cooler
# goes on at open and stays on: the diode never runs without it.
CURRENT: Final = Dialect(
    vendor="Thorlabs",
    identify=Query(ask="*IDN?", reply=r"((?i:THORLABS),[^\r\n]*)"),
    model=Query(ask="*IDN?", reply=r"(?i:THORLABS),([^,]*),[^\r\n]*"),
    serial=Query(ask="*IDN?", reply=r"(?i:THORLABS),[^,]*,([^,]*),[^\r\n]*"),
    firmware=Query(ask="*IDN?", reply=r"(?i:THORLABS),[^,]*,[^,]*,([^\r\n]*)"),
    start=(
        "output1:state off",
        "source1:function:mode current",
        "source1:am:state off",
        "source1:current:level:amplitude 0",
        "output2:state on",
    ),
    least=0.0,
    most=Query(ask="source1:current:limit:amplitude?", scale=1000.0),
    power="source1:current:level:amplitude {w:.6}",
    setpoint=Query(ask="source1:current:level:amplitude?", scale=1000.0),
    measured=Query(ask="measure:current1?", scale=1000.0),
    on=("output1:state on",),
    off=("output1:state off",),
    emitting=State(ask="output1:state?", reply="([01])"),
    interlocks=(
        State(ask="outp:prot:intl:trip?", reply="([01])", says="interlock open"),
        State(ask="outp:prot:keyl:trip?", reply="([01])", says="key locked"),
        State(ask="outp:prot:otem:trip?", reply="([01])", says="too hot"),
        State(ask="outp:prot:conn:trip?", reply="([01])", says="diode not connected"),
        State(ask="output2:state?", reply="([01])", when="0", says="cooler off"),
    ),
)


#: How the families ask for the current of the diode, and for its temperature; the
#: compact drivers have sensors by number, the others a list of measurements.
FAMILIES: Final = {
    "CLD": (
        Query(ask="sense3:current:data?", scale=1000.0),
        Query(ask="sense2:temperature:data?"),
    ),
    "ITC": (CURRENT.measured, Query(ask="measure:temperature?")),
}
_SETPOINT: Final = Query(ask="source2:temperature:spoint?")
#: How long its cooler may take at open: the guard waits 30 s for all of that.
COOL_S: Final = 20.0
#: So near its setpoint the diode may emit; the vendor's own examples wait for as much.
NEAR_K: Final = 0.5
#: So far from it, while it emits, is a fault: it warms as the light comes on.
FAR_K: Final = 2.0


@final
class CurrentHead(Head):
    """A diode driver seen as a laser, by the curve of its diode.

    The diode emits at the temperature that is set at the driver, and at no other.

    Parameters
    ----------
    name
        Name of the laser in the bench file.
    driver
        The driver; its numbers are in mA.
    curve
        Pairs of current in A and power in mW, both rising, from no power on.
    clock
        Time of the wait for the cooler.
    """

    def __init__(
        self,
        name: str,
        driver: TextHead,
        curve: Sequence[Sequence[float]],
        clock: Clock,
    ) -> None:
        points = [(1000.0 * float(a), float(mw)) for a, mw in curve]
        rises = all(a[0] < b[0] and a[1] < b[1] for a, b in pairwise(points))
        if len(points) < 2 or not rises or points[0][1] != 0 or points[0][0] < 0:
            text = (
                f"curve_a_mw={[list(each) for each in curve]}, expected two or more "
                "pairs of current in A and power in mW, rising, the first with 0 mW"
            )
            raise ValueError(text)
        self._name, self._driver, self._clock = name, driver, clock
        self._current, self._temperature = FAMILIES["ITC"]
        self._ma, self._mw = [p[0] for p in points], [p[1] for p in points]
        self._ready_ma = 0.0

    @override
    def connect(self) -> None:
        self._driver.connect()

    @property
    @override
    def signature(self) -> str:
        return self._driver.signature

    @override
    def inquire(self) -> None:
        self._driver.inquire()
        self._ready_ma = 0.0
        model = self._driver.identity.model
        if model[:3].upper() not in FAMILIES:
            text = f"model={model}, expected a CLD101x or an ITC4000. Name another."
            raise DeviceError(self._name, "open", text)
        self._current, self._temperature = FAMILIES[model[:3].upper()]
        self._await_temperature()

    def _await_temperature(self) -> None:
        """Give the cooler its time; who only wants it dark is not refused then."""
        due = self._clock.now() + COOL_S
        while self._lacks_temperature() and self._clock.now() < due:
            self._clock.sleep(POLL_S)

    def _lacks_temperature(self, within_k: float = NEAR_K) -> str:
        got, wanted = (
            self._driver.number(each) for each in (self._temperature, _SETPOINT)
        )
        if abs(got - wanted) <= within_k:
            return ""
        return f"temperature={got:g}, expected {wanted:g} within {within_k:g}"

    @override
    def close(self) -> None:
        self._driver.close()

    @property
    @override
    def identity(self) -> Identity:
        return self._driver.identity

    @property
    @override
    def wavelength_nm(self) -> float:
        return self._driver.wavelength_nm

    @property
    @override
    def limits_mw(self) -> tuple[float, float]:
        # The diode driver's own current limit holds as well.
        most_ma = min(self._driver.limits_mw[1], self._ma[-1])
        return 0.0, _along(self._ma, self._mw, most_ma)

    @override
    def set_power_mw(self, power_mw: float) -> None:
        self._ready_ma = _along(self._mw, self._ma, power_mw) if power_mw else 0.0
        self._driver.set_power_mw(self._ready_ma)

    @override
    def setpoint_mw(self) -> float:
        return _along(self._ma, self._mw, self._driver.setpoint_mw())

    @override
    def power_mw(self) -> float:
        return _along(self._ma, self._mw, self._driver.number(self._current))

    @override
    def switch(self, on: bool) -> None:
        # At no current in both directions: a diode dies of a step.
        if on:
            lacks = self._lacks_temperature()
            if lacks:
                text = f"{lacks}. Look at its cooler, or wait and run again."
                raise DeviceError(self._name, "emission", text)
            self._driver.set_power_mw(0.0)
            self._driver.switch(True)
            self._driver.set_power_mw(self._ready_ma)
        else:
            self._driver.switch(False)

    @override
    def is_emitting(self) -> bool:
        return self._driver.is_emitting()

    @override
    def interlock(self) -> str:
        return self._driver.interlock()

    @override
    def faults(self) -> list[str]:
        away = self._lacks_temperature(FAR_K)
        return [*self._driver.faults(), away] if away else self._driver.faults()


def _along(at: Sequence[float], values: Sequence[float], where: float) -> float:
    """Straight lines between points; flat beyond both ends."""
    right = bisect_left(at, where)
    if right == 0:
        return values[0]
    if right == len(at):
        return values[-1]
    share = (where - at[right - 1]) / (at[right] - at[right - 1])
    return values[right - 1] + share * (values[right] - values[right - 1])


def diode(  # noqa: PLR0913 - one parameter an option
    *,
    address: str,
    wavelength_nm: float,
    curve_a_mw: Sequence[Sequence[float]],
    name: str = "laser",
    clock: Clock | None = None,
    timeout_s: float = 0.4,
    start_s: float = 8.0,
    tolerance: float | None = 0.05,
) -> WiredLaser:
    """Make a laser of a diode driver (CLD101x, ITC4000) and its diode's curve.

    Parameters
    ----------
    address
        VISA resource, such as ``USB0::0x1313::0x804F::M00000001::INSTR``.
    wavelength_nm
        Of the diode.
    curve_a_mw
        Pairs of current in A and power in mW, measured, the first with 0 mW.
    name
        Name in the bench file.
    clock
        Time; None takes the computer's.
    timeout_s
        Greatest time to a reply.
    start_s
        How long emission may take to start.
    tolerance
        Greatest distance of the power by measured current from the demanded one, as
        a share of the greatest; None does not compare.

    Returns
    -------
    laser
        Not open.
    """
    driver = TextHead(
        name,
        CURRENT,
        address,
        timeout_s=timeout_s,
        wavelength_nm=wavelength_nm,
        clock=clock,
    )
    head = CurrentHead(name, driver, curve_a_mw, clock or Monotonic())
    return WiredLaser(name, head, clock=clock, start_s=start_s, tolerance=tolerance)
