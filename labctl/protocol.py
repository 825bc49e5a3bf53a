"""Schema of protocol files: what to do, on any bench."""

from pathlib import Path
from typing import Annotated, ClassVar, Final, Literal, Self, get_args

from pydantic import Field, JsonValue, TypeAdapter, ValidationError, model_validator

from labctl.document import Schema
from labctl.document.page import reference_page, schema_text
from labctl.document.teller import wrong
from labctl.document.words import shown

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
# Beyond what any bench lives to see, and small enough for every counter.
Count = Annotated[int, Field(ge=1, le=1_000_000_000)]
Whole = Annotated[int, Field(ge=0, le=1_000_000_000)]
# Of digital work at once, and of numbers held in memory for it.
Effort = Annotated[int, Field(ge=1, le=1_000_000)]
Width = Annotated[int, Field(ge=1, le=65_536)]
Hidden = Annotated[int, Field(ge=1, le=4096)]
# More pixels than the side of any panel or sensor.
Pixels = Annotated[int, Field(ge=1, le=65_536)]
Place = Annotated[int, Field(ge=0, le=65_535)]
# What a data set of one's own may be stored as.
FILES: Final = (".csv", ".npz", ".h5")
ClassesName = Literal["digits", "yin-yang", "spirals", "mnist-1d", "moons", "xor"]
DataSetName = Literal[ClassesName, "knot", "saddle", "mackey-glass"]


class DataEntry(Schema):
    """Which data: a built-in set, or a file of one's own.

    Parameters
    ----------
    set
        Name of a built-in set.
    file
        Path of an ``.npz``, ``.h5`` or ``.csv`` file, relative to the protocol.
    task
        What the targets are; needed with ``file`` only.
    train, validation, test
        Samples of each split; none takes all that the set has.
    """

    set: DataSetName | None = None
    file: str | None = None
    task: Literal["classification", "regression"] | None = None
    train: Count | None = None
    validation: Count | None = None
    test: Count | None = None

    @model_validator(mode="before")
    @classmethod
    def _tells_files_from_sets(cls, given: object) -> object:
        name = given.get("set") if isinstance(given, dict) else None
        if isinstance(name, str) and name.lower().endswith(FILES):
            text = (
                f"got {shown(name)}, which is a file, expected a built-in data set. "
                "Write file in place of set, and task beside it."
            )
            raise wrong(("set", text))
        return given

    @model_validator(mode="after")
    def _names_one(self) -> Self:
        if self.set is not None and self.file is not None:
            raise wrong(("file", "is there beside set, expected one. Remove either."))
        if self.set is None and self.file is None:
            text = "is missing, expected set (a built-in data set) or file."
            raise wrong(("set", text))
        if self.file is not None and self.task is None:
            text = "is missing, expected classification or regression with file."
            raise wrong(("task", text))
        return self


class ReservoirOverride(Schema):
    """What of the bench's reservoir section this protocol replaces.

    Parameters
    ----------
    macropixels
        Rows and columns of equal blocks that the panel is divided into.
    region
        Row, column, height and width on the sensor that is decoded, in pixels.
    bins
        Rows and columns that the region is divided into: the outputs.
    exposure_s, gain_db
        Camera settings.
    power_mw
        Laser power.
    """

    macropixels: tuple[Pixels, Pixels] | None = None
    region: tuple[Place, Place, Pixels, Pixels] | None = None
    bins: tuple[Pixels, Pixels] | None = None
    exposure_s: Positive | None = None
    gain_db: NotNegative | None = None
    power_mw: Positive | None = None


class Recurrence(Schema):
    """A series through a device layer: each step is shown with the last outputs.

    A sample is the series, one step after the other. What follows the layer is given
    the outputs of the last step. Every step costs an exposure.

    Parameters
    ----------
    steps
        Time steps of a sample; must divide the inputs of the layer.
    feedback_rad
        Phase of an output that is one spread off its mean, as seen at the first step
        of the warm-up pass.
    """

    steps: Annotated[int, Field(ge=2, le=1000)]
    feedback_rad: NotNegative = 0.5


class DeviceLayer(Schema):
    """The device as a layer.

    Parameters
    ----------
    layer
        ``device``.
    encoding
        ``additive`` (inputs and theta on the same macropixels), ``split``
        (left part inputs, right part theta) or ``modes`` (inputs on all
        macropixels, theta as coefficients of a basis added to them).
    input_scale_rad
        Phase of an input of 1.
    theta_init
        How theta starts.
    theta_scale_rad
        Width of the start: uniform in [0, width), or normal with that sigma.
    split
        Share of the columns given to the inputs, with ``split``.
    basis, modes
        Which functions and how many, with ``modes``.
    recurrent
        For series: inputs and last outputs side by side, step by step; none for a
        layer that is passed once.
    """

    layer: Literal["device"]
    encoding: Literal["additive", "split", "modes"] = "additive"
    input_scale_rad: Positive = 3.141592653589793
    theta_init: Literal["uniform", "normal", "zeros"] = "uniform"
    theta_scale_rad: Positive = 6.283185307179586
    split: Annotated[float, Field(gt=0, lt=1)] = 0.5
    basis: Literal["zernike", "fourier", "hadamard"] = "fourier"
    modes: Width = 32
    recurrent: Recurrence | None = None


class LinearLayer(Schema):
    """A digital linear layer.

    Parameters
    ----------
    layer
        ``linear``.
    outputs
        Width of the layer; none takes as many as the task needs.
    """

    layer: Literal["linear"]
    outputs: Hidden | None = None


