"""A training against its data, bench, method and budget: the one place for it.

Nothing is open yet, and every fault is told together, where the protocol has it. What
one check refuses the next ones take as mended to the nearest legal value, so that no
fault hides another.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from labctl import data
from labctl.data import Dataset
from labctl.document import Document
from labctl.errors import Fault, InputError
from labctl.optics.cuda import card
from labctl.protocol import DataEntry, TrainProtocol
from labctl.run import method, model
from labctl.run.refusal import Refusals, placed
from labctl.run.setting import Fitting, Setting
from labctl.training.network import Network
from labctl.training.plan import Plan, TooSmall, plan
from labctl.training.surrogate.build import build as build_surrogate
from labctl.training.surrogate.build import kernel_of
from labctl.training.surrogate.fit import Fitter
from labctl.training.trainer import misfits

TWINS = frozenset(
    {"twin-dense", "twin-modes", "twin-pairs", "twin-fields", "twin-optics"}
)
# Estimators that probe every sample, or may.
SAMPLED = frozenset({"control-variate", "gate"})
_NO_BASELINE = "a dithered exposure has no baseline to be compared with"
_BESIDE = "secants (secant_rad) come beside paired probes, not in their place"


@dataclass(frozen=True, eq=False)
class Sound:
    """A training in which nothing was found wrong.

    Parameters
    ----------
    setting
        The run, without what its method does not use.
    dataset
        Its data.
    planned
        What the budget pays for.
    """

    setting: Setting[TrainProtocol]
    dataset: Dataset
    planned: Plan


def training(setting: Setting[TrainProtocol]) -> Sound:
    """Check a training before anything opens.

    Parameters
    ----------
    setting
        The run.

    Returns
    -------
    sound
        What the checks made of it.

    Raises
    ------
    InputError
        Data, model, probes, budget or bench do not fit each other: every fault.
    """
    given, refusals = setting.document, Refusals()
    told = (*method.contradictions(setting.protocol), *method.excess(setting))
    refusals.add(given.fault(key, text) for key, text in told)
    setting = method.effective(setting)
    protocol = setting.protocol
    refusals.add(_probe_faults(given, protocol))
    refusals.add(_oracle_faults(setting))
    refusals.add(_direction_faults(setting))
    refusals.add(_surrogate_faults(setting))
    try:
        whole = data.load_entry(_uncut(protocol), setting.folder)
    except InputError as error:
        key = "data.set" if protocol.data.file is None else "data.file"
        refusals.add([given.fault(key, str(error))])
        raise refusals.joined() from error
    refusals.add(
        given.fault(f"data.{split}", text)
        for split, text in data.shortfalls(whole, _wanted(protocol))
    )
    dataset = data.cut(whole, _nearest(whole, _wanted(protocol)))
    try:
        network(setting, dataset)
    except ValueError as error:
        refusals.add([placed(given, "model", error)])
    refusals.add(
        given.fault(f"{found.section}.{found.key}", found.text)
        for found in misfits(
            model.optimisation(protocol.training),
            model.probing(protocol.probes),
            train=len(dataset.train),
            validation=len(dataset.validation),
        )
    )
    planned = budgeted(_mended(protocol, len(dataset.train)), dataset)
    if isinstance(planned, TooSmall):
        refusals.add([given.fault("budget.shots", str(planned))])
        raise refusals.joined()
    refusals.tell()
    return Sound(setting, dataset, planned)


def network(setting: Setting[TrainProtocol], dataset: Dataset) -> Network:
    """Build the model at the sizes of a device that is not open.

    Parameters
    ----------
    setting
        The run.
    dataset
        Its data.

    Returns
    -------
    network
        As the run will start with it.

    Raises
    ------
    ValueError
        Its layers do not fit each other, the data or the panel.
    """
    sizes = model.Sizes(setting.entry)
    generator = torch.Generator().manual_seed(setting.protocol.seed)
    return model.build(setting.protocol, dataset, sizes, generator)


def fitter(setting: Setting[TrainProtocol], generator: torch.Generator) -> Fitter:
    """Build the surrogate and what fits it.

    Parameters
    ----------
    setting
        The run.
    generator
        Where its start comes from.

    Returns
    -------
    fitter
        It has seen nothing yet.

    Raises
    ------
    ValueError
        Surrogate, fit and bench do not fit each other.
    """
    settings = model.surrogate_settings(setting.protocol.surrogate)
    ports = model.ports(setting.source.file, setting.entry, settings)
    return Fitter(build_surrogate(settings, ports, generator), settings, generator)


def fitting(setting: Setting[TrainProtocol]) -> Fitting:
    """Say what the surrogate of a training is fitted on.

    Parameters
    ----------
    setting
        A training that was checked.
    """
    if not method.fits(setting.protocol):
        return Fitting()
    settings = model.surrogate_settings(setting.protocol.surrogate)
    ports = model.ports(setting.source.file, setting.entry, settings)
    choice = kernel_of(settings, ports)
    return Fitting(card(settings.device), choice.build, choice.note)


def budgeted(protocol: TrainProtocol, dataset: Dataset) -> Plan | TooSmall:
    """Say what the budget of a training pays for.

    Parameters
    ----------
    protocol
        The training.
    dataset
        Its data.
    """
    course = model.course(protocol, dataset)
    deploys = protocol.method.name == "calibrate-deploy"
    planner = method.deployed if deploys else plan
    return planner(protocol.budget.shots, course)


def _uncut(protocol: TrainProtocol) -> DataEntry:
    return protocol.data.model_copy(update=dict.fromkeys(_wanted(protocol)))


def _wanted(protocol: TrainProtocol) -> dict[str, int | None]:
    entry = protocol.data
    return {
        "train": entry.train,
        "validation": entry.validation,
        "test": entry.test,
    }


def _nearest(whole: Dataset, wanted: dict[str, int | None]) -> dict[str, int | None]:
    short = {split for split, _ in data.shortfalls(whole, wanted)}
    return {name: None if name in short else n for name, n in wanted.items()}


def _mended(protocol: TrainProtocol, train: int) -> TrainProtocol:
    """Take what there is where the protocol asks for more: the rest is still told."""
    probes, batch = protocol.probes, min(protocol.training.batch, train)
    held_out = min(probes.held_out_per_step, batch)
    return protocol.model_copy(
        update={
            "training": protocol.training.model_copy(update={"batch": batch}),
            "probes": probes.model_copy(
                update={
                    "held_out_per_step": held_out,
                    "paired_per_step": min(probes.paired_per_step, batch - held_out),
                    "noise_repeats": min(probes.noise_repeats, train),
                    "size_samples": min(probes.size_samples, batch),
                }
            ),
        }
    )


def _surrogate_faults(setting: Setting[TrainProtocol]) -> Iterator[Fault]:
    """Say why the surrogate does not suit the bench, where the method has one."""
    if not method.fits(setting.protocol):
        return
    try:
        fitter(setting, torch.Generator())
    except ValueError as error:
        yield placed(setting.document, "surrogate", error)


def _oracle_faults(setting: Setting[TrainProtocol]) -> Iterator[Fault]:
    """Say where a gradient is asked for that the bench does not know."""
    # A twin has one, whatever its bench has.
    if setting.source.file.oracle is not None or setting.options.simulate:
        return
    why = (
        f"but bench {setting.source.file.name} has none: only simulated light knows "
        "its gradient."
    )
    if setting.protocol.reference.oracle:
        text = f"oracle=true, {why} Set it to false."
        yield setting.document.fault("reference.oracle", text)
    if setting.protocol.method.name == "oracle":
        text = f"name=oracle, {why} Choose another method."
        yield setting.document.fault("method.name", text)


def _direction_faults(setting: Setting[TrainProtocol]) -> Iterator[Fault]:
    """Say where probes ask for more directions than a panel has."""
    probes = setting.protocol.probes
    pixels = model.Sizes(setting.entry).pixels
    most = pixels - (probes.directions == "modes")
    if probes.dimensions > most:
        text = (
            f"dimensions={probes.dimensions}, expected at most {most} (directions "
            f"{probes.directions}, {pixels} macropixels). Lower it."
        )
        yield setting.document.fault("probes.dimensions", text)


def _probe_faults(
    given: Document[TrainProtocol], protocol: TrainProtocol
) -> Iterator[Fault]:
    """Say where surrogate, estimator and probes do not fit each other."""
    probes = protocol.probes
    terms = {term.name for term in protocol.surrogate.loss}
    wants = protocol.surrogate.name not in TWINS or bool(terms - {"value"})
    wants = wants and method.fits(protocol)
    sampled = protocol.estimator.name in SAMPLED
    if wants and not (probes.paired_per_step or sampled):
        text = (
            f"paired_per_step=0, but surrogate {protocol.surrogate.name} is fitted to "
            f"differences: {_BESIDE if probes.secant_rad else _NO_BASELINE}. "
            "Set paired_per_step, or use twin-pairs with the loss value."
        )
        yield given.fault("probes.paired_per_step", text)
    if protocol.estimator.name == "rehearse" and protocol.surrogate.name not in TWINS:
        text = (
            f"name=rehearse with surrogate {protocol.surrogate.name}, expected a twin: "
            "only a twin can stand in for the device. Choose twin-optics or twin-pairs."
        )
        yield given.fault("estimator.name", text)
    if sampled and probes.noise_repeats < 2:
        text = (
            f"noise_repeats={probes.noise_repeats}, expected at least 2: a control "
            "variate weighs its probes by the measured noise"
        )
        yield given.fault("probes.noise_repeats", text)
