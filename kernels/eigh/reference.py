"""The definition of :func:`selshare.kernels.batched_eigh`, in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor


def batched_eigh(matrices: Tensor) -> tuple[Tensor, Tensor]:
    """LAPACK through :func:`torch.linalg.eigh`, in descending order, signs fixed."""
    values, vectors = torch.linalg.eigh(matrices)
    return values.flip(-1), fix_signs(vectors.flip(-1))


def fix_signs(vectors: Tensor) -> Tensor:
    """Flip columns ``(..., n, k)`` so that the entry of largest magnitude, the first such, is positive."""
    if vectors.numel() == 0:
        return vectors
    largest = vectors.gather(-2, vectors.abs().argmax(dim=-2, keepdim=True))
    return torch.where(largest < 0, -vectors, vectors)
