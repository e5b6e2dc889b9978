"""Models that are to be the same on every rank: made so, and checked."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..model import MultiTaskModel
from .ranks import Ranks

_VIEWS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@torch.no_grad()
def make_alike(model: nn.Module, ranks: Ranks) -> None:
    """Give every rank rank 0's parameters and buffers.

    Raises
    ------
    ValueError
        If the ranks' modules differ in their tensors' names, shapes or dtypes, or in their tasks.
    """
    tensors = _tensors(model)
    form = [(name, tuple(tensor.shape), str(tensor.dtype)) for name, tensor in tensors.items()]
    tasks = model.layout.names if isinstance(model, MultiTaskModel) else None
    require_same((tasks, form), ranks, "models", "build the same model on every rank")
    for tensor in tensors.values():
        ranks.broadcast(tensor, "initial weights")
    if isinstance(model, MultiTaskModel):
        model.reassign(model.assignment.clone())


def require_same(value: object, ranks: Ranks, what: str, advice: str) -> None:
    """Raise ``ValueError`` unless every rank has an equal value."""
    told = ranks.hear(value, what)
    different = [rank for rank, other in enumerate(told) if other != told[0]]
    if different:
        raise ValueError(f"the {what} of rank 0 and rank {different[0]} differ; {advice}.")


@torch.no_grad()
def check_alike(model: nn.Module, ranks: Ranks) -> None:
    """Raise ``RuntimeError`` that names the first tensor that is not the same to the bit on every rank.

    By the sums of the tensors' bits, read as integers: one pass over the model, 16 bytes a tensor sent.
    """
    tensors = _tensors(model)
    if not tensors:
        return
    sums = torch.stack([_sum_of_bits(tensor) for tensor in tensors.values()]).cpu()
    spread = ranks.largest(torch.stack([sums, -sums]), "check that weights are the same").sum(0)
    if bool(spread.any()):
        name = list(tensors)[int(spread.nonzero()[0, 0])]
        raise RuntimeError(
            f"{name} is no longer the same on every rank; something changed it on one rank alone (a random draw, a "
            "callback, a buffer of the trunk that depends on its rows)."
        )


def _sum_of_bits(tensor: Tensor) -> Tensor:
    """A whole number that another tensor of this shape hardly has."""
    bits = tensor.detach().contiguous().view(_VIEWS[tensor.element_size()])
    return bits.sum(dtype=torch.int64)


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    """All parameters and buffers that are saved, by name."""
    return {name: tensor for name, tensor in model.state_dict(keep_vars=True).items() if isinstance(tensor, Tensor)}
