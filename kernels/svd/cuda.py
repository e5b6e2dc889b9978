"""CUDA (csrc/cuda/left_svd.hpp): one-sided Jacobi, one block a matrix, in shared memory."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import cuda_library
from . import reference

WIDE = 2
"""From this many columns a row on, a QR decomposition first costs less than turning the rows at full length."""


def left_svd(matrices: Tensor) -> tuple[Tensor, Tensor]:
    """Jacobi up to 128 rows, and cuSOLVER, through torch, above. See :func:`selshare.kernels.left_svd`."""
    n, m = matrices.shape[1:]
    if n > cuda_library.LARGEST or matrices.numel() == 0:
        return reference.left_svd(matrices)
    if m <= WIDE * n:
        return cuda_library.solve("left_svd", matrices, (n, m), None)
    values, vectors, exponents = reduced(matrices)
    return torch.ldexp(values, exponents), vectors


def thin_svd(matrices: Tensor) -> tuple[Tensor, Tensor]:
    """Of ``matrices (N, m, n)``, ``n <= 128``: values ``(N, n)`` and left vectors ``(N, m, n)``, by turning columns.

    The vectors are orthonormal however small their values are; where a value is zero, so is its vector. Signs are
    not fixed.
    """
    count, m, n = matrices.shape
    rows = matrices.new_empty(count, n, m)
    values, _ = cuda_library.solve("left_svd", matrices.mT, (n, m), rows)
    return values, rows.mT


def reduced(matrices: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The same of ``L (n, n)``, where ``A = 2^e L Qᵀ``: ``L`` has the values, but for ``2^e``, and vectors of ``A``."""
    n = matrices.shape[1]
    _, exponents = torch.frexp(matrices.abs().amax(dim=(1, 2)))
    limit = 125 if matrices.dtype == torch.float32 else 1000
    exponents = exponents.clamp(-limit, limit)[:, None]
    scaled = torch.ldexp(matrices, -exponents[:, :, None])
    _, upper = torch.linalg.qr(scaled.mT, mode="r")
    return *cuda_library.solve("left_svd", upper.mT, (n, n), None), exponents
