"""One tensor train for the stacked tensors of all branches: their embedding in a shared orthonormal basis."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from math import frexp, isfinite, prod

import torch
from torch import Tensor

from ..backend import register, select
from ..checks import require_finite, require_float, require_integer, require_integers, require_share, sums_of
from .result import JointTensorTrain

__all__ = ["JointTensorTrain", "joint_tt_svd"]

register("joint_tt_svd", __name__, ("triton", "blocked", "reference"))

# Magnitudes whose squares, and sums of squares, neither overflow nor vanish: 2^-n to 2^n.
_SAFE_EXPONENT = {torch.float32: 32, torch.float64: 400}
# A sum of squares in between this and its inverse says that they are so, in one cheap pass.
_SAFE_SQUARES = {torch.float32: 2.0**-50, torch.float64: 2.0**-700}
_LARGEST_SHIFT = {torch.float32: 126, torch.float64: 1022}


@torch.no_grad()
def joint_tt_svd(
    tensors: Tensor,
    modes: Sequence[int],
    *,
    max_rank: int | Sequence[int] | None = None,
    relative_error: float = 1e-2,
) -> JointTensorTrain:
    """Factorise G tensors together: a tensor train of the stack ``(G, n₁, …, n_d)``, branch mode first.

    The result is ``tensors[g] ≈ embedding[g] · basis``, the basis a tensor train with orthonormal rows ``B (r, N)``,
    N = n₁·…·n_d. (Known: TT-SVD, Oseledets 2011, of each gradient. *Ours*: of all together, so that rows can be
    compared.)

    Parameters
    ----------
    tensors
        ``(G, N)`` or ``(G, …)`` with N values per branch, float32 or float64; any strides.
        float16 and bfloat16 are copied to float32 first.
    modes
        ``(n₁, …, n_d)`` with product N. One mode is an SVD of the stack, without inner ranks.
    max_rank
        An integer caps the branch rank r, the embedding's width. A sequence caps ``(r, r₁, …, r_{d−1})``.
    relative_error
        Largest error of the stack, in the Frobenius norm, as a part of the stack's norm. 0 means working precision.
        The ranks are the smallest that TT-SVD finds for it, or one or two more where a rank is small beside both
        sides of a large matrix. Where ``max_rank`` is reached first the error is larger:
        :attr:`JointTensorTrain.relative_error_bound` tells.

    Returns
    -------
    JointTensorTrain
        ``embedding (G, r)``, ``cores``, and error bounds.

    Notes
    -----
    *Error.* Each of the d truncations drops at most ``relative_error·‖A‖/√d`` of the stack A, and what they drop is
    orthogonal, so ``‖A − A·BᵀB‖ ≤ relative_error·‖A‖`` (Oseledets 2011, theorem 2.2; projecting A itself on the
    basis found can only lower it).

    *Distances.* The embedding is ``A·Bᵀ``, an orthogonal projection of every row in one basis. So with the true
    distance ``D`` of two tensors, the distance ``E`` of their embedding rows, and ρ the ``residuals``, by Pythagoras
    ``E² ≤ D² ≤ E² + min((ρ_i + ρ_j)², 2·error_bound²)``, up to rounding: the second because
    ``‖R[i] − R[j]‖ ≤ √2·‖R‖₂`` for ``R = A − A·BᵀB``. Also ``‖embedding[i]‖² + ρ_i² = ‖A[i]‖²`` before rounding.

    *Cost.* At a rank r well below G and N about ``10·G·N·r`` flops, in products with the stack; otherwise ``G²·N`` in
    float64 and an eigenvalue problem of the shorter side. Noise keeps the ranks of many gradients near full: with
    thousands of branches give ``max_rank``, and one mode where only the embedding is wanted, as the cores of several
    modes then cost more than the rest.

    A branch of zeros embeds to zeros. A stack of zeros has rank 1. Scaling the stack scales the embedding.

    Raises
    ------
    TypeError
        For a dtype that is not a floating-point one, or modes, ranks or an error that are no numbers.
    ValueError
        For no branches, modes that do not multiply to N, a rank below 1, a relative error outside [0, 1), or NaN or
        Inf in a branch, which is named.
    """
    require_float(tensors, "tensors", halves=True)
    sides = require_integers(modes, "modes", at_least=1)
    stack = _stacked(tensors, sides)
    caps = _caps(max_rank, len(sides))
    relative_error = require_share(relative_error, "relative_error")
    shift = _shift(stack)
    if shift:
        stack = stack * 2.0**-shift
    result: JointTensorTrain = select("joint_tt_svd", stack.device)(
        stack, sides, max_rank=caps, relative_error=relative_error
    )
    if shift:
        back = 2.0**shift
        return replace(
            result, embedding=result.embedding * back, residuals=result.residuals * back, norm=result.norm * back
        )
    return result


def _stacked(tensors: Tensor, modes: tuple[int, ...]) -> Tensor:
    """``tensors`` as a contiguous matrix ``(G, N)``."""
    if tensors.ndim < 2 or len(tensors) == 0:
        raise ValueError(
            f"tensors must be (G, n₁·…·n_d) with at least one branch; the shape is {tuple(tensors.shape)}."
        )
    values = prod(tensors.shape[1:])
    if prod(modes) != values:
        raise ValueError(
            f"modes {modes} multiply to {prod(modes)}, but each branch of tensors {tuple(tensors.shape)} holds "
            f"{values} values; pad them with zeros (fold_gradients does) or give other modes."
        )
    return tensors.detach().to(sums_of(tensors.dtype)).reshape(len(tensors), values).contiguous()


def _caps(max_rank: int | Sequence[int] | None, dimensions: int) -> tuple[int, ...]:
    """One cap per rank; what has none gets one beyond any size."""
    none = torch.iinfo(torch.int64).max
    if isinstance(max_rank, Iterable):
        caps = require_integers(max_rank, "max_rank", at_least=1)
        if len(caps) != dimensions:
            raise ValueError(f"max_rank must be one number, or {dimensions} for these modes; it holds {len(caps)}.")
    else:
        first = none if max_rank is None else require_integer(max_rank, "max_rank", at_least=1)
        caps = (first, *(none,) * (dimensions - 1))
    return tuple(min(cap, none) for cap in caps)


def _shift(stack: Tensor) -> int:
    """The power of two to divide by so that sums of squares are safe; 0 where they are. Checks for NaN and Inf."""
    values = stack.reshape(-1)
    square = float(torch.dot(values, values))
    if _SAFE_SQUARES[stack.dtype] < square < 1 / _SAFE_SQUARES[stack.dtype]:
        return 0
    lowest, highest = (float(value) for value in torch.aminmax(stack))
    largest = max(-lowest, highest)
    if not (isfinite(lowest) and isfinite(highest)):
        require_finite(stack, "tensors")
    exponent = frexp(largest)[1]
    if largest == 0 or abs(exponent) <= _SAFE_EXPONENT[stack.dtype]:
        return 0
    limit = _LARGEST_SHIFT[stack.dtype]
    return max(-limit, min(limit, exponent))
