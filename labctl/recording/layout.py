"""What a record holds: every group, column and scalar, declared before writing.

Pure data. A :class:`Layout` is built from sizes alone; the writer creates exactly
what it says, the reader and the reference page are driven by the same tables.
Paths are relative to ``/entry``. Names end in their unit unless NeXus defines
them; both carry an attribute ``units``.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

import numpy as np

VERSION = 1
RESULT_BYTES = 8192
STATUSES = ("running", "paused", "complete", "failed", "interrupted", "stopped")
OPEN_STATUSES = ("running", "paused")
Kind = Literal["train", "evaluate", "scan", "comparison", "study", "calibrate"]

# Small columns: one chunk of 1024 rows each, never compressed, because a chunk
# that is flushed before it is full is written again at every flush.
_SMALL_ROWS = 1024
_WIDE_CHUNK_BYTES = 32 * 1024


@dataclass(frozen=True)
class Column:
    """One dataset that grows by rows.

    Parameters
    ----------
    name
        Name in its group.
    dtype
        NumPy type of one value, such as ``f8`` or ``S12``.
    text
        What it is: becomes the attribute ``long_name``.
    units
        Unit, empty where it has none.
    shape
        Shape of one row; empty for a scalar.
    dims
        Name of each axis of ``shape``.
    filled
        The recorder writes the row number; nobody hands it over.
    image
        Shown by viewers as a stack of images.
    compression
        ``gzip`` (level 1 with shuffle) or ``none``.
    """

    name: str
    dtype: str
    text: str
    units: str = ""
    shape: tuple[int, ...] = ()
    dims: tuple[str, ...] = ()
    filled: bool = False
    image: bool = False
    compression: Literal["none", "gzip"] = "none"

    @property
    def row_bytes(self) -> int:
        """Bytes of one row, not compressed."""
        return np.dtype(self.dtype).itemsize * int(np.prod(self.shape, dtype=np.int64))

    @property
    def chunk(self) -> tuple[int, ...]:
        """Shape of a chunk: one frame, 32 KiB of a wide row, or 1024 rows."""
        if self.image:
            return (1, *self.shape)
        if not self.shape:
            return (_SMALL_ROWS,)
        return (max(1, _WIDE_CHUNK_BYTES // max(1, self.row_bytes)), *self.shape)


@dataclass(frozen=True)
class Axis:
    """A fixed axis of an NXdata group: whole numbers, written once.

    Parameters
    ----------
    name
        Name in its group.
    start, length
        First value and how many; the step is 1.
    text
        What it is.
    units
        Unit, empty where it has none.
    """

    name: str
    start: int
    length: int
    text: str
    units: str = ""


@dataclass(frozen=True)
class Table:
    """A group whose columns have equal length.

    Parameters
    ----------
    name
        Group under ``/entry``.
    counter
        Field of ``commits`` that counts its rows. Tables with the same counter
        grow together, in one call.
    columns
        What grows.
    title
        One line for viewers; becomes the attribute ``title``.
    signal
        Column that viewers plot; empty makes the group an NXcollection.
    axes
        One name for each dimension of the signal.
    auxiliary
        Further curves over the same axes.
    fixed
        Axes that do not grow.
    """

    name: str
    counter: str
    columns: tuple[Column, ...]
    title: str
    signal: str = ""
    axes: tuple[str, ...] = ()
    auxiliary: tuple[str, ...] = ()
    fixed: tuple[Axis, ...] = ()

    @property
    def nx_class(self) -> str:
        """NeXus class of the group."""
        return "NXdata" if self.signal else "NXcollection"

    def column(self, name: str) -> Column:
        """Return the column of that name.

        Raises
        ------
        KeyError
            There is none.
        """
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(name)


@dataclass(frozen=True)
class Rows:
    """A compound dataset: one row a happening.

    Parameters
    ----------
    path
        Path under ``/entry``.
    counter
        Field of ``commits`` that counts its rows; empty for ``commits`` itself.
    fields
        Name and type of each field.
    chunk
        Rows a chunk.
    text
        What it is.
    """

    path: str
    counter: str
    fields: tuple[tuple[str, str], ...]
    chunk: int
    text: str


@dataclass(frozen=True)
class Scalar:
    """A value that is written once, or in place.

    Parameters
    ----------
    path
        Path under ``/entry``.
    dtype
        ``str`` for text of any length, ``S…`` for text rewritten in place,
        else a NumPy type.
    text
        What it is.
    units
        Unit, empty where it has none.
    """

    path: str
    dtype: str
    text: str
    units: str = ""


@dataclass(frozen=True)
class Group:
    """A group that is no table.

    Parameters
    ----------
    path
        Path under ``/entry``.
    nx_class
        Its NeXus class.
    """

    path: str
    nx_class: str


@dataclass(frozen=True)
class DeviceFields:
    """What the record keeps of a role in fields of their own.

    Parameters
    ----------
    nx_class
        NeXus class of ``instrument/<role>``.
    fields
        The fields that a header may give, in the order of the page.
    """

    nx_class: str
    fields: tuple[Scalar, ...] = ()


GROUPS = (
    Group("protocol", "NXnote"),
    Group("bench", "NXnote"),
    Group("environment", "NXcollection"),
    Group("reservoir", "NXcollection"),
    Group("instrument", "NXinstrument"),
    Group("calibration", "NXcollection"),
    Group("checkpoints", "NXcollection"),
)
SCALARS = (
    Scalar("title", "str", "Title of the protocol"),
    Scalar(
        "kind",
        "str",
        "Kind: train, evaluate, scan, comparison, study or calibrate",
    ),
    Scalar("start_time", "str", "Start, ISO 8601 with time zone"),
    Scalar("run_uuid", "str", "Random identity of this run"),
    Scalar("program_name", "str", "The program that wrote it; @version its version"),
    Scalar("layout_version", "i8", "Version of this layout"),
    Scalar("simulated", "u1", "1 where the light was simulated"),
    Scalar("notice", "str", "What a reader must know first; empty when nothing"),
    Scalar("status", "S16", "One of " + ", ".join(STATUSES)),
    Scalar("end_time", "S32", "End, ISO 8601 with time zone; empty while running"),
    Scalar("result", f"S{RESULT_BYTES}", "Summary of the run, JSON"),
    Scalar("protocol/type", "str", "MIME type of data"),
    Scalar("protocol/data", "str", "Protocol as it was given, YAML"),
    Scalar("protocol/resolved", "str", "Protocol with every default, JSON"),
    Scalar("protocol/sha256", "str", "Hash of data"),
    Scalar("protocol/path", "str", "Where it was read from; empty for text"),
    Scalar("bench/name", "str", "Name of the bench"),
    Scalar("bench/type", "str", "MIME type of data"),
    Scalar("bench/data", "str", "Bench file as it was given, YAML"),
    Scalar("bench/sha256", "str", "Hash of the bench file"),
    Scalar("environment/python", "str", "Version of Python"),
    Scalar("environment/packages", "str", "Version of each installed package, JSON"),
    Scalar("environment/git_commit", "str", "Commit of labctl; empty when installed"),
    Scalar("environment/git_diff", "str", "Changes since that commit"),
    Scalar("environment/git_dirty", "u1", "1 where there were changes"),
    Scalar("environment/hostname", "str", "Name of the computer"),
    Scalar("environment/platform", "str", "Operating system and processor"),
    Scalar("environment/argv", "str", "Command line, JSON"),
    Scalar("environment/threads", "i8", "Threads of the numerics; 0 when not known"),
    Scalar(
        "environment/fit_card",
        "str",
        "Graphics card that the surrogate was fitted on; empty where none was",
    ),
    Scalar(
        "environment/fit_kernel",
        "str",
        "Build of the compiled kernel that computed its light; empty where torch did",
    ),
    Scalar("environment/seeds", "str", "Every seed by name, JSON"),
)
RESERVOIR = (
    Scalar("exposure_s", "f8", "Nominal exposure", "s"),
    Scalar("gain_db", "f8", "Camera gain", "dB"),
    Scalar("power_mw", "f8", "Nominal laser power", "mW"),
    Scalar("region", "i8", "Row, column, height, width on the sensor", "pixel"),
    Scalar("bins", "i8", "Rows and columns of bins: the outputs"),
    Scalar("macropixels", "i8", "Rows and columns of macropixels on the panel"),
)
IDENTITY = ("vendor", "model", "serial", "firmware")
INSTRUMENT = {
    "laser": DeviceFields(
        "NXsource",
        (
            Scalar("type", "str", "Kind of source"),
            Scalar("name", "str", "Name of the source"),
            Scalar("power", "f8", "Nominal power", "mW"),
        ),
    ),
    "beam": DeviceFields(
        "NXbeam",
        (Scalar("incident_wavelength", "f8", "Vacuum wavelength", "nm"),),
    ),
    "slm": DeviceFields(
        "NXcollection",
        (
            Scalar("shape", "i8", "Height and width of the panel", "pixel"),
            Scalar("pitch_um", "f8", "Distance between pixels", "um"),
            Scalar("bit_depth", "i8", "Bits a level"),
            Scalar("lut", "f8", "Phase of each gray level, as applied", "rad"),
        ),
    ),
    "camera": DeviceFields(
        "NXdetector",
        (
            Scalar("shape", "i8", "Height and width of the sensor", "pixel"),
            Scalar("x_pixel_size", "f8", "Width of a pixel", "um"),
            Scalar("y_pixel_size", "f8", "Height of a pixel", "um"),
            Scalar("count_time", "f8", "Exposure, as read back", "s"),
            Scalar("bit_depth_readout", "i8", "Bits a pixel"),
            Scalar("gain", "f8", "Gain, as read back", "dB"),
            Scalar("roi", "i8", "Row, column, height, width read out", "pixel"),
        ),
    ),
}
OTHER_DEVICE = DeviceFields("NXcollection")
CALIBRATION = (
    Scalar("source", "str", "File that it came from"),
    Scalar("source_sha256", "str", "Hash of that file"),
    Scalar("created", "str", "When it was made, ISO 8601"),
    Scalar("figure_of_merit", "str", "Named figures that judge it, JSON"),
)
EVENTS = Rows(
    "events",
    "events",
    (("time_s", "f8"), ("level", "S8"), ("source", "S32"), ("text", "S200")),
    64,
    "What happened; a row of level `more` continues the text above it",
)
WRITERS = Rows(
    "writers",
    "writers",
    (
        ("start_s", "f8"),
        ("end_s", "f8"),
        ("host", "S64"),
        ("pid", "i8"),
        ("git", "S40"),
        ("reason", "S64"),
    ),
    16,
    "One row for each process that wrote",
)
CHECKPOINT_INDEX = Rows(
    "checkpoints/index",
    "ckpts",
    (
        ("step", "i8"),
        ("kind", "S16"),
        ("offset", "i8"),
        ("nbytes", "i8"),
        ("crc32", "u4"),
        ("time_s", "f8"),
    ),
    64,
    "Where each checkpoint lies in the blob",
)
BLOB = Column("blob", "u1", "Checkpoints end to end: safetensors with a JSON tree")
BLOB_PATH = "checkpoints/blob"
BLOB_CHUNK = 65536
COMMITS = "commits"
_COMMIT_CHUNK = 256


@dataclass(frozen=True)
class Layout:
    """Everything one record holds.

    Parameters
    ----------
    kind
        Kind of the protocol.
    tables
        The tables, in the order of the counters.
    default
        Table that viewers open first.
    """

    kind: Kind
    tables: tuple[Table, ...]
    default: str
    _by_name: dict[str, Table] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_by_name", {t.name: t for t in self.tables})

    @property
    def rows(self) -> tuple[Rows, ...]:
        """The compound datasets, ``commits`` last."""
        fields = (("time_s", "f8"), *((name, "i8") for name in self.counters))
        commits = Rows(
            COMMITS, "", fields, _COMMIT_CHUNK, "Lengths that are valid, the last row"
        )
        return (CHECKPOINT_INDEX, EVENTS, WRITERS, commits)

    @property
    def counters(self) -> tuple[str, ...]:
        """Fields of ``commits`` after the time."""
        own = dict.fromkeys(table.counter for table in self.tables)
        return (*own, EVENTS.counter, CHECKPOINT_INDEX.counter, BLOB.name, "writers")

    def table(self, name: str) -> Table:
        """Return the table of that name.

        Raises
        ------
        ValueError
            There is none: the list is closed.
        """
        try:
            return self._by_name[name]
        except KeyError:
            text = (
                f"record: table={name}, expected one of {', '.join(self._by_name)}. "
                "Declare it in the layout: nothing can be added while recording."
            )
            raise ValueError(text) from None

    def together(self, name: str) -> tuple[Table, ...]:
        """Return the table of that name and those that grow with it."""
        counter = self.table(name).counter
        return tuple(table for table in self.tables if table.counter == counter)

    def columns(self) -> Iterator[tuple[Table, Column]]:
        """Every column with its table."""
        for table in self.tables:
            for column in table.columns:
                yield table, column


@dataclass(frozen=True)
class ShotSpec:
    """Sizes of what every exposure leaves.

    Parameters
    ----------
    n_macropixels
        Macropixels of the panel.
    n_outputs
        Outputs of the device.
    level_dtype
        Type of a gray level.
    frame_shape
        Height and width of the frames kept; None keeps the outputs only.
    frame_origin
        Row and column of the frames on the sensor.
    compression
        Of the frames.
    """

    n_macropixels: int
    n_outputs: int
    level_dtype: Literal["u1", "u2"] = "u1"
    frame_shape: tuple[int, int] | None = None
    frame_origin: tuple[int, int] = (0, 0)
    compression: Literal["none", "gzip"] = "none"


def _output_axis(spec: ShotSpec) -> Axis:
    return Axis("output", 0, spec.n_outputs, "Output of the device")


def _outputs(spec: ShotSpec) -> Column:
    return Column(
        "outputs",
        "f4",
        "Output: electrons a bin at the nominal exposure and power",
        "electron",
        (spec.n_outputs,),
        ("output",),
    )


def _shots(spec: ShotSpec) -> Table:
    shot = Column("shot", "i8", "Shot: number of the row", filled=True)
    outputs = _outputs(spec)
    output = _output_axis(spec)
    if spec.frame_shape is None:
        return Table(
            "shots",
            "shots",
            (shot, outputs),
            "Outputs of every shot",
            signal="outputs",
            axes=("shot", "output"),
            fixed=(output,),
        )
    (height, width), (top, left) = spec.frame_shape, spec.frame_origin
    frames = Column(
        "frames",
        "u2",
        "Frame",
        "counts",
        spec.frame_shape,
        ("y", "x"),
        image=True,
        compression=spec.compression,
    )
    return Table(
        "shots",
        "shots",
        (shot, frames, outputs),
        "Frame of every shot",
        signal="frames",
        axes=("shot", "y", "x"),
        fixed=(
            Axis("y", top, height, "Row of the sensor", "pixel"),
            Axis("x", left, width, "Column of the sensor", "pixel"),
            output,
        ),
    )


def _shots_meta(spec: ShotSpec) -> Table:
    return Table(
        "shots_meta",
        "shots",
        (
            Column(
                "levels",
                spec.level_dtype,
                "Gray level of each macropixel, as applied",
                "",
                (spec.n_macropixels,),
                ("macropixel",),
            ),
            Column("host_time_s", "f8", "Arrival on the bench clock", "s"),
            Column("device_time_s", "f8", "Start on the camera's own clock", "s"),
            Column("frame_id", "u8", "The camera's own counter"),
            Column("laser_power_mw", "f8", "Power that the laser reports", "mW"),
            Column("power_mw", "f8", "Power during the exposure, as metered", "mW"),
            Column("attempt", "u1", "Times its pattern was exposed before, in vain"),
            Column("step", "i8", "Training step; -1 outside of training"),
            Column("layer", "i8", "Device layer, from 0"),
            Column("category", "S12", "What the shot was for (ledger)"),
            Column("quality", "S16", "ok, or why it was rejected and refunded"),
            Column("pattern_id", "u8", "Writes of the panel since it was opened"),
            Column("trigger", "u8", "Trigger that the frame answers"),
            Column("exposure_start_s", "f8", "Start on the bench clock", "s"),
            Column("exposure_end_s", "f8", "Latest end on the bench clock", "s"),
            Column("saturated_px", "i4", "Saturated pixels", "pixel"),
        ),
        "How every shot was exposed",
    )


METRICS = ("loss", "loss_surrogate", "lr", "accuracy", "cosine", "cosine_error")
_METRIC_TEXTS = {
    "loss": "Training loss of the batch",
    "loss_surrogate": "Loss of the surrogate's fit",
    "lr": "Learning rate of theta",
    "accuracy": "Accuracy of the batch",
    "cosine": "Held-out cosine of the surrogate",
    "cosine_error": "Standard error of the cosine",
}


def _training(metrics: Sequence[str]) -> Table:
    names = (*METRICS, *metrics)
    curves = (name for name in names if name not in {"loss", "lr"})
    return Table(
        "training",
        "steps",
        (
            Column("step", "i8", "Training step"),
            *(Column(name, "f8", _METRIC_TEXTS.get(name, name)) for name in names),
            Column("shots", "i8", "Shots spent so far"),
            Column("time_s", "f8", "Time on the bench clock", "s"),
        ),
        "Training",
        signal="loss",
        axes=("step",),
        auxiliary=tuple(curves),
    )


def _probes(spec: ShotSpec) -> Table:
    return Table(
        "probes",
        "probes",
        (
            Column("probe", "i8", "Probe: number of the row", filled=True),
            Column("step", "i8", "Training step; -1 outside of training"),
            Column("layer", "i8", "Device layer, from 0"),
            Column(
                "shot_base",
                "i8",
                "Shot at the operating point; held out: with the opposite perturbation",
            ),
            Column("shot_plus", "i8", "Shot with the perturbation"),
            Column(
                "df",
                "f8",
                "Change of the outputs",
                "electron",
                (spec.n_outputs,),
                ("output",),
            ),
            Column(
                "cotangent",
                "f8",
                "Gradient with respect to the outputs",
                "",
                (spec.n_outputs,),
                ("output",),
            ),
        ),
        "Response to each probe",
        signal="df",
        axes=("probe", "output"),
        fixed=(_output_axis(spec),),
    )


def train_layout(shots: ShotSpec, *, metrics: Sequence[str] = ()) -> Layout:
    """Return the layout of a training run.

    Parameters
    ----------
    shots
        Sizes of every exposure.
    metrics
        Names of further curves, float64, one value a step.

    Returns
    -------
    layout
        Its tables are ``shots`` and ``shots_meta`` (which grow together),
        ``training`` and ``probes``.
    """
    tables = (_shots(shots), _shots_meta(shots), _training(metrics), _probes(shots))
    return Layout("train", tables, default="training")


def evaluate_layout(shots: ShotSpec, *, n_predictions: int, n_targets: int) -> Layout:
    """Return the layout of an evaluation: a trained model, measured again.

    Parameters
    ----------
    shots
        Sizes of every exposure.
    n_predictions
        Outputs of the model for a sample.
    n_targets
        Values of a target; 1 for classes.

    Returns
    -------
    layout
        Its tables are ``shots`` and ``shots_meta``, ``scores`` (one row a
        repeat) and ``predictions`` (one row a sample and repeat).
    """
    scores = Table(
        "scores",
        "scores",
        (
            Column("repeat", "i8", "Measurement, from 0"),
            Column("score", "f8", "Score on the test split"),
            Column("loss", "f8", "Loss on the test split"),
            Column("shots", "i8", "Shots spent so far"),
            Column("time_s", "f8", "Time on the bench clock", "s"),
        ),
        "Score of each measurement",
        signal="score",
        axes=("repeat",),
        auxiliary=("loss",),
    )
    predictions = Table(
        "predictions",
        "predictions",
        (
            Column("row", "i8", "Number of the row", filled=True),
            Column("repeat", "i8", "Measurement, from 0"),
            Column("sample", "i8", "Sample of the test split, from 0"),
            Column("shot", "i8", "Shot of the last device layer"),
            Column(
                "prediction",
                "f8",
                "Output of the model",
                shape=(n_predictions,),
                dims=("channel",),
            ),
            Column(
                "target", "f8", "What it should be", shape=(n_targets,), dims=("value",)
            ),
        ),
        "Answer to each sample",
        signal="prediction",
        axes=("row", "channel"),
        fixed=(Axis("channel", 0, n_predictions, "Output of the model"),),
    )
    tables = (_shots(shots), _shots_meta(shots), scores, predictions)
    return Layout("evaluate", tables, default="scores")


def scan_layout(shots: ShotSpec) -> Layout:
    """Return the layout of a scan: a setting swept, outputs recorded.

    Parameters
    ----------
    shots
        Sizes of every exposure.

    Returns
    -------
    layout
        Its tables are ``shots`` and ``shots_meta``, and ``points`` (one row an
        exposure).
    """
    points = Table(
        "points",
        "points",
        (
            Column("point", "i8", "Number of the row", filled=True),
            Column("value", "f8", "Value of the setting; its place if no number"),
            Column("text", "S64", "Value of the setting, JSON"),
            Column("pattern", "i8", "Pattern, from 0"),
            Column("repeat", "i8", "Repeat of the pattern, from 0"),
            Column("shot", "i8", "Shot"),
            _outputs(shots),
        ),
        "Outputs over the setting",
        signal="outputs",
        axes=("value", "output"),
        fixed=(_output_axis(shots),),
    )
    return Layout("scan", (_shots(shots), _shots_meta(shots), points), default="points")


def calibrate_layout(
    panel: tuple[int, int], frame: tuple[int, int], level_dtype: Literal["u1", "u2"]
) -> Layout:
    """Return the layout of a calibration: raw frames, and what was fitted to them.

    Parameters
    ----------
    panel
        Height and width of the panel.
    frame
        Height and width of the frames.
    level_dtype
        Type of a gray level.

    Returns
    -------
    layout
        Its tables are ``shots`` and ``shots_meta``, ``patterns`` (one row a pattern,
        however often it was shown) and ``fits`` (one row a point of a figure).
    """
    shots = Table(
        "shots",
        "shots",
        (
            Column("shot", "i8", "Shot: number of the row", filled=True),
            Column(
                "frames",
                "u2",
                "Frame",
                "counts",
                frame,
                ("y", "x"),
                image=True,
                compression="gzip",
            ),
        ),
        "Frame of every shot",
        signal="frames",
        axes=("shot", "y", "x"),
        fixed=(
            Axis("y", 0, frame[0], "Row of the sensor", "pixel"),
            Axis("x", 0, frame[1], "Column of the sensor", "pixel"),
        ),
    )
    own = (
        Column("pattern", "i8", "Pattern that was shown: row of patterns"),
        Column("stage", "S32", "Stage of the procedure"),
        Column("exposure_s", "f8", "Exposure time", "s"),
        Column("settle_s", "f8", "Time between the write and the exposure", "s"),
        Column("setpoint_mw", "f8", "Power that was demanded; 0 in the dark", "mW"),
        Column("time_s", "f8", "Write of the pattern, on the bench clock", "s"),
    )
    kept = [c for c in _shots_meta(ShotSpec(1, 1)).columns if c.name not in _NO_FIT]
    patterns = Table(
        "patterns",
        "patterns",
        (
            Column("pattern", "i8", "Pattern: number of the row", filled=True),
            Column(
                "levels",
                level_dtype,
                "Gray level of each pixel of the panel",
                "",
                panel,
                ("row", "column"),
                image=True,
                compression="gzip",
            ),
        ),
        "Patterns that were shown",
    )
    fits = Table(
        "fits",
        "fits",
        (
            Column("point", "i8", "Number of the row", filled=True),
            Column("figure", "S32", "Figure that it belongs to"),
            Column("series", "S64", "Curve in the figure"),
            Column("x", "f8", "Place on the horizontal axis"),
            Column("y", "f8", "Place on the vertical axis"),
            Column("error", "f8", "Standard error of y; no number where not known"),
            Column("u", "f8", "Length of an arrow along x; no number for no arrow"),
            Column("v", "f8", "Length of an arrow along y"),
        ),
        "Figures: measured points and fitted curves",
        signal="y",
        axes=("point",),
    )
    meta = Table("shots_meta", "shots", (*own, *kept), "How every shot was exposed")
    return Layout("calibrate", (shots, meta, patterns, fits), default="shots")


_NO_FIT = ("levels", "step", "layer")


def comparison_layout() -> Layout:
    """Return the layout of a comparison: many trainings, each with its own record.

    Returns
    -------
    layout
        Its tables are ``jobs`` (one row a training, as they end) and ``summary``
        (one row a task, budget and method, at the end).
    """
    jobs = Table(
        "jobs",
        "jobs",
        (
            Column("job", "i8", "Training: number of the row", filled=True),
            Column("task", "S32", "Task"),
            Column("method", "S32", "Method"),
            Column("seed", "i8", "Seed"),
            Column("budget", "i8", "Exposures that it may cost"),
            Column("status", "S16", "complete, cosine at zero, or failed"),
            Column("score", "f8", "Score on the test split"),
            Column("cosine", "f8", "Held-out cosine at the end"),
            Column("shots", "i8", "Exposures of the training"),
            Column("digital_s", "f8", "Digital work", "s"),
            Column("record", "S160", "Its record, beside this one"),
        ),
        "Score of every training",
        signal="score",
        axes=("job",),
    )
    texts = {
        "mean": "Mean score on the test split",
        "gain": "Part of the room between readout and oracle",
        "over_readout": "Paired difference to the readout",
        "over_oracle": "Paired difference to the oracle",
    }
    bounds = [
        Column(f"{name}_{end}", "f8", f"{text}, {end} end of its 95 % interval")
        for name, text in texts.items()
        for end in ("low", "high")
    ]
    middles = [Column(n, "f8", t) for n, t in texts.items() if n != "over_oracle"]
    summary = Table(
        "summary",
        "summary",
        (
            Column("line", "i8", "Number of the row", filled=True),
            Column("task", "S32", "Task"),
            Column("method", "S32", "Method"),
            Column("budget", "i8", "Exposures of each training"),
            Column("seeds", "i8", "Trainings"),
            *middles,
            *bounds,
            Column("reached", "i8", "Trainings that reach the oracle's, by .01"),
            Column("cosine", "f8", "Mean held-out cosine at the end"),
            Column("digital_s", "f8", "Mean digital work", "s"),
            Column("shots_to_target", "f8", "Least budget that reaches the target"),
        ),
        "Methods compared",
        signal="gain",
        axes=("line",),
    )
    return Layout("comparison", (jobs, summary), default="jobs")


LONGEST_CLAIM_BYTES: Final = 4096
"""Room for what was measured of a claim: about a hundred numbers with intervals."""


def study_layout(columns: Sequence[Column], shots: ShotSpec | None = None) -> Layout:
    """Return the layout of a study: one row a job, and what is said of each claim.

    Parameters
    ----------
    columns
        What each job of this study leaves, beside its name and its score.
    shots
        Sizes of every exposure; None for a study that needs no device.

    Returns
    -------
    layout
        Its tables are ``fits`` (one row a job, as they end) and ``claims`` (at the
        end), and those of the shots.
    """
    fits = Table(
        "fits",
        "fits",
        (
            Column("fit", "i8", "Job: number of the row", filled=True),
            Column("job", "S96", "Job"),
            Column("seed", "i8", "Seed"),
            Column("score", "f8", "Its headline figure"),
            *columns,
        ),
        "Jobs of the study",
        signal="score",
        axes=("fit",),
    )
    claims = Table(
        "claims",
        "claims",
        (
            Column("claim", "S320", "What is claimed"),
            Column("measured", f"S{LONGEST_CLAIM_BYTES}", "What was measured here"),
            Column("verdict", "S32", "held, did not hold, or under conditions"),
        ),
        "Claims judged",
    )
    exposed = () if shots is None else (_shots(shots), _shots_meta(shots))
    return Layout("study", (*exposed, fits, claims), default="fits")
