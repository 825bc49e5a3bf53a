"""The simulated camera: triggers exposures of the light path, hands out frames."""

from collections import deque
from typing import final

import numpy as np
from typing_extensions import override

from drivers.sim.sensor import BIT_DEPTH
from drivers.sim.world import Shot, World
from labctl.devices import Camera, CameraSettings, Clock, Frame, Identity, Settings
from labctl.errors import DeviceError, FrameError, OutOfRangeError

_EXPOSURE_S = (1e-5, 1.0)
_GAIN_DB = (0.0, 24.0)


@final
class SimCamera(Camera):
    """A triggered 16-bit camera in the light path.

    An exposure starts when it is triggered; a trigger that comes before the last
    frame is read out waits for that.

    Parameters
    ----------
    world
        The light path.
    clock
        That of the light path.
    name
        Name in the bench file.
    pixel_um
        Distance between pixels.
    serial
        Serial number that it reports.

    Raises
    ------
    ValueError
        The clock is another one than the light path's, or the pixel size is
        impossible.
    """

    def __init__(
        self,
        *,
        world: World,
        clock: Clock,
        name: str = "camera",
        pixel_um: float = 6.5,
        serial: str = "SIM-CAMERA-1",
    ) -> None:
        if clock is not world.clock:
            text = f"{name}.clock is another clock, expected that of its world"
            raise ValueError(text)
        if not pixel_um > 0:
            text = f"{name}.pixel_um={pixel_um}, expected more than 0"
            raise ValueError(text)
        self.world = world
        self._name, self._pixel_um, self._serial = name, float(pixel_um), serial
        self._open = False
        self._taken = CameraSettings(0.001, 0.0, (0, 0, *world.shape))
        self._left = self._triggers = 0
        self._armed = False
        self._pending: deque[tuple[int, Shot]] = deque()

    @property
    @override
    def name(self) -> str:
        return self._name

    @property
    @override
    def shape(self) -> tuple[int, int]:
        return self.world.shape

    @property
    @override
    def bit_depth(self) -> int:
        return BIT_DEPTH

    @property
    @override
    def pixel_um(self) -> float:
        return self._pixel_um

    @property
    @override
    def exposure_limits_s(self) -> tuple[float, float]:
        return _EXPOSURE_S

    @property
    @override
    def gain_limits_db(self) -> tuple[float, float]:
        return _GAIN_DB

    @property
    @override
    def saturation_dn(self) -> int:
        return self.world.sensor.saturation_dn(self._taken.gain_db)

    @property
    @override
    def frame_id_modulus(self) -> int | None:
        return None

    @property
    def taken(self) -> CameraSettings:
        """Settings in force."""
        return self._taken

    @override
    def open(self) -> None:
        if self._open:
            raise DeviceError(self._name, "open", "already open. Close it first.")
        self._open = True
        self.world.restart_frames()
        self.disarm()

    @override
    def close(self) -> None:
        self.disarm()
        self._open = False

    @override
    def identity(self) -> Identity:
        self.check_open("identity")
        return Identity("labctl", "simulated camera", self._serial, "1")

    @override
    def settings(self) -> Settings:
        return {
            "shape": list(self.shape),
            "bit_depth": self.bit_depth,
            "pixel_um": self._pixel_um,
            "exposure_s": self._taken.exposure_s,
            "gain_db": self._taken.gain_db,
            "region": list(self._taken.region),
        }

    def check_open(self, action: str) -> None:
        """Refuse an action on a closed camera.

        Raises
        ------
        DeviceError
            It is closed.
        """
        if not self._open:
            raise DeviceError(self._name, action, "not open. Open it first.")

    @override
    def configure(
        self,
        *,
        exposure_s: float,
        gain_db: float = 0.0,
        region: tuple[int, int, int, int] | None = None,
    ) -> CameraSettings:
        self.check_open("configure")
        if self._armed:
            raise DeviceError(self._name, "configure", "armed. Disarm it first.")
        self._check("exposure_s", exposure_s, _EXPOSURE_S)
        self._check("gain_db", gain_db, _GAIN_DB)
        full = (0, 0, *self.shape)
        self._taken = CameraSettings(
            float(exposure_s),
            float(gain_db),
            full if region is None else self._checked_region(region),
        )
        return self._taken

    def _check(self, quantity: str, got: float, limits: tuple[float, float]) -> None:
        low, high = limits
        if not low <= got <= high:
            raise OutOfRangeError(self._name, quantity, got, low=low, high=high)

    def _checked_region(
        self, region: tuple[int, int, int, int]
    ) -> tuple[int, int, int, int]:
        row, column, height, width = region
        inside = (
            row >= 0
            and column >= 0
            and height > 0
            and width > 0
            and row + height <= self.shape[0]
            and column + width <= self.shape[1]
        )
        if not inside:
            raise OutOfRangeError(
                self._name, "region", region, low=(0, 0, 1, 1), high=(0, 0, *self.shape)
            )
        return (row, column, height, width)

    @override
    def arm(self, frames: int) -> None:
        self.check_open("arm")
        if frames < 1:
            raise OutOfRangeError(self._name, "frames", frames, low=1, high="any")
        self.disarm()
        self._armed, self._left = True, frames

    @override
    def disarm(self) -> None:
        self._armed, self._left, self._triggers = False, 0, 0
        self._pending.clear()

    @override
    def trigger(self) -> None:
        self._pending.append(self.start())

    def start(self) -> tuple[int, Shot]:
        """Start an exposure that nobody has to fetch.

        Returns
        -------
        exposure
            Number of the trigger since the camera was armed, and the shot.

        Raises
        ------
        FrameError
            ``trigger_refused``: not armed, or more triggers than armed for.
        """
        if not self._armed or self._left == 0:
            reason = "not armed" if not self._armed else "no trigger left since arm"
            raise FrameError(
                self._name, "trigger_refused", f"{reason}. Arm it for more frames."
            )
        early = self.world.ready_s - self.world.clock.now()
        if early > 0:
            self.world.clock.sleep(early)
        shot = self.world.expose(self._taken)
        self._left -= 1
        self._triggers += 1
        return self._triggers, shot

    @override
    def frame(self, timeout_s: float) -> Frame:
        self.check_open("frame")
        clock = self.world.clock
        wait = (
            self.world.arrival_s(self._pending[0][1]) - clock.now()
            if self._pending
            else None
        )
        if wait is None or wait > timeout_s:
            clock.sleep(timeout_s)
            reason = "no trigger waits for one" if wait is None else "still exposing"
            raise FrameError(
                self._name, "timeout", f"no frame within {timeout_s} s, {reason}"
            )
        if wait > 0:
            clock.sleep(wait)
        trigger, shot = self._pending.popleft()
        return Frame(
            data=np.ascontiguousarray(self.world.render([shot])[0]),
            frame_id=self.world.next_frame_id(),
            trigger=trigger,
            device_time_s=shot.start_s,
            host_time_s=clock.now(),
            exposure_start_s=shot.start_s,
            exposure_end_s=shot.end_s,
        )
