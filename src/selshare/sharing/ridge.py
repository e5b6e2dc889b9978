"""The ridge of the closed-form fits at a merge."""

from __future__ import annotations

import torch
from torch import Tensor

RIDGE = 1e-4


def ridged_cholesky(gram: Tensor, ridge: float) -> Tensor:
    """Cholesky factor of ``gram (…, n, n)`` with ``ridge`` × its mean diagonal added to the diagonal, or 1.

    1 where the mean is 0. ``gram`` changes in place.
    """
    diagonal = gram.diagonal(dim1=-2, dim2=-1)
    scale = diagonal.mean(-1)
    diagonal.add_(torch.where(scale > 0, ridge * scale, 1.0).unsqueeze(-1))
    factor: Tensor = torch.linalg.cholesky(gram)
    return factor
