"""The definition of :func:`selshare.kernels.tt_svd`: one singular value decomposition per unfolding, in float64."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..checks import require_finite, sums_of
from ..eigh.reference import fix_signs
from .train import TensorTrain
from .truncation import allowed_share, kept_ranks


def left_vectors(matrices: Tensor) -> tuple[Tensor, Tensor]:
    """Singular values ``(G, q)`` of matrices ``(G, m, n)``, descending, and their left vectors ``(G, m, q)``."""
    vectors, values, _ = torch.linalg.svd(matrices, full_matrices=False)
    return values, vectors


def tt_svd(
    tensors: Tensor,
    modes: tuple[int, ...],
    *,
    max_rank: int,
    relative_error: float,
    decompose: Callable[[Tensor], tuple[Tensor, Tensor]] = left_vectors,
) -> TensorTrain:
    """Oseledets 2011, algorithm 1, for all tensors at once, by LAPACK or what ``decompose`` has for it."""
    require_finite(tensors, "tensors")
    count, columns = tensors.shape
    dtype = sums_of(tensors.dtype)
    rest, exponents = scaled(tensors.double())
    allowed = allowed_share(len(modes), relative_error, dtype) * rest.norm(dim=1)
    cores, ranks, rank = [], [], 1
    for mode in modes[:-1]:
        columns //= mode
        unfolding = rest.reshape(count, rank * mode, columns)
        S, U = decompose(unfolding)
        kept = kept_ranks(S.square(), allowed, max_rank)
        width = int(kept.max()) if count else 1
        basis = first_columns(U, S[:, 0] == 0, kept, width)
        rest = basis.mT @ unfolding
        cores.append(basis.reshape(count, rank, mode, width))
        ranks.append(kept)
        rank = width
    cores.append(torch.ldexp(rest.reshape(count, rank, modes[-1], 1), exponents[:, None, None, None]))
    stacked = torch.stack(ranks, dim=1) if ranks else torch.empty(count, 0, dtype=torch.int64, device=tensors.device)
    return TensorTrain([core.to(dtype).contiguous() for core in cores], modes, stacked)


def scaled(tensors: Tensor) -> tuple[Tensor, Tensor]:
    """``tensors (G, n)`` times the powers of two that bring the largest entry of each near 1, and their exponents."""
    _, exponents = torch.frexp(tensors.abs().amax(dim=1))
    exponents = exponents.clamp(-1000, 1000)
    return torch.ldexp(tensors, -exponents[:, None]), exponents


def first_columns(U: Tensor, zero: Tensor, kept: Tensor, width: int) -> Tensor:
    """The ``kept`` first columns of ``U (G, m, q)``, signs fixed, padded with zeros to ``width``; e₁ where ``zero``."""
    basis = fix_signs(U[:, :, :width])
    unit = torch.zeros_like(basis)
    unit[:, :1, :1] = 1.0
    basis = torch.where(zero[:, None, None], unit, basis)
    return basis * (torch.arange(width, device=U.device) < kept[:, None])[:, None, :]
