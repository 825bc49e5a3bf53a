"""Sculpt a manifold: a net maps a grid of parameters onto a cloud of points.

``knot`` is a closed line in the plane, ``saddle`` a sheet in space; the net is digital,
or has the device in its middle. What the net makes of the grid is kept over time.
Distances are in units of the size of the cloud: the spread of its points.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from labctl import data
from labctl.calibration import ReservoirEntry
from labctl.data import Dataset
from labctl.protocol import Manifold
from labctl.recording.layout import Column
from labctl.run import model
from labctl.run.convergence import Show
from labctl.run.setting import Setting
from labctl.run.train import TrainJob
from labctl.studies import lesson
from labctl.studies.job import (
    BenchStudy,
    Claim,
    Job,
    Lab,
    Rows,
    Values,
    Verdict,
    above,
    own_point,
    together,
    told,
)
from labctl.training import network
from labctl.training.network import ActivationSpec, Ends, LinearSpec, Network
from labctl.training.trainer import Trainer

SIDE: Final = 9
POINTS: Final = SIDE * SIDE
"""Points of the grid: along the knot, or nine by nine over the saddle."""
AXES: Final = 3
PARAMETERS: Final = {"knot": 1, "saddle": 2}
CLOUD: Final = 200
"""Points of the cloud that the record keeps, and distances are measured from."""


def columns(spec: Manifold, entry: ReservoirEntry) -> tuple[Column, ...]:
    """Say what every job leaves.

    Parameters
    ----------
    spec
        The study's settings.
    entry
        The operating point.
    """
    del entry
    frame = (spec.frames,)
    return (
        Column("target", "S16", "Cloud"),
        Column("network", "S16", "digital, or device"),
        Column("width", "i8", "Units of a hidden layer; 0 with the device"),
        Column("step", "f8", "Training steps so far", shape=frame, dims=("frame",)),
        Column(
            "points",
            "f4",
            "What the net makes of the grid; NaN beyond the axes of the target",
            shape=(spec.frames, POINTS, AXES),
            dims=("frame", "point", "axis"),
        ),
        Column(
            "cloud",
            "f4",
            "Points of the cloud; NaN beyond its axes",
            shape=(CLOUD, AXES),
            dims=("sample", "axis"),
        ),
        Column(
            "error",
            "f8",
            "Rms distance of the net from the manifold under the cloud",
            shape=frame,
            dims=("frame",),
        ),
        Column(
            "distance",
            "f8",
            "Rms distance of the cloud from the nearest point of the net",
            shape=frame,
            dims=("frame",),
        ),
    )


def jobs(spec: Manifold, seeds: Sequence[int]) -> list[Job]:
    """List the jobs: one a cloud, net and seed.

    Parameters
    ----------
    spec
        The study's settings.
    seeds
        Each draws a start.
    """
    return [
        Job(
            f"{target} {kind}{f' width {width}' * (width not in (0, spec.width))} "
            f"seed {seed}",
            seed,
            {"target": target, "network": kind, "width": width},
        )
        for seed in seeds
        for target in spec.targets
        for kind in spec.networks
        for width in _widths(spec, kind)
    ]


def _widths(spec: Manifold, kind: str) -> tuple[int, ...]:
    return (spec.width, *spec.narrower) if kind == "digital" else (0,)


def grid(target: str) -> NDArray[np.float64]:
    """Parameters of the grid, ``(point, parameter)``.

    Parameters
    ----------
    target
        Which cloud.
    """
    if PARAMETERS[target] == 1:
        return np.linspace(0, 1, POINTS)[:, None]
    line = np.linspace(0, 1, SIDE)
    return np.stack(np.meshgrid(line, line, indexing="ij"), axis=-1).reshape(-1, 2)


def _lesson(spec: Manifold, job: Job, setting: Setting[Any]) -> TrainJob:
    sections = {
        "data": _entry(spec, job),
        "model": lesson.through_device(spec.input_scale_rad),
        "surrogate": {"name": "twin-modes"},
        "training": {"batch": spec.batch},
        "budget": {"shots": spec.budget},
    }
    return lesson.lesson(setting, sections, job.seed)


def _entry(spec: Manifold, job: Job) -> dict[str, Any]:
    counts = {"train": spec.samples, "validation": 1, "test": CLOUD}
    return {"set": str(job.settings["target"]), **counts}


def shown(spec: Manifold, job: Job, setting: Setting[Any]) -> Show | None:
    """Say what a job shows first.

    Parameters
    ----------
    spec
        The study's settings.
    job
        Which training.
    setting
        The run.
    """
    if job.settings["network"] == "digital":
        return None
    return _lesson(spec, job, setting).show


def shots(spec: Manifold, job: Job, setting: Setting[Any]) -> dict[str, int]:
    """Check a training and count its exposures.

    Parameters
    ----------
    spec
        The study's settings.
    job
        Which cloud, net and seed.
    setting
        The run.
    """
    if job.settings["network"] == "digital":
        return {}
    counts = lesson.shots(_lesson(spec, job, setting))
    counts["evaluate"] += spec.frames * POINTS
    return counts


class _Film:
    """Keeps what a net makes of the grid, at some of the moments it is shown.

    Parameters
    ----------
    target
        Which cloud.
    steps
        Of the training.
    frames
        Moments, the first and the last among them.
    """

    def __init__(self, target: str, steps: int, frames: int) -> None:
        self._marks = set(np.linspace(0, steps, frames).round().astype(int).tolist())
        self._frames = frames
        place = data.manifold_features(grid(target))
        self._x = torch.from_numpy(place).to(torch.get_default_dtype())
        self.steps: list[int] = []
        self.kept: list[NDArray[np.float64]] = []

    def see(self, net: Network, step: int) -> None:
        """Look at a net.

        Parameters
        ----------
        net
            The net.
        step
            Training steps so far.
        """
        if step not in self._marks:
            return
        net.begin("evaluate", step=-1)
        with torch.no_grad():
            found: Tensor = net(self._x)
        self.steps.append(step)
        self.kept.append(found.double().numpy())

    def whole(
        self, shape: tuple[int, ...]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return steps and frames, NaN from where the course ended early.

        Parameters
        ----------
        shape
            Of a frame.
        """
        steps = np.full(self._frames, np.nan)
        frames = np.full((self._frames, *shape), np.nan)
        for number, (step, frame) in enumerate(zip(self.steps, self.kept, strict=True)):
            steps[number], frames[number] = step, frame
        return steps, frames


