"""Data sets, built in or from files: checked arrays out.

Every set comes with a train, a validation and a test split that never depend on
the seed of a run, so that results of different runs are of the same samples.
"""

import csv
import hashlib
import importlib.util
import math
import random
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from labctl.document import is_file
from labctl.errors import InputError
from labctl.protocol import DataEntry
from labctl.recording.arrays import read_arrays

Task = Literal["classification", "regression"]
Arrays = dict[str, NDArray[np.generic]]
Labels = NDArray[np.int64]

FRACTIONS = (0.7, 0.1, 0.2)
"""Train, validation and test share of a file that holds one pair x, y."""

_SPLITS = ("train", "validation", "test")
_NAMES = ("x", "y", *(f"{axis}_{split}" for split in _SPLITS for axis in "xy"))
_SHOWN = 5  # faults of a table that a message lists before it only counts


@dataclass(frozen=True, eq=False)
class Split:
    """Samples and what they should give.

    Parameters
    ----------
    x
        Features, ``(sample, feature)``, float64, all within [0, 1].
    y
        Class of each sample, int64 ``(sample,)``; or its targets, float64
        ``(sample, target)``.
    """

    x: NDArray[np.float64]
    y: NDArray[np.int64] | NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.x)


@dataclass(frozen=True, eq=False)
class Dataset:
    """A checked data set with its three splits.

    Parameters
    ----------
    name
        Name of the built-in set, or of the file without its folder.
    task
        Whether ``y`` holds classes or numbers.
    classes
        Number of classes, which are ``0 … classes - 1``; 0 in a regression.
    train, validation, test
        The splits; the validation split of a file may be empty.
    """

    name: str
    task: Task
    classes: int
    train: Split
    validation: Split
    test: Split

    @property
    def features(self) -> int:
        """Features of a sample."""
        return int(self.train.x.shape[1])

    @property
    def outputs(self) -> int:
        """Numbers that a model must give: one a class, or one a target."""
        return self.classes or int(self.train.y.shape[1])

    @property
    def sha256(self) -> str:
        """Hash of every value and shape, to know the same data again."""
        digest = hashlib.sha256()
        for split in (self.train, self.validation, self.test):
            for array in (split.x, split.y):
                digest.update(repr(array.shape).encode())
                digest.update(array.astype(array.dtype.newbyteorder("<")).tobytes())
        return digest.hexdigest()


class _Stream:
    """Random numbers that no version of numpy changes: raw words of PCG64."""

    def __init__(self, seed: int) -> None:
        self._bits = np.random.PCG64(seed)

    def keys(self, count: int) -> NDArray[np.uint64]:
        return np.asarray(self._bits.random_raw(count), dtype=np.uint64)

    def uniform(self, *shape: int) -> NDArray[np.float64]:
        words = self.keys(int(np.prod(shape))) >> np.uint64(11)
        return (words.astype(np.float64) * 2.0**-53).reshape(shape)

    def normal(self, *shape: int) -> NDArray[np.float64]:
        radius = np.sqrt(-2.0 * np.log1p(-self.uniform(*shape)))
        return radius * np.cos(2.0 * np.pi * self.uniform(*shape))


def load(
    *,
    set: str | None = None,  # the word of the protocol file
    file: str | Path | None = None,
    task: Task | None = None,
    train: int | None = None,
    validation: int | None = None,
    test: int | None = None,
) -> Dataset:
    """Load a data set and check it.

    Parameters
    ----------
    set
        Name of a built-in set: digits, yin-yang, spirals, mnist-1d, moons, xor, and
        the regressions knot, saddle and mackey-glass.
    file
        Path of an ``.npz``, ``.h5`` or ``.csv`` file.
    task
        What the targets of a file are.
    train, validation, test
        Samples of each split; None takes all that there are. A smaller split
        is part of every larger one and has the same mixture of classes.

    Returns
    -------
    dataset
        The checked set.

    Raises
    ------
    InputError
        No such set or file, a package is missing, a file does not hold what
        it should, or a split has fewer samples than asked for.
    """
    if (set is None) == (file is None):
        text = (
            f"data: set={set}, file={file}, expected one of the two. "
            "Name a built-in set, or a file."
        )
        raise InputError(text)
    if file is not None:
        dataset = _from_file(Path(file), task)
    else:
        dataset = _built_in(str(set), task)
    wanted = {"train": train, "validation": validation, "test": test}
    return cut(dataset, wanted)