class StandardiseLayer(Schema):
    """Subtract the mean and divide by the spread seen at the start; fixed then.

    Parameters
    ----------
    layer
        ``standardise``.
    """

    layer: Literal["standardise"]


class ActivationLayer(Schema):
    """A digital activation.

    Parameters
    ----------
    layer
        ``activation``.
    function
        Which one.
    """

    layer: Literal["activation"]
    function: Literal["relu", "gelu", "tanh", "sigmoid", "sin"]


Layer = Annotated[
    DeviceLayer | LinearLayer | StandardiseLayer | ActivationLayer,
    Field(discriminator="layer"),
]


class FitLoss(Schema):
    """One term of the surrogate's fit.

    Parameters
    ----------
    name
        ``value`` and ``jvp`` for twins; ``mse``, ``cos``, ``dot``, ``gen`` on
        relation (1) for any surrogate.
    weight
        Factor of the term.
    a
        Exponent of ``gen``.
    """

    name: Literal["value", "jvp", "mse", "cos", "dot", "gen"]
    weight: Positive = 1.0
    a: Annotated[float, Field(ge=0, le=2)] = 1.0


class SurrogateEntry(Schema):
    """The learned backward pass.

    Parameters
    ----------
    name
        Which model.
    device
        Where it is fitted and rehearsed on: ``cpu``, or ``cuda``, the first graphics
        card that torch finds; where there is none the protocol is refused.
    kernel
        What computes the light of ``twin-optics`` on the processor: ``torch``;
        ``fused``, a compiled kernel several times as fast, for grids of powers of two;
        ``auto``, that one where it can be had and else torch. They differ in rounding,
        so a record goes on with the one it began with.
    width, depth
        Hidden size and layers (``dense``, ``log-lin-exp``, ``linear``,
        ``twin-dense``).
    rank
        Terms of ``linear``.
    modes
        Field modes of ``twin-modes`` and ``twin-fields``.
    reach
        Greatest distance of a pair of ``twin-pairs``, in macropixels.
    optics
        Whether ``twin-optics`` is ``told`` where things are, by the section ``optics``
        of the bench file, or has to find that too (``learned``): then it knows the
        macropixels, the bins, and whether there is a lens.
    points
        With ``optics: learned``, points of its grid along a macropixel. 2 reach over
        the light that a macropixel throws into its central lobe, both sides; take 4
        where the bins reach further out.
    screens
        Thin screens learned in the medium of ``twin-optics``.
    panel_lag
        Whether ``twin-optics`` learns a phase of each macropixel as well: for panels
        that drift.
    ridge, forgetting
        Of ``jacobian``.
    loss
        Terms of the fit; empty takes the model's own default.
    first_fits
        Fit steps before training; none takes ``fits_per_step`` for each batch of the
        warm-up pass.
    starts
        Starts that the first fit may try (``twin-optics``): as long as one leaves more
        than 5 % of the outputs' variance unexplained, beside the noise, in the shots
        that ``keep_every`` keeps from fits; the best stays.
    keep_every
        Of so many shots one is kept from all fits; 0 for none.
    schedule
        ``constant``, or ``one-cycle``: in the first fit the step rises to
        ``learning_rate`` and falls to nothing; then it stays at a tenth of that.
    fits_per_step, fit_batch, learning_rate
        Digital effort after each device batch.
    average
        Decay of the averaged weights that answer; 0 for none.
    replay
        Greatest number of shots remembered.
    recency
        Preference of fits for young shots: 0 draws all alike, r draws the age as the
        share u^(1 + r) of all shots, u uniform. For devices that drift.
    """

    name: Literal[
        "jacobian",
        "dense",
        "log-lin-exp",
        "linear",
        "twin-dense",
        "twin-modes",
        "twin-pairs",
        "twin-fields",
        "twin-optics",
    ]
    device: Literal["cpu", "cuda"] = "cpu"
    kernel: Literal["torch", "fused", "auto"] = "torch"
    width: Width = 128
    depth: Annotated[int, Field(ge=1, le=64)] = 2
    rank: Width = 64
    modes: Width = 64
    reach: Annotated[float, Field(ge=1, le=1000)] = 2.0
    optics: Literal["told", "learned"] = "told"
    points: Annotated[int, Field(ge=2, le=16)] = 2
    screens: Annotated[int, Field(ge=1, le=64)] = 4
    panel_lag: bool = False
    ridge: Positive = 1e-2
    forgetting: Annotated[float, Field(gt=0, le=1)] = 0.999
    loss: list[FitLoss] = Field(default_factory=list)
    first_fits: Effort | None = None
    starts: Annotated[int, Field(ge=1, le=64)] = 1
    keep_every: Annotated[int, Field(ge=0, le=1000)] = 0
    schedule: Literal["constant", "one-cycle"] = "constant"
    fits_per_step: Annotated[int, Field(ge=0, le=1_000_000)] = 40
    fit_batch: Width = 128
    learning_rate: Positive = 3e-3
    average: Annotated[float, Field(ge=0, lt=1)] = 0.995
    replay: Count = 100_000
    recency: NotNegative = 0.0


