"""Splitting layer widths into modes, so that a weight gradient becomes a tensor with many short sides."""

from __future__ import annotations

from math import isqrt

import torch
from torch import Tensor

from .checks import require_dimensions, require_integer

# A split (a, b) with b ≤ 2a counts as balanced.
_MOST_UNEVEN = 2


def balanced_modes(width: int) -> tuple[int, int]:
    """Two modes ``(a, b)`` with ``a ≤ b ≤ 2a`` and ``a·b ≥ width``, as few beyond ``width`` as possible.

    100 gives (10, 10) and 300 gives (15, 20). A width without such factors, a prime for example, takes those of the
    next width that has them (101 gives (8, 13), three zeros more). Of several splits of one width the most even one
    is taken. A width of 1 gives (1, 1).

    Raises
    ------
    ValueError
        If ``width`` is below 1.
    """
    padded = width = require_integer(width, "a layer's width", at_least=1)
    while True:
        for small in range(isqrt(padded), 0, -1):
            if padded > _MOST_UNEVEN * small * small:
                break
            if padded % small == 0:
                return small, padded // small
        padded += 1


def fold_gradients(gradients: Tensor) -> Tensor:
    """Weight gradients ``(G, O, H)`` as tensors ``(G, o₁, o₂, h₁, h₂)`` with the :func:`balanced_modes` of O and H.

    Outputs and inputs that padding adds are zeros at the end, which change no norm and no distance. A view where
    nothing is padded and the input is contiguous.

    Raises
    ------
    ValueError
        If ``gradients`` does not have three dimensions.
    """
    require_dimensions(gradients, "(G, O, H)", "gradients")
    branches, outputs, inputs = gradients.shape
    (o1, o2), (h1, h2) = balanced_modes(outputs), balanced_modes(inputs)
    if (o1 * o2, h1 * h2) != (outputs, inputs):
        gradients = torch.nn.functional.pad(gradients, (0, h1 * h2 - inputs, 0, o1 * o2 - outputs))
    return gradients.reshape(branches, o1, o2, h1, h2)
