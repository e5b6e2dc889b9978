"""The definition: TT-SVD (Oseledets, SIAM J. Sci. Comput. 33, 2011, algorithm 1) of the stacked tensor.

The branch mode is split off first; then, from the last to the first, the remaining modes of the small factor
``Σ₁V₁ᵀ``, so that every core has orthonormal rows. The embedding is the stack in the basis that these cores make.
"""

from __future__ import annotations

from math import sqrt

import torch
from torch import Tensor

from .result import JointTensorTrain, contract, fix_signs


def joint_tt_svd(
    tensors: Tensor, modes: tuple[int, ...], *, max_rank: tuple[int, ...], relative_error: float
) -> JointTensorTrain:
    """See :func:`selshare.kernels.joint_tt_svd`; ``tensors`` is ``(G, n₁·…·n_d)``, ``max_rank`` caps all d ranks."""
    eps = torch.finfo(tensors.dtype).eps
    norm = float(torch.linalg.vector_norm(tensors, dtype=torch.float64))
    rounding = norm * eps * sqrt(len(tensors))
    allowed = max(norm * relative_error / sqrt(len(modes)), rounding)

    _, values, right = _truncated_svd(tensors, max_rank[0], allowed)
    factor = values[:, None] * right
    cores: list[Tensor] = []
    inner = 1
    for mode, cap in zip(modes[:0:-1], max_rank[:0:-1], strict=True):
        left, values, right = _truncated_svd(factor.reshape(-1, mode * inner), cap, allowed)
        cores.insert(0, right.reshape(-1, mode, inner))
        factor, inner = left * values, len(right)
    _, _, right = _truncated_svd(factor.reshape(-1, modes[0] * inner), max_rank[0], rounding)
    cores.insert(0, right.reshape(-1, modes[0], inner))

    embedding = tensors @ contract(cores).T
    turn = torch.linalg.svd(embedding, full_matrices=False).Vh
    embedding, cores[0] = fix_signs(embedding @ turn.T, torch.einsum("ij,jkl->ikl", turn, cores[0]))
    lost = torch.linalg.vector_norm(tensors - embedding @ contract(cores), dim=1, dtype=torch.float64)
    residuals = lost + 4 * eps * torch.linalg.vector_norm(tensors, dim=1, dtype=torch.float64)
    return JointTensorTrain(embedding, tuple(cores), residuals, norm)


def _truncated_svd(matrix: Tensor, cap: int, allowed: float) -> tuple[Tensor, Tensor, Tensor]:
    """``U, Σ, Vᵀ`` of the smallest rank ≥ 1 and ≤ ``cap`` whose dropped values have a norm ≤ ``allowed``."""
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    tails = values.flip(0).square().cumsum(0).sqrt()
    rank = min(cap, max(1, int((tails > allowed).sum())))
    left, right = fix_signs(left[:, :rank], right[:rank])
    return left, values[:rank], right
