"""Capture: add a batch's gradients of all branches' first-layer weights to the epoch's running sum.

The gradient of branch g's weight is ``δ_gᵀ A`` (Strezoski et al., ICMR 2019, section 3.1): ``A (B, H)`` is what the
layer read and ``δ_g (B, O)`` the loss's derivative by what it gave out. One product of all branches is one GEMM of
``2·G·B·O·H`` flops; beside it the accumulator is read and written once.
"""

from __future__ import annotations

from torch import Tensor

from ..backend import register, select
from ..changes import mark_changed
from ..checks import require_finite, require_number
from .shapes import require_bank_shapes

__all__ = ["capture_gradients"]


def capture_gradients(
    delta: Tensor, shared: Tensor, accumulator: Tensor, *, scale: float = 1.0, check_finite: bool = True
) -> None:
    """In place: ``accumulator[g] += scale · delta[g]ᵀ shared``.

    Parameters
    ----------
    delta : (G, B, O), float32 or float64
        The derivative of the loss by the layer's output, branch by branch. Any strides. ``delta`` and ``shared`` may
        be float16 or bfloat16 beside a float32 accumulator: products and sums are float32 then.
    shared : (B, H) or (G, B, H)
        The layer's input: one for all branches, or one for each.
    accumulator : (G, O, H), contiguous
        The running sum; changed in place.
    scale : float
        Factor of this batch, e.g. one over the loss scale of mixed precision.
    check_finite : bool
        Refuse NaN and Inf by the branch's name, at the price of one pass over ``delta`` and ``shared``. Callers that
        have looked at the loss already may leave it out.

    Raises
    ------
    TypeError
        Where dtypes or devices do not fit, or ``scale`` is no number.
    ValueError
        Where shapes do not fit, ``scale`` is not finite, the accumulator is not contiguous, or (``check_finite``) an
        input holds NaN or Inf.
    """
    require_bank_shapes(delta, shared, {"accumulator": accumulator})
    scale = require_number(scale, "scale", accumulator.dtype)
    if check_finite:
        require_finite(delta, "delta")
        require_finite(shared, "shared", row="branch" if shared.ndim == 3 else "sample")
    if accumulator.numel() == 0:
        return
    select("capture_gradients", delta.device)(delta.detach(), shared.detach(), accumulator.detach(), scale=scale)
    mark_changed(accumulator)


register("capture_gradients", __name__, ("triton", "native", "reference"))
