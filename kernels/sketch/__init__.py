"""Sketched capture: what an epoch's gradients are to each other, kept in k numbers a branch."""

from __future__ import annotations

from torch import Tensor

from ..backend import register, select
from ..changes import mark_changed
from ..checks import require_dimensions, require_finite, require_float, require_number, require_tensor, sums_of
from .projection import SketchProjection

__all__ = ["SketchProjection", "sketch_gradients"]

register("sketch_gradients", __name__, ("triton", "native", "reference"))


def sketch_gradients(
    delta: Tensor,
    shared: Tensor,
    accumulator: Tensor,
    projection: SketchProjection,
    *,
    scale: float = 1.0,
    check_finite: bool = True,
) -> None:
    """In place: ``accumulator[g] += scale · sketch(delta[g]ᵀ shared)``, without forming the gradient ``δᵀA``.

    The sketch of a gradient ``M (O, H)`` projects each of its rows on q random sign vectors of its own:
    ``sketch(M)[j·O + o] = ⟨M[o], v_oj⟩``, ``v_oj ∈ {±1/√q}^H``. It is linear, so an epoch's sum of sketches is the
    sketch of the epoch's gradient, and because ``⟨M[o], v_oj⟩ = Σ_b δ[b, o]·⟨a_b, v_oj⟩`` the directions need meet
    only the batch's shared representation, once for all branches. Cost: ``2·B·H·k + 2·G·B·k`` flops and one read of
    ``delta``, against ``2·G·B·O·H`` and a pass over ``(G, O, H)`` for exact capture.

    Parameters
    ----------
    delta : (G, B, O), float32 or float64
        The derivative of the loss by the layer's output, branch by branch. Any strides. ``delta`` and ``shared`` may
        be float16 or bfloat16 beside a float32 accumulator and projection: products and sums are float32 then.
    shared : (B, H)
        The layer's input, one for all branches.
    accumulator : (G, k), contiguous, k = ``projection.size``
        The running sum; changed in place.
    projection : SketchProjection
        The directions; the same object, or an equal one, for as long as the accumulator runs.
    scale : float
        Factor of this batch.
    check_finite : bool
        Refuse NaN and Inf by the branch's name, at the price of one pass over ``delta`` and ``shared``.

    Notes
    -----
    *Known* (Achlioptas, JCSS 66, 2003, for each row; Park, Yap, Rozell and Wakin, IEEE TSP 59, 2011, for blocks):
    inner products are kept in expectation, ``E⟨sketch(M), sketch(M')⟩ = ⟨M, M'⟩``, and for the difference D of two
    gradients, with rows ``d_o``, the squared distance has the relative variance

        ``Var[‖sketch(D)‖²] / ‖D‖⁴ = (2/q)·Σ_o(‖d_o‖⁴ − ‖d_o‖₄⁴) / ‖D‖⁴  ≤  2 / (q·ρ)``,  ``ρ = ‖D‖⁴ / Σ_o ‖d_o‖⁴``.

    ρ lies between 1 (all of D in one row) and O (rows of equal norm): the relative error of a squared distance is
    between ``√(2/k)`` and ``√(2/q)`` in the root mean square. On the gradients of 200 planted tasks, layer 100 × 300,
    ρ is near 30 and k = 900 errs by 8 %.

    *Ours*: the choice. Gradients of one layer differ in little more than one rank-one term, and for such a
    difference a Kronecker sketch ``P δᵀA Q`` of k₁ × k₂ numbers errs by about ``√(2/k₁ + 2/k₂)``: 25 % at 30 × 30.
    Rank-one measurements ``uᵀMv`` and TensorSketch err by 6 %, at 100 and 14 times the arithmetic.
    ``benchmarks/bench_sketch.py`` measures all of them.

    Raises
    ------
    TypeError
        Where dtypes or devices do not fit, or ``scale`` is no number.
    ValueError
        Where shapes do not fit, ``scale`` is not finite, the accumulator is not contiguous, or (``check_finite``) an
        input holds NaN or Inf.
    """
    _require_shapes(delta, shared, accumulator, projection)
    scale = require_number(scale, "scale", accumulator.dtype)
    if check_finite:
        require_finite(delta, "delta")
        require_finite(shared, "shared", row="sample")
    if delta.numel() == 0:
        return
    select("sketch_gradients", delta.device)(
        delta.detach(), shared.detach(), accumulator.detach(), projection.directions, scale=scale
    )
    mark_changed(accumulator)


def _require_shapes(delta: Tensor, shared: Tensor, accumulator: Tensor, projection: SketchProjection) -> None:
    """Each tensor fits the projection and the others."""
    require_dimensions(delta, "(G, B, O)", "delta")
    require_dimensions(shared, "(B, H)", "shared")
    require_float(delta, "delta", halves=True)
    require_tensor(accumulator, "accumulator")
    if not isinstance(projection, SketchProjection):
        raise TypeError(f"projection must be a SketchProjection; it is a {type(projection).__name__}.")
    branches, samples, outputs = delta.shape
    if (outputs, shared.shape[1]) != (projection.outputs, projection.inputs):
        raise ValueError(
            f"delta and shared make gradients of shape {(outputs, shared.shape[1])}, but the projection is for "
            f"{(projection.outputs, projection.inputs)}; make one for this layer."
        )
    if len(shared) != samples:
        raise ValueError(f"delta is of {samples} samples and shared of {len(shared)}; pass those of the same batch.")
    if accumulator.shape != (branches, projection.size):
        raise ValueError(
            f"accumulator must have shape {(branches, projection.size)} (G, projection.size); it has shape "
            f"{tuple(accumulator.shape)}."
        )
    if not accumulator.is_contiguous():
        raise ValueError("accumulator is changed in place and must be contiguous; call .contiguous() on it first.")
    for name, tensor in {"shared": shared, "accumulator": accumulator, "projection": projection.directions}.items():
        wanted = delta.dtype if name == "shared" else sums_of(delta.dtype)
        if tensor.dtype != wanted or tensor.device != delta.device:
            raise TypeError(
                f"{name} is {tensor.dtype} on {tensor.device}, delta {delta.dtype} on {delta.device}; {name} must be "
                f"{wanted} there."
            )