def measure(spec: Manifold, job: Job, lab: Lab) -> Values:
    """Train one net, and watch it.

    Parameters
    ----------
    spec
        The study's settings.
    job
        Which cloud, net and seed.
    lab
        The bench.
    """
    target = str(job.settings["target"])
    if job.settings["network"] == "digital":
        film = _Film(target, spec.steps, spec.frames)
        with lab.digital():
            dataset = data.load(**_entry(spec, job))
            _digital(spec, job, lab.entry, dataset, film)
    else:
        with lab.digital():
            taught = _lesson(spec, job, lab.session.setting)
        dataset = taught.dataset
        film = _Film(target, taught.planned.steps, spec.frames)

        def watch(trainer: Trainer) -> None:
            film.see(trainer.parts.network, trainer.done)

        lesson.teach(taught, lab, watch)
    cloud = np.asarray(dataset.test.y, dtype=np.float64)[:CLOUD]
    truth = data.manifold(target, grid(target))
    steps, frames = film.whole(truth.shape)
    size = float(cloud.std(axis=0).mean())
    error = np.sqrt(((frames - truth) ** 2).sum(axis=2).mean(axis=1)) / size
    distance = np.array([_nearest(cloud, frame) for frame in frames]) / size
    return {
        "score": float(error[-1]),
        "target": target,
        "network": str(job.settings["network"]),
        "width": int(job.settings["width"]),
        "step": steps,
        "points": _padded(frames),
        "cloud": _padded(cloud),
        "error": error,
        "distance": distance,
    }


