"""What a report says of a record: figures to draw, tables and sentences."""

import json
import math
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from labctl.errors import InputError, RecordError
from labctl.recording.reader import Record
from labctl.report import compared, figure, scale
from labctl.report.figure import Drawing, Picture
from labctl.report.section import Page, Section, Table

_SHOWN_EVENTS = 200
_LISTED = 24  # numbers that are written out
_SAMPLES = 3  # exposures that are drawn
_SCORES: dict[str, dict[str, str]] = {
    "train": {
        "score_readout": "readout only",
        "score_test": "trained device",
        "score_oracle": "oracle (true gradient)",
    },
    "evaluate": {
        "score_then": "when it was trained",
        "score_test": "measured again",
    },
    "scan": {},
    "comparison": {},
    "study": {},
    "calibrate": {},
}
_NO_SCORES: dict[str, str] = {}
_CURVES = ("step", "loss", "accuracy", "cosine", "cosine_error", "shots")


def read(record: Record) -> Page:
    """Gather what a page says of a record.

    Parameters
    ----------
    record
        Open for reading; running or ended.

    Returns
    -------
    page
        Figures are not drawn yet, and need the record no more.

    Raises
    ------
    InputError
        It is of no kind that labctl runs.
    """
    if record.kind not in _SCORES:
        text = (
            f"{record.path}: kind={record.kind!r}, expected one of "
            f"{', '.join(_SCORES)}. Restore the file from a copy."
        )
        raise InputError(text)
    sections = (
        _calibration(record) if record.kind == "calibrate" else _result(record),
        _what(record),
        *_course(record),
        _device(record),
        _ledger(record),
        _calibrations(record),
        _events(record),
        _repeat(record),
    )
    return Page(
        title=record.title or f"{record.kind} on {record.bench_name}",
        status=record.status,
        simulated=record.simulated,
        notice=record.notice,
        sections=tuple(section for section in sections if not section.is_empty),
    )


# ---- the result -------------------------------------------------------------


def scores(kind: str, result: Mapping[str, Any]) -> dict[str, float]:
    """Pick the scores out of a result, by what a person calls them.

    Parameters
    ----------
    kind
        Kind of the protocol.
    result
        Summary of the run.

    Returns
    -------
    scores
        Those that were measured, in the order of the page.
    """
    return {
        text: float(result[key])
        for key, text in _SCORES.get(kind, _NO_SCORES).items()
        if isinstance(result.get(key), int | float) and math.isfinite(result[key])
    }


def headline(kind: str, result: Mapping[str, Any]) -> str:
    """Say the result in one line.

    Parameters
    ----------
    kind
        Kind of the protocol.
    result
        Summary of the run.

    Returns
    -------
    line
        Such as ``accuracy: 0.52 readout only, 0.84 trained device``.
    """
    found = scores(kind, result)
    if kind in _SAYERS:
        return _SAYERS[kind](result)
    if not found:
        return "No score was measured."
    metric = str(result.get("metric", "score"))
    told = ", ".join(f"{number:.4g} {text}" for text, number in found.items())
    better = {"up": " Higher is better.", "down": " Lower is better."}
    hint = better.get(str(result.get("direction")), "")
    return f"{metric} on the test split: {told}.{hint}"


def _of_study(result: Mapping[str, Any]) -> str:
    claims: Mapping[str, int] = result.get("claims", {})
    total = sum(claims.values())
    held = claims.get("held", 0)
    rest = ", ".join(
        f"{n} {_PLURALS.get(kind, kind) if n > 1 else kind}"
        for kind, n in claims.items()
        if kind != "held"
    )
    tail = f"; {rest}" if rest else ""
    return (
        f"{held} of {total} claims held{tail} (size {result.get('size', 'unknown')})."
    )


_PLURALS = {"holds under conditions": "hold under conditions"}


def _of_comparison(result: Mapping[str, Any]) -> str:
    failed = result.get("failed", 0)
    scales: Mapping[str, Mapping[str, str]] = result.get("scales", {})
    named = ", ".join(f"{one['metric']} ({task})" for task, one in scales.items())
    metric = result.get("metric") or named or "score"
    return (
        f"{result.get('jobs', 0)} trainings, {failed} of them failed, on "
        f"{result.get('shots', 0):,} shots; methods are compared by "
        f"{metric} below."
    )