def load_entry(entry: DataEntry, folder: Path) -> Dataset:
    """Load what the ``data`` section of a protocol names.

    Parameters
    ----------
    entry
        The section.
    folder
        Folder of the protocol, which paths in it are relative to.

    Returns
    -------
    dataset
        The checked set.
    """
    return load(
        set=entry.set,
        file=None if entry.file is None else folder / entry.file,
        task=entry.task,
        train=entry.train,
        validation=entry.validation,
        test=entry.test,
    )


# ---- order and splits -------------------------------------------------------


def _order(y: NDArray[np.generic], seed: int = 0) -> NDArray[np.intp]:
    """Mix samples so that every first part has the classes of the whole."""
    keys = _Stream(seed).keys(len(y))
    if y.ndim > 1:
        return np.argsort(keys, kind="stable")
    rank = np.empty(len(y))
    for label in np.unique(y):
        mine = np.flatnonzero(y == label)
        mixed = mine[np.argsort(keys[mine], kind="stable")]
        rank[mixed] = (np.arange(len(mine)) + 0.5) / len(mine)
    return np.lexsort((keys, rank))


def _divide(whole: Split, counts: tuple[int, int, int]) -> dict[str, Split]:
    order = _order(whole.y)
    ends = np.cumsum(counts)
    parts = (order[: ends[0]], order[ends[0] : ends[1]], order[ends[1] : ends[2]])
    return {
        name: Split(whole.x[rows], whole.y[rows])
        for name, rows in zip(_SPLITS, parts, strict=True)
    }


def shortfalls(
    dataset: Dataset, wanted: Mapping[str, int | None]
) -> Iterator[tuple[str, str]]:
    """Say which splits have fewer samples than are asked for.

    Parameters
    ----------
    dataset
        The whole set.
    wanted
        Samples by split; None takes all.

    Yields
    ------
    split, text
        Its name; what was got, what was expected, what to do.
    """
    for name, count in wanted.items():
        have = len(getattr(dataset, name))
        if count is not None and not 1 <= count <= have:
            yield (
                name,
                f"{name}={count}, expected 1 to {have} (samples of the {name} split "
                f"of {dataset.name}). Ask for fewer, or leave {name} out to take all.",
            )


def cut(dataset: Dataset, wanted: Mapping[str, int | None]) -> Dataset:
    """Take a part of a data set.

    Parameters
    ----------
    dataset
        The whole set.
    wanted
        Samples by split; None takes all.

    Returns
    -------
    part
        Of the same name; its splits have the same mixture of classes.

    Raises
    ------
    InputError
        A split has fewer samples than asked for.
    """
    short = [text for _, text in shortfalls(dataset, wanted)]
    if short:
        text = f"data: {short[0]}"
        raise InputError(text)
    splits: dict[str, Split] = {}
    for name, count in wanted.items():
        split: Split = getattr(dataset, name)
        if count is not None:
            rows = _order(split.y)[:count]
            split = Split(split.x[rows], split.y[rows])
        splits[name] = split
    return Dataset(dataset.name, dataset.task, dataset.classes, **splits)


# ---- built-in sets ----------------------------------------------------------


def _built_in(name: str, task: Task | None) -> Dataset:
    if name not in _BUILT_IN:
        known = ", ".join(_BUILT_IN)
        text = f"data: set={name}, expected one of {known}. Correct the name."
        raise InputError(text)
    own: Task = "regression" if name in _REGRESSIONS else "classification"
    if task not in {None, own}:
        text = (
            f"data {name}: task={task}, expected {own}. Leave task out: it is for "
            "files."
        )
        raise InputError(text)
    build, counts = _BUILT_IN[name]
    made = build(sum(counts))
    # Through the same checks as a file: no set may promise more than it holds.
    whole = _pair(_Raw(name, {"x": made.x, "y": made.y}), own, "x", "y")
    return _dataset(name, own, _divide(whole, counts), name)


