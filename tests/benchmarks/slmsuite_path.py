"""slmsuite's own calibrations on the light path of a bench, through its device classes.

Its panel and camera are subclassed as its templates say, and drive those of an open
bench. Where it reads a clock or sleeps, it does so on the bench clock. Its settings are
those that do best on a light path without imperfections.
"""

import io
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from slmsuite.hardware.cameras import camera as camera_module
from slmsuite.hardware.cameraslms import FourierSLM, _settle
from slmsuite.hardware.slms import slm as panel_module
from typing_extensions import override

from drivers.sim.light import curvature, gaussian, phase_curve
from drivers.sim.options import Options, parse
from labctl.bench import Bench
from labctl.devices import Clock

Array = NDArray[np.float64]
# Of its array of spots: more do not fit beside each other on 64 pixels.
SPOTS, PITCH = 5, 7
# So that superpixels are as few as its camera can tell apart.
SUPERPIXEL, STEPS = 16, 5
WAIT_S = 0.06
# Directions in which a map is compared with the truth, in cycles a panel pixel.
REACH, DIRECTIONS = 0.12, 50


class BenchTime:
    """What stands for the module ``time``.

    Parameters
    ----------
    clock
        Of the bench.
    """

    def __init__(self, clock: Clock) -> None:
        self.perf_counter, self._sleep = clock.now, clock.sleep

    def sleep(self, seconds: float) -> None:
        """Let bench time pass."""
        self._sleep(max(0.0, seconds))


class Panel(panel_module.SLM):  # type: ignore[misc]  # slmsuite has no types
    """The panel of a bench.

    Parameters
    ----------
    bench
        Open and lit.
    """

    def __init__(self, bench: Bench) -> None:
        self._bench, self.writes = bench, 0
        height, width = bench.slm.shape
        super().__init__(
            (width, height),
            bitdepth=bench.slm.bit_depth,
            pitch_um=bench.slm.pitch_um,
            wav_um=bench.laser.wavelength_nm / 1000,
            settle_time_s=WAIT_S,
            gpu=False,
        )

    @override
    def close(self) -> None:
        """Leave it to the bench."""

    def _set_phase_hw(self, display: NDArray[np.uint8]) -> None:
        self._bench.beat()
        self._bench.slm.write(np.ascontiguousarray(display))
        self.writes += 1


class Sensor(camera_module.Camera):  # type: ignore[misc]  # slmsuite has no types
    """The camera of a bench.

    Parameters
    ----------
    bench
        Open and lit.
    """

    def __init__(self, bench: Bench) -> None:
        self._bench, self.exposures = bench, 0
        self._taken = bench.configure_camera(exposure_s=bench.file.limits.exposure_s)
        height, width = bench.camera.shape
        super().__init__(
            (width, height),
            bitdepth=bench.camera.bit_depth,
            exposure_bounds_s=(
                bench.camera.exposure_limits_s[0],
                bench.file.limits.exposure_s,
            ),
            capture_attempts=1,
        )

    @override
    def close(self) -> None:
        """Leave it to the bench."""

    @override
    def flush(self, timeout_s: float = 1) -> None:
        """Do nothing: a frame that began before its trigger is never returned."""

    def _get_exposure_hw(self) -> float:
        return self._taken.exposure_s

    def _set_exposure_hw(self, exposure_s: float) -> None:
        self._taken = self._bench.configure_camera(exposure_s=float(exposure_s))

    def _get_image_hw(self, timeout_s: float) -> NDArray[np.uint16]:
        camera = self._bench.camera
        self._bench.beat()
        camera.arm(1)
        camera.trigger()
        frame = camera.frame(timeout_s)
        camera.disarm()
        self.exposures += 1
        return frame.data


@dataclass(frozen=True)
class Found:
    """What one of its calibrations found, and what it took.

    Parameters
    ----------
    error
        Distance from the truth; not a number where it failed.
    why
        What it said when it failed; empty otherwise.
    writes, exposures
        That it made.
    bench_s, computer_s
        Time on the bench clock, and of this computer.
    """

    error: float
    why: str
    writes: int
    exposures: int
    bench_s: float
    computer_s: float


