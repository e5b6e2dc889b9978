"""How many singular values a step keeps; the same rule for every implementation."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

RESOLUTION = {torch.float32: 2.0**-22, torch.float64: 2.0**-47}
"""Relative to the tensor's norm: what a step may always discard, as it is no more than rounding noise of the input
(float32) or of the decomposition (float64)."""


def allowed_share(modes: int, relative_error: float, dtype: torch.dtype) -> float:
    """The norm that each of the ``modes - 1`` steps may discard, relative to the tensor's norm."""
    return max(relative_error / math.sqrt(max(1, modes - 1)), RESOLUTION[dtype])


def rank_caps(modes: Sequence[int], max_rank: int) -> list[int]:
    """The largest rank that each of the ``d - 1`` bonds can have."""
    caps, rank = [], 1
    for k in range(1, len(modes)):
        rank = min(max_rank, rank * modes[k - 1], math.prod(modes[k:]))
        caps.append(rank)
    return caps


def kept_ranks(squares: Tensor, allowed: Tensor, max_rank: int) -> Tensor:
    """The fewest leading singular values, at least one, whose tail has a norm of at most ``allowed``, or ``max_rank``.

    ``squares (G, q)`` are the squared singular values in descending order, ``allowed (G,)``; returns int64 ``(G,)``.
    """
    tails = squares.flip(1).cumsum(1).flip(1).sqrt()
    return (tails > allowed[:, None]).sum(dim=1).clamp(1, max_rank)