def _digits(count: int) -> Split:
    """Load the 1797 handwritten digits of UCI's test set, 8x8, 0 to 16."""
    x, y = _digits_table()
    return Split(x[:count] / 16.0, y[:count])


def _digits_table() -> tuple[NDArray[np.float64], Labels]:
    """Read scikit-learn's file of digits, without the seconds that its import takes.

    Where a version keeps the file elsewhere, scikit-learn itself reads it.
    """
    found = importlib.util.find_spec("sklearn")
    places = (found.submodule_search_locations or []) if found else []
    for place in places:
        path = Path(place) / "datasets" / "data" / "digits.csv.gz"
        if path.is_file():
            rows = np.loadtxt(path, delimiter=",")
            return rows[:, :-1], rows[:, -1].astype(np.int64)
    from sklearn.datasets import load_digits  # noqa: PLC0415 - start-up time

    x, y = load_digits(return_X_y=True)
    return np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.int64)


def _balanced(
    count: int, classes: int, draw: Callable[[], tuple[NDArray[np.float64], Labels]]
) -> Split:
    """Draw until every class has its share; samples of class -1 are rejected."""
    shares = [count // classes + (label < count % classes) for label in range(classes)]
    kept: list[list[NDArray[np.float64]]] = [[] for _ in shares]
    while any(
        sum(map(len, have)) < want for have, want in zip(kept, shares, strict=True)
    ):
        x, y = draw()
        for label, have in enumerate(kept):
            have.append(x[y == label])
    return Split(
        np.concatenate(
            [
                np.concatenate(have)[:want]
                for have, want in zip(kept, shares, strict=True)
            ]
        ),
        np.repeat(np.arange(classes, dtype=np.int64), shares),
    )


def yin_yang_class(x: NDArray[np.float64], y: NDArray[np.float64]) -> Labels:
    """Tell where points lie in the Yin-Yang figure.

    The figure is a disc of radius 0.5 around (0.5, 0.5). A curve of two half
    circles of radius 0.25 parts it; around the middle of each lies a dot of
    radius 0.1.

    Parameters
    ----------
    x, y
        Coordinates of the points, ``(point,)``.

    Returns
    -------
    label
        0 yin, 1 yang, 2 dot, -1 outside the disc; ``(point,)``.

    References
    ----------
    .. [1] L. Kriener, J. Göltz, M. A. Petrovici, "The Yin-Yang Dataset", 2022,
       doi 10.1145/3517343.3517380, section 2.
    """
    left = np.hypot(x - 0.25, y - 0.5)
    right = np.hypot(x - 0.75, y - 0.5)
    # Yin is the upper half, with the left bulge added and the right one taken out.
    yin = (left <= 0.25) | ((y > 0.5) & (right > 0.25))
    label = np.where(yin, 0, 1)
    label[(left <= 0.1) | (right <= 0.1)] = 2
    label[np.hypot(x - 0.5, y - 0.5) > 0.5] = -1
    return label.astype(np.int64)


def _yin_yang(count: int) -> Split:
    stream = _Stream(1)

    def draw() -> tuple[NDArray[np.float64], Labels]:
        point = stream.uniform(4096, 2)
        features = np.concatenate([point, 1.0 - point], axis=1)
        return features, yin_yang_class(point[:, 0], point[:, 1])

    return _balanced(count, 3, draw)


def _spirals(count: int) -> Split:
    """Two arms of one turn and a half around the middle of the unit square."""
    stream = _Stream(2)
    label = np.arange(count, dtype=np.int64) % 2
    # The square root spreads the samples evenly along the arm.
    along = np.sqrt(stream.uniform(count))
    radius = 0.04 + 0.42 * along + 0.03 * (stream.uniform(count) - 0.5)
    angle = 3.0 * np.pi * along + np.pi * label
    x = 0.5 + np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    return Split(x, label)


def _mnist_1d(count: int) -> Split:
    made = _made_mnist_1d(count)
    return Split(made.x.copy(), made.y.copy())


@cache
def _made_mnist_1d(count: int) -> Split:
    """Make the samples, which takes seconds: a comparison asks for each training.

    Raises
    ------
    InputError
        The package is not installed.
    """
    # The authors' own numbers, but more samples, and never their download.
    try:
        from mnist1d.data import (  # noqa: PLC0415 - an extra, slow to import
            get_dataset_args,
            make_dataset,
        )
    except ImportError as err:
        text = (
            "data mnist-1d: package mnist1d is not installed, expected it for this "
            'set. Do pip install "labctl[mnist1d]".'
        )
        raise InputError(text) from err
    options: Any = get_dataset_args()
    options.num_samples = count
    with _global_generators_kept():
        made = make_dataset(options)
    x = np.concatenate([made["x"], made["x_test"]])
    y = np.concatenate([made["y"], made["y_test"]])
    # Standardised by the package: -5.48 to 4.53 over these samples.
    return Split((x + 6.0) / 11.0, y.astype(np.int64))


@contextmanager
def _global_generators_kept() -> Iterator[None]:
    """Keep the generators that mnist1d seeds from being seen by anybody else."""
    python = random.getstate()
    legacy = np.random.get_state()  # noqa: NPY002 - the one that mnist1d seeds
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)  # noqa: NPY002 - the one that mnist1d seeds