class ProbeEntry(Schema):
    """Where perturbations come from.

    Parameters
    ----------
    dither_rad
        Rms phase that every training exposure carries, first and last step.
    paired_per_step, paired_rad
        Extra exposures a step, each beside one of the batch, and their rms.
    directions
        Where paired perturbations lie: ``all`` macropixels, each by that rms;
        ``coordinates``: some macropixels, others each step; ``random``: a random
        subspace, another one each step; ``modes``: the slowest waves over the panel.
    dimensions
        Along how many directions, each by that rms; with all but ``all``.
    secant_rad
        A sample that is exposed again has moved, by theta and dither: where the rms of
        that move is at most this, it is fitted as a probe, which costs no exposure. 0
        for no such probe. It pays where the dither is small or 0.
    held_out_per_step, held_out_rad
        The same, kept from every fit: in pairs, with a perturbation and with its
        opposite, they measure the held-out cosine. An even number.
    window
        Held-out probes that the live cosine looks back on.
    noise_repeats
        Patterns exposed twice before training, to measure the noise floor.
    warm_up
        Samples exposed once before training; none takes the training split.
    size_every
        Steps between two choices of ``paired_rad``, which the probes of an estimator
        share, and ``held_out_rad``: noise and curvature are measured, and both go to
        where the error of a probe is least, at most by a factor of 2 at once, from
        .01 to 1 rad. Where paired probes keep to directions, theirs is chosen for
        these, that of an estimator for all. 0 leaves them as they stand.
    size_samples
        Samples of a batch that a choice looks at: five exposures each, booked as
        probe; ten where paired probes keep to directions.
    """

    dither_rad: tuple[NotNegative, NotNegative] = (0.5, 0.2)
    paired_per_step: Whole = 0
    paired_rad: Positive = 0.3
    directions: Literal["all", "coordinates", "random", "modes"] = "all"
    dimensions: Whole = 0
    secant_rad: NotNegative = 0.0
    held_out_per_step: Whole = 2
    held_out_rad: Positive = 0.3
    window: Annotated[int, Field(ge=100, le=1_000_000)] = 100
    noise_repeats: Whole = 32
    warm_up: Annotated[int, Field(ge=2, le=1_000_000_000)] | None = None
    size_every: Whole = 0
    size_samples: Count = 8

    @model_validator(mode="after")
    def _holds_out_pairs(self) -> Self:
        if self.held_out_per_step % 2:
            text = (
                f"is {self.held_out_per_step}, expected an even number: held-out "
                "probes are pairs of exposures. Add one."
            )
            raise wrong(("held_out_per_step", text))
        return self

    @model_validator(mode="after")
    def _counts_directions(self) -> Self:
        if (self.directions == "all") == (self.dimensions > 0):
            expected = "0" if self.directions == "all" else "1 or more"
            text = (
                f"is {self.dimensions} with directions={self.directions}, expected "
                f"{expected}: it counts the directions of coordinates, random and "
                "modes. Change one of the two."
            )
            raise wrong(("dimensions", text))
        return self


class EstimatorEntry(Schema):
    """What the backward pass hands to the optimiser.

    Parameters
    ----------
    name
        ``trust`` (the surrogate), ``control-variate`` (the surrogate, corrected by
        fresh probes of each sample), ``gate`` (one of these two, or the probes alone,
        as the held-out cosine says), or ``rehearse`` (theta and digital layers learn
        on a twin between device batches, which confirm each move or take it back).
    probes
        Probes a sample, with ``control-variate`` and ``gate``.
    gain
        Weight c of the correction; ``optimal`` computes c*.
    sure
        Held-out cosine from which on ``gate`` trusts the surrogate alone.
    digital_steps
        Steps on the twin after each device batch, with ``rehearse``.
    radius_rad
        Rms by which theta may move in the first of these; it doubles when the twin
        leaves less than 5 % of a new batch's variance unexplained, noise apart, and
        halves above 20 %.
    """

    name: Literal["trust", "control-variate", "gate", "rehearse"] = "trust"
    probes: Count = 1
    gain: Annotated[float, Field(ge=0, le=1)] | Literal["optimal"] = "optimal"
    sure: Annotated[float, Field(gt=0, le=1)] = 0.4
    digital_steps: Effort = 40
    radius_rad: Positive = 0.5


class DriftEntry(Schema):
    """How closely a device is watched for drift, and what is done about it.

    Shares are of the variance that the outputs have over the reference patterns:
    what changed since they were first shown, noise apart.

    Parameters
    ----------
    every
        Steps between two looks at the reference patterns, booked as drift-check; 0
        for none.
    patterns
        Reference patterns: random phases.
    recentre_above
        Share from which on a gain and an offset of every output take out what is
        common to all patterns, where that is at least half of it; null for never.
    refit_above
        Share, beside what is taken out, from which on the surrogate is fitted again;
        null for never.
    stop_above
        Share from which on the training ends as failed; null for never.
    refit_shots, refit_steps, refit_keep
        Fresh exposures that a new fit begins with, its fit steps, and the newest
        exposures of before that it still learns from.
    """

    every: Whole = 0
    patterns: Annotated[int, Field(ge=3, le=100_000)] = 16
    recentre_above: Positive | None = 0.05
    refit_above: Positive | None = 0.05
    stop_above: Positive | None = None
    refit_shots: Count = 256
    refit_steps: Count = 200
    refit_keep: Whole = 512