def _digital(
    spec: Manifold, job: Job, entry: ReservoirEntry, dataset: Dataset, film: _Film
) -> None:
    rng = torch.Generator().manual_seed(job.seed)
    net = network.build(
        [
            LinearSpec(int(job.settings["width"])),
            ActivationSpec("tanh"),
            LinearSpec(int(job.settings["width"])),
            ActivationSpec("tanh"),
            LinearSpec(),
        ],
        Ends(dataset.features, dataset.outputs),
        device=model.Sizes(entry),
        generator=rng,
    )
    cloud = model.samples(dataset.train)
    adam = torch.optim.Adam(net.parameters(), lr=spec.learning_rate)
    for step in range(spec.steps + 1):
        film.see(net, step)
        pick = torch.randint(len(cloud), (spec.batch,), generator=rng)
        adam.zero_grad()
        torch.autograd.backward(
            torch.nn.functional.mse_loss(net(cloud.x[pick]), cloud.y[pick])
        )
        adam.step()


def _nearest(cloud: NDArray[np.float64], frame: NDArray[np.float64]) -> float:
    """Rms distance from the points of a cloud to the nearest of a frame."""
    if not np.isfinite(frame).all():
        return float("nan")  # it diverged, or was never made
    from scipy.spatial import KDTree  # noqa: PLC0415 - start-up time

    near, _ = KDTree(frame).query(cloud)
    return float(np.sqrt(np.mean(np.asarray(near) ** 2)))


def _padded(values: NDArray[np.float64]) -> NDArray[np.float64]:
    found = np.full((*values.shape[:-1], AXES), np.nan)
    found[..., : values.shape[-1]] = values
    return found


# ---- claims ----------------------------------------------------------------------


def over_time(
    rows: Rows, target: str, kind: str, width: int | None = None
) -> NDArray[np.float64]:
    """Give the error of a net over the frames, ``(seed, frame)``.

    Parameters
    ----------
    rows
        One a job.
    target, kind
        Which cloud and which net.
    width
        Units of a hidden layer; None for the widest.
    """
    some = (rows["target"] == target) & (rows["network"] == kind)
    if some.any() and "width" in rows:  # records of before have one width
        some &= rows["width"] == (rows["width"][some].max() if width is None else width)
    order = np.argsort(rows["seed"][some], kind="stable")
    return np.asarray(rows["error"][some][order], dtype=np.float64)


def claims(spec: Manifold, rows: Rows) -> list[Claim]:
    """Judge whether a cloud is approached.

    Parameters
    ----------
    spec
        The study's settings.
    rows
        One a job.
    """
    texts = {
        "digital": "training sculpts a manifold parametrised by the inputs onto a "
        "point cloud",
        "device": "the same with the device in the middle of the net",
    }
    made = [_sculpted(spec, rows, kind, texts[kind]) for kind in spec.networks]
    if spec.narrower and "digital" in spec.networks:
        made.insert(1, _freedom(spec, rows))
    return made


def _freedom(spec: Manifold, rows: Rows) -> Claim:
    widths = sorted({spec.width, *spec.narrower})
    said, kinds = [], []
    for target in spec.targets:
        last = [over_time(rows, target, "digital", width)[:, -1] for width in widths]
        each = "; ".join(
            f"{width}: {told(one)}" for width, one in zip(widths, last, strict=True)
        )
        said.append(f"{target}, units a layer {each}")
        kinds.append(above(last[0] - last[-1]))
    return Claim(
        "a function of more parameters sculpts more surfaces",
        f"rms distance from the manifold at the end: {' | '.join(said)}",
        together(kinds),
    )


def _sculpted(spec: Manifold, rows: Rows, kind: str, text: str) -> Claim:
    said, good, closer = [], [], []
    for target in spec.targets:
        error = over_time(rows, target, kind)
        first, last = error[:, 0], error[:, -1]
        said.append(f"{target}: {told(first)} before, {told(last)} after")
        good.append(bool((last < 0.5 * first).all()))
        closer.append(bool((last < first).all()))
    verdict = Verdict.CONDITIONS if any(closer) else Verdict.FAILED
    start = "theta as it started, readout solved" if kind == "device" else "at random"
    return Claim(
        text,
        f"rms distance from the manifold under the cloud, over its size ({start}): "
        f"{'; '.join(said)}",
        Verdict.HELD if all(good) else verdict,
    )


STUDY = BenchStudy(
    "A net sculpts a manifold onto a point cloud, without and with the device",
    columns,
    jobs,
    own_point,
    shown,
    shots,
    measure,
    claims,
)