def _moons(count: int) -> Split:
    # scikit-learn takes seconds to import: only for whom it is needed.
    from sklearn.datasets import make_moons  # noqa: PLC0415 - start-up time

    x, y = make_moons(n_samples=count, noise=0.1, random_state=3)
    # The moons span -1 to 2 and -0.5 to 1; the rest is room for the noise.
    return Split(
        (x + np.array([1.5, 1.0])) / np.array([4.0, 2.5]), np.asarray(y, dtype=np.int64)
    )


def _xor(count: int) -> Split:
    """Four Gaussian clouds in a square; opposite ones are of one class."""
    stream = _Stream(4)

    def draw() -> tuple[NDArray[np.float64], Labels]:
        corner = stream.uniform(4096, 2) < 0.5
        x = np.where(corner, 0.3, 0.7) + 0.1 * stream.normal(4096, 2)
        label = (corner[:, 0] ^ corner[:, 1]).astype(np.int64)
        label[((x < 0.0) | (x > 1.0)).any(axis=1)] = -1
        return x, label

    return _balanced(count, 2, draw)


CLOUD_SPREAD = 0.05
"""Sigma of the points of ``knot`` and ``saddle`` around their manifold."""


def manifold(name: str, place: NDArray[np.float64]) -> NDArray[np.float64]:
    """Map parameters onto the manifold that a cloud of points lies around.

    Parameters
    ----------
    name
        ``knot`` (a closed line in the plane, one parameter) or ``saddle`` (a sheet in
        space, two).
    place
        Parameters from 0 to 1, ``(point, parameter)``.

    Returns
    -------
    points
        About 1 in size, ``(point, axis)``.
    """
    if name == "knot":
        turn = 2 * np.pi * place[:, 0]
        across = np.sin(turn) + 2 * np.sin(2 * turn)
        return np.stack([across, np.cos(turn) - 2 * np.cos(2 * turn)], axis=1) / 2.5
    x, y = 2 * place.T - 1
    return np.stack([x, y, x**2 - y**2], axis=1)


def manifold_features(place: NDArray[np.float64]) -> NDArray[np.float64]:
    """Lay parameters out as features: each, and what is missing to 1.

    One phase on the whole panel would be no input: no camera sees it.

    Parameters
    ----------
    place
        Parameters from 0 to 1, ``(point, parameter)``.

    Returns
    -------
    features
        ``(point, feature)``.
    """
    return np.concatenate([place, 1 - place], axis=1)


def _cloud(name: str, parameters: int, seed: int) -> Callable[[int], Split]:
    def build(count: int) -> Split:
        stream = _Stream(seed)
        place = stream.uniform(count, parameters)
        points = manifold(name, place)
        points = points + CLOUD_SPREAD * stream.normal(*points.shape)
        return Split(manifold_features(place), points)

    return build


