"""The simulated bench: light path, dynamics and noise that its devices share.

A shot is a pure function of seed, shot number, virtual time and the state of the
panel; how shots are grouped into batches changes no bit of any frame.
"""

import dataclasses
import itertools
import math
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, cast, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from typing_extensions import override

from drivers.sim import noise
from drivers.sim.beam import Beam, BeamError
from drivers.sim.clock import VirtualClock
from drivers.sim.convergence import measure
from drivers.sim.crystal import Crystal
from drivers.sim.drift import Drift, Renewal
from drivers.sim.geometry import PanelGrid, seen_by
from drivers.sim.light import (
    LEVELS,
    Illumination,
    LightPath,
    crossing,
    one_thread,
    specimen_grain,
)
from drivers.sim.memory import Memory
from drivers.sim.options import Options, parse
from drivers.sim.sensor import Sensor
from labctl import devices
from labctl.errors import DeviceError
from labctl.optics.memory import through
from labctl.optics.propagation import Crossing, Plan

Picture = tuple[NDArray[np.float64], float]

# Nodes and weights of Gauss and Legendre on [0, 1]: the mean of a moving picture
# over 5 ms of an exposure, to 6e-3 even if it starts at the latch.
_MOVING = (
    (0.5 - math.sqrt(0.15), 5 / 18),
    (0.5, 8 / 18),
    (0.5 + math.sqrt(0.15), 5 / 18),
)
_STILL = ((0.5, 1.0),)
_CHECKED = 4
_JUST_NOW_S = 1e-9
_NAME = "world"


@cache
def _sinc(turns: float) -> float:
    # Exposures are of a few lengths, and numpy takes long over a single number.
    return float(np.sinc(turns))


@dataclass(eq=False)
class Shot:
    """One exposure, before anybody looks at its frame.

    Parameters
    ----------
    number
        Counts the exposures of this bench, from 0.
    settings
        Of the camera.
    start_s, end_s
        The exposure.
    power_mw
        Power on the panel; 0 in the dark.
    tilt_px
        Direction of the beam along rows and columns.
    ripple_rad
        Common phase of the panel, its mean over the exposure.
    pictures
        Levels of the panel, and their share of the exposure.
    past
        Those from before the last write that came during the exposure.
    strength
        Response of the medium, in units of its own.
    element_rad
        Drift of the macropixels' phase; None where there is none.
    part
        Part of time in which the medium's disorder is as it is; 0 where it stays.
    sensor_k
        How much warmer than usual the sensor is.
    dwell_s
        How long the medium was exposed to this light, from the write or from the
        exposure before.
    light
        On the sensor's grid, once a medium that remembers was exposed.
    """

    number: int
    settings: devices.CameraSettings
    start_s: float
    end_s: float
    power_mw: float
    tilt_px: tuple[float, float]
    ripple_rad: float
    pictures: tuple[Picture, ...]
    past: tuple[Picture, ...] = ()
    strength: float = 1.0
    element_rad: NDArray[np.float64] | None = None
    part: int = 0
    sensor_k: float = 0.0
    dwell_s: float = 0.0
    light: Tensor | None = None


