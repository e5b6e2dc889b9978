"""The two products that tensor trains are made of, with float64 sums: Gram matrices and projections.

Used by the tensor-train operations, which have checked their input; not exported by :mod:`selshare.kernels`.
"""

from __future__ import annotations

from torch import Tensor

from ..backend import register, select

__all__ = ["gram_matrices", "project_matrices"]

register("gram_matrices", __name__, ("triton", "blocked", "reference"))
register("project_matrices", __name__, ("triton", "blocked", "reference"))


def gram_matrices(matrices: Tensor) -> Tensor:
    """``A·Aᵀ`` of each matrix of ``(N, m, n)``, any floating-point type and strides, as ``(N, m, m)`` float64.

    Products of float32, float16 and bfloat16 numbers are exact in float64 and so is all but ``n·2⁻⁵³ ‖a_i‖‖a_j‖`` of
    their sum. Hence (Weyl) every eigenvalue is off by at most ``n·2⁻⁵³ ‖A‖_F²``, and the roots resolve singular values
    down to about 1e-8 of the largest; those of a float32 Gram matrix would lose what is below 3e-4.
    """
    result: Tensor = select("gram_matrices", matrices.device)(matrices)
    return result


def project_matrices(basis: Tensor, matrices: Tensor) -> Tensor:
    """``Bᵀ·A`` for float64 ``B (N, m, r)`` and ``A (N, m, n)`` of any strides: ``(N, r, n)``, contiguous.

    Multiplied and summed in float64, rounded once to the dtype of A, or to float32 where that is half precision.
    """
    result: Tensor = select("project_matrices", matrices.device)(basis, matrices)
    return result