class MethodEntry(Schema):
    """Which way the device is trained.

    Parameters
    ----------
    name
        ``surrogate`` (the learned backward pass); ``readout`` (theta stays as it
        started); ``oracle`` (the true gradient, simulated benches only: a reference);
        ``forward-gradient`` (random slopes of every sample); ``jacobian`` (one matrix
        fitted to the paired probes); ``pat`` (a twin trained before, then frozen),
        ``dat`` (the same twin, corrected as training goes on), ``calibrate-deploy``
        (trained on the twin alone, put on the device, readout refitted); ``dfa``
        (fixed random feedback); and by losses alone ``finite-difference``, ``spsa``,
        ``annealing``, ``pepg``, ``cma-es``.
    step_rad
        Rms of the first moves of theta, by losses alone; of the last variations of
        ``annealing``.
    radius_rad
        Size of what is tried, by losses alone and with ``forward-gradient``.
    candidates
        Thetas measured on every batch, by losses alone.
    probes
        Probes of every sample, with ``forward-gradient``.
    pretrain_samples
        Samples exposed for the twin before training (``pat``, ``dat``);
        ``calibrate-deploy`` takes what the budget leaves when it is missing.
    pretrain_rad, pretrain_fits
        Rms phase that they carry, and fit steps on them.
    digital_steps
        Optimiser steps on the twin, with ``calibrate-deploy``.
    """

    name: Literal[
        "surrogate",
        "readout",
        "oracle",
        "forward-gradient",
        "jacobian",
        "pat",
        "dat",
        "calibrate-deploy",
        "dfa",
        "finite-difference",
        "spsa",
        "annealing",
        "pepg",
        "cma-es",
    ] = "surrogate"
    step_rad: Positive = 0.02
    radius_rad: Positive = 0.2
    candidates: Annotated[int, Field(ge=2, le=100_000)] = 2
    probes: Count = 1
    pretrain_samples: Count | None = None
    pretrain_rad: Positive = 0.6
    pretrain_fits: Effort = 1000
    digital_steps: Effort = 600


class TrainingEntry(Schema):
    """How theta and the digital layers are trained.

    Parameters
    ----------
    batch
        Samples a step.
    learning_rate_theta, learning_rate_digital
        Adam's steps, in rad and in units of the digital weights.
    schedule
        Of both steps over the run.
    weight_decay
        Of the digital layers.
    validate_every
        Steps between validations; 0 for none. Each costs the validation split.
    """

    batch: Count = 64
    learning_rate_theta: Positive = 0.1
    learning_rate_digital: Positive = 0.01
    schedule: Literal["constant", "cosine"] = "cosine"
    weight_decay: NotNegative = 0.0
    validate_every: Whole = 0


class Budget(Schema):
    """What the run may cost.

    Parameters
    ----------
    shots
        Exposures of every category but the final test and the reference lines.
    """

    shots: Count


class Reference(Schema):
    """Lines to compare the result with, measured after training.

    Parameters
    ----------
    oracle
        Train once more with the true gradient; simulated benches only.
    """

    oracle: bool = False


class RecordEntry(Schema):
    """What the record keeps.

    Parameters
    ----------
    frames
        ``full`` (the region read out), ``binned`` (outputs only).
    compression
        Of full frames.
    checkpoint_every, checkpoint_every_shots
        Steps between checkpoints of a training at most, and exposures after which the
        next step ends with one, however few steps it took; none takes a tenth of
        the budget. One more follows each part of what comes before the first step.
    """

    frames: Literal["full", "binned"] = "binned"
    compression: Literal["none", "gzip"] = "none"
    checkpoint_every: Count = 50
    checkpoint_every_shots: Count | None = None


class _Document(Schema):
    """What every kind of protocol may say.

    Parameters
    ----------
    schema_version
        Version of this format.
    kind
        What the protocol does.
    title
        A line for people.
    bench
        Name or file of the bench; ``--bench`` goes before it.
    seed
        Where every random number of the run comes from.
    reservoir
        What of the bench's reservoir section it replaces.
    record
        What the record keeps.
    accept_unconverged
        Run although a simulated bench has too few steps or too coarse a grid for
        continuous optics; it is recorded, and said.
    allow_uncalibrated
        Run although calibrations are missing or do not hold: those are used as they
        are, and nominal numbers for what is missing; it is recorded, and said.
    """

    schema_version: Literal[1]
    title: str = ""
    bench: str | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    reservoir: ReservoirOverride = ReservoirOverride()
    record: RecordEntry = RecordEntry()
    accept_unconverged: bool = False
    allow_uncalibrated: bool = False


class TrainProtocol(_Document):
    """Train a model that has the device in it.

    Parameters
    ----------
    data
        Which data.
    model
        Layers, in order; at least one is the device.
    method
        Which way the device is trained.
    surrogate
        The learned backward pass; ``twin-pairs`` where nothing is said.
    probes
        Where perturbations come from.
    estimator
        What the backward pass hands to the optimiser.
    drift
        How closely the device is watched for drift.
    training
        How theta and the digital layers are trained.
    budget
        What the run may cost.
    reference
        Lines to compare the result with.
    """

    kind: Literal["train"]
    data: DataEntry
    model: Annotated[list[Layer], Field(min_length=1, max_length=32)]
    method: MethodEntry = MethodEntry()
    surrogate: SurrogateEntry = SurrogateEntry(name="twin-pairs")
    probes: ProbeEntry = ProbeEntry()
    estimator: EstimatorEntry = EstimatorEntry()
    drift: DriftEntry = DriftEntry()
    training: TrainingEntry = TrainingEntry()
    budget: Budget
    reference: Reference = Reference()

    @model_validator(mode="after")
    def _has_a_device(self) -> Self:
        if not any(layer.layer == "device" for layer in self.model):
            text = "has no device layer, expected one. Add an item with layer: device."
            raise wrong(("model", text))
        return self

    @property
    def exposures(self) -> int:
        """Exposures of a sample: one a device layer, and one a step of a series."""
        devices = [layer for layer in self.model if isinstance(layer, DeviceLayer)]
        return sum(
            1 if layer.recurrent is None else layer.recurrent.steps for layer in devices
        )


