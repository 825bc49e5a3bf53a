"""From inputs and theta to the phase of each macropixel.

A layout is ``(rows, columns)`` of macropixels, numbered row by row. Inputs are
spread over it as blocks: the features form a near-square grid, and every
macropixel takes the feature whose cell it lies in. Phases are in rad and not
wrapped; whoever shows them wraps.
"""

import math
from abc import ABC, abstractmethod
from typing import Literal, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from typing_extensions import override

Layout = tuple[int, int]
Basis = Literal["zernike", "fourier", "hadamard"]


def feature_grid(features: int, layout: Layout) -> Layout:
    """Return the near-square grid that features are laid out in.

    The exact pair of factors nearest to a square, if its sides differ at most by
    a factor of 2; else the grid nearest to a square that holds all, whose last
    cells stay empty. Both must fit into the layout.

    Parameters
    ----------
    features
        Number of features.
    layout
        Rows and columns of macropixels.

    Returns
    -------
    grid
        Rows and columns of features.

    Raises
    ------
    ValueError
        More features than macropixels.
    """
    rows, columns = layout
    if features < 1 or features > rows * columns:
        text = (
            f"encoding: features={features}, expected 1 to {rows * columns} "
            f"(macropixels {rows} x {columns}). Use fewer features, or more "
            "macropixels."
        )
        raise ValueError(text)
    grids = [(r, math.ceil(features / r)) for r in range(1, rows + 1)]
    grids = [grid for grid in grids if grid[1] <= columns]

    def sides(grid: Layout) -> float:
        return max(grid) / min(grid)

    exact = [g for g in grids if g[0] * g[1] == features and sides(g) <= 2]
    # Ties go to the wider grid: images of text and digits are read along rows.
    return min(exact or grids, key=lambda g: (sides(g), g[0] * g[1], g[0]))


def spread(
    features: int, layout: Layout
) -> tuple[Int[Tensor, " pixel"], Bool[Tensor, " pixel"]]:
    """Say which feature every macropixel takes.

    Parameters
    ----------
    features
        Number of features.
    layout
        Rows and columns of macropixels.

    Returns
    -------
    index
        Feature of each macropixel.
    used
        False where the cell of the macropixel is empty; its index is 0.
    """
    rows, columns = layout
    grid_rows, grid_columns = feature_grid(features, layout)
    row = torch.arange(rows) * grid_rows // rows
    column = torch.arange(columns) * grid_columns // columns
    index = (row[:, None] * grid_columns + column[None, :]).reshape(-1)
    used = index < features
    return torch.where(used, index, 0), used


class Encoding(nn.Module, ABC):
    """How inputs and theta share the panel.

    Parameters
    ----------
    features
        Number of inputs.
    layout
        Rows and columns of macropixels.
    input_scale_rad
        Phase of an input of 1.
    """

    def __init__(
        self, features: int, layout: Layout, *, input_scale_rad: float
    ) -> None:
        super().__init__()
        self.features = features
        self.layout = layout
        self.input_scale_rad = input_scale_rad

    @property
    def pixels(self) -> int:
        """Number of macropixels."""
        return self.layout[0] * self.layout[1]

    @property
    @abstractmethod
    def theta_size(self) -> int:
        """Length of theta."""

    @override
    @abstractmethod
    def forward(
        self, x: Float[Tensor, "batch feature"], theta: Float[Tensor, " theta"]
    ) -> Float[Tensor, "batch pixel"]:
        """Return the phase, in rad.

        Parameters
        ----------
        x
            Inputs, nominally in [0, 1].
        theta
            Trainable parameters, in rad.
        """


class _Blocks(nn.Module):
    """Inputs as blocks of phase over a layout."""

    index: Tensor
    used: Tensor

    def __init__(self, features: int, layout: Layout, scale_rad: float) -> None:
        super().__init__()
        index, used = spread(features, layout)
        self.scale_rad = scale_rad
        self.register_buffer("index", index, persistent=False)
        self.register_buffer("used", used, persistent=False)

    @override
    def forward(
        self, x: Float[Tensor, "batch feature"]
    ) -> Float[Tensor, "batch pixel"]:
        return self.scale_rad * x[:, self.index] * self.used


@final
class Additive(Encoding):
    """Inputs and theta on the same macropixels: phase = scale x + theta.

    Parameters
    ----------
    features
        Number of inputs.
    layout
        Rows and columns of macropixels.
    input_scale_rad
        Phase of an input of 1.
    """

    def __init__(
        self, features: int, layout: Layout, *, input_scale_rad: float
    ) -> None:
        super().__init__(features, layout, input_scale_rad=input_scale_rad)
        self.blocks = _Blocks(features, layout, input_scale_rad)

    @property
    @override
    def theta_size(self) -> int:
        return self.pixels

    @override
    def forward(
        self, x: Float[Tensor, "batch feature"], theta: Float[Tensor, " theta"]
    ) -> Float[Tensor, "batch pixel"]:
        blocks: Tensor = self.blocks(x)
        return blocks + theta


