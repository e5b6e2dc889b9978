"""Splitting a matrix: the fewest orthonormal rows that hold all of it but an allowed part."""

from __future__ import annotations

import torch
from torch import Tensor

from .probe import probe
from .products import exact_product, orthonormal_rows, row_squares, singular

# Rows made from a Gram matrix are orthonormal to float64's eps times (largest / smallest singular value)², so to
# 2e-8 up to this quotient; beyond, they are orthonormalised again.
_SAFE_QUOTIENT = {torch.float32: 1e4, torch.float64: 1.0}


def split(matrix: Tensor, cap: int, allowed: float, squares: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """``(C, V)``: orthonormal rows ``V (r, n)`` and coefficients ``C = M·Vᵀ``, columns orthogonal, norms falling.

    r ≥ 1 is the least number with ``‖M − C·V‖ ≤ allowed``, or ``cap`` where that is less. ``M (m, n)`` must not be
    all zeros. By random probing where few of many directions are wanted, otherwise from all singular values.
    ``squares`` are those of the rows' norms, where they are known.
    """
    squares = row_squares(matrix) if squares is None else squares
    found = probe(matrix, cap, allowed, float(squares.sum()))
    if found is not None:
        return found
    if len(matrix) > matrix.shape[1]:
        _, rows = singular(matrix.T, cap, allowed)
        rows = rows.to(matrix.dtype)
        return matrix @ rows.T, rows
    values, columns = singular(matrix, cap, allowed)
    rows = exact_product(columns / values[:, None], matrix)
    if float(values[0] / values[-1]) > _SAFE_QUOTIENT[matrix.dtype]:
        rows = orthonormal_rows(rows)
    coefficients = (columns * values[:, None]).T.to(matrix.dtype)
    return coefficients.masked_fill_((squares == 0)[:, None], 0.0), rows
