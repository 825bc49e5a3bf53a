"""Light through a saturable Kerr medium in split steps, with its derivative by hand.

A fit takes thousands of these. Autograd keeps every intermediate of every step and
goes through each of them again; written out, the derivative needs the field before
and after each kick and takes less than half the time. With ``I = |E|^2``, a node is

    E' = left E exp(i lag),     lag = strength I / (1 + I / saturation) + screen

and between two nodes stands ``E = ifft(transfer fft(E'))``, both unnormalised. For
gradients ``G`` in torch's convention (of the real part, plus i times that of the
imaginary part) the derivative of the lag is ``q = Im(G' conj(E'))``. The compiled
kernel (:func:`cross_fused`) does the same in one pass over each field.
"""

from typing import cast, final

import torch
from jaxtyping import Complex, Float
from torch import Tensor
from typing_extensions import override

from labctl.optics.fused.crossing import FusedMedium
from labctl.optics.fused.library import Library
from labctl.optics.kicks import Kicks, Waves


def cross(
    field: Complex[Tensor, "batch row column"],
    transfer: Complex[Tensor, "row column"],
    kicks: Kicks,
) -> Complex[Tensor, "batch row column"]:
    """Take fields through the medium, differentiable any number of times.

    Parameters
    ----------
    field
        At the entrance.
    transfer
        Diffraction between two nodes, over the number of grid points.
    kicks
        Of every node; the first and the last are half ones.
    """
    left: Tensor = _Crossing.apply(field, transfer, *kicks)  # type: ignore[no-untyped-call]  # torch leaves apply untyped
    return left


def plainly(
    field: Complex[Tensor, "batch row column"],
    transfer: Complex[Tensor, "row column"],
    kicks: Kicks,
) -> Complex[Tensor, "batch row column"]:
    """Do what :func:`cross` does, step by step by autograd: the reference.

    Parameters
    ----------
    field, transfer, kicks
        As there.
    """
    for node, (strength, screen, left) in enumerate(
        zip(kicks.strength, kicks.screen, kicks.left, strict=True)
    ):
        if node:
            spectrum = torch.fft.fft2(field) * transfer
            field = torch.fft.ifft2(spectrum, norm="forward")
        light = field.real.square() + field.imag.square()
        lag = strength * light / (1 + light / kicks.saturation) + screen
        field = field * torch.polar(left.expand_as(lag), lag)
    return field


def cross_fused(
    field: Complex[Tensor, "batch row column"],
    waves: Waves,
    length: Float[Tensor, ""],
    kicks: Kicks,
    library: Library,
) -> Complex[Tensor, "batch row column"]:
    """Do what :func:`cross` does by the compiled kernel, in single precision.

    Parameters
    ----------
    field
        At the entrance, complex64.
    waves, length
        Diffraction, and how far it goes between two nodes.
    kicks
        Of every node; the first and the last are half ones.
    library
        The kernel.

    Raises
    ------
    ValueError
        The kernel does not know such a grid.
    """
    left: Tensor = _FusedCrossing.apply(field, length, *kicks, waves, library)  # type: ignore[no-untyped-call]  # torch leaves apply untyped
    return left


@final
class _FusedCrossing(torch.autograd.Function):
    @staticmethod
    @override
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        field: Tensor,
        length: Tensor,
        strength: Tensor,
        saturation: Tensor,
        screen: Tensor,
        left: Tensor,
        waves: Waves,
        library: Library,
    ) -> Tensor:
        kicks = Kicks(strength, saturation, screen, left)
        ctx.save_for_backward(field, length, *kicks)
        keep = any(cast("tuple[bool, ...]", ctx.needs_input_grad))  # type: ignore[attr-defined]  # torch types it late
        medium = FusedMedium(library, waves, length, kicks)
        crossed, course = medium.cross(field, keep=keep)
        ctx.course = (medium, course, waves)  # type: ignore[attr-defined]  # autograd's own way
        return crossed

    @staticmethod
    @override
    def backward(
        ctx: torch.autograd.function.FunctionCtx, *grad_outputs: Tensor
    ) -> tuple[Tensor | None, ...]:
        medium, course, waves = cast(
            "tuple[FusedMedium, Tensor, Waves]",
            ctx.course,  # type: ignore[attr-defined]  # set in forward
        )
        saved = cast("tuple[Tensor, ...]", ctx.saved_tensors)  # type: ignore[attr-defined]  # torch types it late
        needed = cast("tuple[bool, ...]", ctx.needs_input_grad)[:6]  # type: ignore[attr-defined]  # torch types it late
        if torch.is_grad_enabled():
            found = _again(saved, needed, grad_outputs[0], waves)
        else:
            inner = any(needed[1:])
            found = tuple(medium.back(grad_outputs[0], course, inner=inner))
        return (*found, None, None)


