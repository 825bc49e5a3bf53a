"""How large the checkpoints of a training become, from the parts that they hold."""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import chain

import numpy as np
import torch
from torch import Tensor, nn

from labctl import bench as benches
from labctl.errors import InputError
from labctl.run import check, checkpoint, method, model
from labctl.run.check import Sound
from labctl.training.network import Network

# Name, type, shape and place of a tensor in a checkpoint: measured, 140 to 160.
TENSOR_BYTES = 150
# Number of a shot, and of the two shots of a probe: see labctl.run.memory.
SHOT_BYTES, PROBE_BYTES = 8, 16


def checkpoints(sound: Sound) -> list[int]:
    """Say how many bytes each checkpoint of a training takes.

    Parameters
    ----------
    sound
        A training that was checked.

    Returns
    -------
    nbytes
        Of each in the order of the steps; the last one is of the trained model alone.
    """
    protocol, dataset = sound.setting.protocol, sound.dataset
    network = check.network(sound.setting, dataset)
    parts = [*network.state_dict().values()]
    own: list[Tensor] = [*parts, *_network_state(sound, network)]
    begun = _weight(_begun(sound, network))
    if method.fits(protocol):
        fitter = check.fitter(sound.setting, torch.Generator())
        answering = [*fitter.answering.state_dict().values()]
        parts += answering
        fitted = fitter.surrogate
        own += [*fitted.state_dict().values(), *_adam(fitted.parameters()), _source()]
        own += answering if fitter.answering is not fitted else []
    shown, fixed = _weight(parts), _weight(own) + _world_bytes(sound)
    kept = [
        shown + fixed + (begun if step else 0) + _memory_bytes(sound, network, step)
        for step in _steps(sound)
    ]
    return [*kept, shown]


def _steps(sound: Sound) -> Iterator[int]:
    """Yield the steps done at each checkpoint, as far as the plan knows."""
    protocol = sound.setting.protocol
    course = model.course(protocol, sound.dataset)
    schedule = checkpoint.schedule(protocol)
    # Prepared, the untrained device judged, and what the method does then.
    yield from [0] * (2 + method.stages(protocol))
    schedule.last = sum(course.counts(0).values())
    for step in range(1, sound.planned.steps + 1):
        shots = sum(course.counts(step).values())
        if schedule.is_due(step, shots):
            schedule.last = shots
            yield step


def _begun(sound: Sound, network: Network) -> Iterator[Tensor]:
    """Yield what a trainer holds once it took steps, beside what it began with."""
    protocol = sound.setting.protocol
    entry = method.settings(protocol)
    if protocol.estimator.name == "rehearse":
        yield from chain(_adam(network.parameters()), network.state_dict().values())
    else:
        yield from _adam(network.digital())
        if not (entry.is_search or method.is_frozen(protocol)):
            yield from _adam(network.theta())
    if entry.name == "cma-es":
        size = sum(theta.numel() for theta in network.theta())
        yield from (_like(size, size, dtype=torch.float64), _like(size))
    yield _like(len(sound.dataset.train), dtype=torch.int64)
    window = protocol.probes.held_out_per_step * sound.planned.steps
    window = min(protocol.probes.window, window)
    outputs = model.Sizes(sound.setting.entry).outputs
    yield _like(window, 3 + outputs, dtype=torch.float64)


def _network_state(sound: Sound, network: Network) -> Iterator[Tensor]:
    """Yield what a trainer holds beside the model, or something of the same size."""
    protocol = sound.setting.protocol
    entry = method.settings(protocol)
    size = sum(theta.numel() for theta in network.theta())
    if protocol.estimator.name == "rehearse":
        yield _source()
    if entry.is_search:
        yield from (_source(), _like(size))
    # The order of the samples, the choice of probes, and the dither of each layer.
    for _ in range(2 + len(network.device_layers)):
        yield _source()
    yield from _judges(sound, network)


def _judges(sound: Sound, network: Network) -> Iterator[Tensor]:
    """Yield what estimator, held-out probes and the watch over drift hold."""
    protocol = sound.setting.protocol
    device = model.Sizes(sound.setting.entry)
    estimator = method.estimator(protocol, sound.dataset, network, device)
    if estimator is not None:
        found = estimator.state_dict().values()
        yield from (value for value in found if isinstance(value, Tensor))
    # A correction draws its probes, and so does what a gate takes in its place.
    for _ in range({"control-variate": 1, "gate": 2}.get(protocol.estimator.name, 0)):
        yield _source()
    yield _like(device.outputs)
    yield from (
        _like(*size, dtype=torch.float64) for size in ((3, 3), (3 + device.outputs,))
    )
    if protocol.drift.every:
        yield _like(protocol.drift.patterns, device.outputs)
        yield from (_like(device.outputs) for _ in range(3))


def _memory_bytes(sound: Sound, network: Network, steps: int) -> int:
    """Size of what was measured and is learned from again, after so many steps."""
    protocol, dataset = sound.setting.protocol, sound.dataset
    course = model.course(protocol, dataset)
    batch, layers = course.batch, course.exposures
    kept = min(steps, course.steps_per_epoch)
    head = network.head
    hidden = dataset.outputs if head is None else head.in_features
    target = 1 if dataset.task == "classification" else dataset.outputs
    rows = batch * course.candidates
    seen = [_like(rows, hidden), _like(rows, target, dtype=_target(dataset.task))]
    total = kept * _weight(seen)
    if not method.fits(protocol):
        return total
    counts, replay = course.counts(steps), protocol.surrogate.replay
    shown = steps * (batch * layers - course.held_out_per_step)
    probes = counts["probe"] - steps * course.held_out_per_step
    values = counts["warm-up"] + shown + probes
    total += SHOT_BYTES * min(values, replay) + PROBE_BYTES * min(probes, replay)
    outputs = model.Sizes(sound.setting.entry).outputs
    return total + _weight([_like(min(shown, replay), outputs)])


def _world_bytes(sound: Sound) -> int:
    """Size of the state of a simulated light path; nothing where it is real."""
    setting = sound.setting
    # A bench that cannot be made was refused before, and is told then.
    with suppress(InputError):
        simulate = setting.options.simulate
        world = benches.construct(
            setting.source, simulate=simulate, fall_back=True
        ).world
        if world is not None:
            arrays = [v for v in world.state().values() if isinstance(v, np.ndarray)]
            return sum(array.nbytes + TENSOR_BYTES for array in arrays)
    return 0


def _adam(parameters: Iterable[nn.Parameter]) -> Iterator[Tensor]:
    """Yield something of the size of Adam's two moments and its count of steps."""
    for parameter in parameters:
        yield from (parameter, parameter, _like())


def _source() -> Tensor:
    return torch.Generator().get_state()


def _like(*shape: int, dtype: torch.dtype | None = None) -> Tensor:
    """Give a tensor of that size that takes no memory."""
    return torch.empty(shape, dtype=dtype, device="meta")


def _target(task: str) -> torch.dtype:
    return torch.int64 if task == "classification" else torch.get_default_dtype()


def _weight(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.nbytes + TENSOR_BYTES for tensor in tensors)