LAG = 17
"""Delay of the Mackey-Glass equation, in its own time."""
SPACING, SEEN, AHEAD = 6, 4, 12
"""Time between the values of a series that are seen, how many, and to the target."""
_PER_TIME = 4  # steps of the solver in a unit of time
_SETTLED = 250  # time until a series has forgotten how it began


def series(
    first: NDArray[np.float64], last: NDArray[np.float64], start: NDArray[np.int64]
) -> Split:
    """Follow the Mackey-Glass equation, and cut one window out of every series.

    ``dv/dt = .2 v(t - 17) / (1 + v(t - 17)^10) - .1 v``, by the Runge-Kutta rule of
    fourth order; between two steps the delayed value is their mean.

    Parameters
    ----------
    first, last
        Each series begins on a straight line between these, ``(series,)``.
    start
        Time of the oldest value that is seen, after 250, ``(series,)``: series that
        begin alike would else all be cut at the same place of their first turns.

    Returns
    -------
    windows
        Four values at distances of 6, the oldest first; the target is the value 12
        after the last of them. All scaled alike, so that .2 is 0 and 1.4 is 1.

    References
    ----------
    .. [1] M. C. Mackey, L. Glass, "Oscillation and Chaos in Physiological Control
       Systems", 1977, doi 10.1126/science.267326, equation 4b.
    """
    step, lag = 1 / _PER_TIME, LAG * _PER_TIME
    past = list(np.linspace(first, last, lag + 1))
    seen = SPACING * np.arange(SEEN)
    times = np.append(seen, seen[-1] + AHEAD)
    until = _SETTLED + int(start.max() + times[-1])

    def slope(v: NDArray[np.float64], fed: NDArray[np.float64]) -> NDArray[np.float64]:
        # By products alone: these are the same bits on every machine.
        square = fed * fed
        fourth = square * square
        return 0.2 * fed / (1 + fourth * fourth * square) - 0.1 * v

    path = []
    for number in range(1, until * _PER_TIME + 1):
        v, old, new = past[-1], past[-1 - lag], past[-lag]
        half = (old + new) / 2
        k1 = slope(v, old)
        k2 = slope(v + step / 2 * k1, half)
        k3 = slope(v + step / 2 * k2, half)
        k4 = slope(v + step * k3, new)
        past.append(v + step / 6 * (k1 + 2 * k2 + 2 * k3 + k4))
        del past[0]
        if number % _PER_TIME == 0 and number >= _SETTLED * _PER_TIME:
            path.append((past[-1] - 0.2) / 1.2)
    row = np.arange(len(start))[:, None]
    cut_out = np.stack(path)[start[:, None] + times, row]
    return Split(cut_out[:, :-1], cut_out[:, -1:])


def _mackey_glass(count: int) -> Split:
    first, last, start = _Stream(7).uniform(3, count)
    return series(0.4 + 0.9 * first, 0.4 + 0.9 * last, (300 * start).astype(np.int64))


_REGRESSIONS = frozenset({"knot", "saddle", "mackey-glass"})
_BUILT_IN: dict[str, tuple[Callable[[int], Split], tuple[int, int, int]]] = {
    "digits": (_digits, (1200, 200, 397)),
    "yin-yang": (_yin_yang, (5000, 1000, 2000)),
    "spirals": (_spirals, (4000, 1000, 2000)),
    "mnist-1d": (_mnist_1d, (4000, 1000, 2000)),
    "moons": (_moons, (4000, 1000, 2000)),
    "xor": (_xor, (4000, 1000, 2000)),
    "knot": (_cloud("knot", 1, 5), (4000, 1000, 2000)),
    "saddle": (_cloud("saddle", 2, 6), (4000, 1000, 2000)),
    "mackey-glass": (_mackey_glass, (2000, 500, 1000)),
}


# ---- files ------------------------------------------------------------------


@dataclass(frozen=True)
class _Raw:
    """What a file holds, not checked yet, and how its places are called."""

    where: str
    arrays: Arrays
    lines: tuple[int, ...] = ()
    columns: tuple[str, ...] = ()

    def place(self, name: str, row: int, column: int | None) -> str:
        if not self.lines:
            inner = f"{row}" if column is None else f"{row}, {column}"
            return f"{self.where}: {name}[{inner}]"
        label = self.columns[-1 if name == "y" else (column or 0)]
        return f"{self.where} line {self.lines[row]}: {label}"