class EvaluateProtocol(_Document):
    """Measure a trained model again.

    Parameters
    ----------
    source
        The record it was trained in, relative to the protocol; of a training that did
        not end, the last checkpoint is measured, and said to be one.
    repeats
        How often the test split is measured.
    budget
        What the run may cost; none takes what it needs.
    """

    kind: Literal["evaluate"]
    source: Annotated[str, Field(min_length=1)]
    repeats: Count = 1
    budget: Budget | None = None


class ScanPatterns(Schema):
    """What the panel shows at each point of a scan.

    Parameters
    ----------
    source
        ``random`` phases, ``flat``, or inputs of a data set.
    count
        Patterns a point, the same at every point.
    scale_rad
        Width of the random phases, or phase of an input of 1.
    data
        The data set, with ``data``.
    """

    source: Literal["random", "flat", "data"] = "random"
    count: Width = 8
    scale_rad: Positive = 6.283185307179586
    data: DataEntry | None = None

    @model_validator(mode="after")
    def _has_its_data(self) -> Self:
        if self.source == "data" and self.data is None:
            text = "is missing, expected a data set with source: data."
            raise wrong(("data", text))
        if self.source != "data" and self.data is not None:
            text = f"is not used with source: {self.source}, expected none. Remove it."
            raise wrong(("data", text))
        return self


class ScanProtocol(_Document):
    """Sweep one setting and record the outputs.

    Parameters
    ----------
    sweep
        Dotted key: of this protocol (``reservoir.power_mw``), or of the bench
        file of a simulated bench (``bench_file.world.options.medium.b``).
    values
        What it is set to, one point each.
    patterns
        What the panel shows.
    repeats
        Exposures of each pattern.
    budget
        What the run may cost; none takes what it needs.
    """

    kind: Literal["scan"]
    sweep: Annotated[str, Field(min_length=1)]
    values: Annotated[list[JsonValue], Field(min_length=1)]
    patterns: ScanPatterns = ScanPatterns()
    repeats: Count = 1
    budget: Budget | None = None


Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$", max_length=32)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Part = dict[str, JsonValue]
_OWN: Final = frozenset(
    {"schema_version", "kind", "title", "bench", "seed", "reservoir", "record"}
    | {"budget", "reference"}
)


class ComparisonProtocol(_Document):
    """Train by several methods on several tasks, and compare.

    Every pair of task and method is a training for each seed and budget: ``base``,
    with the sections of the task laid over it, then those of the method, key by
    key. Lists are replaced as a whole.

    Parameters
    ----------
    base
        Sections of a ``train`` protocol that all trainings share.
    tasks
        Sections by task.
    methods
        Sections by method. Those whose ``method.name`` is ``readout`` and ``oracle``
        are what the recovered gain is measured between. A method may have a section
        ``budget`` of its own, and is then trained with that one alone.
    seeds
        One training each; methods are paired by seed.
    budgets
        Exposures of a training; one each.
    target
        Share of the oracle's gain that shots-to-target asks for.
    workers
        Processes that train at the same time; 1 on a real bench.
    """

    kind: Literal["comparison"]
    base: Part = Field(default_factory=dict)
    tasks: Annotated[dict[Name, Part], Field(min_length=1)]
    methods: Annotated[dict[Name, Part], Field(min_length=1)]
    seeds: Annotated[list[Seed], Field(min_length=1)]
    budgets: Annotated[list[Count], Field(min_length=1)]
    target: Annotated[float, Field(gt=0, le=1)] = 0.5
    workers: Annotated[int, Field(ge=1, le=256)] = 2

    @model_validator(mode="after")
    def _names_every_training_once(self) -> Self:
        for key in ("seeds", "budgets"):
            values = getattr(self, key)
            if len(set(values)) < len(values):
                text = "has a number twice, expected each once. Remove one."
                raise wrong((key, text))
        parts = [("base", self.base, _OWN)]
        parts += [(f"tasks.{name}", part, _OWN) for name, part in self.tasks.items()]
        parts += [
            (f"methods.{name}", part, _OWN - {"budget"})
            for name, part in self.methods.items()
        ]
        for place, part, own in parts:
            for key in sorted(own & part.keys()):
                text = (
                    f"has {key}, expected sections of a training such as data, model "
                    "or method: the comparison itself says the rest. Remove it."
                )
                raise wrong((place, text))
        for name, part in self.methods.items():
            if "budget" in part and not _is_budget(part["budget"]):
                text = "is no budget, expected {shots: N}, N at least 1. Correct it."
                raise wrong((f"methods.{name}.budget", text))
        return self

    def budgets_of(self, method: str) -> list[int]:
        """Give the exposures of a method's trainings, one number each.

        Parameters
        ----------
        method
            Its name.
        """
        own = self.methods[method].get("budget")
        return self.budgets if own is None else [Budget.model_validate(own).shots]


def _is_budget(part: JsonValue) -> bool:
    try:
        Budget.model_validate(part)
    except ValidationError:
        return False
    return True


LossName = Literal[
    "sign",
    "sign-mirror",
    "relu",
    "mse",
    "log-mse",
    "cos",
    "log-cos",
    "dot",
    "dot-norm",
    "gen",
    "cos+mse",
    "cos+dot",
]
Exponent = Annotated[float, Field(ge=0, le=2)]
Steps = Annotated[int, Field(ge=1, le=1_000_000)]
_LOSSES: Final[tuple[LossName, ...]] = get_args(LossName)


