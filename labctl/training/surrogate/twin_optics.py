"""A twin that is a bench itself: wave optics with the unknown numbers as parameters.

It is told the layout of the bench, or finds that too; its details it is never told. The
scheme is that of :mod:`labctl.optics`: panel with crosstalk and unmodulated light, a
Gaussian beam with a smooth correction, Strang-split steps of saturable Kerr with thin
screens, a lens, bins. Every number of it is fitted: radius, crosstalk, zero order,
diffraction, strength and saturation of the medium, absorption at the edge, the screens,
brightness and offset of each output; where the layout was guessed, place and size of
the binned region as well. What a real bench has beside these (an error of the phase
curve, pointing, noise of the power) is left unmodelled.
"""

import math
from typing import ClassVar, Final

import torch
from jaxtyping import Complex, Float, Int64
from torch import Generator, Tensor, nn
from typing_extensions import override

from labctl.optics.crossing import cross, cross_fused
from labctl.optics.kernel import loaded
from labctl.optics.kicks import Kicks, Waves
from labctl.optics.lens import far_field, intensity
from labctl.optics.medium import edge_profile, radius_squared
from labctl.optics.propagation import node_weights
from labctl.training.surrogate.model import Twin
from labctl.training.surrogate.settings import FitTerm, OpticalLayout, Ports

# A fit starts from a bench as plain as any: half the window lit, little crosstalk and
# unmodulated light, half the nonlinearity that is usual. None is read off a bench.
_RADIUS: Final = 0.5
_CROSSTALK: Final = 0.2
_ZERO_ORDER: Final = 0.1
_B: Final = 1.5
_SCREEN_RAD: Final = 0.05
# What another start draws from, wide enough for either sign of the medium.
_WIDEST_B: Final = 4.0
# And, where the layout is a guess, the size of the binned region over the window, and
# the diffraction over the guessed one.
_REGIONS: Final = (0.4, 1.0)
_FRESNELS: Final = (0.3, 3.0)
_REACH_MACROPIXELS: Final = 2
_CALIBRATION: Final = 64


