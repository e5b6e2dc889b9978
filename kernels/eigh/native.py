"""C++ (csrc/cpu/eigh.cpp), vectorised across the batch: one matrix per SIMD lane, threads over blocks of lanes."""

from __future__ import annotations

import torch
from torch import Tensor

from selshare import _native

from .reference import batched_eigh as by_lapack

LARGEST = 200
"""Matrices larger than this leave the cache in blocks of 8 or 16: LAPACK, one by one, is faster (measured)."""

WORTH_A_LANE = 20
"""LAPACK is also faster for fewer than ``n / 20`` matrices, as most lanes would idle (measured)."""


def batched_eigh(matrices: Tensor) -> tuple[Tensor, Tensor]:
    """Cyclic Jacobi up to ``n = 8``, Householder tridiagonalisation and implicit QL above.

    See :func:`selshare.kernels.batched_eigh`.
    """
    count, n = matrices.shape[:2]
    if n > LARGEST or count * WORTH_A_LANE < n:
        return by_lapack(matrices)
    matrices = matrices.contiguous()
    values = matrices.new_empty(count, n)
    vectors = matrices.new_empty(count, n, n)
    if values.numel() == 0:
        return values, vectors
    solve = _native.batched_eigh_f32 if matrices.dtype == torch.float32 else _native.batched_eigh_f64
    failed = solve(matrices.data_ptr(), values.data_ptr(), vectors.data_ptr(), count, n, torch.get_num_threads())
    if failed >= 0:
        raise RuntimeError(f"batched_eigh did not converge for matrix {failed}; report it with its entries.")
    return values, vectors
