"""Every kind of calibration, in the order in which they build on each other."""

from labctl.calibrate import (
    camera,
    crosstalk,
    drift,
    laser_power,
    mapping,
    noise_floor,
    settle,
    slm_phase,
    wavefront,
)
from labctl.calibrate.kind import Kind

KINDS: tuple[Kind, ...] = (
    camera.KIND,
    laser_power.KIND,
    settle.KIND,
    slm_phase.KIND,
    wavefront.KIND,
    mapping.KIND,
    crosstalk.KIND,
    noise_floor.KIND,
    drift.KIND,
)
