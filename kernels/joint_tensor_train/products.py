"""Products that keep float64 accuracy of float32 data without a float64 copy of it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..gram import gram_matrices, project_matrices

_RUN = 512  # numbers summed up in the input's precision before float64 takes over
_NEAR = 1e-3  # from orthonormality: from there one repair leaves only rounding
_CLEAR = 1e-4  # of the largest square: what is left of each new row beside the known ones is then no rounding


def gram(matrix: Tensor) -> Tensor:
    """``M·Mᵀ`` in float64, for ``M (m, n)`` of any strides; see :func:`~selshare.kernels.gram.gram_matrices`."""
    return gram_matrices(matrix[None])[0]


def exact_product(left: Tensor, matrix: Tensor) -> Tensor:
    """``L·M`` for a float64 ``L (r, m)`` and ``M (m, n)``: multiplied in float64, rounded once to the type of M."""
    return project_matrices(left.T[None], matrix[None])[0]


def row_squares(matrix: Tensor) -> Tensor:
    """The squared norm of each row, float64."""
    rows, columns = matrix.shape
    whole = columns - columns % _RUN
    runs = torch.linalg.vector_norm(matrix[:, :whole].reshape(rows, whole // _RUN, _RUN), dim=2)
    rest = torch.linalg.vector_norm(matrix[:, whole:], dim=1)
    squares: Tensor = runs.double().square().sum(dim=1) + rest.double().square()
    return squares


def singular(short: Tensor, cap: int, allowed: float) -> tuple[Tensor, Tensor]:
    """Singular values of ``short (m, n)``, m ≤ n, falling, and its left singular vectors as rows; float64.

    As many as leave at most ``allowed`` of the Frobenius norm, at least one and at most ``cap``. From the Gram
    matrix; for float64, where that may lose too much, from the R of a QR.
    """
    if short.dtype == torch.float64 and allowed < 1e-6 * float(row_squares(short).sum()) ** 0.5:
        _, values, rows = torch.linalg.svd(torch.linalg.qr(short.T, mode="r").R, full_matrices=False)
    else:
        squares, columns = torch.linalg.eigh(gram(short))
        values, rows = squares.flip(0).clamp(min=0).sqrt(), columns.T.flip(0)
    tails = values.square().flip(0).cumsum(0).flip(0)
    rank = min(cap, max(1, int((tails > allowed**2).sum())))
    return values[:rank], rows[:rank]


def orthonormal_rows(matrix: Tensor) -> Tensor:
    """Gram–Schmidt of the rows of ``matrix (m, n)``, in order, to working precision.

    By Cholesky factors of the float64 Gram matrix, repeated until the rest is rounding (CholeskyQR2, Yamamoto et al.,
    ETNA 44, 2015); by Householder reflections where rows are so nearly dependent that there is no factor.
    """
    identity = torch.eye(len(matrix), dtype=torch.float64, device=matrix.device)
    rest = 1.0
    while rest > _NEAR:
        products = gram(matrix)
        rest = float((products - identity).abs().max())
        if rest <= 2 * torch.finfo(matrix.dtype).eps:
            break
        factor, failed = torch.linalg.cholesky_ex(products)
        if int(failed) or float(factor.diagonal().min()) < 1e-6 * float(factor.diagonal().max()):
            matrix = torch.linalg.qr(matrix.T).Q.T.contiguous()
            break
        matrix = torch.linalg.solve_triangular(factor, identity, upper=False).to(matrix.dtype) @ matrix
    return matrix


def new_directions(rows: Tensor, known: Sequence[Tensor], negligible: float) -> Tensor:
    """Orthonormal rows that ``rows (m, n)``, which are overwritten, add to the orthonormal rows of all ``known``.

    What is shorter than ``negligible`` counts as nothing: there may be fewer than m, or none.
    """
    _remove(rows, known)
    squares, vectors = torch.linalg.eigh(gram(rows)) if len(rows) else (rows.new_empty(0), rows.new_empty(0, 0))
    kept = squares > negligible**2
    if not bool(kept.any()):
        return rows[:0]
    rows = (vectors[:, kept] / squares[kept].sqrt()).T.to(rows.dtype) @ rows
    _remove(rows, known)  # once more: what was short has lost digits
    return orthonormal_rows(rows)


def append_directions(rows: Tensor, known: Tensor, negligible: float) -> int:
    """Make ``rows (m, n)``, in place, orthonormal and orthogonal to the orthonormal rows ``known``; how many are left.

    Twice: coefficients and a float64 Gram matrix, ``YYᵀ − (Y·Kᵀ)(Y·Kᵀ)ᵀ``, give the Cholesky factor of what is left
    without forming it, so that removing and normalising are one product (Pythagorean block Gram–Schmidt; Carson, Lund,
    Rozložník and Thomas, LAA 609, 2021). Where little is left, step by step as :func:`new_directions`.
    """
    for turn in range(2):
        along = rows @ known.T
        whole = gram(rows)
        left = whole - along.double() @ along.double().T
        factor, failed = torch.linalg.cholesky_ex(left)
        clear = not int(failed) and float(factor.diagonal().square().min()) > _CLEAR * float(whole.diagonal().max())
        if not clear or float(whole.trace()) <= negligible**2 or (turn and float((left - whole).abs().max()) > _NEAR):
            fresh = new_directions(rows.clone(), [known] if len(known) else [], negligible if turn == 0 else 0.0)
            rows[: len(fresh)] = fresh
            return len(fresh)
        inverse = torch.linalg.inv(factor)
        fresh = inverse.to(rows.dtype) @ rows
        if len(known):
            torch.addmm(fresh, (inverse @ along.double()).to(rows.dtype), known, alpha=-1, out=rows)
        else:
            rows.copy_(fresh)
    return len(rows)


def _remove(rows: Tensor, known: Sequence[Tensor]) -> None:
    """Subtract what ``rows`` have of the orthonormal rows of each of ``known``."""
    for block in known:
        rows.addmm_(rows @ block.T, block, alpha=-1)
