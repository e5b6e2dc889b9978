"""Triton: capture and update consume the gradient in registers (see :mod:`selshare.kernels.gradient_tile`)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ..gradient_tile import gradient_launch


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
    gradient_launch(
        delta,
        shared,
        accumulator,
        scale=scale,
        rectify=rectify,
        weight=weight,
        first=momentum_buffer,
        rule="nesterov" if nesterov else "sgd",
        sign=-1.0 if maximize else 1.0,
        lr=lr,
        weight_decay=weight_decay,
        momentum=momentum,
        keep=1.0 - dampening,
    ).run()


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
    if not isinstance(step, Tensor) or step.device != weight.device:
        step, lr = int(step), float(lr)
    numbers = adam_numbers(step, lr, betas, weight_decay if decoupled else 0.0)
    gradient_launch(
        delta,
        shared,
        accumulator,
        scale=scale,
        rectify=rectify,
        weight=weight,
        first=exp_avg,
        second=exp_avg_sq,
        rule="adam",
        sign=-1.0 if maximize else 1.0,
        weight_decay=0.0 if decoupled else weight_decay,
        keep=1.0 - betas[0],
        beta2=betas[1],
        keep2=1.0 - betas[1],
        eps=eps,
        **numbers,
    ).run()


def adam_numbers(step: int | Tensor, lr: float | Tensor, betas: tuple[float, float], decay: float) -> dict[str, Any]:
    """What depends on ``step`` and ``lr``: numbers, or ``corrections`` on the device of a tensor ``step``."""
    if not isinstance(step, Tensor):
        rate = float(lr)
        return {
            "lr": rate / (1.0 - betas[0] ** step),
            "root": math.sqrt(1.0 - betas[1] ** step),
            "shrink": 1.0 - rate * decay,
        }
    counted = step.detach().double().reshape(())
    by = lr.detach().double().reshape(()) if isinstance(lr, Tensor) else torch.full_like(counted, lr)
    first, second = 1.0 - betas[0] ** counted, 1.0 - betas[1] ** counted
    return {"corrections": torch.stack([by / first, second.sqrt(), 1.0 - by * decay])}