@final
class World(devices.World):
    """The light path of one simulated bench.

    Parameters
    ----------
    seed
        Of all noise.
    beam
        Path of the beam file, which the laser makes.
    clock_start_s
        What the virtual clock shows first.
    **parts
        Keys of :class:`drivers.sim.options.Options`.

    Raises
    ------
    TypeError
        A key is unknown or a value has the wrong type.
    ValueError
        A value is impossible.
    """

    def __init__(
        self,
        *,
        seed: int,
        beam: Path | str,
        clock_start_s: float = 0.0,
        **parts: object,
    ) -> None:
        self.options = parse(Options, parts).effective()
        self.seed = seed
        self.light = LightPath(self.options)
        self.sensor = Sensor(self.options, seed)
        self.panel_grid = PanelGrid(self.options.panel_shape, self.shape)
        self.sensor_grid = seen_by(self.options)
        self._clock = VirtualClock(clock_start_s)
        self._beam_path = Path(beam)
        self._beam: Beam | None = None
        panel = self.options.panel
        self._crystal = Crystal(self.shape, panel.fast_s, panel.slow_s, LEVELS - 1)
        self._power = noise.PerShot(seed, noise.Stream.POWER, 1)
        self._pointing = noise.PerShot(seed, noise.Stream.POINTING, 2)
        self._meter = noise.PerShot(seed, noise.Stream.METER, 1)
        self._drift = Drift(self.options, seed)
        self._renewal = self._made_renewal()
        self._part, self._plan = 0, self.light.plan
        self._memory: Memory[Shot] | None = None
        if self.options.medium.memory_rad != 0:
            self._memory = Memory(self.options, self.light.real, self._through)
        self._lit_until_s = -math.inf
        self._shots = self._patterns = self._frames = 0
        self._held: devices.Reading | None = None
        self._last: Shot | None = None
        # What the panel was asked for last, and what it shows: not the same
        # where it is broken.
        self.asked = self.shown = np.zeros(self.options.panel_shape, dtype=np.uint8)
        # What ended a run at an exposure up to this one does so no more.
        self.spared = -1
        # Whether a shutter stands in the beam; without one nothing does.
        self.blocked = False
        # The power meter, where one is open: what it tells of the exposure just made.
        self.meter: Callable[[], devices.Reading | None] | None = None
        # What a camera that runs freely must do before the panel changes.
        self.before_write: Callable[[], None] | None = None

    @property
    @override
    def clock(self) -> VirtualClock:
        return self._clock

    @property
    @override
    def shots(self) -> int:
        return self._shots

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the fields' grid."""
        return self.options.grid

    @override
    def close(self) -> None:
        if self._beam is not None:
            self._beam.close()
            self._beam = None

    def lit_mw(self) -> float:
        """Power that the laser sends now, without its noise.

        Raises
        ------
        DeviceError
            The beam file cannot be read.
        """
        try:
            if self._beam is None:
                self._beam = Beam.open(self._beam_path)
            state = self._beam.read()
        except (BeamError, OSError) as error:
            raise DeviceError(_NAME, "read the beam", str(error)) from error
        lit = state.emission and state.shutter_open and not self.blocked
        return state.power_mw if lit else 0.0

    def restart_patterns(self) -> None:
        """Count patterns from 1 again: the panel was opened."""
        self._patterns = 0

    def restart_frames(self) -> None:
        """Count frames from 1 again: the camera was opened."""
        self._frames = 0

    def next_frame_id(self) -> int:
        """Count a frame that leaves the camera."""
        self._frames += 1
        return self._frames

    def show(self, levels: NDArray[np.uint8]) -> devices.Written:
        """Write a pattern; an exposure that still runs sees it come.

        Parameters
        ----------
        levels
            ``(row, column)``, checked by the panel's driver.

        Returns
        -------
        written
            Its number, checksum and time.
        """
        panel = self.options.panel
        self._clock.sleep(self._to_refresh_s() + panel.write_s)
        now = self._clock.now()
        # Exposures that started by themselves saw what was there until now.
        if self.before_write is not None:
            self.before_write()
        running, seen = self._last, self.panel_grid.sample(levels)
        if running is None or running.end_s <= now:
            self._crystal.latch(seen, now)
        else:
            since_s = max(running.start_s, self._crystal.latch_s)
            running.past += self._between(running, since_s, now)
            self._crystal.latch(seen, now)
            ahead = self._between(running, now, running.end_s)
            running.pictures = (*running.past, *ahead)
        self._patterns += 1
        self.shown = levels
        checksum = zlib.crc32(levels.tobytes())
        return devices.Written(self._patterns, checksum, now)

    def _to_refresh_s(self) -> float:
        """Time until the panel takes up what was sent."""
        rate_hz = self.options.panel.refresh_hz
        if rate_hz == 0:
            return 0.0
        now_s = self._clock.now()
        # A refresh just now, but for the last bits of the clock, is taken.
        periods = math.ceil((now_s - _JUST_NOW_S) * rate_hz)
        return max(0.0, periods / rate_hz - now_s)

    def _between(self, shot: Shot, start_s: float, end_s: float) -> tuple[Picture, ...]:
        """Levels of the panel in a part of an exposure, by their share of the whole.

        The part lies between two writes: what the panel showed before the last one
        is no longer known.
        """
        crystal, slow_s = self._crystal, self.options.panel.slow_s
        pictures: list[Picture] = []
        while start_s < end_s:
            # It moves ever more slowly: so the stretches grow.
            longest_s = max(slow_s, start_s - crystal.latch_s)
            moves_until_s = min(end_s, crystal.settled_s, start_s + longest_s)
            moves = moves_until_s > start_s
            stop_s, rule = (moves_until_s, _MOVING) if moves else (end_s, _STILL)
            length_s = stop_s - start_s
            share = length_s / (shot.end_s - shot.start_s)
            pictures += [
                (crystal.at(start_s + node * length_s), weight * share)
                for node, weight in rule
            ]
            start_s = stop_s
        return tuple(pictures)

    def expose(
        self, settings: devices.CameraSettings, start_s: float | None = None
    ) -> Shot:
        """Start an exposure; the clock stays where it is.

        Parameters
        ----------
        settings
            Of the camera.
        start_s
            When it started, after the last write; None for now.

        Returns
        -------
        shot
            For :meth:`render`.

        Raises
        ------
        DeviceError
            The beam file cannot be read.
        """
        number = self._shots
        start = self._clock.now() if start_s is None else start_s
        end = start + settings.exposure_s
        made = self.options
        power = self.lit_mw()
        if made.light.power_noise > 0:
            power *= 1 + made.light.power_noise * float(self._power.normal(number)[0])
        drift = self._drift.at(start)
        power *= drift.power
        tilt_y, tilt_x = (
            made.light.pointing_px * self._pointing.normal(number) + drift.tilt_px
        )
        shot = Shot(
            number=number,
            settings=settings,
            start_s=start,
            end_s=end,
            power_mw=power,
            tilt_px=(float(tilt_y), float(tilt_x)),
            ripple_rad=self._ripple(start, settings.exposure_s),
            pictures=(),
            strength=drift.strength,
            element_rad=drift.element_rad,
            sensor_k=drift.sensor_k,
            part=0 if self._renewal is None else self._renewal.part(start),
            dwell_s=end - max(self._lit_until_s, self._crystal.latch_s),
        )
        shot.pictures = self._between(shot, start, end)
        self._shots += 1
        self._last, self._lit_until_s = shot, end
        if self._memory is not None:
            self._memory.add(shot)
        reading = power * (1 + made.meter.noise * float(self._meter.normal(number)[0]))
        self._held = devices.Reading(reading, end)
        return shot

    def arrival_s(self, shot: Shot) -> float:
        """Time at which the frame of an exposure is read out."""
        return shot.end_s + self.options.sensor.readout_s

    @property
    def ready_s(self) -> float:
        """Time from which the sensor takes another exposure."""
        return -math.inf if self._last is None else self.arrival_s(self._last)

    def _ripple(self, start_s: float, length_s: float) -> float:
        # The mean of a sine over the exposure; to first order in the amplitude
        # the mean intensity is that of the mean phase.
        panel = self.options.panel
        middle = start_s + length_s / 2
        softened = panel.flicker_rad * _sinc(panel.flicker_hz * length_s)
        return softened * math.sin(
            2 * math.pi * math.fmod(panel.flicker_hz * middle, 1)
        )

    def power_reading(self) -> devices.Reading:
        """Return what the power meter shows: the last exposure, held.

        Before the first exposure it shows the power of this moment.

        Returns
        -------
        reading
            In mW, at the end of the exposure.

        Raises
        ------
        DeviceError
            The beam file cannot be read.
        """
        if self._held is not None:
            return self._held
        return devices.Reading(self.lit_mw(), self._clock.now())

    def metered(self) -> devices.Reading | None:
        """Ask the meter for the power of the exposure that was just made.

        Returns
        -------
        reading
            In mW; None where the meter hangs: whoever wants it asks the meter itself,
            with a deadline. Without a meter it is what one would show.

        Raises
        ------
        DeviceError
            The meter fails, or the beam file cannot be read.
        """
        return self.power_reading() if self.meter is None else self.meter()

    def render(self, shots: Sequence[Shot]) -> NDArray[np.uint16]:
        """Compute the frames of exposures that share their settings.

        Parameters
        ----------
        shots
            At least one.

        Returns
        -------
        frames
            ``(shot, row, column)`` of the region, uint16.
        """
        settings = shots[0].settings
        region = self.sensor.pixels(settings.region)
        light_e = np.zeros((len(shots), *region[2:]))
        factor = self.sensor.electrons_per_fraction(settings)
        lit = [(index, shot) for index, shot in enumerate(shots) if shot.power_mw > 0]
        for index, weight, picture in self._pictures(lit, region):
            share = weight / shots[index].strength
            light_e[index] += picture * (factor if share == 1 else share * factor)
        return self.sensor.counts(
            light_e,
            settings,
            [shot.number for shot in shots],
            np.array([shot.sensor_k for shot in shots]),
        )

    def _pictures(
        self, shots: list[tuple[int, Shot]], region: tuple[int, int, int, int]
    ) -> Iterator[tuple[int, float, NDArray[Any]]]:
        """Light on a region: index of the shot, share of its exposure, picture."""
        if self._memory is not None and shots:
            self._memory.expose(max(shot.number for _, shot in shots))
            for index, shot in shots:
                if shot.light is not None:
                    there = self.sensor_grid.crop(shot.light[None], region)
                    yield index, 1.0, there[0].double().numpy()
            return
        pictures = [
            (index, shot, weight, levels)
            for index, shot in shots
            for levels, weight in shot.pictures
        ]
        # Fields that meet the same medium go through it together.
        for part, group in itertools.groupby(pictures, lambda each: each[1].part):
            same, plan = list(group), self._medium(part)
            for at in range(0, len(same), self.light.chunk):
                chunk = same[at : at + self.light.chunk]
                seen = self._seen(chunk, plan, region)
                for (index, _, weight, _), picture in zip(chunk, seen, strict=True):
                    yield index, weight, picture

    def _seen(
        self,
        chunk: list[tuple[int, Shot, float, NDArray[np.float64]]],
        plan: Crossing,
        region: tuple[int, int, int, int],
    ) -> NDArray[np.float64]:
        """Light on a region, of fields that cross the medium together."""
        light, count = self.light, len(chunk)
        if light.is_whole:
            chunk = chunk + chunk[-1:] * (light.chunk - count)
        levels = torch.stack([torch.from_numpy(each[3]) for each in chunk])
        with torch.no_grad(), one_thread():
            shown = levels.to(light.device, light.real)
            lit = self._illumination([shot for _, shot, _, _ in chunk])
            fraction = light.fraction(shown, lit, plan)
            seen = self.sensor_grid.crop(fraction[:count], region)
            return seen.double().cpu().numpy()

    def _made_renewal(self) -> Renewal | None:
        made = self.options.drift
        if made.speckle == 0:
            return None
        grain = specimen_grain(self.options)
        return Renewal(grain, made.speckle, made.speckle_s, self.seed)

    def _medium(self, part: int) -> Crossing:
        """Return the medium in a part of time."""
        if self._renewal is not None and part != self._part:
            grain = self._renewal.at(part)
            with one_thread():
                self._plan = crossing(self.options, self.light.dtype, grain).crossing
            self._part = part
        return self._plan

    def _through(self, shot: Shot, written_rad: Tensor) -> tuple[Tensor, Tensor]:
        """Carry a shot through a medium that remembers: light, and what it exposed."""
        # Only media of one wave have a memory: see the options.
        plan = cast("Plan", self._medium(shot.part))
        levels = torch.from_numpy(np.stack([levels for levels, _ in shot.pictures]))
        with torch.no_grad(), one_thread():
            field = self.light.entrance(
                levels.to(self.light.real),
                self._illumination([shot] * len(shot.pictures)),
            )
            light = torch.zeros_like(field.real[0])
            exposed = torch.zeros_like(written_rad)
            # One by one: the mean over an exposure has the same bits in any batch.
            for each, (_, weight) in zip(field, shot.pictures, strict=True):
                at_exit, response = through(each[None], plan, written_rad)
                light += weight * self.light.seen(at_exit)[0]
                exposed += weight * response
        return light, exposed

    def _illumination(self, shots: Sequence[Shot]) -> Illumination:
        def column(values: list[Any]) -> Tensor:
            return torch.tensor(values, dtype=self.light.real, device=self.light.device)

        made = self.options
        nominal = made.nominal_mw
        tilted = made.light.pointing_px > 0 or made.drift.pointing_px > 0
        rippled = made.panel.flicker_rad > 0
        # A medium that responds more strongly is one that gets more light, of
        # which the camera then sees as much less: see render.
        return Illumination(
            column([shot.power_mw / nominal * shot.strength for shot in shots]),
            column([shot.tilt_px for shot in shots]) if tilted else None,
            column([shot.ripple_rad for shot in shots]) if rippled else None,
            self._elements([shot.element_rad for shot in shots]),
        )

    def _elements(self, drifted: list[NDArray[np.float64] | None]) -> Tensor | None:
        known = [phase for phase in drifted if phase is not None]
        if not known:
            return None
        side = self.options.macropixel_px
        tiled = np.stack(known).repeat(side, axis=1).repeat(side, axis=2)
        on_grid = tiled[:, : self.shape[0], : self.shape[1]]
        return torch.from_numpy(on_grid).to(self.light.device, self.light.real)

    @override
    def state(self) -> dict[str, Any]:
        held = self._held or devices.Reading(math.nan, math.nan)
        memory = {}
        if self._memory is not None:
            self._memory.expose_ended(self._clock.now())
            lit_until_s = self._lit_until_s
            memory = self._memory.state() | {"lit_until_s": lit_until_s}
        return {
            "clock_s": self._clock.now(),
            "shots": self._shots,
            "patterns": self._patterns,
            "frames": self._frames,
            "held_mw": held.value,
            "held_s": held.time_s,
            "blocked": self.blocked,
            "asked": self.asked.copy(),
            "shown": self.shown.copy(),
            **self._crystal.state(),
            **memory,
        }

    @override
    def restore(self, state: Mapping[str, Any]) -> None:
        self._crystal.restore(state)
        self._clock.restore(float(state["clock_s"]))
        self._shots = int(state["shots"])
        self._patterns = int(state["patterns"])
        self._frames = int(state["frames"])
        held = devices.Reading(float(state["held_mw"]), float(state["held_s"]))
        self._held = None if math.isnan(held.time_s) else held
        self.blocked = bool(state["blocked"])
        self.asked = np.array(state["asked"], dtype=np.uint8)
        self.shown = np.array(state["shown"], dtype=np.uint8)
        self._last = None
        if self._memory is not None:
            self._memory.restore(state)
            self._lit_until_s = float(state["lit_until_s"])

    @override
    def spare(self, shots: int) -> None:
        self.spared = shots

    @override
    def describe(self) -> devices.Settings:
        described: dict[str, str | int | float | bool | list[int] | None] = {
            "medium": self.options.medium.kind,
            **self._kernel,
            **self._convergence,
            "dark_e_per_s": self.sensor.dark_e_per_s,
        }
        for key, value in dataclasses.asdict(self.options).items():
            if key in {"kernel", "device"}:  # what was asked for is in the bench file
                continue
            if isinstance(value, dict):
                described |= {f"{key}.{k}": _plain(v) for k, v in value.items()}
            else:
                described[key] = _plain(value)
        return described

    @property
    def _kernel(self) -> dict[str, str]:
        """What computes the light, to the bit, and why it is not another."""
        chosen = self.light.chosen
        told = {
            "kernel": chosen.kernel,
            "kernel_build": chosen.build,
            "kernel_note": chosen.note,
            "device": self.light.device_name,
        }
        return {key: text for key, text in told.items() if text}

    @override
    def convergence(
        self, levels: devices.Levels, *, power_mw: float
    ) -> devices.Convergence:
        shown = torch.from_numpy(levels.astype(np.float64))
        return self._measure(shown, power_mw / self.options.nominal_mw)

    def _measure(self, shown: Tensor, power: float) -> devices.Convergence:
        options, light = self.options, self.light
        if options.device != "cpu":
            # Steps and grid are what they are on any device.
            options = dataclasses.replace(options, kernel="torch", device="cpu")
            light = LightPath(options)
        return measure(options, light, shown, power)

    @cached_property
    def _convergence(self) -> dict[str, float]:
        """How converged the light path is, on random patterns at nominal power."""
        side = self.options.macropixel_px
        source = noise.generator(self.options.device_seed, noise.Stream.CHECK)
        blocks = tuple(-(-length // side) for length in self.shape)
        levels = source.integers(0, LEVELS, (_CHECKED, *blocks)).repeat(side, 1)
        levels = levels.repeat(side, 2)[:, : self.shape[0], : self.shape[1]]
        shown = torch.from_numpy(levels.astype(np.float64))
        found = self._measure(shown, 1.0)
        return {
            "step_gate": found.step_gate,
            "nyquist_share": found.nyquist_share,
            "nyquist_share_full_range": found.nyquist_share_full_range,
            "exit_share": found.exit_share,
            "power_over_critical": found.power_over_critical,
        }


def _plain(value: Any) -> Any:  # noqa: ANN401 - what settings may hold
    return list(value) if isinstance(value, tuple) else value