class LossFields(Schema):
    """Where the losses lead: gradients in the plane, and descents along them.

    Parameters
    ----------
    name
        ``loss-fields``.
    losses
        Which, by their names.
    a
        Exponents of ``gen``, one field each.
    grid
        Points a side of the fields.
    reach
        Half a side of the square that is looked at; targets lie within half of it.
    starts
        Descents start from a square of so many points a side.
    steps, step_size
        Of plain gradient descent.
    """

    needs_bench: ClassVar[bool] = False
    name: Literal["loss-fields"]
    losses: Annotated[tuple[LossName, ...], Field(min_length=1)] = _LOSSES
    a: Annotated[tuple[Exponent, ...], Field(min_length=1)] = (0.5, 1.0, 1.5)
    grid: Annotated[int, Field(ge=3, le=101)] = 21
    reach: Positive = 2.0
    starts: Annotated[int, Field(ge=2, le=21)] = 6
    steps: Steps = 200
    step_size: Positive = 0.05


RelationLoss = Literal["mse", "log-mse", "cos", "log-cos", "dot", "cos+mse", "cos+dot"]
Share = Annotated[float, Field(ge=0, le=1)]
Dimension = Annotated[int, Field(ge=2, le=64)]
Depth = Annotated[int, Field(ge=1, le=16)]
Probes = Annotated[int, Field(ge=2, le=1_000_000)]


class RestoreJacobian(Schema):
    """Restore a Jacobian from scalar relations, with its structure and without.

    Parameters
    ----------
    name
        ``restore-jacobian``.
    dims
        Dimensions of theta x with the structure given.
    losses
        What the two sides of the relation are compared by.
    share
        Dimensions sampled in a mini-batch, as a share of all.
    effort
        Mini-batches, in units of dim_i dim_o / dim_sample.
    learning_rate
        Adam's step, with the structure given.
    initial_messup
        Scale of the start.
    linear, product
        Dimensions of A x and of theta x without structure.
    fit_steps
        Of the surrogates there.
    width
        Monomials of ``log-lin-exp`` at most; ``dense`` has as many parameters.
    probes
        Perturbations that a surrogate learns from.
    starts, rates
        Starts of each fit, and Adam's steps that they take in turn.
    judged
        Share of the fit steps after which the best start goes on alone; 1 takes every
        start to the end.
    axes_dim, shares, probe_counts
        Where theta x is fitted with other numbers of monomials, as shares of the usual
        one, and of probes.
    reach, reach_steps
        Dimensions of theta x to climb through as long as a cosine of .99 is reached
        within so many fit steps.
    """

    needs_bench: ClassVar[bool] = False
    name: Literal["restore-jacobian"]
    dims: Annotated[tuple[Dimension, ...], Field(min_length=1)] = (4, 8, 16)
    losses: Annotated[tuple[RelationLoss, ...], Field(min_length=1)] = (
        "mse",
        "cos",
        "cos+mse",
    )
    share: Annotated[float, Field(gt=0, le=1)] = 0.5
    effort: Positive = 12.0
    learning_rate: Positive = 0.02
    initial_messup: Positive = 1.0
    linear: Annotated[tuple[Dimension, ...], Field(min_length=1)] = (2, 4, 8, 16, 32)
    product: Annotated[tuple[Dimension, ...], Field(min_length=1)] = (2, 3, 4)
    fit_steps: Steps = 600
    width: Hidden = 1056
    probes: Probes = 8192
    starts: Annotated[int, Field(ge=1, le=32)] = 3
    rates: Annotated[tuple[Positive, ...], Field(min_length=1)] = (0.01, 0.003, 0.001)
    judged: Annotated[float, Field(gt=0, le=1)] = 0.125
    axes_dim: Dimension = 4
    shares: Annotated[tuple[Positive, ...], Field(min_length=1)] = (0.25, 0.5, 2.0)
    probe_counts: Annotated[tuple[Probes, ...], Field(min_length=1)] = (512, 2048)
    reach: Annotated[tuple[Dimension, ...], Field(min_length=1)] = (2, 3, 4)
    reach_steps: Steps = 600


class DestroyJacobian(Schema):
    """Spoil backpropagation and see how much of it learning needs.

    Parameters
    ----------
    name
        ``destroy-jacobian``.
    depths
        Linear layers, one net each.
    flips
        Probabilities that the sign of a component is flipped.
    powers
        Exponents of its size; 0 keeps the sign alone.
    samples, wrong
        Training samples, and the share of them with a wrong label.
    width, steps, learning_rate
        Of the nets and of Adam, on all samples at once.
    """

    needs_bench: ClassVar[bool] = False
    name: Literal["destroy-jacobian"]
    depths: Annotated[tuple[Depth, ...], Field(min_length=1)] = (1, 2, 4, 8)
    flips: Annotated[tuple[Share, ...], Field(min_length=1)] = (
        0.1,
        0.2,
        0.3,
        0.4,
        0.45,
        0.5,
        1.0,
    )
    powers: Annotated[tuple[Share, ...], Field(min_length=1)] = (0.5, 0.0)
    samples: Annotated[int, Field(ge=8, le=4000)] = 160
    wrong: Share = 0.1
    width: Hidden = 12
    steps: Steps = 250
    learning_rate: Positive = 0.02


