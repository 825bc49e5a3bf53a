"""What is there: drivers installed, instruments plugged in, and whether each answers.

Instruments are found by *finders*: functions without arguments in the entry-point
group ``labctl.finders``, one a vendor's library, which a package of drivers brings
along. A library that is missing hides only what it would find, and is named.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import numpy as np

from labctl import bench, registry, state
from labctl.bench import Bench, BenchSource
from labctl.calibration import DriverEntry, ExposureWire
from labctl.devices import SLM, Attenuator, Camera, Device, Found, Laser, Meter, Shutter
from labctl.errors import DeviceError, InputError, LabctlError

FRAME_S: Final = 5.0


@dataclass(frozen=True)
class Inventory:
    """What is installed and plugged in.

    Parameters
    ----------
    drivers
        Name of each driver, and why it cannot be used; empty where it can.
    found
        Instruments.
    missing
        Finder, and why it could not look.
    """

    drivers: Mapping[str, str]
    found: Sequence[Found]
    missing: Mapping[str, str]

    def text(self) -> str:
        """Say it to a person."""
        lines = ["drivers installed:"]
        lines += [
            f"  {name}" + (f"  cannot be used: {why}" if why else "")
            for name, why in self.drivers.items()
        ]
        lines.append("plugged in:")
        for each in self.found:
            lines.append(f"  {each.what}")
            if each.driver:
                lines.append(f"    {each.lines()}")
        if not self.found:
            lines.append("  nothing that an installed library sees")
        lines += [f"not looked for: {who}: {why}" for who, why in self.missing.items()]
        return "\n".join(lines)

    def as_json(self) -> dict[str, object]:
        """For ``--json``."""
        return {
            "drivers": dict(self.drivers),
            "found": [
                {**asdict(each), "options": dict(each.options)} for each in self.found
            ],
            "not_looked_for": dict(self.missing),
        }


def take() -> Inventory:
    """Look at what is installed and plugged in; opens no instrument.

    Returns
    -------
    inventory
        What is there.
    """
    found: list[Found] = []
    missing: dict[str, str] = {}
    for name in registry.installed(registry.FINDERS):
        try:
            found += registry.load(name, registry.FINDERS)()
        except (InputError, DeviceError) as err:
            missing[name] = str(err)
    drivers = {name: _why_not(name) for name in registry.installed()}
    return Inventory(drivers, found, missing)


def _why_not(name: str) -> str:
    try:
        registry.load(name)
    except InputError as err:
        return str(err)
    return ""


@dataclass(frozen=True)
class Answer:
    """What one device of a bench said.

    Parameters
    ----------
    role
        Its role, or ``wiring``.
    driver
        Its driver; of a cable its ends.
    identity
        Vendor, model, serial, firmware; empty where it did not answer.
    health
        A line about how it is.
    error
        Why it does not work; empty where it does.
    """

    role: str
    driver: str
    identity: dict[str, str] = field(default_factory=dict)
    health: str = ""
    error: str = ""

    def text(self) -> str:
        """Say it to a person."""
        who = " ".join(part for part in self.identity.values() if part)
        story = self.error or ": ".join(filter(None, (who, self.health)))
        return f"  {self.role:<10} {self.driver}: {story}"


@dataclass(frozen=True)
class RollCall:
    """What the devices of a bench said.

    Parameters
    ----------
    bench
        Its name.
    answers
        One a device, in the order in which a bench opens.
    """

    bench: str
    answers: Sequence[Answer]

    def text(self) -> str:
        """Say it to a person."""
        return "\n".join([f"bench {self.bench}:", *(a.text() for a in self.answers)])

    def as_json(self) -> dict[str, object]:
        """For ``--json``."""
        return {"bench": self.bench, "devices": [asdict(a) for a in self.answers]}

    def raise_failures(self) -> None:
        """Raise what failed, if anything did.

        Raises
        ------
        DeviceError
            Names every device that does not work.
        """
        ill = [answer.role for answer in self.answers if answer.error]
        if ill:
            text = f"{', '.join(ill)}: no good answer, expected one. See above."
            name = f"bench {self.bench}"
            raise DeviceError(name, "devices", text)


def call(source: BenchSource) -> RollCall:
    """Open each device of a bench by itself, ask how it is, and close it.

    The laser is asked through a guard, and stays dark.

    Parameters
    ----------
    source
        The bench file.

    Returns
    -------
    answers
        What each said.

    Raises
    ------
    LatchedError
        A safety stop latched the bench.
    InputError
        Another process has it, or a driver or its options are refused.
    """
    latched = state.latched(source.file.name)
    if latched is not None:
        raise latched.error()
    name = source.file.name
    if source.file.simulated:
        with bench.open(source) as table:
            return RollCall(name, [_said(*each) for each in _devices(table)])
    made = bench.construct(source)
    owned = state.Ownership(name)
    try:
        answers = [_opened(*each) for each in _devices(made)]
        if made.file.wiring is not None:
            ill = {answer.role for answer in answers if answer.error}
            answers.append(_wired(made, made.file.wiring.exposure, ill))
        return RollCall(name, answers)
    finally:
        owned.release()


def _devices(made: Bench) -> Iterator[tuple[str, DriverEntry, Device]]:
    for role in bench.ROLES:
        entry, device = getattr(made.file.devices, role), getattr(made, role)
        if entry is not None:
            yield role, entry, device


def _opened(role: str, entry: DriverEntry, device: Device) -> Answer:
    try:
        with device:
            return _said(role, entry, device)
    except LabctlError as err:
        return Answer(role, entry.driver, error=str(err))


def _wired(made: Bench, wire: ExposureWire, ill: Set[str]) -> Answer:
    """Look at both ends of the cable; what comes over it only a batch shows."""
    role, driver = "wiring", f"{wire.source} to {wire.line}"
    away = [each for each in ("slm", "camera") if each in ill]
    if away:
        text = f"not looked at, as {' and '.join(away)} gave no good answer."
        return Answer(role, driver, error=text)
    try:
        found = made.source.in_force()
        made.calibrations = {kind: each.record for kind, each in found.items()}
        with made.slm, made.camera:
            made.check_wiring()
            _, longest_s = made.camera.edge_delay_limits_s
    except LabctlError as err:
        return Answer(role, driver, error=str(err))
    health = (
        f"both ends fit: the panel gives edges, the camera takes {wire.edge} ones and "
        f"waits up to {longest_s:g} s. Whether a cable is in, the first batch tells"
    )
    return Answer(role, driver, health=health)


def _said(role: str, entry: DriverEntry, device: Device) -> Answer:
    identity = asdict(device.identity())
    got = identity["serial"]
    error = ""
    if entry.serial not in {None, got}:
        error = (
            f"serial={got or 'none'}, expected {entry.serial} (bench file). Connect "
            "that device, or correct the bench file."
        )
    return Answer(role, entry.driver, identity, _health(device), error)


def _health(device: Device) -> str:
    for role, health in _HEALTH.items():
        if isinstance(device, role):
            return health(device)
    return "answers"


def _of_laser(laser: Laser) -> str:
    low, high = laser.power_limits_mw
    faults = ", ".join(laser.faults()) or "no faults"
    lit = "EMITS" if laser.is_emitting() else "dark"
    return f"{lit}, {faults}, {laser.wavelength_nm:g} nm, {low:g} to {high:g} mW"


def _of_slm(slm: SLM) -> str:
    rows, columns = slm.shape
    kind = np.uint8 if slm.bit_depth <= 8 else np.uint16
    slm.write(np.zeros(slm.shape, dtype=kind))
    return f"{rows} x {columns} pixels, {slm.bit_depth} bits, flat"


def _of_camera(camera: Camera) -> str:
    rows, columns = camera.shape
    low, high = camera.exposure_limits_s
    camera.configure(exposure_s=min(max(1e-3, low), high))
    camera.arm(1)
    try:
        camera.trigger()
        frame = camera.frame(FRAME_S)
    finally:
        camera.disarm()
    return (
        f"{rows} x {columns} pixels, {camera.bit_depth} bits, a frame in the dark: "
        f"median {np.median(frame.data):g}, greatest {frame.data.max()} of "
        f"{camera.saturation_dn}"
    )


def _of_meter(meter: Meter) -> str:
    return f"reads {meter.reading().value:g} {meter.unit}"


def _of_shutter(shutter: Shutter) -> str:
    return "OPEN" if shutter.is_open() else "closed"


def _of_attenuator(attenuator: Attenuator) -> str:
    least, most = attenuator.transmission_limits
    return f"transmits {attenuator.transmission():.4g} of {least:g} to {most:g}"


# A laser first: its methods are those of no other role.
_HEALTH: Final[dict[type, Callable[[Any], str]]] = {
    Laser: _of_laser,
    SLM: _of_slm,
    Camera: _of_camera,
    Meter: _of_meter,
    Shutter: _of_shutter,
    Attenuator: _of_attenuator,
}
