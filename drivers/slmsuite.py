"""Every panel that slmsuite knows, spoken to in gray levels and nothing else.

slmsuite crops larger arrays, turns the sign of phases, and adds corrections by default.
Here it is handed whole numbers of the panel's own type and shape, which it passes on
as they are; what it says that it sent is compared.
"""

import importlib
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, Final, final

import numpy as np
from typing_extensions import override

from labctl.devices import (
    SLM,
    Clock,
    Identity,
    Levels,
    Settings,
    Written,
    check_levels,
)
from labctl.errors import DeviceError, vendor_errors

PANELS: Final = "slmsuite.hardware.slms"
importlib.import_module(PANELS)  # refused here, with the extra's name, if it is absent


@final
class SlmsuiteSLM(SLM):
    """A panel behind a class of slmsuite's.

    Parameters
    ----------
    panel
        Module and class below ``slmsuite.hardware.slms``, such as
        ``santec.Santec``.
    arguments
        Keyword arguments of that class. It counts (width, height).
    shape
        Rows and columns; compared with what it says.
    bit_depth
        Bits a level; compared with what it says.
    gives_edges
        Whether it is to give an edge at its output with every pattern: for classes
        that support ``set_output_trigger``, Meadowlark's on PCIe.
    pitch_um
        Distance between pixels.
    settle_s
        Worst-case settling time of the panel, by its vendor.
    clock
        Time of the writes.
    name
        Name in the bench file.

    Raises
    ------
    ValueError
        An option is impossible.
    """

    def __init__(  # noqa: PLR0913 - one parameter an option
        self,
        *,
        panel: str,
        shape: Sequence[int],
        pitch_um: float,
        settle_s: float,
        clock: Clock,
        arguments: Mapping[str, Any] | None = None,
        bit_depth: int = 8,
        gives_edges: bool = False,
        name: str = "slm",
    ) -> None:
        sizes = len(shape) == 2 and min(shape) >= 1 and 1 <= bit_depth <= 16
        if not sizes or not pitch_um > 0 or not settle_s >= 0:
            text = (
                f"{name}: shape={list(shape)}, bit_depth={bit_depth}, pitch_um="
                f"{pitch_um}, settle_s={settle_s}, expected rows and columns, 1 to 16, "
                "more than 0, 0 or more"
            )
            raise ValueError(text)
        module, _, label = panel.rpartition(".")
        if not module.isidentifier() or not label.isidentifier():
            text = f"{name}: panel={panel!r}, expected module.Class, as santec.Santec"
            raise ValueError(text)
        self._module, self._label = f"{PANELS}.{module}", label
        self._arguments, self._panel_name = dict(arguments or {}), panel
        self._name, self._clock, self._bits = name, clock, bit_depth
        self._shape = (int(shape[0]), int(shape[1]))
        self._pitch_um, self._settle_s = float(pitch_um), float(settle_s)
        self._gives_edges = gives_edges
        self._panel: Any = None
        self._patterns = 0

    @property
    @override
    def name(self) -> str:
        return self._name

    @property
    @override
    def shape(self) -> tuple[int, int]:
        return self._shape

    @property
    @override
    def bit_depth(self) -> int:
        return self._bits

    @property
    @override
    def pitch_um(self) -> float:
        return self._pitch_um

    @property
    @override
    def settle_s(self) -> float:
        return self._settle_s

    @property
    @override
    def gives_edges(self) -> bool:
        return self._gives_edges

    @property
    def _dtype(self) -> "np.dtype[np.uint8] | np.dtype[np.uint16]":
        return np.dtype(np.uint8) if self._bits <= 8 else np.dtype(np.uint16)

    @override
    def open(self) -> None:
        if self._panel is not None:
            raise DeviceError(self._name, "open", "already open. Close it first.")
        with vendor_errors(self._name, "open"):
            kind = getattr(importlib.import_module(self._module), self._label)
            self._panel = kind(**self._arguments)
        try:
            self._check_panel()
            self._switch_output()
            self._patterns = 0
            self._show(np.zeros(self._shape, dtype=self._dtype))
        except BaseException:
            self._let_go()
            raise

    def _check_panel(self) -> None:
        """Refuse another panel than the bench file describes.

        Raises
        ------
        DeviceError
            Shape or bits differ.
        """
        shape = tuple(int(size) for size in self._panel.shape)
        bits = int(self._panel.bitdepth)
        if (shape, bits) != (self._shape, self._bits):
            text = (
                f"shape={list(shape)}, bit_depth={bits}, expected {list(self._shape)}, "
                f"{self._bits} (bench file). Correct the options of the panel."
            )
            raise DeviceError(self._name, "open", text)

    def _switch_output(self) -> None:
        """Have it give an edge with every pattern, where that is asked for."""
        if self._gives_edges:
            with vendor_errors(self._name, "open"):
                self._panel.set_output_trigger(True)

    @override
    def close(self) -> None:
        if self._panel is None:
            return
        try:
            self._show(np.zeros(self._shape, dtype=self._dtype))
        finally:
            self._let_go()

    def _let_go(self) -> None:
        panel, self._panel = self._panel, None
        with vendor_errors(self._name, "close"):
            panel.close()

    def _check_open(self, action: str) -> None:
        if self._panel is None:
            raise DeviceError(self._name, action, "not open. Open it first.")

    @override
    def identity(self) -> Identity:
        self._check_open("identity")
        label = str(getattr(self._panel, "name", ""))
        serial = str(getattr(self._panel, "serial", "") or label or self._panel_name)
        return Identity("slmsuite", self._panel_name, serial, "")

    @override
    def settings(self) -> Settings:
        return {
            "panel": self._panel_name,
            "shape": list(self._shape),
            "bit_depth": self._bits,
            "pitch_um": self._pitch_um,
            "settle_s": self._settle_s,
            "gives_edges": self._gives_edges,
        }

    @override
    def write(self, levels: Levels) -> Written:
        self._check_open("write")
        check_levels(self, levels)
        self._show(levels)
        self._patterns += 1
        return Written(
            pattern_id=self._patterns,
            checksum=zlib.crc32(levels.tobytes()),
            written_s=self._clock.now(),
        )

    def _show(self, levels: Levels) -> None:
        """Hand levels on, and see that they are what was sent.

        Raises
        ------
        DeviceError
            Something on the way changed them.
        """
        with vendor_errors(self._name, "write"):
            sent = self._panel.set_phase(levels.copy(), settle=False)
        if not np.array_equal(np.asarray(sent), levels):
            text = "other levels were sent, expected those that were asked for."
            raise DeviceError(self._name, "write", text)