def _of_scan(result: Mapping[str, Any]) -> str:
    means = [np.mean(row) for row in result.get("mean_outputs", ())]
    values = result.get("values", ())
    if not means or len(means) != len(values):
        return "No output was measured."
    unit = result.get("unit", "electron")
    told = f"mean output {means[0]:.4g} {unit}s at {result.get('sweep')}={values[0]}"
    if len(means) > 1:
        told += f", {means[-1]:.4g} at {values[-1]}"
    return f"{len(means)} values: {told}."


_SAYERS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "study": _of_study,
    "comparison": _of_comparison,
    "scan": _of_scan,
}


def _gain(result: Mapping[str, Any]) -> str:
    """Say how much of the room between readout and oracle the device took."""
    keys = ("score_readout", "score_test", "score_oracle")
    found = [result.get(key) for key in keys]
    numbers = [float(score) for score in found if isinstance(score, int | float)]
    if len(numbers) < len(keys):
        return ""
    low, got, high = numbers
    room = high - low
    if (room if result.get("direction") == "up" else -room) <= 0:
        return "The oracle is no better than the readout alone: nothing to gain here."
    return (
        f"The trained device took {100 * (got - low) / room:.0f} % of the room between "
        "the readout alone and the oracle."
    )


def _most(record: Record) -> Iterator[str]:
    """Say of each task of a comparison who recovers most, at the largest budget."""
    if record.kind != "comparison":
        return
    lines = record.table("summary")
    methods = record.resolved.get("methods", {})
    ends = {
        name
        for name, given in methods.items()
        if given.get("method", {}).get("name") in {"oracle", "readout"}
    }
    for task in dict.fromkeys(lines["task"].tolist()):
        mine = (lines["task"] == task) & np.isfinite(lines["gain"])
        mine &= ~np.isin(lines["method"], list(ends))
        if not mine.any():
            continue
        budget = lines["budget"][mine].max()
        rows = np.flatnonzero(mine & (lines["budget"] == budget))
        row = int(rows[lines["gain"][rows].argmax()])
        yield (
            f"Most of the oracle's gain on {task} with {budget} shots: "
            f"{compared.cell(lines, row, 'gain')}, by {lines['method'][row]}."
        )


def _again(result: Mapping[str, Any]) -> str:
    """Say how far repeats lie apart."""
    found = result.get("scores")
    if not isinstance(found, Sequence) or len(found) < 2:
        return ""
    low, high = min(found), max(found)
    times = f"Measured {len(found)} times"
    return f"{times}, from {low:.4g} to {high:.4g}; this is the mean."


def _halfway(result: Mapping[str, Any]) -> str:
    """Say it where the model that was measured is not that of a training's end."""
    found = result.get("unfinished")
    return f"Source: {found}" if isinstance(found, str) and found else ""


def _no_result(record: Record) -> str:
    """Say why there is none, and what can be done."""
    text = f"There is no result: the status of this record is {record.status}."
    if record.status not in _UNENDED:
        return text
    if record.is_written:
        return f"{text} It is being written: a later report shows more."
    todo = (
        "Measure again."
        if record.kind == "calibrate"
        else f"Go on with labctl run --resume {shlex.quote(record.path.name)}."
    )
    return f"{text} Nobody writes it any more: its run was killed. {todo}"


_UNENDED = ("running", "paused")