def _from_file(path: Path, task: Task | None) -> Dataset:
    if task not in {"classification", "regression"}:
        text = (
            f"{path}: task={task}, expected classification or regression. Say what "
            "the targets are."
        )
        raise InputError(text)
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        text = (
            f"{path}: suffix={path.suffix or 'none'}, expected one of "
            f"{', '.join(_READERS)}. Save the data in one of these formats."
        )
        raise InputError(text)
    if not is_file(path):
        text = (
            f"{path}: no such file, expected a data file. Correct the path; in a "
            "protocol it is relative to the protocol's folder."
        )
        raise InputError(text)
    raw = reader(path)
    return _dataset(path.name, task, _splits(raw, task), raw.where)


_LARGEST_BYTES = 2**33


def _read_npz(path: Path) -> _Raw:
    try:
        # An open stream, since numpy leaves a file open that it cannot read.
        with path.open("rb") as stream, zipfile.ZipFile(stream) as members:
            _check_unpacked(path, members)
            archive = np.load(stream, allow_pickle=False)
            found = {name: archive[name] for name in _NAMES if name in archive}
    except _UNREADABLE as err:
        text = (
            f"{path}: {err}; expected an .npz archive of number arrays. Save it with "
            "numpy.savez(path, x=…, y=…); objects are refused, since loading them "
            "can run code."
        )
        raise InputError(text) from err
    # A member without numpy's own header comes as its bytes.
    arrays = {name: np.asarray(array) for name, array in found.items()}
    return _Raw(str(path), arrays)


def _check_unpacked(path: Path, members: zipfile.ZipFile) -> None:
    """Refuse an archive that would fill the memory.

    Raises
    ------
    InputError
        It would.
    """
    wanted = {f"{name}.npy" for name in _NAMES}
    size = sum(each.file_size for each in members.infolist() if each.filename in wanted)
    if size > _LARGEST_BYTES:
        text = (
            f"{path}: its arrays take {size} bytes unpacked, expected at most "
            f"{_LARGEST_BYTES}: data are held in memory. Save fewer samples, or "
            "smaller ones."
        )
        raise InputError(text)


# Of the last three: more numbers than memory, an encrypted member, a compression that
# Python does not know (NotImplementedError is a RuntimeError).
_UNREADABLE = (
    ValueError,
    OSError,
    EOFError,
    zipfile.BadZipFile,
    zlib.error,
    MemoryError,
    RuntimeError,
)


def _read_h5(path: Path) -> _Raw:
    return _Raw(str(path), read_arrays(path, _NAMES))


def _read_csv(path: Path) -> _Raw:
    try:
        # utf-8-sig: spreadsheet programs put a byte-order mark in front.
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream, strict=True)
            header = [name.strip() for name in next(reader, [])]
            numbered = [(reader.line_num, row) for row in reader if row]
    except (csv.Error, UnicodeDecodeError, OSError) as err:
        text = (
            f"{path}: {err}; expected comma-separated values in UTF-8. Save the table "
            "again in that form."
        )
        raise InputError(text) from err
    _check_header(path, header, numbered)
    target = header.index("target") if "target" in header else len(header) - 1
    table = _numbers(path, header, numbered)
    columns = (*header[:target], *header[target + 1 :], header[target])
    return _Raw(
        str(path),
        {"x": np.delete(table, target, axis=1), "y": table[:, target]},
        tuple(line for line, _ in numbered),
        columns,
    )


def _check_header(
    path: Path, header: list[str], rows: list[tuple[int, list[str]]]
) -> None:
    found = None
    if len(header) < 2:
        found = f"{len(header)} columns, expected two or more, parted by commas"
    elif len(set(header)) < len(header) or "" in header:
        found = f"columns {', '.join(header)}, expected a different name for each"
    elif all(_number(name) is not None for name in header):
        found = "a first line of numbers only, expected the names of the columns"
    elif not rows:
        found = "no line below the header, expected one a sample"
    if found is not None:
        text = f"{path}: {found}. Correct the table: a header, then one line a sample."
        raise InputError(text)


