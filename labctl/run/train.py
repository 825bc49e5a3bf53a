"""Kind ``train``: a model with the device in it, and what came of it."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from labctl.data import Dataset
from labctl.errors import OutcomeError
from labctl.guard import LONGEST_SILENCE_S
from labctl.protocol import TrainProtocol
from labctl.recording import disk
from labctl.recording.layout import train_layout
from labctl.reservoir import Ledger, Reservoir
from labctl.run import check, method, model, size
from labctl.run.checkpoint import FINAL, KIND, SPENT, Keeper, told
from labctl.run.convergence import PATTERNS, Show
from labctl.run.progress import Progress, Update
from labctl.run.saturation import PIXELS, Sighted
from labctl.run.setting import (
    Forecast,
    Outcome,
    Session,
    Setting,
    check_light,
    light_beside,
    opened,
    shot_seconds,
    shot_spec,
)
from labctl.training import rehearsal as rehearsals
from labctl.training.blackbox import Device, offspring
from labctl.training.contestant.forward_gradient import forward_gradient
from labctl.training.drift import Steady, Watch
from labctl.training.estimator import (
    SURE,
    ControlVariate,
    Correction,
    Estimator,
    Gate,
    Given,
    Trust,
    Ways,
)
from labctl.training.journal import Listener, ProbeRows, Result, Row, Status
from labctl.training.network import Network
from labctl.training.plan import Plan
from labctl.training.rehearsal import Rehearsal, Rehearsing
from labctl.training.surrogate import fit as fits
from labctl.training.surrogate.fit import Fitter
from labctl.training.surrogate.model import Twin
from labctl.training.trainer import Parts, Samples, Trainer, warming

METRICS = ("score_validation",)


@dataclass(frozen=True, eq=False)
class TrainJob:
    """A training, checked; nothing is open yet.

    Parameters
    ----------
    setting
        The run.
    dataset
        Its data.
    planned
        What the budget pays for.
    show
        What it shows first.
    forecast
        What it will cost.
    """

    setting: Setting[TrainProtocol]
    dataset: Dataset
    planned: Plan
    show: Show
    forecast: Forecast

    @property
    def headline(self) -> str:
        """First line that a person reads."""
        return self.setting.headline


def prepare(setting: Setting[TrainProtocol]) -> TrainJob:
    """Check a training before anything opens.

    Parameters
    ----------
    setting
        The run.

    Returns
    -------
    job
        Ready to execute.

    Raises
    ------
    InputError
        Data, model, probes, budget or bench do not fit each other, or the light is
        not converged.
    """
    with light_beside(setting):
        sound = check.training(setting)
    setting, dataset, planned = sound.setting, sound.dataset, sound.planned
    protocol, show = setting.protocol, _show(sound)
    check_light(setting, [show])
    shots = _forecast_shots(protocol, dataset, planned)
    layout = train_layout(shot_spec(setting), metrics=METRICS)
    checkpoints = size.checkpoints(sound)
    nbytes = disk.estimate_bytes(
        layout,
        shots=sum(shots.values()),
        steps=planned.steps,
        probes=planned.counts["probe"],
        checkpoints=len(checkpoints),
        checkpoint_bytes=math.ceil(sum(checkpoints) / len(checkpoints)),
    )
    disk.check_room(setting.out, nbytes)
    forecast = Forecast(
        shots=shots,
        shot_s=shot_seconds(setting.source, setting.entry),
        simulated=setting.simulated,
        nbytes=nbytes,
        note=(
            f"steps: {_steps(planned)} of {protocol.training.batch} samples "
            f"({planned.epochs:.1f} epochs); evaluate lies outside the budget of "
            f"{protocol.budget.shots}"
        ),
    )
    return TrainJob(setting, dataset, planned, show, forecast)


def _steps(planned: Plan) -> str:
    """Say how many steps there will be, as far as that is known."""
    if planned.least is None or planned.least >= planned.steps:
        return str(planned.steps)
    return (
        f"{planned.least} to {planned.steps}, as the device asks for probes and fits,"
    )


def _show(sound: check.Sound) -> Show:
    """Give the first patterns of the noise repeats, or else of the warm-up pass."""
    setting, dataset = sound.setting, sound.dataset
    first = warming(model.samples(dataset.train), setting.protocol.probes.warm_up)
    network = check.network(setting, dataset)
    return Show(setting.entry, model.first_phases(network, first.x, PATTERNS))


def _forecast_shots(
    protocol: TrainProtocol, dataset: Dataset, planned: Plan
) -> dict[str, int]:
    shots = dict(planned.counts)
    layers = model.course(protocol, dataset).exposures
    test, train = len(dataset.test) * layers, len(dataset.train) * layers
    # Two final tests, and the training split for the readout-only line.
    shots["evaluate"] += 2 * test + train
    if protocol.reference.oracle:
        batch = protocol.training.batch * layers
        shots["evaluate"] += train + planned.steps * batch + test
    return shots


class _Listener:
    """Writes what a training tells into the record, and shows it."""

    def __init__(
        self,
        job: TrainJob,
        session: Session,
        reservoir: Reservoir,
        device: method.Timed,
    ) -> None:
        self._job, self._session, self._reservoir = job, session, reservoir
        self._device = device
        self._start_s = time.monotonic()
        self.trainer: Trainer | None = None
        protocol, sha256 = job.setting.protocol, job.dataset.sha256
        self.keeper = Keeper(session, reservoir, protocol, sha256)

    def spent_s(self) -> tuple[float, float]:
        """Seconds of digital work and in all, those before a resume with them."""
        digital_s, before_s = self.keeper.spent_s
        whole_s = time.monotonic() - self._start_s
        return digital_s + whole_s - self._device.seconds, before_s + whole_s

    def stage(self, text: str) -> None:
        self._session.progress.say(text)
        self._session.recorder.event("info", "training", text)

    def beat(self) -> None:
        self._session.bench.beat()

    def digital(self) -> AbstractContextManager[None]:
        return self._session.bench.digital(LONGEST_SILENCE_S)

    def probes(self, rows: ProbeRows) -> None:
        count = len(rows.shot_base)
        self._session.recorder.append(
            "probes",
            step=[rows.step] * count,
            layer=[rows.layer] * count,
            shot_base=rows.shot_base.numpy(),
            shot_plus=rows.shot_plus.numpy(),
            df=rows.d_f.double().numpy(),
            cotangent=rows.cotangent.double().numpy(),
        )

    def step(self, row: Row) -> None:
        session, protocol = self._session, self._job.setting.protocol
        session.recorder.append(
            "training",
            step=[row.step],
            loss=[row.loss],
            loss_surrogate=[row.loss_surrogate],
            lr=[row.lr],
            accuracy=[row.accuracy],
            cosine=[row.cosine],
            cosine_error=[row.cosine_error],
            score_validation=[row.score_validation],
            shots=[row.shots],
            time_s=[session.bench.clock.now()],
        )
        if self.keeper.schedule.is_due(row.step + 1, row.shots):
            self.keep(row.step + 1)
        session.recorder.commit()
        session.progress.update(
            Update(
                "training",
                row.step + 1,
                self._job.planned.steps,
                self._reservoir.ledger.spent,
                protocol.budget.shots,
                {
                    "loss": row.loss,
                    "accuracy": row.accuracy,
                    "cosine": row.cosine,
                },
            )
        )

    def keep(self, step: int) -> None:
        """Keep everything that going on needs; the next commit makes it true."""
        self.checkpoint(step, KIND)
        said = told(step, self.spent_s())
        self._session.recorder.event("info", SPENT, said)

    def prepared(self) -> None:
        """Hear that a part of what comes before the first step is done."""
        self.keep(0)
        self._session.recorder.commit()

    def checkpoint(self, step: int, kind: str) -> None:
        if self.trainer is None:
            return
        parts = self.trainer.parts
        surrogate = parts.fitter.answering.state_dict() if parts.fitter else {}
        state = {
            "network": dict(parts.network.state_dict()),
            "surrogate": dict(surrogate),
            "ledger": self._reservoir.ledger.state_dict(),
        }
        if kind == KIND:
            state |= self.keeper.state(self.trainer)
            self.keeper.schedule.last = self.trainer.evidence.shots
        self._session.recorder.checkpoint(step, kind, state)


@dataclass(frozen=True)
class _Scores:
    test: float
    readout: float
    oracle: float | None


def execute(job: TrainJob, progress: Progress) -> Outcome:
    """Train, test, and measure the reference lines.

    Parameters
    ----------
    job
        A training that was prepared.
    progress
        Whoever listens.

    Returns
    -------
    outcome
        How it ended.

    Raises
    ------
    OutcomeError
        The training failed in a way it knows; the record tells.
    LabctlError
        A device, a limit or the record stopped it.
    """
    setting = job.setting
    layout = train_layout(shot_spec(setting), metrics=METRICS)
    load_optimiser()
    if setting.protocol.surrogate.device != "cpu":
        load_card(job)
    with (
        one_thread(),
        opened(
            setting,
            layout,
            progress,
            shows=[job.show],
            fitting=check.fitting(setting),
        ) as session,
    ):
        ledger = Ledger(setting.protocol.budget.shots)
        reservoir = session.reservoir(setting.entry, ledger)
        sighted = Sighted(reservoir, session.recorder)
        device = method.Timed(sighted)
        trainer, listener = _trainer(job, session, reservoir, device)
        trained, scores = _train(job, trainer, reservoir, listener)
        digital_s, train_s = listener.spent_s()
        listener.checkpoint(trained.steps, FINAL)
        if setting.protocol.reference.oracle and trained.status.is_whole:
            progress.say("reference: the same training with the true gradient")
            scores = replace(scores, oracle=_oracle_score(job, reservoir, progress))
        result = _result(job, trained, scores, train_s)
        result |= {"digital_s": round(digital_s, 1)} | _extras(trainer.parts)
        result["saturated_frames"] = round(sighted.share, 4)
        session.recorder.set_result(result)
        if trained.status is not Status.COMPLETED:
            session.recorder.event("error", "training", trained.why)
            session.recorder.set_status("failed")
        session.recorder.commit()
    good = trained.status is Status.COMPLETED
    outcome = Outcome(
        setting.out,
        "complete" if good else "failed",
        result,
        dict(ledger.counts),
        _summary(job, result, ledger),
        "" if good else f"{setting.where}: {_doubt(trained)}",
    )
    if not trained.status.is_whole:
        raise OutcomeError(outcome.failure, told=outcome.as_json())
    return outcome


def _doubt(trained: Result) -> str:
    if not trained.status.is_whole:
        return f"training stopped at step {trained.steps}: {trained.why}"
    whole, least = trained.whole, SURE * trained.whole.error
    return (
        f"cosine={whole} over {whole.probes} held-out probes, expected more than "
        f"{least:.2f}. {trained.status.value}"
    )


def _train(
    job: TrainJob, trainer: Trainer, reservoir: Reservoir, listener: _Listener
) -> tuple[Result, _Scores]:
    """Prepare, judge the untrained device, train, judge the trained one."""
    ledger, test = reservoir.ledger, model.samples(job.dataset.test)
    keeper, protocol = listener.keeper, job.setting.protocol

    def judge_untrained() -> None:
        with ledger.outside_budget():
            keeper.untrained = trainer.score_readout(test)

    course = model.course(protocol, job.dataset)
    stages = [judge_untrained, *method.before(trainer, protocol, course)]
    restored = keeper.restore(trainer)
    if restored or trainer.prepare():
        if not restored:
            listener.prepared()
        for stage in stages[keeper.stages :]:
            if not trainer.attempt(stage):
                break
            keeper.stages += 1
            listener.prepared()
    trained = trainer.run()
    score = math.nan
    if trained.status.is_whole:
        with ledger.outside_budget():
            score = trainer.score(test)
    return trained, _Scores(score, keeper.untrained, None)


def _trainer(
    job: TrainJob, session: Session, reservoir: Reservoir, device: method.Timed
) -> tuple[Trainer, _Listener]:
    listener = _Listener(job, session, reservoir, device)
    listener.trainer = assemble(job, reservoir, device, listener)
    return listener.trainer, listener


def assemble(
    job: TrainJob, reservoir: Reservoir, device: Device, listener: Listener
) -> Trainer:
    """Put a training together, by the method that its protocol names.

    Parameters
    ----------
    job
        A training that was prepared.
    reservoir
        The open bench.
    device
        What exposes: the reservoir, or something around it.
    listener
        Hears what happens.

    Returns
    -------
    trainer
        At its start.
    """
    protocol, dataset = job.setting.protocol, job.dataset
    generator = torch.Generator().manual_seed(protocol.seed)
    steady = Steady(device, torch.from_numpy(reservoir.decoder.dark_variance()))
    network = model.build(protocol, dataset, steady, generator)
    if method.is_frozen(protocol):
        for theta in network.theta():
            theta.requires_grad_(False)
    fitter = check.fitter(job.setting, generator) if method.fits(protocol) else None
    estimator = _maker(job, network, steady, fitter)
    own = torch.Generator().manual_seed(protocol.seed + 2)
    if protocol.method.name == "oracle":
        given = Given(reservoir.gradient_source())
        estimator = lambda _noise: given  # noqa: E731 - one of two ways to make it
    return Trainer(
        Parts(
            network,
            steady,
            estimator,
            fitter,
            method.settings(protocol).search(job.planned.steps, own),
            _rehearsal(job, network, fitter),
            _watch(protocol, steady),
        ),
        model.samples(dataset.train),
        model.settings(protocol, dataset, job.planned.steps),
        validation=_validation(dataset),
        listener=listener,
        generator=generator,
    )


def _maker(
    job: TrainJob, network: Network, device: Device, fitter: Fitter | None
) -> Callable[[Tensor | None], Estimator]:
    """Say how the estimator is made once the noise of the outputs is known."""
    protocol = job.setting.protocol
    if fitter is None:
        own = method.estimator(protocol, job.dataset, network, device)
        return lambda _noise: method.NoGradient() if own is None else own
    generator = torch.Generator().manual_seed(protocol.seed + 1)
    entry = protocol.estimator

    def make_estimator(noise: Tensor | None) -> Estimator:
        trust = Trust(fitter.answering)
        if entry.name not in check.SAMPLED or noise is None:
            return trust
        rms_rad = protocol.probes.paired_rad
        correct = ControlVariate(
            fitter.answering,
            device,
            Correction(
                probes=entry.probes,
                rms_rad=rms_rad,
                gain=None if entry.gain == "optimal" else entry.gain,
            ),
            noise=noise,
            generator=generator,
        )
        if entry.name == "control-variate":
            return correct
        probes = entry.probes
        free = forward_gradient(
            device, probes=probes, rms_rad=rms_rad, generator=offspring(generator)
        )
        # What so many probes reach alone.
        alone = math.sqrt(probes / (device.pixels + probes + 1))
        return Gate(Ways(trust, correct, free, sure=entry.sure, hopeless=alone))

    return make_estimator


def _rehearsal(
    job: TrainJob, network: Network, fitter: Fitter | None
) -> Rehearsal | None:
    protocol = job.setting.protocol
    entry = protocol.estimator
    if entry.name != "rehearse" or fitter is None:
        return None
    twin = fitter.answering
    if not isinstance(twin, Twin):
        text = f"rehearse: surrogate {protocol.surrogate.name}, expected a twin"
        raise TypeError(text)
    return Rehearsal(
        Rehearsing(entry.digital_steps, entry.radius_rad),
        twin,
        network,
        model.task(job.dataset),
        torch.Generator().manual_seed(protocol.seed + 3),
    )


def _watch(protocol: TrainProtocol, device: Steady) -> Watch | None:
    if protocol.drift.every == 0:
        return None
    generator = torch.Generator().manual_seed(protocol.seed + 4)
    return Watch(model.watching(protocol.drift), device, generator)


def _validation(dataset: Dataset) -> Samples | None:
    return model.samples(dataset.validation) if len(dataset.validation) else None


class _Reference:
    """Keeps the guard awake and shows how far the reference line is."""

    def __init__(self, job: TrainJob, reservoir: Reservoir, progress: Progress) -> None:
        self._job, self._reservoir, self._progress = job, reservoir, progress

    def stage(self, text: str) -> None:
        self._progress.say(f"reference: {text}")

    def probes(self, rows: ProbeRows) -> None:
        """Have nothing to keep: a reference takes no probes."""

    def beat(self) -> None:
        self._reservoir.bench.beat()

    def digital(self) -> AbstractContextManager[None]:
        return self._reservoir.bench.digital(LONGEST_SILENCE_S)

    def step(self, row: Row) -> None:
        figures = {"loss": row.loss, "accuracy": row.accuracy}
        steps = self._job.planned.steps
        self._progress.update(
            Update("reference", row.step + 1, steps, row.shots, None, figures)
        )


def _oracle_score(job: TrainJob, reservoir: Reservoir, progress: Progress) -> float:
    """Train once more, from the same start, with the gradient that nobody knows."""
    protocol, dataset = job.setting.protocol, job.dataset
    generator = torch.Generator().manual_seed(protocol.seed)
    device = model.AsEvaluation(reservoir)
    source = reservoir.gradient_source()
    settings = model.settings(protocol, dataset, job.planned.steps)
    quiet = replace(
        settings.probing,
        dither_rad=(0.0, 0.0),
        paired_per_step=0,
        held_out_per_step=0,
        size_every=0,
        noise_repeats=0,
    )
    trainer = Trainer(
        Parts(
            model.build(protocol, dataset, device, generator),
            device,
            lambda _noise: Given(source),
        ),
        model.samples(dataset.train),
        replace(
            settings,
            probing=quiet,
            optimisation=replace(settings.optimisation, validate_every=0),
            purse=None,
        ),
        listener=_Reference(job, reservoir, progress),
        generator=generator,
    )
    with reservoir.ledger.outside_budget():
        trained = trainer.run()
        if trained.status is not Status.COMPLETED:
            return math.nan
        return trainer.score(model.samples(dataset.test))


def _result(
    job: TrainJob, trained: Result, scores: _Scores, train_s: float
) -> dict[str, Any]:
    task = model.task(job.dataset)
    return {
        "method": job.setting.protocol.method.name,
        "metric": task.metric,
        "direction": task.direction,
        "score_test": _number(scores.test),
        "score_readout": _number(scores.readout),
        "score_oracle": None if scores.oracle is None else _number(scores.oracle),
        "outcome": trained.status.label,
        "status": trained.status.value,
        "steps": trained.steps,
        "cosine": _number(trained.cosine.value),
        "cosine_error": _number(trained.cosine.error),
        "cosine_whole": _number(trained.whole.value),
        "cosine_whole_error": _number(trained.whole.error),
        "cosine_whole_probes": trained.whole.probes,
        "train_s": round(train_s, 1),
        "data": job.dataset.name,
        "data_sha256": job.dataset.sha256,
    }


def _extras(parts: Parts) -> dict[str, Any]:
    """Say what only some trainings have: a rehearsal, a watch over drift."""
    found: dict[str, Any] = {}
    if parts.rehearsal is not None:
        found["twin_unexplained"] = _number(parts.rehearsal.share)
        found["radius_rad"] = _number(parts.rehearsal.radius_rad)
    if parts.watch is not None:
        found["drift"] = _number(parts.watch.finding.share)
    return found


def _number(value: float) -> float | None:
    """JSON has no NaN."""
    return None if math.isnan(value) else round(value, 6)


def _summary(job: TrainJob, result: dict[str, Any], ledger: Ledger) -> str:
    better = "higher" if result["direction"] == "up" else "lower"
    lines = [
        f"{result['metric']} on {len(job.dataset.test)} test samples "
        f"({better} is better)"
    ]
    for name, text in (
        ("score_readout", "readout only, theta as it started"),
        ("score_test", "trained device"),
        ("score_oracle", "oracle: trained with the true gradient"),
    ):
        if result[name] is not None:
            lines.append(f"  {result[name]:.3f}  {text}")
    cosine = result["cosine"]
    if cosine is not None:
        error = result["cosine_error"]  # of a single pair there is none
        doubt = "" if error is None else f" ± {error:.2f}"
        lines.append(f"held-out cosine of the surrogate: {cosine:.2f}{doubt}")
    if said := _said_of_whole(result):
        lines.append(said)
    if result["saturated_frames"]:
        lines.append(
            f"saturated: {100 * result['saturated_frames']:.1f} % of the frames of the "
            f"training, in more than {PIXELS:.0%} of their pixels; lower "
            "reservoir.exposure_s or reservoir.power_mw"
        )
    if result.get("twin_unexplained") is not None:
        lines.append(f"rehearsed on a twin that {_left(result['twin_unexplained'])}")
    made = ", ".join(f"{name} {n}" for name, n in ledger.counts.items() if n)
    lines += [
        f"shots: {made}; {ledger.spent} of the budget of {ledger.budget}",
        f"record: {job.setting.out}",
        f"next:   labctl report {job.setting.out}",
    ]
    return "\n".join(lines)


def _left(share: float) -> str:
    """Say what a twin left unexplained; an estimate of nothing falls below it too."""
    if share < 0:
        return "explained the last batch to within its noise"
    return (
        f"left {100 * share:.0f} % of the last batch's variance unexplained, beside "
        "its noise"
    )


def _said_of_whole(result: dict[str, Any]) -> str:
    """Say what a cosine over the whole training leaves open."""
    value, error = result["cosine_whole"], result["cosine_whole_error"]
    if value is None or error is None or value > SURE * error:
        return ""
    told = f"over the whole training: {value:.2f} ± {error:.2f}"
    if result["outcome"] == Status.COSINE_AT_ZERO.label:
        return f"{told}, which cannot be told from zero"
    return (
        f"{told}: cannot be told from zero, and too few probes to say that it is zero; "
        "raise probes.held_out_per_step"
    )


def load_optimiser() -> None:
    """Make torch load what its first optimiser loads: not while the light is on."""
    torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))])


def load_card(job: TrainJob) -> None:
    """Make a card load what the training computes on it: not while the light is on.

    Parameters
    ----------
    job
        A training whose surrogate is fitted on a card.
    """
    setting = job.setting
    fitter = check.fitter(setting, torch.Generator())
    fits.try_out(fitter)
    network = check.network(setting, job.dataset)
    if (rehearsal := _rehearsal(job, network, fitter)) is not None:
        train = model.samples(job.dataset.train)
        batch = setting.protocol.training.batch
        rehearsals.try_out(rehearsal, train.x, train.y, batch=batch)


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread: barriers between two cost more than a second brings.

    Yields
    ------
    nothing
        The number is put back after it.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
