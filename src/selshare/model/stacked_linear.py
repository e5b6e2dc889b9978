"""Linear layers of a bank and of its heads, with autograd.

On the CPU and on CUDA the products run in :mod:`selshare.kernels`, forward and backward, and a weight's gradient may
stay unformed (:mod:`.lazy_gradient`). Where tensors are not plain memory in float32 or float64, on other devices,
under ``torch.compile``, autocast or ``torch.func``, the same layers are plain torch operations. Both can be
differentiated twice.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..kernels import stacked_linear as run_layers
from ..kernels import stacked_linear_backward, weight_gradient
from ..kernels.checks import FLOATS
from ..kernels.stacked_linear import plain
from .lazy_gradient import Factors, LazyGradient, lazy_gradient_allowed

DEVICES = ("cpu", "cuda")
"""Whose tensors the kernels take."""


def fork_linear(shared: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The first layer: all branches read the same input.

    ``shared (B, H)``, ``weight (G, O, H)``, ``bias (G, O)`` → ``(G, B, O)``.
    """
    return stacked_linear(shared.unsqueeze(0), weight, bias)


def stacked_linear(
    features: Tensor, weight: Tensor, bias: Tensor | None, *, source: Tensor | None = None, rectify: bool = False
) -> Tensor:
    """A later layer, or heads: layer g reads ``features[source[g]]``, after a ReLU if ``rectify``.

    ``features (S, B, I)``, ``weight (G, O, I)``, ``bias (G, O)``, ``source (G,)`` → ``(G, B, O)``. Without ``source``
    layer g reads ``features[g]``. See :func:`selshare.kernels.stacked_linear`.
    """
    if not plain_memory(features, weight, bias):
        return plain.stacked_linear(features, weight, bias, source, rectify)
    outputs: Tensor = _StackedLinear.apply(features, weight, bias, source, rectify)
    return outputs


def plain_memory(*tensors: Tensor | None) -> bool:
    """Whether all tensors are float32 or all float64, in one device's memory, and nothing traces or wraps them."""
    if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
        return False
    present = [tensor for tensor in tensors if tensor is not None]
    dtype, device = present[0].dtype, present[0].device
    if dtype not in FLOATS or device.type not in DEVICES or torch.is_autocast_enabled(device.type):
        return False
    return all(tensor.dtype == dtype and tensor.device == device and has_memory(tensor) for tensor in present)


def has_memory(tensor: Tensor) -> bool:
    """Whether a tensor is an array in memory: not batched by vmap, not fake."""
    try:
        tensor.data_ptr()
    except RuntimeError:
        return False
    return True


class _StackedLinear(torch.autograd.Function):
    """The layers on the kernels of their device."""

    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor | None, source: Tensor | None, rectify: bool
    ) -> Tensor:
        """Keep inputs and weight: what autograd would keep, without the ReLU's result."""
        ctx.save_for_backward(inputs, weight, source)
        ctx.rectify = rectify
        # Unformed, a gradient keeps the layer's input alive until the step: no gain where that is the larger.
        ctx.lazy = weight.numel() >= inputs.numel() and lazy_gradient_allowed(weight)
        return run_layers(inputs, weight, bias, source=source, rectify=rectify)

    @staticmethod
    def backward(ctx: Any, *deltas: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None]:
        """By the kernels; in plain torch where this is to be differentiated again, or is batched by vmap."""
        (delta,) = deltas
        inputs, weight, source = ctx.saved_tensors
        wants_inputs, wants_weight, wants_bias = ctx.needs_input_grad[:3]
        if torch.is_grad_enabled() or not has_memory(delta):
            by_inputs, by_bias = plain.stacked_linear_backward(
                delta, inputs, weight, source, ctx.rectify, wants_inputs, wants_bias
            )
            by_weight = plain.weight_gradient(delta, inputs, source, ctx.rectify) if wants_weight else None
            return by_inputs, by_weight, by_bias, None, None
        by_inputs, by_bias = stacked_linear_backward(
            delta, inputs, weight, source=source, rectify=ctx.rectify, needs_inputs=wants_inputs, needs_bias=wants_bias
        )
        by_weight = None
        if wants_weight and ctx.lazy:
            by_weight = LazyGradient(Factors(delta.detach(), inputs.detach(), source, ctx.rectify))
        elif wants_weight:
            by_weight = weight_gradient(delta, inputs, source=source, rectify=ctx.rectify)
        return by_inputs, by_weight, by_bias, None, None
