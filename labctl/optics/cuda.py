"""Crossing a medium on a CUDA device: its tables moved there, its launches recorded."""

import dataclasses
from collections.abc import Callable
from typing import Any, Final, Literal, TypeVar, cast, final

import torch
from jaxtyping import Complex
from torch import Tensor

from labctl.optics.propagation import Crossing

Device = Literal["cpu", "cuda"]
Work = Callable[[Tensor], Tensor]
# Makes of work, and of what it is first done with, the same work for that shape.
Record = Callable[[Work, Tensor], Work]
T = TypeVar("T")

# As many fields as a reservoir asks for at once, on grids up to 256 x 256. Fewer leave
# it waiting for its launches: docs/reference/simulated-bench-speed.md.
FIELDS: Final = 64
_POINTS = 2**22
_WARM_UP = 3


def device_of(name: Device) -> torch.device:
    """Find a device to compute on.

    Parameters
    ----------
    name
        Which.

    Returns
    -------
    device
        For tensors.

    Raises
    ------
    ValueError
        There is none that torch can use.
    """
    if name == "cuda" and not torch.cuda.is_available():
        text = (
            f"device='cuda': torch {torch.__version__} finds no CUDA device, expected "
            "one. Install a torch for CUDA and its driver, or set device: cpu"
        )
        raise ValueError(text)
    return torch.device(name)


def card(name: Device) -> str:
    """Say which graphics card that is.

    Parameters
    ----------
    name
        A device that was found.

    Returns
    -------
    card
        Its name; empty for the processor.
    """
    return "" if name == "cpu" else torch.cuda.get_device_name(device_of(name))


def moved(part: T, device: torch.device) -> T:
    """Copy a medium, made ready for a grid, to another device.

    Parameters
    ----------
    part
        A dataclass, with tensors in it wherever they are.
    device
        The device.

    Returns
    -------
    part
        The same, every tensor there.
    """
    there: Any = part
    if isinstance(part, Tensor):
        there = part.to(device)
    elif isinstance(part, tuple):
        there = tuple(moved(each, device) for each in part)
    elif dataclasses.is_dataclass(part) and not isinstance(part, type):
        fields = {
            each.name: getattr(part, each.name) for each in dataclasses.fields(part)
        }
        there = dataclasses.replace(
            part, **{name: moved(value, device) for name, value in fields.items()}
        )
    return cast("T", there)


def graph(work: Work, example: Tensor) -> Work:
    """Record what work launches on the current CUDA device, to launch it all at once.

    Parameters
    ----------
    work
        A function of one tensor that launches the same whatever its numbers.
    example
        A tensor of the shape, precision and device of all that follow.

    Returns
    -------
    work
        The same, for tensors of that shape.
    """
    given = example.detach().clone()
    # Outside of the recording, and on another stream, as torch's notes on graphs ask:
    # libraries make their plans and take their memory at the first use.
    aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]  # torch has no types for it
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(_WARM_UP):
            work(given)
    torch.cuda.current_stream().wait_stream(aside)
    recorded = torch.cuda.CUDAGraph()
    with torch.cuda.graph(recorded):
        made = work(given)

    def replay(field: Tensor) -> Tensor:
        given.copy_(field)
        recorded.replay()
        return made.clone()

    return replay


@final
class Recorded:
    """A medium that is crossed in whole chunks, by replaying what was recorded.

    A step launches a dozen kernels, each of which takes less time than its launch; a
    graph launches them together, but only for one shape. Other shapes, and fields of
    which a gradient is asked for, cross without it.

    Parameters
    ----------
    crossing
        The medium, on the device.
    shape
        Grid ``(height, width)``.
    record
        How a chunk is recorded: :func:`graph`.
    """

    def __init__(
        self, crossing: Crossing, shape: tuple[int, int], record: Record
    ) -> None:
        self.crossing = crossing
        self._chunk = max(1, min(FIELDS, _POINTS // (shape[0] * shape[1])))
        self._shape = (self._chunk, *shape)
        self._record, self._replay = record, cast("Work | None", None)

    @property
    def chunk(self) -> int:
        """Fields that are crossed at once."""
        return self._chunk

    def through(
        self, field: Complex[Tensor, "field row column"]
    ) -> Complex[Tensor, "field row column"]:
        """Carry one chunk of fields from the entrance to the exit face."""
        wanted = torch.is_grad_enabled() and field.requires_grad
        if wanted or tuple(field.shape) != self._shape:
            return self.crossing.through(field)
        if self._replay is None:
            self._replay = self._record(self.crossing.through, field)
        return self._replay(field)
