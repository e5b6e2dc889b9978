"""The definitions: :mod:`.plain`, half precision in float32 and rounded at the end."""

from __future__ import annotations

from torch import Tensor

from ..checks import sums_of
from . import LinearGradients, plain


def stacked_linear(inputs: Tensor, weight: Tensor, bias: Tensor | None, source: Tensor | None, rectify: bool) -> Tensor:
    """See :func:`selshare.kernels.stacked_linear`."""
    dtype = sums_of(inputs.dtype)
    bias = None if bias is None else bias.to(dtype)
    return plain.stacked_linear(inputs.to(dtype), weight.to(dtype), bias, source, rectify).to(inputs.dtype)


def stacked_linear_backward(
    delta: Tensor,
    inputs: Tensor,
    weight: Tensor,
    source: Tensor | None,
    rectify: bool,
    needs_inputs: bool,
    needs_bias: bool,
) -> LinearGradients:
    """See :func:`selshare.kernels.stacked_linear_backward`."""
    dtype = sums_of(inputs.dtype)
    gradients = plain.stacked_linear_backward(
        delta.to(dtype), inputs.to(dtype), weight.to(dtype), source, rectify, needs_inputs, needs_bias
    )
    return LinearGradients(*(None if gradient is None else gradient.to(inputs.dtype) for gradient in gradients))


def weight_gradient(delta: Tensor, inputs: Tensor, source: Tensor | None, rectify: bool) -> Tensor:
    """See :func:`selshare.kernels.stacked_linear.weight_gradient`."""
    dtype = sums_of(inputs.dtype)
    return plain.weight_gradient(delta.to(dtype), inputs.to(dtype), source, rectify).to(inputs.dtype)
