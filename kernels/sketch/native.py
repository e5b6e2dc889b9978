"""C++ (csrc/cpu/sketch.cpp) for what meets every branch; the projection of the layer's input is one small GEMM."""

from __future__ import annotations

import torch
from torch import Tensor

from selshare import _native


def sketch_gradients(delta: Tensor, shared: Tensor, accumulator: Tensor, directions: Tensor, *, scale: float) -> None:
    """See :func:`selshare.kernels.sketch_gradients`."""
    branches, samples, outputs = delta.shape
    delta = delta.to(accumulator.dtype)
    projected = shared.to(accumulator.dtype) @ directions.T
    add = _native.sketch_gradients_f32 if delta.dtype == torch.float32 else _native.sketch_gradients_f64
    add(
        delta.data_ptr(),
        delta.stride(0),
        delta.stride(1),
        delta.stride(2),
        projected.data_ptr(),
        accumulator.data_ptr(),
        branches,
        samples,
        outputs,
        len(directions) // outputs,
        scale,
        torch.get_num_threads(),
    )
