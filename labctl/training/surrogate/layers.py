"""Features and nets that the surrogates are made of, drawn from a generator."""

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from labctl.training.surrogate.settings import Ports


def feature_count(ports: Ports) -> int:
    """Count the features that :func:`features` makes.

    Parameters
    ----------
    ports
        Sizes of the device.

    Returns
    -------
    count
        Two for each phase, one for each plain number.
    """
    return 2 * ports.pixels if ports.circular else ports.pixels


def features(
    phase: Float[Tensor, "batch pixel"], ports: Ports
) -> Float[Tensor, "batch feature"]:
    """Turn inputs into what a net sees.

    Parameters
    ----------
    phase
        Inputs; in rad where they are circular.
    ports
        Says whether they are.

    Returns
    -------
    features
        Cosines, then sines; or the plain numbers.
    """
    if not ports.circular:
        return phase
    return torch.cat([torch.cos(phase), torch.sin(phase)], dim=1)


def dense_layer(inputs: int, outputs: int, generator: Generator) -> nn.Linear:
    """Make a linear layer with weights from the generator, biases zero.

    Parameters
    ----------
    inputs, outputs
        Sizes.
    generator
        Source of the weights; the global one stays untouched.

    Returns
    -------
    layer
        Weights uniform with variance ``1 / inputs``.
    """
    # On meta first: the constructor would draw from the global generator.
    layer = nn.Linear(inputs, outputs, device="meta").to_empty(device="cpu")
    bound = (3 / inputs) ** 0.5
    nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
    nn.init.zeros_(layer.bias)
    return layer


def net(sizes: list[int], generator: Generator, *, last: float = 1.0) -> nn.Sequential:
    """Make a net of linear layers with GELU between them.

    Parameters
    ----------
    sizes
        Inputs, hidden sizes, outputs.
    generator
        Source of the weights.
    last
        Factor of the last layer's weights at the start.

    Returns
    -------
    net
        Smooth, so that its derivative is one too.

    Raises
    ------
    ValueError
        There are fewer than two sizes.
    """
    if len(sizes) < 2:
        text = f"net: sizes={sizes}, expected inputs and outputs. Name both."
        raise ValueError(text)
    dense = [dense_layer(*pair, generator) for pair in pairwise(sizes)]
    with torch.no_grad():
        dense[-1].weight.mul_(last)
    hidden = [part for layer in dense[:-1] for part in (layer, nn.GELU())]
    return nn.Sequential(*hidden, dense[-1])