class Suite:
    """slmsuite at a bench.

    Parameters
    ----------
    bench
        Open and lit.
    """

    def __init__(self, bench: Bench) -> None:
        world = bench.file.world
        assert world is not None
        self.truth = parse(Options, world.options).effective()
        self._bench = bench
        self._panel, self._sensor = Panel(bench), Sensor(bench)
        self._suite: Any = FourierSLM(self._sensor, self._panel)

    def mapped(self) -> Found:
        """Its map of panel to camera: rms distance from the truth, in pixels."""
        return self._told(self._map)

    def _map(self) -> float:
        np.random.seed(0)  # noqa: NPY002 - its spot arrays start from random phases
        self._suite.fourier_calibrate(SPOTS, PITCH, autoexpose=True)
        rng = np.random.default_rng(0)
        tilts = rng.uniform(-REACH, REACH, (2, DIRECTIONS))
        # Columns first; and a phase of its is minus a delay.
        wide = -tilts * self._panel.wav_um / self._bench.slm.pitch_um
        gap = self._suite.kxyslm_to_ijcam(wide) - self._true_places(tilts)
        return math.sqrt(float((gap**2).sum(axis=0).mean()))

    def _true_places(self, tilts: Array) -> Array:
        sides = np.array(self.truth.grid)[::-1, None]
        places: Array = sides * (0.5 + tilts)
        return places

    def phases(self) -> Found:
        """Its phase of each level: rms distance from the truth, in rad.

        Its map would spoil it: it is handed the true one.
        """
        height, width = self.truth.grid
        scale = -self._bench.slm.pitch_um / self._panel.wav_um
        self._suite.fourier_calibrate_analytic(
            np.diag([width * scale, height * scale]),
            np.array([[width / 2], [height / 2]]),
        )
        return self._told(self._phase)

    def _phase(self) -> float:
        self._suite.pixel_calibrate(autoexpose=True)
        turns = self._suite.pixel_calibration_process()
        levels = self._suite.calibrations["pixel"]["levels"]
        every = 2 * math.pi * self._panel._interpolate_gamma(turns, levels)
        u = torch.arange(len(every), dtype=torch.float64) / len(every)
        return float((every - phase_curve(self.truth)(u).numpy()).std())

    def settled(self) -> Found:
        """Its settle time, over that of a step over all levels, less 1.

        It waits for four time constants, which leave 1.8 %.
        """
        return self._told(self._settle)

    def _settle(self) -> float:
        np.random.seed(0)  # noqa: NPY002 - it shuffles its waits
        times_s = np.linspace(0, WAIT_S, 21)
        found = self._suite.settle_calibrate((0.012, 0.0), 5, times_s, plot=-1)
        slow_s = self.truth.panel.slow_s
        relaxed_s = float(found["settle_time"])
        return relaxed_s / (4 * slow_s) - 1 if slow_s else relaxed_s

    def corrected(self) -> Found:
        """Strehl ratio of the panel's beam with its correction."""
        return self._told(self._correct)

    def _correct(self) -> float:
        point = np.array([[40.0], [44.0]])
        self._sensor.set_exposure(self._bench.file.limits.exposure_s)
        self._suite.wavefront_calibrate_superpixel(
            point, superpixel_size=SUPERPIXEL, phase_steps=STEPS
        )
        self._suite.wavefront_calibration_superpixel_process(plot=0)
        # Its phase is minus a delay.
        added = -np.asarray(self._panel.source["phase"], dtype=np.float64)
        bow = curvature(self.truth, torch.float64)
        assert bow is not None
        beam = gaussian(self.truth.grid, self.truth.light.radius).numpy()
        field = beam * np.exp(1j * (bow.numpy() + added))
        # A tilt that is left in it only moves the spot.
        fine = np.fft.fft2(field, s=[4 * side for side in field.shape])
        return float(np.abs(fine).max() ** 2 / beam.sum() ** 2)

    def _told(self, measure: Callable[[], float]) -> Found:
        before = self._panel.writes, self._sensor.exposures, self._bench.clock.now()
        start_s, error, why = time.perf_counter(), math.nan, ""
        try:
            with redirect_stderr(io.StringIO()):  # its bars of progress
                error = measure()
        except (ValueError, RuntimeError) as refused:
            why = str(refused).splitlines()[0]
        return Found(
            error=error,
            why=why,
            writes=self._panel.writes - before[0],
            exposures=self._sensor.exposures - before[1],
            bench_s=self._bench.clock.now() - before[2],
            computer_s=time.perf_counter() - start_s,
        )


@contextmanager
def at(bench: Bench, power_mw: float) -> Iterator[Suite]:
    """Put slmsuite at an open bench: its clock is the bench's meanwhile.

    Parameters
    ----------
    bench
        Open.
    power_mw
        Power that it is lit with.
    """
    modules: tuple[Any, ...] = (panel_module, camera_module, _settle)
    before: Mapping[Any, Any] = {module: module.time for module in modules}
    logging.getLogger("slmsuite").setLevel(logging.CRITICAL)
    with bench.dark_after():
        bench.light(power_mw)
        for module in modules:
            module.time = BenchTime(bench.clock)
        try:
            yield Suite(bench)
        finally:
            for module in modules:
                module.time = before[module]
        bench.dark()