def _number(cell: str) -> float | None:
    """Read a finite number; Python's own extras, such as 1_000, are none."""
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if math.isfinite(value) and "_" not in cell else None


def _numbers(
    path: Path, header: list[str], rows: list[tuple[int, list[str]]]
) -> NDArray[np.float64]:
    faults: list[str] = []
    table = np.empty((len(rows), len(header)))
    for index, (line, row) in enumerate(rows):
        if len(row) != len(header):
            faults.append(f"line {line}: {len(row)} values, expected {len(header)}")
            continue
        for column, cell in enumerate(row):
            value = _number(cell)
            if value is None:
                got = cell.strip() or "nothing"
                got = got if got.isprintable() else repr(got)
                faults.append(
                    f"line {line}: {header[column]}={got}, expected a finite number"
                )
            else:
                table[index, column] = value
    if faults:
        more = len(faults) - _SHOWN
        shown = "; ".join(faults[:_SHOWN]) + (f"; and {more} more" if more > 0 else "")
        text = (
            f"{path} {shown}. Fill in or remove what is missing, and number classes "
            "from 0."
        )
        raise InputError(text)
    return table


_READERS: dict[str, Callable[[Path], _Raw]] = {
    ".npz": _read_npz,
    ".h5": _read_h5,
    ".hdf5": _read_h5,
    ".csv": _read_csv,
}


# ---- checks -----------------------------------------------------------------


def _splits(raw: _Raw, task: Task) -> dict[str, Split]:
    found = set(raw.arrays)
    if found == {"x", "y"}:
        whole = _pair(raw, task, "x", "y")
        validation, test = (round(share * len(whole)) for share in FRACTIONS[1:])
        return _divide(whole, (len(whole) - validation - test, validation, test))
    parts = {name: {f"x_{name}", f"y_{name}"} for name in _SPLITS}
    least = parts["train"] | parts["test"]
    if found not in (least, least | parts["validation"]):
        text = (
            f"{raw.where}: arrays={', '.join(sorted(found)) or 'none'}, expected x and "
            "y; or x_train, y_train, x_test, y_test, and with them both or none of "
            "x_validation, y_validation. Name the arrays so."
        )
        raise InputError(text)
    splits = {
        name: _pair(raw, task, f"x_{name}", f"y_{name}")
        for name, names in parts.items()
        if names <= found
    }
    if "validation" not in splits:
        train = splits["train"]
        splits["validation"] = Split(train.x[:0], train.y[:0])
    return splits


def _remedy(name: str, array: NDArray[Any], axes: set[int]) -> str:
    if array.dtype.kind in "US":
        return f"Number the classes: np.unique({name}, return_inverse=True)[1]."
    if array.dtype.kind not in "biuf":
        return "Save it as numbers."
    if not array.size:
        return "Save some samples."
    if axes == {1}:
        return f"Reshape it: {name}.reshape(len({name}))."
    return f"Reshape it, such as with {name}.reshape(len({name}), -1) for images."


def _pair(raw: _Raw, task: Task, x_name: str, y_name: str) -> Split:
    x, y = raw.arrays[x_name], raw.arrays[y_name]
    for name, array, axes in ((x_name, x, {2}), (y_name, y, _TARGET_AXES[task])):
        if array.dtype.kind not in "biuf" or array.ndim not in axes or not array.size:
            text = (
                f"{raw.where}: {name} is {array.dtype} of shape {array.shape}, "
                f"expected numbers with {' or '.join(map(str, sorted(axes)))} axes, "
                f"(sample, …), none empty. {_remedy(name, array, axes)}"
            )
            raise InputError(text)
    if len(x) != len(y):
        text = (
            f"{raw.where}: {x_name} has {len(x)} samples and {y_name} {len(y)}, "
            "expected as many. Store one target a sample."
        )
        raise InputError(text)
    features = _finite(raw, x_name, x)
    _check_range(raw, x_name, features)
    targets = _finite(raw, y_name, y)
    if task == "regression":
        return Split(features, targets.reshape(len(targets), -1))
    return Split(features, _labels(raw, y_name, targets))


