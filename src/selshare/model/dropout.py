"""Dropout of a bank's features, with autograd.

On the CPU torch draws a mask from a serial generator, one number after the other. Here each unit's fate is a function
of a key and of the unit's place (Philox4x32-10, in csrc/cpu/dropout.cpp), which vectors and threads compute side by
side, and which the backward computes again: no mask is kept.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..kernels import workspace
from ..kernels.backend import explain
from .stacked_linear import has_memory, plain_memory

LEVELS = 1 << 16
"""The rate of dropout is a multiple of one over this."""


def dropout(features: Tensor, p: float) -> Tensor:
    """Drop each unit with probability ``p`` and scale the others up, so that the mean stays: training's dropout.

    Compiled code does it for float32 and float64 on the CPU, wherever the bank's layers run in the compiled extension.
    Its rate is ``p`` rounded to a multiple of 2⁻¹⁶, and the scale is that rate's. ``torch.dropout`` does it on other
    devices and dtypes, under ``torch.compile``, autocast and ``torch.func``, without the extension or with another
    backend asked for, and where ``p`` is within 2⁻¹⁷ of 0 or 1. The two draw different units from one seed.

    Parameters
    ----------
    features
        Any shape. Strides are kept where they leave no gaps; a unit's place is that in memory.
    p
        In [0, 1].

    Returns
    -------
    Tensor
        A new tensor. A unit that is dropped is multiplied by 0, as torch does: NaN and Inf become NaN.

    Notes
    -----
    A call draws one number, the key, from torch's global generator of the CPU: seeds, saved random states and
    ``fork_rng`` hold for it. The result does not depend on the number of threads. Can be differentiated any number of
    times: the derivative is the same dropout of the gradient.
    """
    threshold = round(p * LEVELS)
    if not 0 < threshold < LEVELS or not plain_memory(features) or not _runs_compiled(features):
        return torch.dropout(features, p, train=True)
    key = int(torch.empty((), dtype=torch.int64, device="cpu").random_(-(2**63), None))
    strides = features.stride() if _without_gaps(features) else features.contiguous().stride()
    dropped: Tensor = _Dropout.apply(features, key % 2**64, threshold, strides)
    return dropped


def _runs_compiled(features: Tensor) -> bool:
    """Whether the bank's layers run in C++ where the features are."""
    if features.device.type != "cpu":
        return False
    chosen = explain("stacked_linear", "cpu").implementation
    return chosen is not None and chosen.backend == "native"


def _without_gaps(tensor: Tensor) -> bool:
    """Whether the entries fill a piece of memory, each once, in whatever order of dimensions."""
    step = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size != 1 and stride != step:
            return False
        step *= size
    return step > 0


def _masked(features: Tensor, key: int, threshold: int, strides: tuple[int, ...]) -> Tensor:
    """The kernel on ``features``, laid out in memory as ``strides`` say."""
    from .. import _native  # here, as it need not be there

    result = workspace.empty((features.numel(),), features).as_strided(features.shape, strides)
    if features.stride() != strides or features.is_neg():
        features = torch.empty_strided(features.shape, strides, dtype=features.dtype).copy_(features)
    run = _native.dropout_f32 if features.dtype == torch.float32 else _native.dropout_f64
    run(features.data_ptr(), result.data_ptr(), features.numel(), key, threshold, torch.get_num_threads())
    return result


class _Dropout(torch.autograd.Function):
    """Linear, and its own adjoint."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, key: int, threshold: int, strides: tuple[int, ...]) -> Tensor:
        """Keep what the mask follows from."""
        ctx.mask = key, threshold, strides
        return _masked(features, key, threshold, strides)

    @staticmethod
    def backward(ctx: Any, *deltas: Tensor) -> tuple[Tensor, None, None, None]:
        """The same on the gradient; by a mask where vmap batches it."""
        (delta,) = deltas
        if torch._C._are_functorch_transforms_active() or not has_memory(delta):
            mask = _masked(torch.ones(delta.shape, dtype=delta.dtype, device="cpu"), *ctx.mask)
            return delta * mask, None, None, None
        gradient: Tensor = _Dropout.apply(delta, *ctx.mask)
        return gradient, None, None, None
