"""The definition, in plain torch: projects the layer's input on all directions, then weighs them output by output."""

from __future__ import annotations

import torch
from torch import Tensor


def sketch_gradients(delta: Tensor, shared: Tensor, accumulator: Tensor, directions: Tensor, *, scale: float) -> None:
    """``accumulator[g, j·O + o] += scale · Σ_b delta[g, b, o] · ⟨directions[j·O + o], shared[b]⟩``."""
    dtype = accumulator.dtype
    projected = (shared.to(dtype) @ directions.T).reshape(len(shared), -1, delta.shape[2])
    accumulator.add_(torch.einsum("gbo,bjo->gjo", delta.to(dtype), projected).reshape(accumulator.shape), alpha=scale)
