"""Triton for what reads the tensors (:mod:`..gram.triton`), two reads a step; the solvers are :mod:`..eigh`'s.

Each step forms the Gram matrix of the shorter side of its unfolding, in float64, and projects on its leading
eigenvectors; what is written is the next step's unfolding already. One number a step, the largest rank of the batch,
is awaited by the host.

Gram matrices resolve what float32 and half-precision tensors hold. Those of float64 take singular vectors
(:mod:`..svd`) instead.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..backend import use
from ..checks import require_finite, sums_of
from ..eigh import batched_eigh
from ..gram.triton import gram_matrices, project_matrices
from ..svd import left_svd
from .reference import first_columns, scaled
from .train import TensorTrain
from .truncation import allowed_share, kept_ranks

SOLVERS = ("cuda", "native", "reference")
REPAIRS = 3
"""Newton–Schulz steps: columns of a tall side are orthogonal to 0.1 or better, whose square is left after each."""


def tt_svd(tensors: Tensor, modes: tuple[int, ...], *, max_rank: int, relative_error: float) -> TensorTrain:
    """See :func:`selshare.kernels.tt_svd`. All arithmetic in float64.

    Between steps tensors are float32, unless they were float64. Half precision is copied to float32 first.
    """
    require_finite(tensors, "tensors")
    count, columns = tensors.shape
    dtype = sums_of(tensors.dtype)
    single = dtype == torch.float32
    rest, exponents = (tensors.to(dtype), None) if single else scaled(tensors)
    allowed = tensors.new_zeros(count, dtype=torch.float64)
    cores, ranks, rank = [], [], 1
    for step, mode in enumerate(modes[:-1]):
        columns //= mode
        unfolding = rest.reshape(count, rank * mode, columns)
        squares, vectors = by_gram(unfolding) if single else by_svd(unfolding)
        if step == 0:
            allowed = allowed_share(len(modes), relative_error, dtype) * squares.sum(dim=1).sqrt()
        kept = kept_ranks(squares, allowed, max_rank)
        width = int(kept.max()) if count else 1
        basis = first_columns(vectors, squares[:, 0] == 0, kept, width)
        rest = project_matrices(basis, unfolding)
        cores.append(basis.reshape(count, rank, mode, width))
        ranks.append(kept)
        rank = width
    last = rest.reshape(count, rank, modes[-1], 1)
    cores.append(last if exponents is None else torch.ldexp(last, exponents[:, None, None, None]))
    stacked = torch.stack(ranks, dim=1) if ranks else torch.empty(count, 0, dtype=torch.int64, device=tensors.device)
    return TensorTrain([core.to(dtype).contiguous() for core in cores], modes, stacked)


def by_gram(unfolding: Tensor) -> tuple[Tensor, Tensor]:
    """Of ``(G, m, n)``: squared singular values ``(G, q)``, falling, and left vectors ``(G, m, q)``; float64."""
    rows, columns = unfolding.shape[1:]
    with use(*SOLVERS):
        squares, vectors = batched_eigh(gram_matrices(unfolding if rows <= columns else unfolding.mT))
    squares = squares.clamp(min=0)
    if rows <= columns:
        return squares, vectors
    images = project_matrices(vectors, unfolding.mT.double()).mT
    lengths = torch.linalg.vector_norm(images, dim=1, keepdim=True)
    # What is all rounding has no direction of its own, and is cut off by whoever calls.
    noise = lengths <= lengths.amax(dim=2, keepdim=True) * 2.0**-26
    images = torch.where(noise, 0.0, images / torch.where(noise, 1.0, lengths))
    for _ in range(REPAIRS):
        images = 1.5 * images - 0.5 * images @ (images.mT @ images)
    return squares, images


def by_svd(unfolding: Tensor) -> tuple[Tensor, Tensor]:
    """As :func:`by_gram`, to float64's own precision."""
    rows, columns = unfolding.shape[1:]
    turn = None
    if rows > columns:
        turn, unfolding = torch.linalg.qr(unfolding)
    with use(*SOLVERS):
        values, vectors = left_svd(unfolding)
    return values.square(), vectors if turn is None else turn @ vectors