@final
class Split(Encoding):
    """Inputs on the left columns, theta on the right ones.

    Parameters
    ----------
    features
        Number of inputs.
    layout
        Rows and columns of macropixels.
    input_scale_rad
        Phase of an input of 1.
    share
        Part of the columns given to the inputs.

    Raises
    ------
    ValueError
        No column is left for inputs or theta.
    """

    def __init__(
        self, features: int, layout: Layout, *, input_scale_rad: float, share: float
    ) -> None:
        super().__init__(features, layout, input_scale_rad=input_scale_rad)
        rows, columns = layout
        self.left = round(share * columns)
        if not 0 < self.left < columns:
            text = (
                f"encoding: split={share} gives {self.left} of {columns} columns to "
                f"the inputs, expected 1 to {columns - 1}. Choose another split."
            )
            raise ValueError(text)
        self.blocks = _Blocks(features, (rows, self.left), input_scale_rad)

    @property
    @override
    def theta_size(self) -> int:
        return self.layout[0] * (self.layout[1] - self.left)

    @override
    def forward(
        self, x: Float[Tensor, "batch feature"], theta: Float[Tensor, " theta"]
    ) -> Float[Tensor, "batch pixel"]:
        rows, columns = self.layout
        blocks: Tensor = self.blocks(x)
        left = blocks.reshape(-1, rows, self.left)
        right = theta.reshape(1, rows, columns - self.left)
        both = torch.cat((left, right.expand(len(left), -1, -1)), dim=2)
        return both.reshape(len(left), -1)


@final
class Modes(Encoding):
    """Inputs on all macropixels, plus theta as coefficients of a basis.

    The sum over the basis is scaled so that coefficients of rms s make a phase of
    rms s over the panel: theta has the same meaning and step as elsewhere.

    Parameters
    ----------
    features
        Number of inputs.
    layout
        Rows and columns of macropixels.
    input_scale_rad
        Phase of an input of 1.
    basis, modes
        Which functions, and how many.
    """

    rows: Tensor

    def __init__(
        self,
        features: int,
        layout: Layout,
        *,
        input_scale_rad: float,
        basis: Basis,
        modes: int,
    ) -> None:
        super().__init__(features, layout, input_scale_rad=input_scale_rad)
        self.blocks = _Blocks(features, layout, input_scale_rad)
        rows = functions(basis, modes, layout) * math.sqrt(self.pixels / modes)
        self.register_buffer(
            "rows", rows.to(torch.get_default_dtype()), persistent=False
        )

    @property
    @override
    def theta_size(self) -> int:
        return len(self.rows)

    @override
    def forward(
        self, x: Float[Tensor, "batch feature"], theta: Float[Tensor, " theta"]
    ) -> Float[Tensor, "batch pixel"]:
        blocks: Tensor = self.blocks(x)
        return blocks + theta @ self.rows.to(theta)


def functions(basis: Basis, modes: int, layout: Layout) -> Float[Tensor, "mode pixel"]:
    """Return the first functions of a basis on a layout, orthonormal rows.

    The constant is left out of every basis: a common phase changes no intensity.

    Parameters
    ----------
    basis
        ``fourier`` (real plane waves), ``hadamard`` (Walsh patterns; rows and
        columns must be powers of two), each from slow to fast, or ``zernike``
        (in Noll's order).
    modes
        How many.
    layout
        Rows and columns of macropixels.

    Raises
    ------
    ValueError
        The layout has no such basis, or not so many functions.
    """
    most = layout[0] * layout[1] - 1
    if not 1 <= modes <= most:
        text = (
            f"encoding: modes={modes}, expected 1 to {most} "
            f"(macropixels {layout[0]} x {layout[1]}, without the constant)."
        )
        raise ValueError(text)
    makers = {"zernike": _zernike, "fourier": _fourier, "hadamard": _hadamard}
    return makers[basis](modes, layout)


def _fourier(modes: int, layout: Layout) -> Float[Tensor, "mode pixel"]:
    """Real discrete Fourier basis: cosine and sine of each pair of wave vectors.

    See A. V. Oppenheim, R. W. Schafer, "Discrete-Time Signal Processing", ch. 8;
    where a wave vector is its own mirror image only the cosine is there.
    """
    rows, columns = layout
    row = torch.arange(rows, dtype=torch.float64)[:, None]
    column = torch.arange(columns, dtype=torch.float64)[None, :]
    waves: list[tuple[float, int, int]] = []
    for k in range(rows):
        for m in range(columns):
            mirror = (-k % rows, -m % columns)
            if (k, m) == (0, 0) or mirror < (k, m):
                continue
            slow = min(k, rows - k) / rows, min(m, columns - m) / columns
            waves.append((math.hypot(*slow), k, m))
    found: list[Tensor] = []
    for _, k, m in sorted(waves):
        angle = 2 * torch.pi * (k * row / rows + m * column / columns)
        found.append(torch.cos(angle).reshape(-1))
        if (-k % rows, -m % columns) != (k, m):
            found.append(torch.sin(angle).reshape(-1))
        if len(found) >= modes:
            break
    return nn.functional.normalize(torch.stack(found[:modes]), dim=1)


