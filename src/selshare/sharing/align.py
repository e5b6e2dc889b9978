"""Align the hidden units of branches before their weights are combined.

*Ours* (the paper takes the mean as it is): the order of hidden units means nothing, so unit 3 of one branch need not
do what unit 3 of another does, and the mean of the two does neither. Units are matched by how alike they respond,
one assignment problem per layer, and reordered, which does not change what a branch computes but for the order of
its features.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from ..model import BranchBank
from .plan import MergePlan


def check_alignable(bank: BranchBank) -> None:
    """Raise ``ValueError`` unless the branches are stacks of Linear, activation and dropout layers."""
    if bank._plain_layers() is None:
        raise ValueError(
            "merge='mean', 'max' and 'min' with refit_heads align hidden units, which needs branches that are "
            "nn.Sequential of Linear, activation and dropout layers; use merge='best', or refit_heads=False."
        )


@torch.no_grad()
def align(plan: MergePlan, bank: BranchBank, shared: Tensor, optimizers: Sequence[torch.optim.Optimizer] = ()) -> None:
    """Reorder the hidden units of every group's branches, in place, to match their survivor's.

    For each layer the permutation that maximises the summed correlation of matched units' responses on ``shared
    (N, H)`` (before the activation), by the Hungarian method: O(width³) a branch and layer. The optimizers' state
    moves with the units. The order of a branch's features changes with the last layer: refit its heads afterwards.

    Raises
    ------
    ValueError
        If the branches are not stacks of Linear and elementwise layers.
    """
    check_alignable(bank)
    linears = [layer for layer in bank._plain_layers() or () if isinstance(layer, nn.Linear)]
    responses = _responses(bank, linears, shared)
    for group, survivor in zip(plan.groups, plan.survivors, strict=True):
        for branch in group:
            if branch != survivor:
                orders = [_matched(response[survivor], response[branch]) for response in responses]
                _reorder(linears, branch, orders, optimizers)


def _responses(bank: BranchBank, linears: Sequence[nn.Linear], shared: Tensor) -> list[Tensor]:
    """The standardised outputs of every linear layer, ``(G, N, O)`` each; the bank's mode is put back after."""
    found: list[Tensor] = []
    features = shared.unsqueeze(0).expand(bank.branches, *shared.shape)
    for layer in bank._plain_layers() or ():
        if isinstance(layer, nn.Linear):
            features = torch.einsum("gni,goi->gno", features, layer.weight)
            features = features if layer.bias is None else features + layer.bias.unsqueeze(1)
            centred = (features - features.mean(1, keepdim=True)).double()
            found.append(centred / torch.linalg.vector_norm(centred, dim=1, keepdim=True).clamp(min=1e-300))
        elif not isinstance(layer, nn.Dropout):
            features = layer(features)
    assert len(found) == len(linears)
    return found


def _matched(target: Tensor, own: Tensor) -> Tensor:
    """For each unit of ``target (N, O)`` the unit of ``own`` that goes in its place, ``(O,)``."""
    _, order = linear_sum_assignment((target.mT @ own).cpu().numpy(), maximize=True)
    return torch.as_tensor(order, dtype=torch.int64, device=own.device)


def _reorder(
    linears: Sequence[nn.Linear], branch: int, orders: Sequence[Tensor], optimizers: Sequence[torch.optim.Optimizer]
) -> None:
    """Permute the rows of each layer of one branch, the columns of the next, and the state of both."""
    before: Tensor | None = None
    for layer, order in zip(linears, orders, strict=True):
        for parameter in layer.parameters():
            states = [v for optimizer in optimizers for v in optimizer.state.get(parameter, {}).values()]
            alike = [v for v in states if isinstance(v, Tensor) and v.shape == parameter.shape]
            for tensor in (parameter, *alike):
                rows = tensor[branch][order]
                tensor[branch] = rows if before is None or parameter is not layer.weight else rows[:, before]
        before = order
