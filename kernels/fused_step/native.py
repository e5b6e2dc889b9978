"""C++ (csrc/cpu/weight_gradient.cpp): capture and update consume six rows of the gradient from the innermost cache."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from selshare import _native

from ..stacked_linear.native import delta_numbers, input_numbers, sizes


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
    delta, shared = delta.to(weight.dtype), shared.to(weight.dtype)
    run = _native.fused_sgd_step_f32 if delta.dtype == torch.float32 else _native.fused_sgd_step_f64
    run(
        delta_numbers(delta),
        input_numbers(shared if shared.ndim == 3 else shared.unsqueeze(0), None, rectify),
        sizes(delta),
        (weight.data_ptr(), _address(momentum_buffer), _address(accumulator)),
        (scale, lr, momentum, dampening, weight_decay),
        nesterov,
        maximize,
        torch.get_num_threads(),
    )


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
    delta, shared = delta.to(weight.dtype), shared.to(weight.dtype)
    rate = lr / (1.0 - betas[0] ** step)
    root = 1.0 / math.sqrt(1.0 - betas[1] ** step)
    run = _native.fused_adam_step_f32 if delta.dtype == torch.float32 else _native.fused_adam_step_f64
    run(
        delta_numbers(delta),
        input_numbers(shared if shared.ndim == 3 else shared.unsqueeze(0), None, rectify),
        sizes(delta),
        (weight.data_ptr(), exp_avg.data_ptr(), exp_avg_sq.data_ptr(), _address(accumulator)),
        (scale, lr, *betas, eps, weight_decay, rate, root),
        decoupled,
        maximize,
        torch.get_num_threads(),
    )


def _address(tensor: Tensor | None) -> int:
    """Where a tensor lies; 0 for none."""
    return 0 if tensor is None else tensor.data_ptr()
