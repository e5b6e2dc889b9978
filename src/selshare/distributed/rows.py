"""Rows of a batch, split over ranks and put together again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .ranks import Ranks

Targets = Mapping[str, Tensor] | Tensor


def split_evenly(count: int, parts: int) -> tuple[int, ...]:
    """``count`` things in ``parts`` contiguous parts: their sizes, which differ by at most one, the larger first."""
    whole, rest = divmod(count, parts)
    return tuple(whole + (part < rest) for part in range(parts))


def own_rows(sizes: Sequence[int], rank: int) -> slice:
    """The rows of a rank."""
    start = sum(sizes[:rank])
    return slice(start, start + sizes[rank])


def take_targets(targets: Targets, rows: slice) -> Targets:
    """Some rows of targets in either form."""
    if isinstance(targets, Mapping):
        return {name: tensor[rows] for name, tensor in targets.items()}
    return targets[rows]


def gathered_rows(rows: Tensor, ranks: Ranks, sizes: Sequence[int], purpose: str) -> Tensor:
    """Every rank's rows on every rank, differentiable: each row's gradient is the sum of all ranks'."""
    gathered: Tensor = _GatherRows.apply(rows, ranks, sizes, purpose, True)
    return gathered


def gathered_alike(rows: Tensor, ranks: Ranks, sizes: Sequence[int], purpose: str) -> Tensor:
    """As :func:`gathered_rows` where every rank then computes the same: each row's gradient is taken as it is."""
    gathered: Tensor = _GatherRows.apply(rows, ranks, sizes, purpose, False)
    return gathered


class _GatherRows(torch.autograd.Function):
    """All-gather; backward, the own rows of the gradient, summed over ranks or not."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, ranks: Ranks, sizes: Sequence[int], purpose: str, summed: bool) -> Tensor:
        """Gather."""
        ctx.ranks, ctx.sizes, ctx.purpose, ctx.summed = ranks, sizes, purpose, summed
        return ranks.gather_rows(rows, sizes, purpose)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Each rank sends the rows of others and adds up what comes of its own, in the order of ranks."""
        (gradient,) = gradients
        ranks, sizes = ctx.ranks, ctx.sizes
        if not ctx.summed:
            return gradient[own_rows(sizes, ranks.rank)], None, None, None, None
        own = sizes[ranks.rank]
        parts = ranks.exchange(gradient, sizes, [own] * ranks.size, f"{ctx.purpose}, gradient")
        return parts.unflatten(0, (ranks.size, own)).sum(0), None, None, None, None