def _walsh(size: int) -> Float[Tensor, "mode row"]:
    """Sylvester's Hadamard matrix, rows by number of sign changes.

    J. J. Sylvester, Phil. Mag. 34, 461 (1867), doi 10.1080/14786446708639914.

    Raises
    ------
    ValueError
        The size is no power of two.
    """
    if size & (size - 1):
        text = (
            f"encoding: hadamard on a side of {size} macropixels, expected a power "
            "of two. Use fourier, or another number of macropixels."
        )
        raise ValueError(text)
    matrix = torch.ones(1, 1, dtype=torch.float64)
    while len(matrix) < size:
        upper = torch.cat((matrix, matrix), dim=1)
        lower = torch.cat((matrix, -matrix), dim=1)
        matrix = torch.cat((upper, lower))
    changes = (matrix[:, 1:] != matrix[:, :-1]).sum(dim=1)
    return matrix[torch.argsort(changes)]


def _hadamard(modes: int, layout: Layout) -> Float[Tensor, "mode pixel"]:
    by_row, by_column = _walsh(layout[0]), _walsh(layout[1])
    pairs = [(k + m, k, m) for k in range(layout[0]) for m in range(layout[1])]
    chosen = sorted(pairs)[1 : modes + 1]
    found = [torch.outer(by_row[k], by_column[m]).reshape(-1) for _, k, m in chosen]
    return torch.stack(found) / math.sqrt(layout[0] * layout[1])


def _noll(count: int) -> list[tuple[int, int]]:
    """Radial order and signed azimuthal frequency, in Noll's order from j = 2."""
    found: list[tuple[int, int]] = []
    n = 0
    while len(found) < count + 1:
        for m in range(n % 2, n + 1, 2):
            if m == 0:
                found.append((n, 0))
                continue
            # Noll: even j takes the cosine. j of the first of the pair is
            # the number found so far plus 1.
            first_is_cosine = (len(found) + 1) % 2 == 0
            signs = (1, -1) if first_is_cosine else (-1, 1)
            found.extend((n, sign * m) for sign in signs)
        n += 1
    return found[1 : count + 1]


def _radial(n: int, m: int, rho: Tensor) -> Tensor:
    total = torch.zeros_like(rho)
    for k in range((n - m) // 2 + 1):
        factor = (
            (-1) ** k
            * math.factorial(n - k)
            / math.factorial(k)
            / math.factorial((n + m) // 2 - k)
            / math.factorial((n - m) // 2 - k)
        )
        total = total + factor * rho ** (n - 2 * k)
    return total


def _zernike(modes: int, layout: Layout) -> Float[Tensor, "mode pixel"]:
    """Zernike polynomials on the circle around the layout, made orthonormal on it.

    Order and signs: R. J. Noll, J. Opt. Soc. Am. 66, 207 (1976), doi
    10.1364/JOSA.66.000207, table I. Orthonormal over the sampled rectangle by
    Gram and Schmidt, as V. N. Mahajan and G.-m. Dai, J. Opt. Soc. Am. A 24, 2994
    (2007), doi 10.1364/JOSAA.24.002994; the constant goes first and is dropped.

    Raises
    ------
    ValueError
        The layout has not so many independent polynomials.
    """
    rows, columns = layout
    radius = math.hypot(rows, columns) / 2
    row = (torch.arange(rows, dtype=torch.float64) - (rows - 1) / 2) / radius
    column = (torch.arange(columns, dtype=torch.float64) - (columns - 1) / 2) / radius
    rho = torch.sqrt(row[:, None] ** 2 + column[None, :] ** 2).reshape(-1)
    angle = torch.atan2(row[:, None], column[None, :]).reshape(-1)
    found = [torch.ones_like(rho)]
    for n, m in _noll(modes):
        turn = torch.cos(m * angle) if m >= 0 else torch.sin(-m * angle)
        found.append(_radial(n, abs(m), rho) * turn)
    table = nn.functional.normalize(torch.stack(found), dim=1)
    ortho, triangle = torch.linalg.qr(table.T)
    size = triangle.diagonal()
    if bool((size.abs() < 1e-6).any()):
        text = (
            f"encoding: modes={modes} Zernike polynomials are not independent on "
            f"{rows} x {columns} macropixels. Use fewer modes, or fourier."
        )
        raise ValueError(text)
    signed: Tensor = ortho * torch.sign(size)
    return signed.T[1:].contiguous()