_Course = tuple[list[Tensor], list[Tensor], list[Tensor]]
"""At each node: the field before it, its factor; between nodes: the spectra."""


@final
class _Crossing(torch.autograd.Function):
    @staticmethod
    @override
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        field: Tensor,
        transfer: Tensor,
        *kicks: Tensor,
    ) -> Tensor:
        strength, saturation, screen, left = kicks
        ctx.save_for_backward(field, transfer, *kicks)
        fields: list[Tensor] = []
        factors: list[Tensor] = []
        spectra: list[Tensor] = []
        for node in range(len(strength)):
            if node:
                spectra.append(torch.fft.fft2(field))
                field = torch.fft.ifft2(spectra[-1] * transfer, norm="forward")
            lag = _response(_light(field), saturation)
            lag = lag.mul_(strength[node]).add_(screen[node])
            factor = torch.empty_like(field)
            parts = torch.view_as_real(factor)
            torch.mul(torch.cos(lag), left[node], out=parts[..., 0])
            torch.mul(torch.sin(lag), left[node], out=parts[..., 1])
            fields.append(field)
            factors.append(factor)
            field = field * factor
        ctx.course = (fields, factors, spectra)  # type: ignore[attr-defined]  # autograd's own way
        return field

    @staticmethod
    @override
    def backward(
        ctx: torch.autograd.function.FunctionCtx, *grad_outputs: Tensor
    ) -> tuple[Tensor | None, ...]:
        saved = cast("tuple[Tensor, ...]", ctx.saved_tensors)  # type: ignore[attr-defined]  # torch types it late
        needed = cast("tuple[bool, ...]", ctx.needs_input_grad)  # type: ignore[attr-defined]  # torch types it late
        if torch.is_grad_enabled():
            return _again(saved, needed, grad_outputs[0])
        course = cast("_Course", ctx.course)  # type: ignore[attr-defined]  # set in forward
        return _back(saved, course, grad_outputs[0], inner=any(needed[1:]))


def _light(field: Tensor) -> Tensor:
    # Two products: a sum over an axis of two would take most of the time.
    return field.real.square().addcmul_(field.imag, field.imag)


def _response(light: Tensor, saturation: Tensor) -> Tensor:
    return light / (1 + light / saturation)


def _again(
    saved: tuple[Tensor, ...],
    needed: tuple[bool, ...],
    gradient: Tensor,
    waves: Waves | None = None,
) -> tuple[Tensor | None, ...]:
    """Differentiate by autograd, so that the derivative can be differentiated."""
    field, step, *kicks = saved
    transfer = step if waves is None else waves.transfer(step)
    wanted = [part for part, some in zip(saved, needed, strict=True) if some]
    out = plainly(field, transfer, Kicks(*kicks))
    found = iter(torch.autograd.grad(out, wanted, gradient, create_graph=True))
    return tuple(next(found) if some else None for some in needed)


def _back(
    saved: tuple[Tensor, ...], course: _Course, gradient: Tensor, *, inner: bool
) -> tuple[Tensor | None, ...]:
    """Go back from the exit; ``inner`` asks for the medium's own derivatives."""
    _, transfer, strength, saturation, screen, left = saved
    fields, factors, spectra = course
    to_transfer, to_strength = torch.zeros_like(transfer), torch.zeros_like(strength)
    to_screen, to_left = torch.zeros_like(screen), torch.zeros_like(left)
    to_saturation = torch.zeros_like(saturation)
    for node in reversed(range(len(strength))):
        field = fields[node]
        gradient = gradient * factors[node].conj()
        crossed = gradient * field.conj()
        lag = crossed.imag.contiguous()
        response = _response(_light(field), saturation)
        if inner:
            to_left[node] = crossed.real.sum(dim=0) / left[node]
            to_screen[node] = lag.sum(dim=0)
            weighed = lag * response
            to_strength[node] = weighed.sum()
            to_saturation += strength[node] * (weighed * response).sum()
        # The response's slope is the square of 1 / (1 + I / s) = 1 - response / s.
        slope = (1 - response / saturation).square_()
        slope = slope.mul_(lag).mul_(2 * strength[node])
        gradient.real.addcmul_(field.real, slope)
        gradient.imag.addcmul_(field.imag, slope)
        if node:
            spectrum = torch.fft.fft2(gradient)
            if inner:
                crossed = spectra[node - 1].conj() * spectrum
                to_transfer += crossed.sum(dim=0)
            gradient = spectrum.mul_(transfer.conj())
            gradient = torch.fft.ifft2(gradient, norm="forward")
    to_saturation = to_saturation / saturation.square()
    return gradient, to_transfer, to_strength, to_saturation, to_screen, to_left
