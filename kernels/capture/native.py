"""C++ (csrc/cpu/weight_gradient.cpp): the gradient is added from registers, never stored."""

from __future__ import annotations

import torch
from torch import Tensor

from selshare import _native

from ..stacked_linear.native import delta_numbers, input_numbers, sizes


def capture_gradients(delta: Tensor, shared: Tensor, accumulator: Tensor, *, scale: float) -> None:
    """See :func:`selshare.kernels.capture_gradients`."""
    delta, shared = delta.to(accumulator.dtype), shared.to(accumulator.dtype)
    inputs = shared if shared.ndim == 3 else shared.unsqueeze(0)
    run = _native.capture_gradients_f32 if delta.dtype == torch.float32 else _native.capture_gradients_f64
    run(
        delta_numbers(delta),
        input_numbers(inputs, None, False),
        sizes(delta),
        accumulator.data_ptr(),
        scale,
        torch.get_num_threads(),
    )
