"""CUDA (csrc/cuda): each step's singular vectors by Jacobi in shared memory, one block a tensor; products by torch."""

from __future__ import annotations

import torch
from torch import Tensor

from ..cuda_library import LARGEST
from ..eigh.cuda import batched_eigh
from ..svd.cuda import left_svd, thin_svd
from .reference import left_vectors
from .reference import tt_svd as by_steps
from .train import TensorTrain


def tt_svd(tensors: Tensor, modes: tuple[int, ...], *, max_rank: int, relative_error: float) -> TensorTrain:
    """See :func:`selshare.kernels.tt_svd`. All arithmetic in float64.

    A Gram matrix in float64 resolves 1e-8 of the largest singular value, below the resolution of float32 (and half
    precision); tensors in float64 take the singular value decomposition.
    """
    decompose = by_svd if tensors.dtype == torch.float64 else by_gram
    return by_steps(tensors, modes, max_rank=max_rank, relative_error=relative_error, decompose=decompose)


def by_gram(matrices: Tensor) -> tuple[Tensor, Tensor]:
    """As :func:`.reference.left_vectors`, from the Gram matrices of the rows where there are no fewer columns."""
    rows, columns = matrices.shape[1:]
    if rows > min(columns, LARGEST):
        return by_svd(matrices)
    squares, vectors = batched_eigh(matrices @ matrices.mT)
    return squares.clamp(min=0).sqrt(), vectors


def by_svd(matrices: Tensor) -> tuple[Tensor, Tensor]:
    """As :func:`.reference.left_vectors`; by cuSOLVER, through torch, where both sides are longer than 128."""
    rows, columns = matrices.shape[1:]
    if min(rows, columns) > LARGEST or matrices.numel() == 0:
        return left_vectors(matrices)
    return left_svd(matrices) if rows <= columns else thin_svd(matrices)
