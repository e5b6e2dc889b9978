"""Batch normalisation over the batch of all ranks, so that a split trunk does what a whole one would."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .ranks import Ranks


class GlobalBatchNorm:
    """Gives the batch normalisations of a module the statistics of all ranks' rows while they train.

    ``torch.nn.SyncBatchNorm`` does so on GPUs only, and puts other modules in place. Here the modules stay; running
    statistics become the same on every rank. Means and sums of squares are put together in float64 (Chan, Golub and
    LeVeque 1979), so the order of rows and ranks does not matter beyond rounding.
    """

    def __init__(self, module: nn.Module, ranks: Ranks) -> None:
        self._norms = [m for m in module.modules() if isinstance(m, _BatchNorm) and not isinstance(m, nn.SyncBatchNorm)]
        self._ranks = ranks

    def start(self) -> None:
        """From now on."""
        for norm in self._norms:
            norm.forward = partial(_forward, norm, self._ranks)  # type: ignore[method-assign]

    def stop(self) -> None:
        """Not any more."""
        for norm in self._norms:
            norm.__dict__.pop("forward", None)


def _forward(norm: _BatchNorm, ranks: Ranks, inputs: Tensor) -> Tensor:
    """One normalisation; the module's own in evaluation mode."""
    if not norm.training:
        return type(norm).forward(norm, inputs)
    norm._check_input_dim(inputs)
    mean, square, count = _statistics(inputs.detach(), ranks)
    if count < 2:
        raise ValueError(f"batch normalisation needs more than one value per channel; the batch has {count}.")
    if norm.running_mean is not None and norm.running_var is not None:
        norm.num_batches_tracked.add_(1)  # type: ignore[union-attr]  # it is there with the others
        kept = norm.momentum if norm.momentum is not None else 1.0 / float(norm.num_batches_tracked)  # type: ignore[arg-type]
        norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), kept)
        norm.running_var.lerp_((square / (count - 1)).to(norm.running_var.dtype), kept)
    scale = (square / count + norm.eps).rsqrt()
    normal: Tensor = _Normalise.apply(inputs, mean.to(inputs.dtype), scale.to(inputs.dtype), count, ranks)
    if not norm.affine:
        return normal
    return normal * _per_channel(norm.weight, inputs) + _per_channel(norm.bias, inputs)


def _statistics(inputs: Tensor, ranks: Ranks) -> tuple[Tensor, Tensor, int]:
    """Mean ``(C,)`` and sum of squared deviations ``(C,)`` of all ranks' values, float64, and how many there are."""
    values = inputs.double().transpose(0, 1).flatten(1)
    own = values.shape[1]
    mean = values.mean(1) if own else values.new_zeros(len(values))
    square = (values - mean.unsqueeze(1)).square().sum(1)
    told = torch.cat([mean, square, mean.new_tensor([own])]).unsqueeze(0)
    means, squares, counts = ranks.gather_rows(told, [1] * ranks.size, "batch statistics").split(
        [len(mean), len(mean), 1], 1
    )
    count = counts.sum()
    whole = (means * counts).sum(0) / count
    return whole, squares.sum(0) + ((means - whole).square() * counts).sum(0), int(count)


class _Normalise(torch.autograd.Function):
    """``(x − μ)·scale``, whose statistics depend on all ranks' rows."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, mean: Tensor, scale: Tensor, count: int, ranks: Ranks) -> Tensor:
        """Normalise."""
        normal = (inputs - _per_channel(mean, inputs)) * _per_channel(scale, inputs)
        ctx.save_for_backward(normal, scale)
        ctx.count, ctx.ranks = count, ranks
        return normal

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """The sums over rows are sums over ranks."""
        (gradient,) = gradients
        normal, scale = ctx.saved_tensors
        axes = [axis for axis in range(gradient.ndim) if axis != 1]
        sums = torch.stack([gradient.sum(axes), (gradient * normal).sum(axes)])
        plain, along = ctx.ranks.all_reduce(sums, "batch statistics") / ctx.count
        centred = gradient - _per_channel(plain, gradient) - normal * _per_channel(along, gradient)
        return centred * _per_channel(scale, gradient), None, None, None, None


def _per_channel(values: Tensor, inputs: Tensor) -> Tensor:
    """``(C,)`` against ``(B, C, …)``."""
    return values.view(1, -1, *[1] * (inputs.ndim - 2))
