"""The definitions, in plain torch: form the gradient of the whole bank, capture it, then update."""

from __future__ import annotations

import math

from torch import Tensor


def fused_sgd_step(
    delta: Tensor,
    shared: Tensor,
    weight: Tensor,
    momentum_buffer: Tensor | None,
    accumulator: Tensor | None,
    *,
    lr: float,
    momentum: float,
    weight_decay: float,
    dampening: float,
    nesterov: bool,
    maximize: bool,
    scale: float,
    rectify: bool,
) -> None:
    """See :func:`selshare.kernels.fused_sgd_step`."""
    gradient = _gradient(delta.to(weight.dtype), shared.to(weight.dtype), rectify).mul_(scale)
    if accumulator is not None:
        accumulator.add_(gradient)
    direction = (-gradient if maximize else gradient).add_(weight, alpha=weight_decay)
    if momentum_buffer is not None:
        momentum_buffer.mul_(momentum).add_(direction, alpha=1.0 - dampening)
        direction = direction.add_(momentum_buffer, alpha=momentum) if nesterov else momentum_buffer
    weight.add_(direction, alpha=-lr)


def fused_adam_step(
    delta: Tensor,
    shared: Tensor,
    weight: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    accumulator: Tensor | None,
    *,
    step: int | Tensor,
    lr: float | Tensor,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
    decoupled: bool,
    maximize: bool,
    scale: float,
    rectify: bool,
) -> None:
    """See :func:`selshare.kernels.fused_adam_step`."""
    step, lr = int(step), float(lr)
    gradient = _gradient(delta.to(weight.dtype), shared.to(weight.dtype), rectify).mul_(scale)
    if accumulator is not None:
        accumulator.add_(gradient)
    if maximize:
        gradient.neg_()
    if decoupled:
        weight.mul_(1.0 - lr * weight_decay)
    else:
        gradient.add_(weight, alpha=weight_decay)
    first, second = betas
    exp_avg.lerp_(gradient, 1.0 - first)
    exp_avg_sq.mul_(second).addcmul_(gradient, gradient, value=1.0 - second)
    denominator = (exp_avg_sq.sqrt() / math.sqrt(1.0 - second**step)).add_(eps)
    weight.addcdiv_(exp_avg, denominator, value=-lr / (1.0 - first**step))


def _gradient(delta: Tensor, shared: Tensor, rectify: bool) -> Tensor:
    """``δᵀA`` of every branch, ``(G, O, H)``."""
    return delta.transpose(1, 2) @ (shared.relu() if rectify else shared)