ActivationName = Literal[
    "identity",
    "relu",
    "gelu",
    "tanh",
    "sigmoid",
    "sin",
    "threshold",
    "cantor",
    "polynomial-2",
    "polynomial-3",
    "polynomial-5",
    "perlin",
    "jeff-3",
    "jeff-12",
    "jeff-48",
]
ComplexName = Literal[
    "identity",
    "split-tanh",
    "amplitude-tanh",
    "mod-relu",
    "z-relu",
    "cardioid",
    "kerr",
]
BackwardName = Literal["own", "identity", "sigmoid", "blurred", "clamped"]
_ACTIVATIONS: Final[tuple[ActivationName, ...]] = get_args(ActivationName)
_COMPLEX: Final[tuple[ComplexName, ...]] = get_args(ComplexName)
_BACKWARDS: Final[tuple[BackwardName, ...]] = get_args(BackwardName)


class Activations(Schema):
    """Train nets with every activation of a zoo, forward and backward chosen apart.

    Parameters
    ----------
    name
        ``activations``.
    functions, backwards
        Activations, and what is used in the place of their derivative.
    complex_functions
        Activations of fields, in nets of complex weights.
    blur
        Sigma of the neighbourhood that ``blurred`` smooths over.
    tasks, depths
        Data sets, and linear layers of the nets.
    samples, width, batch, steps, learning_rate
        Of the trainings.
    """

    needs_bench: ClassVar[bool] = False
    name: Literal["activations"]
    functions: Annotated[tuple[ActivationName, ...], Field(min_length=1)] = _ACTIVATIONS
    backwards: Annotated[tuple[BackwardName, ...], Field(min_length=1)] = _BACKWARDS
    complex_functions: Annotated[tuple[ComplexName, ...], Field(min_length=1)] = (
        _COMPLEX
    )
    blur: Annotated[float, Field(gt=0, le=4)] = 0.5
    tasks: Annotated[tuple[ClassesName, ...], Field(min_length=1)] = (
        "xor",
        "spirals",
        "digits",
    )
    depths: Annotated[tuple[Depth, ...], Field(min_length=1)] = (2, 4, 8)
    samples: Annotated[int, Field(ge=8, le=1200)] = 400
    width: Hidden = 16
    batch: Width = 48
    steps: Steps = 250
    learning_rate: Positive = 0.02


Harmonics = Annotated[int, Field(ge=8, le=256, multiple_of=2)]
Repeats = Annotated[int, Field(ge=2, le=10_000)]
Powers = Annotated[tuple[Positive, ...], Field(min_length=1)]


class Superposition(Schema):
    """Measure whether light adds up in the device, by interference.

    Parameters
    ----------
    name
        ``superposition``.
    powers_mw
        Powers, the weakest first: it is what the others are compared with. Exposure
        times are such that the energy is that of the operating point.
    steps
        Phases that the left half of the panel is stepped through, over a turn.
    repeats
        Exposures of each pattern; what they do not share is noise.
    scale_rad
        Width of the random phases under both halves; 0 for none.
    features, input_scale_rad
        Inputs of the model whose linearity is asked for, and phase of an input of 1.
    pairs
        Pairs of inputs that it is asked with.
    """

    needs_bench: ClassVar[bool] = True
    name: Literal["superposition"]
    powers_mw: Annotated[tuple[Positive, ...], Field(min_length=2)] = (0.5, 2.0, 5.0)
    steps: Harmonics = 16
    repeats: Repeats = 8
    scale_rad: NotNegative = 0.0
    features: Width = 16
    input_scale_rad: Positive = 3.141592653589793
    pairs: Annotated[int, Field(ge=2, le=1000)] = 8

    @model_validator(mode="after")
    def _rises(self) -> Self:
        if list(self.powers_mw) != sorted(set(self.powers_mw)):
            text = "does not rise, expected the weakest power first. Sort it."
            raise wrong(("powers_mw", text))
        return self


class DeviceActivations(Schema):
    """Measure the device as the zoo of activations is measured.

    Parameters
    ----------
    name
        ``device-activations``.
    powers_mw
        Powers, the weakest first, with the energy of the operating point.
    features
        Inputs on the panel; the first is swept, the others and theta are drawn.
    points
        Values of the swept input, over a turn of its phase.
    repeats
        Exposures of each; what they do not share is noise.
    """

    needs_bench: ClassVar[bool] = True
    name: Literal["device-activations"]
    powers_mw: Powers = (0.5, 5.0)
    features: Width = 4
    points: Harmonics = 64
    repeats: Repeats = 8


EvolutionMethod = Literal["readout", "selection", "annealing", "surrogate", "oracle"]
_EVOLUTION: Final[tuple[EvolutionMethod, ...]] = get_args(EvolutionMethod)
_DIGITS: Final = DataEntry(set="digits", train=1000, validation=200, test=397)


class Evolution(Schema):
    """Train the device by variation and selection, and by the learned backward pass.

    Parameters
    ----------
    name
        ``evolution``.
    data, input_scale_rad
        Task, and phase of an input of 1.
    methods
        ``selection`` keeps the best of equally wide variations; in ``annealing``
        they shrink; ``surrogate`` is the learned backward pass; ``readout`` leaves
        theta as it started; ``oracle`` takes the true gradient (simulated benches).
    budgets
        Exposures, one training each.
    candidates
        Thetas on every batch, the one that stands among them.
    radius_rad, step_rad
        Rms of the variations; with ``annealing`` of the first and of the last.
    batch
        Samples a step.
    """

    needs_bench: ClassVar[bool] = True
    name: Literal["evolution"]
    data: DataEntry = _DIGITS
    input_scale_rad: Positive = 3.141592653589793
    methods: Annotated[tuple[EvolutionMethod, ...], Field(min_length=1)] = _EVOLUTION
    budgets: Annotated[tuple[Count, ...], Field(min_length=1)] = (4000,)
    candidates: Annotated[int, Field(ge=2, le=1000)] = 8
    radius_rad: Positive = 0.4
    step_rad: Positive = 0.04
    batch: Count = 64


