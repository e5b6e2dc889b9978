"""Singular values and left singular vectors of many small matrices at once."""

from __future__ import annotations

from torch import Tensor

from ..backend import register, select
from ..checks import require_dimensions, require_finite, require_float

__all__ = ["left_svd"]

register("left_svd", __name__, ("cuda", "reference"))


def left_svd(matrices: Tensor) -> tuple[Tensor, Tensor]:
    """Singular values and all left singular vectors of a batch of matrices, ``A = U diag(values) Zᵀ``.

    This is what a step of a tensor train needs: ``UᵀA`` is the rest. Accurate to working precision relative to the
    norm of each matrix, whatever its scale or rank: the eigenvalues of ``AAᵀ`` would lose half of the digits.
    O(n²·(n + m)) per matrix. The result is not part of an autograd graph.

    Parameters
    ----------
    matrices
        ``(N, n, m)``, float32 or float64. ``N``, ``n`` and ``m`` may be 0.

    Returns
    -------
    values
        ``(N, n)`` in descending order; zeros follow the first ``m`` where ``m < n``.
    vectors
        ``(N, n, n)``, orthogonal: column ``j`` belongs to ``values[:, j]``. Of each column the entry of largest
        magnitude (the first such) is positive.

    Raises
    ------
    TypeError
        If the dtype is neither float32 nor float64.
    ValueError
        If the shape is not ``(N, n, m)``, or a matrix holds NaN or Inf: the message names the first one.
    """
    require_float(matrices, "matrices")
    require_dimensions(matrices, "(N, n, m)", "matrices")
    require_finite(matrices, "matrices", row="matrix")
    values, vectors = select("left_svd", matrices.device)(matrices.detach())
    return values, vectors