def _result(record: Record) -> Section:
    result = record.result
    if not result:
        return Section("result", "Result", (_no_result(record),))
    found = scores(record.kind, result)
    drawings = []
    if found:
        metric = str(result.get("metric", "score"))
        drawings.append(
            figure.bars(
                "scores",
                "Scores on the test split",
                "Readout only is the same model with its device left at the start and "
                "only the digital readout solved; the oracle is trained with the true "
                "gradient, which only a simulated bench knows."
                if record.kind == "train"
                else "The score in the source record, and the one measured now.",
                metric,
                found,
            )
        )
    # The figure of a scan shows all its numbers.
    named = {*_SCORES.get(record.kind, _NO_SCORES), "mean_outputs", "unfinished"}
    rest = {key: value for key, value in result.items() if key not in named}
    table = Table(
        ("figure", "value"), tuple((key, _shown(value)) for key, value in rest.items())
    )
    sentences = tuple(
        text
        for text in (
            headline(record.kind, result),
            *_most(record),
            _gain(result),
            _again(result),
            _halfway(result),
        )
        if text and (found or record.kind in {"train", "evaluate", *_SAYERS})
    )
    return Section("result", "Result", sentences, table, tuple(drawings))


# ---- what was run -----------------------------------------------------------


def _what(record: Record) -> Section:
    resolved = record.resolved
    # The record has the first value of what a scan swept.
    swept = str(resolved.get("sweep", "")).removeprefix("reservoir.")
    rows = [
        ("protocol", f"{record.kind}: {record.title}" if record.title else record.kind),
        ("bench", _bench(record)),
        ("start", _when(record.start_time)),
        ("end", _when(record.end_time) if record.end_time else "not ended"),
        ("seeds", _shown(record.seeds)),
        *((key, _shown(resolved[key])) for key in _NAMED if key in resolved),
        *_model(resolved),
        *((k, _shown(v)) for k, v in record.reservoir.items() if k != swept),
        *_devices(record),
        ("file", record.path.name),
    ]
    return Section("what", "What was run, and on what", table=_pairs(rows))


def _bench(record: Record) -> str:
    if not record.bench_name:
        return "none: computed, no device took part"
    return record.bench_name + (" (simulated light)" * record.simulated)


_NAMED = ("size", "study", "data", "budget", "source", "sweep", "values", "patterns")