_TARGET_AXES: dict[Task, set[int]] = {"classification": {1}, "regression": {1, 2}}


def _place(raw: _Raw, name: str, bad: NDArray[np.bool_]) -> tuple[str, tuple[int, ...]]:
    first = [int(index) for index in np.argwhere(bad)[0]]
    column = first[1] if len(first) > 1 else None
    return raw.place(name, first[0], column), tuple(first)


def _finite(raw: _Raw, name: str, array: NDArray[np.generic]) -> NDArray[np.float64]:
    values = np.ascontiguousarray(array, dtype=np.float64)
    bad = ~np.isfinite(values)
    if bad.any():
        place, first = _place(raw, name, bad)
        text = (
            f"{place}={values[first]}, expected a finite number (in all {bad.sum()} of "
            f"{bad.size} values are missing or infinite). Fill in or remove these "
            "samples."
        )
        raise InputError(text)
    return values


def _check_range(raw: _Raw, name: str, x: NDArray[np.float64]) -> None:
    bad = (x < 0.0) | (x > 1.0)
    if bad.any():
        place, first = _place(raw, name, bad)
        text = (
            f"{place}={x[first]:g}, expected 0 to 1 (of {bad.size} values {bad.sum()} "
            f"are outside; the least is {x.min():g}, the greatest {x.max():g}). Scale "
            "the features yourself, every sample by the same two numbers: "
            "(x - low) / (high - low)."
        )
        raise InputError(text)


def _labels(raw: _Raw, name: str, y: NDArray[np.float64]) -> NDArray[np.int64]:
    bad = (y != np.rint(y)) | (y < 0) | (y >= _MOST_CLASSES)
    if bad.any():
        place, first = _place(raw, name, bad)
        text = (
            f"{place}={y[first]:g}, expected a class, one of 0, 1, 2 … "
            f"{_MOST_CLASSES - 1}. Number the classes from 0; for numbers as targets "
            "say task: regression."
        )
        raise InputError(text)
    return y.astype(np.int64)


_MOST_CLASSES = 10_000


def _dataset(name: str, task: Task, splits: dict[str, Split], where: str) -> Dataset:
    train, *others = (splits[split] for split in _SPLITS)
    for split in ("train", "test"):
        if not len(splits[split]):
            text = (
                f"{where}: the {split} split has 0 samples, expected 1 or more. Give "
                "more samples."
            )
            raise InputError(text)
    for other in others:
        if (other.x.shape[1], other.y.shape[1:]) != (
            train.x.shape[1],
            train.y.shape[1:],
        ):
            text = (
                f"{where}: splits have {train.x.shape[1]} and {other.x.shape[1]} "
                f"features, targets of shape {train.y.shape[1:]} and "
                f"{other.y.shape[1:]}, expected the same in every split. Correct the "
                "arrays."
            )
            raise InputError(text)
    if task == "regression":
        _check_spread(train, where)
    classes = 0 if task == "regression" else _classes(splits, where)
    return Dataset(name, task, classes, **splits)


def _check_spread(train: Split, where: str) -> None:
    """Refuse targets that never change: there is nothing to learn.

    Raises
    ------
    InputError
        No target of the training varies.
    """
    if (train.y == train.y[0]).all():
        text = (
            f"{where}: every target of the train split is the same "
            f"({train.y.flat[0]:g} first), expected targets that vary. Give "
            "samples that differ."
        )
        raise InputError(text)


def _classes(splits: dict[str, Split], where: str) -> int:
    seen = np.unique(splits["train"].y).astype(int).tolist()
    classes = len(seen)
    every = np.unique(np.concatenate([split.y for split in splits.values()])).tolist()
    if seen != list(range(classes)) or classes < 2 or every != seen:
        text = (
            f"{where}: classes {_brief(seen)} in the train split and {_brief(every)} "
            "in all, expected 0, 1, … k - 1, two or more, each of them in the train "
            "split. Number the classes from 0 without gaps, and train on each of them."
        )
        raise InputError(text)
    return classes


def _brief(labels: list[int]) -> str:
    shown = ", ".join(map(str, labels[:12]))
    return f"{shown}, … ({len(labels)} in all)" if len(labels) > 12 else shown
