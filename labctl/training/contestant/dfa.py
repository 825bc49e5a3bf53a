"""Direct feedback alignment: fixed random paths from the error to the phase."""

from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor
from typing_extensions import override

from labctl.training.blackbox import Exposure
from labctl.training.estimator import Estimator, State
from labctl.training.network import Network


@final
class DirectFeedback(Estimator):
    """The error at the model's end, projected to the phase by a fixed random matrix.

    Neither the device nor what follows it is differentiated: the gradient with
    respect to the outputs is ignored, the one with respect to the model's answer is
    taken instead. One matrix a device layer, drawn once.

    Parameters
    ----------
    network
        The model; listened to at its end.
    outputs
        Width of the model's answer.
    pixels
        Macropixels of the panel.
    generator
        Where the matrices come from.

    References
    ----------
    .. [1] Nøkland, "Direct feedback alignment provides learning in deep neural
       networks", 2016, arXiv:1609.01596. Physical systems: Nakajima et al., 2022,
       doi:10.1038/s41467-022-35216-2. The derivative of the layer is left out,
       because nobody knows it.
    """

    def __init__(
        self, network: Network, *, outputs: int, pixels: int, generator: torch.Generator
    ) -> None:
        layers = len(network.device_layers)
        drawn = torch.randn(layers, outputs, pixels, generator=generator)
        self.feedback = drawn / outputs**0.5
        self._error: Tensor | None = None
        network.layers[-1].register_forward_hook(self._follow)

    def _follow(self, module: object, inputs: object, answer: Any) -> None:  # noqa: ANN401 - torch's hook
        del module, inputs
        if answer.requires_grad:
            answer.register_hook(self._see)

    def _see(self, error: Tensor) -> None:
        self._error = error.detach()

    @override
    def __call__(
        self, exposure: Exposure, cotangent: Float[Tensor, "batch output"]
    ) -> Float[Tensor, "batch pixel"]:
        """Project the error.

        Parameters
        ----------
        exposure
            Says which device layer asks.
        cotangent
            Not used.

        Raises
        ------
        RuntimeError
            The model's end was not reached backwards.
        """
        del cotangent
        if self._error is None:
            text = "dfa: no error yet, expected a backward pass from the model's end."
            raise RuntimeError(text)
        matrix = self.feedback[exposure.layer].to(self._error)
        gradient: Tensor = self._error @ matrix
        return gradient

    @override
    def renew(self) -> str:
        """Do nothing: the matrices know nothing of the device."""
        return ""

    @override
    def state_dict(self) -> State:
        return {"feedback": self.feedback}

    @override
    def load_state_dict(self, state: State) -> None:
        self.feedback = state["feedback"]
