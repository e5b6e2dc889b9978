"""The steps of the reference, by large products in blocks of columns: any device, deterministic.

Each truncation is a :func:`~.split.split`: random probing where few of many directions are wanted, float64 Gram
matrices otherwise. Beside the input it needs memory for the basis ``(r, N)`` and about three times as much scratch.
"""

from __future__ import annotations

from math import sqrt

import torch
from torch import Tensor

from .products import orthonormal_rows, row_squares, singular
from .result import JointTensorTrain, contract, fix_signs
from .split import split

# Below this part of the whole, lost energy is measured on the residual: differences of energies would be too coarse.
_COARSE = {torch.float32: 1e-3, torch.float64: 1e-11}
_ROWS = 64  # of the residual formed at a time


def joint_tt_svd(
    tensors: Tensor, modes: tuple[int, ...], *, max_rank: tuple[int, ...], relative_error: float
) -> JointTensorTrain:
    """See :func:`selshare.kernels.joint_tt_svd`; ``tensors`` is ``(G, n₁·…·n_d)``, ``max_rank`` caps all d ranks."""
    squares = row_squares(tensors)
    norm = sqrt(float(squares.sum()))
    if norm == 0:
        return _zeros(tensors, modes)
    rounding = norm * torch.finfo(tensors.dtype).eps * sqrt(len(tensors))
    allowed = max(norm * relative_error / sqrt(len(modes)), rounding)

    embedding, rows = split(tensors, max_rank[0], allowed, squares)
    cores = [rows.reshape(-1, modes[0], tensors.shape[1] // modes[0])]
    if len(modes) > 1:
        factor = torch.linalg.vector_norm(embedding, dim=0)[:, None] * rows
        cores = _cores(factor, modes, max_rank, allowed)
        embedding, cores[0] = _embed(tensors, cores, rounding)
    embedding, cores[0] = fix_signs(embedding, cores[0])
    return JointTensorTrain(embedding, tuple(cores), _residuals(tensors, squares, embedding, cores), norm)


def _cores(factor: Tensor, modes: tuple[int, ...], max_rank: tuple[int, ...], allowed: float) -> list[Tensor]:
    """The tensor train of the small factor ``(r, n₁·…·n_d)``, from the last mode to the first."""
    cores: list[Tensor] = []
    inner = 1
    for mode, cap in zip(modes[:0:-1], max_rank[:0:-1], strict=True):
        factor, right = split(factor.reshape(-1, mode * inner), cap, allowed)
        cores.insert(0, right.reshape(-1, mode, inner))
        inner = len(right)
    factor = factor.reshape(-1, modes[0] * inner)
    lengths = torch.linalg.vector_norm(factor, dim=1, keepdim=True).clamp(min=torch.finfo(factor.dtype).tiny)
    return [orthonormal_rows((factor / lengths)[: factor.shape[1]]).reshape(-1, modes[0], inner), *cores]


def _embed(tensors: Tensor, cores: list[Tensor], negligible: float) -> tuple[Tensor, Tensor]:
    """The stack in the cores' basis, turned so that its columns are orthogonal with falling norms; the first core.

    Columns that together have at most a ``negligible`` norm are left out.
    """
    embedding = tensors @ contract(cores).T
    _, turn = singular(embedding.T, embedding.shape[1], negligible)
    turn = turn.to(tensors.dtype)
    return embedding @ turn.T, torch.einsum("ij,jkl->ikl", turn, cores[0])


def _residuals(tensors: Tensor, squares: Tensor, embedding: Tensor, cores: list[Tensor]) -> Tensor:
    """Bounds on what each row lost: by Pythagoras, or measured where that would be coarse."""
    eps = torch.finfo(tensors.dtype).eps
    lost = squares - row_squares(embedding)
    if float(lost.sum()) > _COARSE[tensors.dtype] * float(squares.sum()):
        return (lost + 32 * eps * squares).clamp(min=0).sqrt()
    basis = contract(cores)
    pieces = [
        row_squares(torch.addmm(some, rows, basis, alpha=-1))
        for some, rows in zip(tensors.split(_ROWS), embedding.split(_ROWS), strict=True)
    ]
    return torch.cat(pieces).sqrt() + 4 * eps * squares.sqrt()


def _zeros(tensors: Tensor, modes: tuple[int, ...]) -> JointTensorTrain:
    """The train of a stack of zeros: rank 1, the first unit vector, and zeros along it."""
    cores = tuple(torch.eye(1, mode, dtype=tensors.dtype, device=tensors.device).reshape(1, mode, 1) for mode in modes)
    residuals = tensors.new_zeros(len(tensors), dtype=torch.float64)
    return JointTensorTrain(tensors.new_zeros(len(tensors), 1), cores, residuals, 0.0)
