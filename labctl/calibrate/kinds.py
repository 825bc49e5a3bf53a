"""Every kind of calibration, in the order in which they build on each other."""

from labctl.calibrate import camera
from labctl.calibrate.kind import Kind

KINDS: tuple[Kind, ...] = (camera.KIND,)