ManifoldTarget = Literal["knot", "saddle"]
ManifoldNetwork = Literal["digital", "device"]
_TARGETS: Final[tuple[ManifoldTarget, ...]] = get_args(ManifoldTarget)
_NETWORKS: Final[tuple[ManifoldNetwork, ...]] = get_args(ManifoldNetwork)


class Manifold(Schema):
    """Sculpt a manifold, parametrised by the inputs, onto a point cloud.

    Parameters
    ----------
    name
        ``manifold``.
    targets
        Clouds: ``knot`` is a closed line in the plane, ``saddle`` a sheet in space.
    networks
        ``digital``, or with the ``device`` in the middle.
    samples
        Points of the cloud.
    frames
        Moments that are kept, the first and the last among them.
    width, steps, learning_rate
        Of the digital network and of its Adam.
    narrower
        Widths below ``width`` that digital networks have too, to see what parameters
        buy.
    budget
        Exposures of a training with the device.
    input_scale_rad
        Phase of an input of 1.
    batch
        Samples a step.
    """

    needs_bench: ClassVar[bool] = True
    name: Literal["manifold"]
    targets: Annotated[tuple[ManifoldTarget, ...], Field(min_length=1)] = _TARGETS
    networks: Annotated[tuple[ManifoldNetwork, ...], Field(min_length=1)] = _NETWORKS
    samples: Annotated[int, Field(ge=16, le=4000)] = 400
    frames: Annotated[int, Field(ge=2, le=64)] = 9
    width: Count = 32
    narrower: tuple[Count, ...] = ()
    steps: Steps = 400
    learning_rate: Positive = 0.02
    budget: Count = 4000
    input_scale_rad: Positive = 6.283185307179586
    batch: Count = 64

    @model_validator(mode="after")
    def _widths_differ(self) -> Self:
        widths = (self.width, *self.narrower)
        if len(set(widths)) < len(widths) or max(widths) > self.width:
            text = (
                f"got {list(self.narrower)} beside width {self.width}, expected other "
                "widths below it, each once"
            )
            raise ValueError(text)
        return self


Study = Annotated[
    LossFields
    | RestoreJacobian
    | DestroyJacobian
    | Activations
    | DeviceActivations
    | Superposition
    | Manifold
    | Evolution,
    Field(discriminator="name"),
]


class StudyProtocol(_Document):
    """Repeat an experiment of the document that the project comes from.

    Parameters
    ----------
    size
        ``smoke`` (seconds, says little) or ``full``.
    seeds
        How many: ``seed`` and the numbers after it.
    study
        Which experiment, with its own settings.
    """

    kind: Literal["study"]
    size: Literal["smoke", "full"]
    seeds: Annotated[int, Field(ge=1, le=1000)]
    study: Study

    @model_validator(mode="after")
    def _names_no_bench_in_vain(self) -> Self:
        if self.study.needs_bench:
            return self
        for key in (
            "bench",
            "reservoir",
            "record",
            "accept_unconverged",
            "allow_uncalibrated",
        ):
            if getattr(self, key) != type(self).model_fields[key].default:
                text = (
                    f"is not used by study {self.study.name}, which is computed "
                    "without a device, expected none. Remove it."
                )
                raise wrong((key, text))
        return self


Protocol = Annotated[
    TrainProtocol
    | EvaluateProtocol
    | ScanProtocol
    | ComparisonProtocol
    | StudyProtocol,
    Field(discriminator="kind"),
]
AnyProtocol = (
    TrainProtocol | EvaluateProtocol | ScanProtocol | ComparisonProtocol | StudyProtocol
)
ADAPTER: TypeAdapter[AnyProtocol] = TypeAdapter(Protocol)

_INTRODUCTION: Final = """
What may stand in a protocol, made from the schema. Units are in the keys; unknown
keys are refused. `labctl validate FILE` names every fault with its line: of the file,
and of what it asks of its data, its bench and its budget. `labctl run` checks the same,
and beside it calibrations, drivers and where the record goes. Any key can be changed
for one run with `--set key.path=value`; items of lists are counted from 0, as in
`--set model.0.modes=64`. A list that the file leaves out has the items of its default;
one without a default, such as `reservoir.bins`, which is then the bench's, is set as a
whole: `--set 'reservoir.bins=[2, 3]'`. Editors that know JSON schema take
[protocol.schema.json](protocol.schema.json).
"""


def write_schemas(folder: Path) -> None:
    """Write the editor's schema and the reference page of protocols.

    Parameters
    ----------
    folder
        Where they go: ``docs/reference`` of a checkout.
    """
    models = {
        "kind: train": TrainProtocol,
        "kind: evaluate": EvaluateProtocol,
        "kind: scan": ScanProtocol,
        "kind: comparison": ComparisonProtocol,
        "kind: study": StudyProtocol,
    }
    page = reference_page("Protocol files", _INTRODUCTION, models)
    for name, text in (
        ("protocol.schema.json", schema_text(ADAPTER)),
        ("protocol-file.md", page),
    ):
        (folder / name).write_text(text, encoding="utf-8", newline="\n")
