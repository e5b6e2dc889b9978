"""C++ (csrc/cpu/tensor_train.cpp): Gram matrices, eigenproblems of eight tensors per vector, fused projections."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from selshare import _native

from ..checks import require_finite, sums_of
from .reference import tt_svd as by_lapack
from .train import TensorTrain
from .truncation import allowed_share, rank_caps

LARGEST = 256
"""Above this Gram matrices in blocks of eight leave the cache: LAPACK, one by one, is faster (measured)."""

WORTH_A_LANE = 40
"""LAPACK is also faster for fewer than ``n / 40`` tensors, ``n`` the largest Gram matrix (measured)."""


def tt_svd(tensors: Tensor, modes: tuple[int, ...], *, max_rank: int, relative_error: float) -> TensorTrain:
    """See :func:`selshare.kernels.tt_svd`. Two reads of the tensors; all arithmetic in float64."""
    count, caps = len(tensors), rank_caps(modes, max_rank)
    bounds = [1, *caps, 1]
    largest = max(min(bounds[k] * modes[k], math.prod(modes[k + 1 :])) for k in range(len(modes)))
    if len(modes) == 1 or count == 0 or largest > LARGEST or count * WORTH_A_LANE < largest:
        return by_lapack(tensors, modes, max_rank=max_rank, relative_error=relative_error)
    tensors = tensors.to(sums_of(tensors.dtype)).contiguous()
    cores = [tensors.new_zeros(count, bounds[k], mode, bounds[k + 1]) for k, mode in enumerate(modes)]
    ranks = torch.empty(count, len(caps), dtype=torch.int64)
    factorise = _native.tt_svd_f32 if tensors.dtype == torch.float32 else _native.tt_svd_f64
    status = factorise(
        tensors.data_ptr(),
        count,
        list(modes),
        caps,
        allowed_share(len(modes), relative_error, tensors.dtype),
        [core.data_ptr() for core in cores],
        ranks.data_ptr(),
        torch.get_num_threads(),
    )
    if status >= 0:
        require_finite(tensors, "tensors")
    if status != -1:
        raise RuntimeError(f"tt_svd did not converge for branch {-2 - status} or its neighbours; report its entries.")
    widths = [1, *ranks.amax(dim=0).tolist(), 1]
    trimmed = [core[:, : widths[k], :, : widths[k + 1]].contiguous() for k, core in enumerate(cores)]
    return TensorTrain(trimmed, modes, ranks)
