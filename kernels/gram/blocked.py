"""By pieces of columns, so that no float64 copy of a whole matrix is made: any device."""

from __future__ import annotations

import torch
from torch import Tensor

from ..checks import sums_of

_PIECE = 1 << 20  # numbers converted at a time: 8 MiB of float64
_TILE = 512  # rows of a tile; of the tiles above the diagonal none is computed


def gram_matrices(matrices: Tensor) -> Tensor:
    """See :func:`selshare.kernels.gram.gram_matrices`: ``m²·n`` multiplications, up to half of them saved."""
    count, rows, _ = matrices.shape
    totals = matrices.new_zeros(count, rows, rows, dtype=torch.float64)
    tiles = [slice(start, start + _TILE) for start in range(0, rows, _TILE)]
    for matrix, total in zip(matrices, totals, strict=True):
        for piece in matrix.split(max(1, _PIECE // max(1, rows)), dim=1):
            wide = piece.double()
            for i, one in enumerate(tiles):
                for other in tiles[: i + 1]:
                    total[one, other].addmm_(wide[one], wide[other].T)
    return totals.tril() + totals.tril(-1).mT


def project_matrices(basis: Tensor, matrices: Tensor) -> Tensor:
    """See :func:`selshare.kernels.gram.project_matrices`."""
    shape = len(matrices), basis.shape[2], matrices.shape[2]
    result = matrices.new_empty(shape, dtype=sums_of(matrices.dtype))
    step = max(1, _PIECE // max(1, matrices.shape[1]))
    for turned, matrix, there in zip(basis.mT, matrices, result, strict=True):
        for piece, place in zip(matrix.split(step, dim=1), there.split(step, dim=1), strict=True):
            place.copy_(turned @ piece.double())
    return result