class TwinOptics(Twin):
    """The bench as optics, its numbers fitted.

    Parameters
    ----------
    ports
        Sizes of the device, its rows and columns, and where its optics are.
    screens
        Thin screens that are learned, evenly through the medium.
    panel_lag
        Whether a phase of each macropixel is learned as well.
    fused
        Whether the compiled kernel crosses the medium; it is to be had then.
    generator
        Source of the start.

    Raises
    ------
    ValueError
        The optics are not known, or do not fit the sizes.
    """

    default_losses: ClassVar[tuple[FitTerm, ...]] = (FitTerm("value"),)
    restarts: ClassVar[bool] = True
    slow: ClassVar[bool] = True
    brightness: Float[Tensor, ""]
    row_bins: Float[Tensor, "bin row"]
    column_bins: Float[Tensor, "bin column"]
    wave: Float[Tensor, "row column"]
    row_wave: Float[Tensor, " row"]
    column_wave: Float[Tensor, " column"]
    radius2: Float[Tensor, "row column"]
    edge_shape: Float[Tensor, "row column"]
    node_weight: Float[Tensor, " node"]
    screen_nodes: Int64[Tensor, " screen"]

    def __init__(
        self,
        ports: Ports,
        *,
        screens: int,
        panel_lag: bool = False,
        fused: bool = False,
        generator: Generator,
    ) -> None:
        super().__init__(ports)
        self._fused = fused
        self._optics, self._layout = _checked(ports)
        grid = self._optics.grid
        self._block = (grid[0] // self._layout[0], grid[1] // self._layout[1])
        self._screens = screens
        nodes = _places(screens, self._optics.steps)
        coarse = (max(2, self._layout[0] // 2), max(2, self._layout[1] // 2))
        self.screen = nn.Parameter(torch.zeros(len(nodes), *self._layout))
        self.amplitude = nn.Parameter(torch.zeros(1, *coarse))
        self.b = nn.Parameter(torch.tensor(_B))
        self.log_saturation = nn.Parameter(torch.tensor(0.0))
        self.log_fresnel = nn.Parameter(torch.tensor(0.0))
        self.log_edge = nn.Parameter(torch.tensor(0.0))
        self.log_radius = nn.Parameter(torch.tensor(math.log(_RADIUS)))
        self.log_crosstalk = nn.Parameter(torch.tensor(math.log(_CROSSTALK)))
        self.zero_order = nn.Parameter(torch.tensor([_ZERO_ORDER, 0.0]))
        self.log_gain = nn.Parameter(torch.zeros(ports.outputs))
        self.bias = nn.Parameter(torch.zeros(ports.outputs))
        lag = torch.zeros(self._layout)
        self.lag = nn.Parameter(lag) if panel_lag else None
        self.region = _Region(self._optics) if self._optics.guessed else None
        self._raise_screen = _Raise(self._layout, grid)
        self._raise_amplitude = _Raise(coarse, grid)
        self.register_buffer("screen_nodes", torch.tensor(nodes), persistent=False)
        self._declare_grid()
        self._draw_screens(generator)

    def _declare_grid(self) -> None:
        optics = self._optics
        row, column = (
            2 * math.pi * torch.fft.fftfreq(side, dtype=torch.float64)
            for side in optics.grid
        )
        down, across = -(row**2) / 2, -(column**2) / 2
        wave = -(row[:, None] ** 2 + column[None] ** 2) / 2
        top, left, height, width = optics.region
        single = torch.get_default_dtype()
        for name, table in (
            ("wave", wave),
            ("row_wave", down),
            ("column_wave", across),
            ("radius2", radius_squared(optics.grid)),
            ("edge_shape", edge_profile(optics.grid)),
            ("row_bins", _bins(top, height, optics.bins[0], optics.grid[0])),
            ("column_bins", _bins(left, width, optics.bins[1], optics.grid[1])),
            ("node_weight", torch.tensor(node_weights(optics.steps))),
        ):
            self.register_buffer(name, table.to(single), persistent=False)
        self.register_buffer("brightness", torch.tensor(1.0))

    def _draw_screens(self, generator: Generator) -> None:
        with torch.no_grad():
            self.screen.copy_(
                _SCREEN_RAD * torch.randn(self.screen.shape, generator=generator)
            )

    @override
    @torch.no_grad()
    def restart(self, generator: Generator) -> None:
        fresh = TwinOptics(
            self.ports,
            screens=self._screens,
            panel_lag=self.lag is not None,
            fused=self._fused,
            generator=generator,
        )
        for mine, other in zip(self.parameters(), fresh.parameters(), strict=True):
            mine.copy_(other)
        share, spread = (
            torch.rand(1, generator=generator),
            torch.randn(1, generator=generator),
        )
        self.b.copy_(_WIDEST_B * (2 * share[0] - 1))
        self.log_saturation.copy_(0.5 * spread[0])
        if self.region is not None:
            size, length = torch.rand(2, generator=generator)
            low, high = _REGIONS
            self.region.log_size.fill_((low + (high - low) * size).log())
            low, high = (math.log(factor) for factor in _FRESNELS)
            self.log_fresnel.copy_(low + (high - low) * length)

    @override
    @torch.no_grad()
    def calibrate(self, y: Float[Tensor, "batch output"]) -> None:
        if self.mean_known:
            return
        super().calibrate(y)
        y = y.to(self.device)
        # Own numbers: how bright the optics are must not depend on who else draws.
        generator = Generator().manual_seed(0)
        phase = torch.rand(_CALIBRATION, self.pixels, generator=generator)
        light = self.light(2 * math.pi * phase.to(y))
        self.brightness.copy_(y.mean() / light.mean())

    def light(
        self, phase: Float[Tensor, "batch pixel"]
    ) -> Float[Tensor, "batch output"]:
        """Light in each bin, in units of a grid point's at the middle of the beam.

        Parameters
        ----------
        phase
            What the panel shows, in rad.
        """
        field = self._through(self._entrance(phase))
        if self._optics.lens:
            field = far_field(field)
        down, across = self.row_bins, self.column_bins
        if self.region is not None:
            down, across = self.region()
        return (down @ intensity(field) @ across.T).flatten(1)

    def _entrance(
        self, phase: Float[Tensor, "batch pixel"]
    ) -> Complex[Tensor, "batch row column"]:
        # Crosstalk blurs what the panel shows: a wrap of the phase is a step in it.
        panel = torch.remainder(phase, 2 * math.pi).view(-1, *self._layout)
        if self.lag is not None:
            panel = panel + self.lag
        panel = panel.repeat_interleave(self._block[0], 1)
        panel = panel.repeat_interleave(self._block[1], 2)
        sigma = self.log_crosstalk.exp()
        down, across = (
            _blur(side, sigma * block, _REACH_MACROPIXELS * block)
            for side, block in zip(self._optics.grid, self._block, strict=True)
        )
        panel = down @ panel @ across.T
        field = torch.polar(torch.ones_like(panel), panel)
        field = field + torch.complex(self.zero_order[0], self.zero_order[1])
        radius = self.log_radius.exp() * min(self._optics.grid)
        rise = self._raise_amplitude(self.amplitude)[0]
        beam = torch.exp(rise - self.radius2 / radius**2)
        return field * beam

    def _through(
        self, field: Complex[Tensor, "batch row column"]
    ) -> Complex[Tensor, "batch row column"]:
        optics = self._optics
        area = self._block[0] * self._block[1]
        length = self.log_fresnel.exp() * optics.fresnel * area / optics.steps
        weight = self.node_weight
        screen = self.edge_shape.new_zeros(len(weight), *optics.grid)
        screen = screen.index_copy(
            0, self.screen_nodes, self._raise_screen(self.screen)
        )
        lost = self.log_edge.exp() * weight[:, None, None] * self.edge_shape
        kicks = Kicks(
            strength=self.b * weight,
            saturation=self.log_saturation.exp(),
            screen=screen,
            left=torch.exp(-lost),
        )
        if self._fused:
            library, _ = loaded()
            waves = Waves(self.row_wave, self.column_wave)
            return cross_fused(field, waves, length, kicks, library)
        points = optics.grid[0] * optics.grid[1]
        transfer = torch.polar(
            torch.full_like(self.wave, 1 / points), self.wave * length
        )
        return cross(field, transfer, kicks)

    @override
    def predict(
        self, phase: Float[Tensor, "batch pixel"]
    ) -> Float[Tensor, "batch output"]:
        counts = self.brightness * self.log_gain.exp() * self.light(phase)
        return (counts - self.y_mean) / self.y_scale + self.bias


def _checked(ports: Ports) -> tuple[OpticalLayout, tuple[int, int]]:
    optics, layout = ports.optics, ports.layout
    if optics is None or layout is None or not ports.circular:
        text = (
            f"twin-optics: optics={optics}, layout={layout}, expected both, and "
            "phases. Give the bench file a section optics, set surrogate.optics to "
            "learned, or take twin-pairs."
        )
        raise ValueError(text)
    if any(side % count for side, count in zip(optics.grid, layout, strict=True)):
        text = (
            f"twin-optics: grid={list(optics.grid)}, expected multiples of the "
            f"macropixels {list(layout)}. Change optics.grid in the bench file."
        )
        raise ValueError(text)
    top, left, height, width = optics.region
    if top + height > optics.grid[0] or left + width > optics.grid[1]:
        text = (
            f"twin-optics: region={list(optics.region)}, expected within the grid "
            f"{list(optics.grid)}. Set optics.region in the bench file, in grid points."
        )
        raise ValueError(text)
    if optics.bins[0] * optics.bins[1] != ports.outputs:
        text = (
            f"twin-optics: bins={list(optics.bins)}, expected outputs={ports.outputs} "
            "in all. Give the bins of the device."
        )
        raise ValueError(text)
    return optics, layout


def _places(screens: int, steps: int) -> list[int]:
    """Nodes between steps that lie nearest to even places, each once."""
    nodes = {round((number + 0.5) / screens * steps) for number in range(screens)}
    return sorted(nodes)


def _bins(start: int, length: int, count: int, side: int) -> Float[Tensor, "bin point"]:
    edges = torch.linspace(0, length, count + 1, dtype=torch.float64).round().int()
    table = torch.zeros(count, side, dtype=torch.float64)
    for number in range(count):
        table[number, start + edges[number] : start + edges[number + 1]] = 1
    return table


class _Raise(nn.Module):
    """Interpolates control points over a grid, smoothly.

    Parameters
    ----------
    coarse
        Rows and columns of control points.
    grid
        Rows and columns of points.
    """

    down: Float[Tensor, "row y"]
    across: Float[Tensor, "column x"]

    def __init__(self, coarse: tuple[int, int], grid: tuple[int, int]) -> None:
        super().__init__()
        self._grid = grid
        for name, few, many in zip(("down", "across"), coarse, grid, strict=True):
            table = _bicubic(torch.eye(few)[None], (many, few))[0]
            self.register_buffer(name, table, persistent=False)

    @override
    def forward(
        self, points: Float[Tensor, "screen y x"]
    ) -> Float[Tensor, "screen row column"]:
        # On a card torch adds the derivative of an interpolation up in an order of
        # chance, so that no fit could be repeated to the bit.
        if points.is_cuda:
            return self.by_product(points)
        return _bicubic(points, self._grid)

    def by_product(
        self, points: Float[Tensor, "screen y x"]
    ) -> Float[Tensor, "screen row column"]:
        """Interpolate along rows and columns by the weights of each point."""
        smooth: Tensor = self.down @ points @ self.across.T
        return smooth


def _bicubic(
    points: Float[Tensor, "screen y x"], grid: tuple[int, int]
) -> Float[Tensor, "screen row column"]:
    smooth: Tensor = nn.functional.interpolate(points[None], size=grid, mode="bicubic")
    return smooth[0]


class _Region(nn.Module):
    """The binned region of a bench whose layout is a guess.

    Parameters
    ----------
    optics
        Where it is thought to be.
    """

    def __init__(self, optics: OpticalLayout) -> None:
        super().__init__()
        self._grid, self._bins = optics.grid, optics.bins
        place, size = torch.tensor(optics.region).view(2, 2) / torch.tensor(self._grid)
        # Along rows and columns, in windows.
        self.middle = nn.Parameter(place + size / 2)
        self.log_size = nn.Parameter(size.log())

    @override
    def forward(self) -> list[Float[Tensor, "bin point"]]:
        """Share of each row, and of each column, that lies in each bin."""
        size = self.log_size.exp()
        return [
            _shares(self.middle[axis], size[axis], self._bins[axis], side)
            for axis, side in enumerate(self._grid)
        ]


def _shares(
    middle: Float[Tensor, ""], size: Float[Tensor, ""], count: int, side: int
) -> Float[Tensor, "bin point"]:
    """Share of each point in each of equal bins, with a slope along both."""
    even = torch.linspace(0, 1, count + 1, device=size.device)
    edges = side * (middle + size * (even - 0.5))
    before = (edges[:, None] - torch.arange(side, device=size.device)).clamp(0, 1)
    return before[1:] - before[:-1]


def _blur(side: int, sigma: Float[Tensor, ""], reach: int) -> Float[Tensor, "to from_"]:
    """Matrix of a Gaussian blur that goes on at the border as it ends."""
    offset = torch.arange(-reach, reach + 1, device=sigma.device)
    weight = torch.exp(-(offset**2) / (2 * sigma**2))
    weight = weight / weight.sum()
    to = torch.arange(side, device=sigma.device)[:, None].expand(side, len(offset))
    source = (to + offset).clamp(0, side - 1)
    # In a fixed order on a card too, which scatter_add would not add in.
    return weight.new_zeros(side, side).index_put(
        (to, source), weight.expand(side, -1), accumulate=True
    )
