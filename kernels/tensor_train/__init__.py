"""Tensor trains of many tensors at once: one tensor per branch.

A tensor of modes ``n₁ × … × n_d`` is written as ``T(i₁, …, i_d) = G₁(i₁) G₂(i₂) … G_d(i_d)``, where ``G_k(i_k)`` is an
``r_{k-1} × r_k`` matrix and ``r_0 = r_d = 1`` (I. V. Oseledets, Tensor-Train Decomposition, SIAM J. Sci. Comput. 33(5),
2295-2317, 2011). The paper of selective sharing compresses the captured gradients this way, branch by branch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from ..backend import register, select
from ..checks import require_float, require_integer, require_integers, require_share
from .train import TensorTrain

__all__ = ["TensorTrain", "tt_svd"]

register("tt_svd", __name__, ("triton", "native", "cuda", "reference"))


def tt_svd(
    tensors: Tensor, modes: Sequence[int], *, max_rank: int | None = None, relative_error: float = 0.0
) -> TensorTrain:
    """Factorise each tensor of a batch into a tensor train (Oseledets 2011, algorithm 1), from the first mode on.

    Step ``k`` unfolds what is left to ``r_{k-1}·n_k`` rows and keeps the fewest left singular vectors whose discarded
    singular values have a norm of at most ``δ = max(relative_error / √(d-1), resolution) · ‖T‖``, or ``max_rank`` of
    them. ``resolution`` is 2⁻²² for float32 and 2⁻⁴⁷ for float64 input: what lies below is rounding noise. Hence
    (theorem 2.2), where ``max_rank`` does not bind, ``‖T - T̂‖ <= max(relative_error, √(d-1)·resolution) · ‖T‖``;
    with it, the error is at most ``√(d-1)`` times that of the best approximation of these ranks (corollary 2.4).

    The cut-offs are relative to each tensor, so its scale does not matter, and each element of a batch equals its own
    single run. The result is not part of an autograd graph.

    Parameters
    ----------
    tensors
        ``(G, n₁·…·n_d)`` or ``(G, n₁, …, n_d)``, float32 or float64, any strides. ``G`` may be 0. float16 and bfloat16
        tensors are taken for the float32 tensors of their values.
    modes
        ``(n₁, …, n_d)``, ``d >= 1``, each at least 1.
    max_rank
        The largest rank allowed, at least 1.
    relative_error
        The error allowed, relative to each tensor's norm; in ``[0, 1)``.

    Returns
    -------
    TensorTrain
        Cores of the input's dtype (float32 for half precision), left-orthogonal except the last; of each column of an
        unfolded left core the entry of largest magnitude (the first such) is positive. A zero tensor has ranks 1 and a
        zero last core.

    Raises
    ------
    TypeError
        If the dtype is not a floating-point one, or modes, rank or error are no numbers.
    ValueError
        If shape, modes, rank or error do not fit, or a tensor holds NaN or Inf: the message names the first branch.
    """
    require_float(tensors, "tensors", halves=True)
    modes = _checked_modes(tensors, modes)
    if max_rank is not None:
        max_rank = require_integer(max_rank, "max_rank", at_least=1)
    relative_error = require_share(relative_error, "relative_error")
    flat = tensors.detach().reshape(len(tensors), math.prod(modes))
    limit = min(max_rank or flat.shape[1], flat.shape[1])
    train: TensorTrain = select("tt_svd", tensors.device)(flat, modes, max_rank=limit, relative_error=relative_error)
    return train


def _checked_modes(tensors: Tensor, modes: Sequence[int]) -> tuple[int, ...]:
    """``modes`` as a tuple, if they are the shape of each tensor or split its one dimension."""
    modes = require_integers(modes, "modes", at_least=1)
    shape = tuple(tensors.shape)
    if shape[1:] != modes and shape[1:] != (math.prod(modes),):
        raise ValueError(
            f"tensors must have shape (G, {math.prod(modes)}) or (G, {', '.join(map(str, modes))}) for modes {modes}; "
            f"they have shape {shape}."
        )
    return modes
