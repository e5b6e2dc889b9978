"""The definition of :func:`selshare.kernels.left_svd`, in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor

from ..eigh.reference import fix_signs


def left_svd(matrices: Tensor) -> tuple[Tensor, Tensor]:
    """LAPACK or cuSOLVER through :func:`torch.linalg.svd`, padded, signs fixed."""
    count, n, m = matrices.shape
    if m == 0:
        return matrices.new_zeros(count, n), torch.eye(n).to(matrices).repeat(count, 1, 1)
    vectors, values, _ = torch.linalg.svd(matrices, full_matrices=m < n)
    return torch.nn.functional.pad(values, (0, n - values.shape[1])), fix_signs(vectors)
