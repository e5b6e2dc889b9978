"""C++ (csrc/cpu/eigh.cpp), vectorised across the batch: one matrix per SIMD lane, threads over blocks of lanes."""

from __future__ import annotations

import torch
from torch import Tensor

from selshare import _native


def batched_eigh(matrices: Tensor) -> tuple[Tensor, Tensor]:
    """Cyclic Jacobi. See :func:`selshare.kernels.batched_eigh`."""
    matrices = matrices.contiguous()
    count, n = matrices.shape[:2]
    values = matrices.new_empty(count, n)
    vectors = matrices.new_empty(count, n, n)
    if values.numel() == 0:
        return values, vectors
    solve = _native.batched_eigh_f32 if matrices.dtype == torch.float32 else _native.batched_eigh_f64
    failed = solve(matrices.data_ptr(), values.data_ptr(), vectors.data_ptr(), count, n, torch.get_num_threads())
    if failed >= 0:
        raise RuntimeError(f"batched_eigh did not converge for matrix {failed}; report it with its entries.")
    return values, vectors
