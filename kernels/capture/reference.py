"""The definition, in plain torch: forms the gradient of the whole bank, then adds it."""

from __future__ import annotations

from torch import Tensor


def capture_gradients(delta: Tensor, shared: Tensor, accumulator: Tensor, *, scale: float) -> None:
    """``accumulator[g, o, h] += scale · Σ_b delta[g, b, o] · shared[b, h]``."""
    dtype = accumulator.dtype
    accumulator.add_(delta.to(dtype).transpose(1, 2) @ shared.to(dtype), alpha=scale)