def _model(resolved: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for number, layer in enumerate(resolved.get("model", [])):
        rest = {
            key: value
            for key, value in layer.items()
            if key != "layer" and value is not None
        }
        text = f"{layer['layer']}: {_shown(rest)}" if rest else str(layer["layer"])
        yield f"layer {number}", text
    for key in ("surrogate", "estimator"):
        if key in resolved:
            yield key, str(resolved[key]["name"])


def _devices(record: Record) -> Iterator[tuple[str, str]]:
    for role, fields in record.instrument.items():
        named = [
            str(fields[key]) for key in ("vendor", "model", "serial") if fields.get(key)
        ]
        if named:
            yield role, " ".join(named)


def _pairs(rows: Sequence[tuple[str, str]]) -> Table:
    return Table(("what", "value"), tuple(rows))


def _shown(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, np.ndarray):
        return _shown_array(value)
    if isinstance(value, Mapping):
        items = [
            f"{key} {_shown(item)}" for key, item in value.items() if item is not None
        ]
        return ", ".join(items) or "none"
    if isinstance(value, Sequence):
        if len(value) > _LISTED and all(isinstance(n, int | float) for n in value):
            return f"{len(value)} numbers, {_shown(min(value))} to {_shown(max(value))}"
        return "; ".join(_shown(item) for item in value) or "none"
    return _shown_plain(value)


def _shown_plain(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float | np.floating):
        return f"{value:.6g}"
    return str(value)


def _shown_array(value: NDArray[Any]) -> str:
    if value.size <= 6:
        return ", ".join(_shown(item) for item in value.ravel())
    shape = " x ".join(map(str, value.shape))
    return f"{shape} numbers, {_shown(value.min())} to {_shown(value.max())}"


# ---- the course of each kind ------------------------------------------------


def _course(record: Record) -> Iterator[Section]:
    kinds = {
        "train": _training,
        "evaluate": _evaluation,
        "scan": _scan,
    }
    if record.kind == "comparison":
        yield from compared.sections(record)
        return
    if record.kind == "study":
        # Studies bring all that they compute with: only who draws one waits for it.
        from labctl.report.study import course  # noqa: PLC0415 - start-up time

        yield from course.sections(record)
        return
    yield kinds.get(record.kind, _nothing)(record)


def _nothing(record: Record) -> Section:
    del record
    return Section("course", "Course")


def _training(record: Record) -> Section:
    title = "Training"
    columns = {name: _numbers(record, "training", name) for name in _CURVES}
    if not len(columns["step"]):
        return Section("training", title, ("No step was recorded yet.",))
    shots = ("shots spent", columns["shots"])
    # The column is named by what it mostly is; of a series it is another.
    metric = _metric(record)
    labels = {"loss": "loss of the batch", "accuracy": f"{metric} of the batch"}
    panels = [
        (text, columns[name])
        for name, text in labels.items()
        if np.isfinite(columns[name]).any()
    ]
    told = () if panels else (f"No loss and no {metric} is a number in this record.",)
    drawings = []
    if panels:
        drawings.append(
            figure.curves(
                "training",
                f"Loss and {metric}",
                shots,
                panels,
                scores(record.kind, record.result) if _has_score(columns) else {},
            )
        )
    drawings += _validation(record, columns["shots"])
    if np.isfinite(columns["cosine"]).any():
        drawings.append(figure.band(shots, columns["cosine"], columns["cosine_error"]))
    return Section("training", title, told, drawings=tuple(drawings))


def _has_score(columns: Mapping[str, NDArray[Any]]) -> bool:
    return bool(np.isfinite(columns["accuracy"]).any())


def _numbers(record: Record, table: str, name: str) -> NDArray[Any]:
    found = record.column(table, name)
    if found.dtype.kind not in "biuf":
        text = (
            f"{record.path}: {table}/{name} holds {found.dtype.type.__name__}, "
            "expected numbers. Restore the file from a copy."
        )
        raise InputError(text)
    return found


def _validation(record: Record, shots: NDArray[Any]) -> Iterator[Drawing]:
    if "score_validation" not in record.tables["training"]:
        return
    score = _numbers(record, "training", "score_validation")
    known = np.isfinite(score)  # only every so many steps
    if known.any():
        yield figure.curves(
            "validation",
            "Score on the validation split",
            ("shots spent", shots[known]),
            [(_metric(record), score[known])],
            scores(record.kind, record.result),
        )


def _metric(record: Record) -> str:
    """Name the score; a run that goes on has not said what it is."""
    return str(record.result.get("metric", "score"))


def _evaluation(record: Record) -> Section:
    drawings = []
    repeats = record.column("scores", "repeat")
    if len(repeats) > 1:
        drawings.append(
            figure.curves(
                "repeats",
                "Score of each repeat",
                ("repeat", repeats),
                [(_metric(record), record.column("scores", "score"))],
            )
        )
    answer, target = (record.column("predictions", n) for n in ("prediction", "target"))
    if _is_classes(answer, target):
        counts = np.zeros((answer.shape[1],) * 2, dtype=np.int64)
        np.add.at(counts, (target[:, 0].astype(int), answer.argmax(axis=1)), 1)
        drawings.append(figure.confusion(counts))
    return Section("evaluation", "Measured again", drawings=tuple(drawings))


def _is_classes(answer: NDArray[Any], target: NDArray[Any]) -> bool:
    """Whether targets are class numbers: one whole number each, one answer a class."""
    if not len(answer) or target.shape[1] != 1 or answer.shape[1] < 2:
        return False
    inside = (target >= 0) & (target < answer.shape[1]) & (target == np.rint(target))
    return bool(inside.all())


def _scan(record: Record) -> Section:
    points = {
        name: record.column("points", name) for name in ("value", "text", "outputs")
    }
    if not len(points["value"]):
        return Section("scan", "Scan", ("No point was recorded yet.",))
    values, first, group = np.unique(
        points["value"], return_index=True, return_inverse=True
    )
    means = np.stack(
        [
            points["outputs"][group == number].mean(axis=0)
            for number in range(len(values))
        ]
    )
    setting = str(record.resolved.get("sweep", "setting"))
    texts = [str(points["text"][row]) for row in first]
    return Section(
        "scan", "Scan", drawings=(figure.scan(setting, texts, values, means),)
    )


# ---- the device -------------------------------------------------------------


def _calibration(record: Record) -> Section:
    """Verdict, figures of merit and figures of a calibration."""
    result = record.result
    title = f"Calibration {record.resolved.get('calibration', '')}"
    if not result:
        return Section("result", title, (_no_result(record),))
    merits = {
        name: f"{_measured(value, error)}, limit {limit:.4g}"
        for name, (value, error, limit) in result.get("merits", {}).items()
    }
    told = "; ".join(f"{name} {text}" for name, text in merits.items())
    passed = f"Passed: {told}." if told else "Passed."
    verdict = passed if result["passed"] else f"Failed: {result['why']}"
    sentences = (verdict, *(_sentence(text) for text in result.get("remarks", ())))
    rows = [(f"merit {name}", text) for name, text in merits.items()]
    rows += [
        (name, _measured(value, error))
        for name, (value, error) in result.get("quantities", {}).items()
    ]
    rows += [(name, _shown(v)) for name, v in result.get("conditions", {}).items()]
    fits = record.table("fits")
    drawings = tuple(_fitted(fits, named) for named in result.get("figures", ()))
    table = Table(("figure", "value"), tuple(rows))
    return Section("result", title, sentences, table, drawings)


def _sentence(text: object) -> str:
    said = str(text)
    return f"{said[:1].upper()}{said[1:]}" + "." * (not said.endswith("."))


def _measured(value: float | None, error: float | None) -> str:
    """Write a number and its error, both to the error's second digit."""
    if value is None:
        return _shown(value)
    if error is None or not 0 < error < math.inf:
        return f"{value:.4g}"
    digits = 1 - math.floor(math.log10(error))
    if not -6 < digits <= 6 or not math.isfinite(value):
        return f"{value:.4g} ± {error:.2g}"
    # Nought added to -0 is 0.
    value, error = round(value, digits) + 0.0, round(error, digits)
    return f"{value:.{max(digits, 0)}f} ± {error:.{max(digits, 0)}f}"


def _fitted(fits: Mapping[str, NDArray[Any]], named: Mapping[str, Any]) -> Drawing:
    mine = fits["figure"] == named["name"]
    series = []
    for name in dict.fromkeys(fits["series"][mine].tolist()):
        rows = mine & (fits["series"] == name)
        columns = {key: fits[key][rows] for key in ("x", "y", "error", "u", "v")}
        series.append(figure.Points(name, **columns, is_line=name in named["lines"]))
    return figure.fitted(
        (named["name"], named["title"], named["caption"]),
        (named["x"], named["y"]),
        series,
        named["scale"],
        # Records of earlier versions have neither.
        tuple(named.get("names", ())),
        float(named.get("arrows", 1.0)),
    )


def _device(record: Record) -> Section:
    if not {"shots", "shots_meta"} & record.tables.keys():
        return Section("device", "The device")
    if record.kind == "calibrate":
        return Section("device", "The device", drawings=tuple(_frame(record)))
    drawings: list[Drawing] = []
    sentences: list[str] = []
    rows, columns = (int(number) for number in record.reservoir["macropixels"])
    if record.checkpoints():
        try:
            step, _, state = record.checkpoint(as_arrays=True)
        except RecordError as err:
            sentences.append(str(err))
        else:
            drawings += _thetas(record, state, step, rows)
    drawings += _shot(record, (rows, columns))
    return Section("device", "The device", tuple(sentences), drawings=tuple(drawings))


def _thetas(
    record: Record, state: Mapping[str, Any], step: int, rows: int
) -> Iterator[Drawing]:
    model = record.resolved.get("model", [])
    layers = [layer for layer in model if layer["layer"] == "device"]
    # Not strict: copies of theta may follow in the state, such as an average.
    pairs = zip(layers, _find_thetas(state), strict=False)
    for number, (layer, theta) in enumerate(pairs):
        picture = (
            Picture("theta", theta, "coefficient (rad)")
            if layer["encoding"] == "modes"
            else Picture(
                "theta",
                np.mod(theta.reshape(rows, -1), 2 * np.pi),
                "phase (rad), modulo 2π",
                figure.PHASE,
                (0.0, 2 * np.pi),
                scale.macropixel_um(record),
            )
        )
        yield figure.pictures(
            f"theta-{number}",
            f"What the device learned (device layer {number})",
            f"The trainable parameters theta, encoding {layer['encoding']}, at step "
            f"{step}: the last checkpoint.",
            [picture],
        )


def _find_thetas(tree: object) -> Iterator[NDArray[np.float64]]:
    """Every array called theta in a checkpoint, in its order."""
    if not isinstance(tree, Mapping):
        return
    for key, item in tree.items():
        if str(key).rpartition(".")[2] == "theta" and np.ndim(item) == 1:
            yield np.asarray(item, dtype=np.float64)
        else:
            yield from _find_thetas(item)


def _frame(record: Record) -> Iterator[Drawing]:
    """Pattern and frame of the brightest exposure of a calibration."""
    good = np.flatnonzero(record.column("shots_meta", "quality") == "ok")
    if not good.size:
        return
    exposed = record.column("shots_meta", "setpoint_mw")
    exposed = exposed * record.column("shots_meta", "exposure_s")
    row = int(good[exposed[good].argmax()])
    only = slice(row, row + 1)
    pattern = int(record.column("shots_meta", "pattern", only)[0])
    levels = record.column("patterns", "levels", slice(pattern, pattern + 1))[0]
    frame = record.column("shots", "frames", only)[0]
    shown = [
        Picture(
            "levels shown",
            levels,
            "gray level",
            "gray",
            cell_um=scale.pitch_um(record),
        ),
        Picture("frame", frame, "counts", cell_um=scale.pixel_um(record)),
    ]
    yield figure.pictures(
        "shot",
        "One exposure",
        f"Shot {row}, of those that got the most light the first: what the panel "
        "showed and what came back.",
        shown,
    )


def _shot(record: Record, macropixels: tuple[int, int]) -> Iterator[Drawing]:
    """Pattern and answer of the last exposure that was accepted for each purpose."""
    good = np.flatnonzero(record.column("shots_meta", "quality") == "ok")
    purposes = record.column("shots_meta", "category")[good]
    last = {str(purpose): int(row) for purpose, row in zip(purposes, good, strict=True)}
    newest = sorted(last.items(), key=lambda each: each[1], reverse=True)
    for number, (category, row) in enumerate(newest[:_SAMPLES]):
        name = f"shot-{category}" if number else "shot"
        yield _exposure(record, macropixels, name, category, row)


def _exposure(
    record: Record, macropixels: tuple[int, int], name: str, category: str, row: int
) -> Drawing:
    only = slice(row, row + 1)
    levels = record.column("shots_meta", "levels", only)[0]
    outputs = record.column("shots", "outputs", only)[0]
    bins = tuple(int(number) for number in record.reservoir["bins"])
    shown = [
        Picture(
            "levels shown",
            levels.reshape(macropixels),
            "gray level",
            "gray",
            cell_um=scale.macropixel_um(record),
        )
    ]
    if "frames" in record.tables["shots"]:
        frame = record.column("shots", "frames", only)[0]
        shown.append(Picture("frame", frame, "counts", cell_um=scale.pixel_um(record)))
    else:
        values = outputs.reshape(bins)
        size = scale.bin_um(record)
        shown.append(Picture("outputs", values, "electrons a bin", cell_um=size))
    return figure.pictures(
        name,
        f"One exposure: {category}",
        f"Shot {row}, the last that was accepted of those exposed for {category}: what "
        "the panel showed and what came back.",
        shown,
    )


# ---- tables -----------------------------------------------------------------


def _ledger(record: Record) -> Section:
    if "shots_meta" not in record.tables:
        return Section("shots", "Shots")
    counts = {key: float(value) for key, value in record.ledger().items() if value}
    if not counts:
        return Section("shots", "Shots", ("No shot was recorded yet.",))
    drawing = figure.bars(
        "ledger",
        "Shots by category",
        "Every exposure is on the ledger; refunded ones were rejected as invalid.",
        "shots",
        counts,
    )
    return Section("shots", "Shots", drawings=(drawing,))


def _calibrations(record: Record) -> Section:
    start = _time(record.start_time)
    rows = [
        (
            kind,
            str(fields.get("source", "")),
            _when(str(fields.get("created", ""))),
            _age(start, _time(str(fields.get("created", "")))),
            _shown(fields.get("figure_of_merit", {})),
            _shown({k: v for k, v in fields.items() if k not in _CALIBRATION_HEADS}),
        )
        for kind, fields in record.calibrations.items()
    ]
    if not rows and not record.bench_name:
        return Section("calibrations", "Calibrations")
    if not rows:
        none = "None was applied."
        if record.kind == "comparison":
            none = (
                "Each training applied its own: its record, beside this one, has them."
            )
        return Section("calibrations", "Calibrations", (none,))
    heads = ("kind", "source", "made", "age at the start", "merit", "values")
    return Section("calibrations", "Calibrations", table=Table(heads, tuple(rows)))


_CALIBRATION_HEADS = ("source", "source_sha256", "created", "figure_of_merit")


def _time(text: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _when(text: str) -> str:
    """Say a time shortly, in UTC; what is no time is shown as it is."""
    found = _time(text)
    if found is None:
        return text
    return found.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _age(start: datetime | None, made: datetime | None) -> str:
    if start is None or made is None:
        return "not known"
    days = (start - made).total_seconds() / 86400
    return f"{days:.1f} days"


def _events(record: Record) -> Section:
    events = record.events()
    rows = tuple(
        (
            datetime.fromtimestamp(event.time_s, UTC).strftime("%Y-%m-%d %H:%M:%S"),
            event.level,
            event.source,
            event.text,
        )
        for event in events[-_SHOWN_EVENTS:]
    )
    if not rows:
        return Section("events", "Events", ("None.",))
    left = len(events) - len(rows)
    note = f"{left} earlier events are left out; the record holds them." if left else ""
    heads = ("time (UTC)", "level", "source", "what happened")
    return Section("events", "Events", table=Table(heads, rows, note))


_WHOLE: Final = "the protocol with every default and override"


def _has_world(record: Record) -> bool:
    """Whether its bench is simulated by itself."""
    try:
        file = YAML(typ="safe", pure=True).load(record.bench_text)
    except YAMLError:
        return False
    return isinstance(file, dict) and "world" in file


def _repeat(record: Record) -> Section:
    environment = record.environment
    called = shlex.join(str(word) for word in environment.get("argv", []))
    resolved = record.resolved
    seed = resolved.get("seed", 0)
    bench = f" --bench {shlex.quote(record.bench_name)}" if record.bench_name else ""
    # What was simulated stays simulated: on devices it would be no repetition.
    simulate = " --simulate" if record.simulated and not _has_world(record) else ""
    command = f"labctl run protocol.yaml{bench} --seed {seed}{simulate}"
    if record.kind == "calibrate":
        command = f"labctl calibrate {resolved.get('calibration')}{bench}"
    kept = ("python", "platform", "hostname", "git_commit", "git_dirty", "threads")
    rows = [(key, _shown(environment[key])) for key in kept if key in environment]
    if card := environment.get("fit_card"):
        rows.append(("surrogate fitted on", str(card)))
    if kernel := environment.get("fit_kernel"):
        rows.append(("surrogate fitted by", f"compiled kernel, build {kernel}"))
    packages = environment.get("packages", {})
    named = [name for name in ("labctl", "torch", "numpy", "h5py") if name in packages]
    rows += [(name, str(packages[name])) for name in named]
    rows.append(("protocol sha256", record.text("protocol/sha256")))
    if record.bench_name:
        rows.append(("bench sha256", record.text("bench/sha256")))
    listings = [
        (
            f"Command, with {_WHOLE} saved as protocol.yaml"
            if record.protocol_text
            else "Command",
            command,
        ),
        (_WHOLE[0].upper() + _WHOLE[1:], _indented(resolved)),
        ("As it was called", called),
        ("Protocol, as it was given", record.protocol_text),
        ("Bench file", record.bench_text),
    ]
    return Section(
        "repeat",
        "How to repeat it",
        table=_pairs(rows),
        listings=tuple((caption, text) for caption, text in listings if text),
    )


def _indented(tree: Mapping[str, Any]) -> str:
    return json.dumps(tree, indent=2, ensure_ascii=False)
