"""Eigenvalues and eigenvectors of many small symmetric matrices at once."""

from __future__ import annotations

from torch import Tensor

from ..backend import register, select
from ..checks import require_dimensions, require_finite, require_float

__all__ = ["batched_eigh"]

register("batched_eigh", __name__, ("native", "cuda", "reference"))


def batched_eigh(matrices: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues and eigenvectors of a batch of symmetric matrices, ``A = V diag(values) Vᵀ``.

    Accurate to working precision relative to the norm of each matrix, whatever its scale; zero, rank-deficient and
    repeated eigenvalues included. O(n³) per matrix. The result is not part of an autograd graph.

    Parameters
    ----------
    matrices
        ``(N, n, n)``, float32 or float64, symmetric: only the lower triangle is read. ``N`` and ``n`` may be 0.

    Returns
    -------
    values
        ``(N, n)`` in descending order.
    vectors
        ``(N, n, n)``: column ``j`` is the unit eigenvector of ``values[:, j]``. Of each column the entry of largest
        magnitude (the first such) is positive.

    Raises
    ------
    TypeError
        If the dtype is neither float32 nor float64.
    ValueError
        If the shape is not ``(N, n, n)``, or a matrix holds NaN or Inf: the message names the first one.

    """
    require_float(matrices, "matrices")
    require_dimensions(matrices, "(N, n, n)", "matrices")
    if matrices.shape[1] != matrices.shape[2]:
        raise ValueError(f"matrices must have shape (N, n, n); they have shape {tuple(matrices.shape)}.")
    require_finite(matrices, "matrices", row="matrix")
    values, vectors = select("batched_eigh", matrices.device)(matrices.detach())
    return values, vectors
