"""C++ (csrc/cpu/stacked_linear.cpp, weight_gradient.cpp): register tiles, threads over layers, memory used again."""

from __future__ import annotations

import torch
from torch import Tensor

from selshare import _native

from .. import workspace
from ..checks import sums_of
from . import LinearGradients


def input_numbers(inputs: Tensor, source: Tensor | None, rectify: bool) -> list[int]:
    """``inputs (S, B, I)`` as csrc/bindings.cpp takes it; ``source`` must be contiguous."""
    where = 0 if source is None else source.data_ptr()
    return [inputs.data_ptr(), *inputs.stride(), where, inputs.shape[0], inputs.shape[2], int(rectify)]


def delta_numbers(delta: Tensor) -> list[int]:
    """``delta (G, B, O)`` as csrc/bindings.cpp takes it."""
    return [delta.data_ptr(), *delta.stride()]


def sizes(delta: Tensor) -> tuple[int, int, int]:
    """``(G, B, O)``."""
    layers, samples, outputs = delta.shape
    return layers, samples, outputs


def stacked_linear(inputs: Tensor, weight: Tensor, bias: Tensor | None, source: Tensor | None, rectify: bool) -> Tensor:
    """See :func:`selshare.kernels.stacked_linear`."""
    layers, outputs, _ = weight.shape
    samples, given, dtype = inputs.shape[1], inputs.dtype, sums_of(inputs.dtype)
    inputs, weight = inputs.to(dtype), weight.to(dtype).contiguous()
    bias = None if bias is None else bias.to(dtype).contiguous()
    source = None if source is None else source.contiguous()
    result = workspace.empty((layers, outputs, samples), inputs)
    run = _native.stacked_linear_f32 if inputs.dtype == torch.float32 else _native.stacked_linear_f64
    run(
        input_numbers(inputs, source, rectify),
        (layers, samples, outputs),
        weight.data_ptr(),
        0 if bias is None else bias.data_ptr(),
        result.data_ptr(),
        torch.get_num_threads(),
    )
    return result.transpose(1, 2).to(given)


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
    count, samples, features = inputs.shape
    given, dtype = inputs.dtype, sums_of(inputs.dtype)
    delta, inputs, weight = delta.to(dtype), inputs.to(dtype), weight.to(dtype).contiguous()
    source = None if source is None else source.contiguous()
    by_inputs = workspace.empty((count, features, samples), inputs) if needs_inputs else None
    by_bias = inputs.new_empty(weight.shape[:2]) if needs_bias else None
    if by_inputs is not None or by_bias is not None:
        f32 = inputs.dtype == torch.float32
        run = _native.stacked_linear_backward_f32 if f32 else _native.stacked_linear_backward_f64
        run(
            delta_numbers(delta),
            input_numbers(inputs, source, rectify),
            sizes(delta),
            weight.data_ptr(),
            0 if by_inputs is None else by_inputs.data_ptr(),
            0 if by_bias is None else by_bias.data_ptr(),
            torch.get_num_threads(),
        )
    return LinearGradients(
        None if by_inputs is None else by_inputs.transpose(1, 2).to(given),
        None if by_bias is None else by_bias.to(given),
    )


def weight_gradient(delta: Tensor, inputs: Tensor, source: Tensor | None, rectify: bool) -> Tensor:
    """See :func:`selshare.kernels.stacked_linear.weight_gradient`."""
    given, dtype = inputs.dtype, sums_of(inputs.dtype)
    delta, inputs = delta.to(dtype), inputs.to(dtype)
    source = None if source is None else source.contiguous()
    result = workspace.empty((delta.shape[0], delta.shape[2], inputs.shape[2]), inputs)
    run = _native.store_gradient_f32 if inputs.dtype == torch.float32 else _native.store_gradient_f64
    run(
        delta_numbers(delta),
        input_numbers(inputs, source, rectify),
        sizes(delta),
        result.data_ptr(),
        torch.get_num_threads(),
    )
    return result.to(given)
