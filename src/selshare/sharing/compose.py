"""Compose a merged branch of its group's own hidden units, so that as little as possible is lost of what they compute.

*Ours* (the paper keeps the branch with the lowest loss as it is): a branch has learned features for its own tasks, and
a head that is refitted on another's must make do with these; it comes out many times as long and still loses much of
its outputs. But all branches read the same shared representation. A unit of a first layer therefore computes the same
in whichever branch it stands, and what a later unit made of its own branch's units can be fitted from those of others.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..model import BranchBank
from .plan import MergePlan
from .ridge import RIDGE, ridged_cholesky

UNITS = 2**12  # of a layer to choose from: their inner products take 64 MB in float32
FLOOR = {torch.float32: 1e-5, torch.float64: 1e-10}  # of a column's squared length, below which it counts as spanned


def can_compose(bank: BranchBank, shared: Tensor) -> bool:
    """Whether the branches are stacks of Linear, activation and dropout layers on vectors: the kind that has units."""
    return shared.ndim == 2 and bank._plain_layers() is not None


@torch.no_grad()
def compose(
    plan: MergePlan, bank: BranchBank, shared: Tensor, outputs: Sequence[Tensor], *, ridge: float = RIDGE
) -> None:
    """Give every group's survivor units of all the group's branches, in place; other branches keep all they have.

    From the last layer down, units are chosen: of the last layer those that express the group's ``outputs`` best, of
    each layer before it those that express the inputs of the units chosen above it best (:func:`choose`). Then, from
    the first layer up, weights are set: a unit of the first layer keeps its own; the weights of a later one are
    fitted by ridge regression so that it receives from the units below it what it received in its own branch. Widths
    stay as they are. The order of a branch's features has no meaning afterwards: refit its heads.

    Exact, up to the ridge, where no layer of the group has more units that respond differently than the layer is
    wide; what a greedy choice finds where it has. Of a group whose layers have more than 4,096 units, only as many
    branches lend units as make so many, the survivor among them. O(N · units²) a layer and group; the choice is in
    the branches' precision, the fit in float64.

    Parameters
    ----------
    plan
        For as many branches as the bank has.
    bank
        One for which :func:`can_compose` holds.
    shared
        ``(N, H)`` samples of the shared representation.
    outputs
        For each group what its heads give on ``shared``, ``(N, columns)``. Every column counts alike.
    ridge
        Relative to the mean variance of the units below, above 0.
    """
    layers = list(bank._plain_layers() or ())
    linears = [layer for layer in layers if isinstance(layer, nn.Linear)]
    most = max(2, UNITS // max(int(layer.weight.shape[1]) for layer in linears))
    for group, survivor, wanted in zip(plan.groups, plan.survivors, outputs, strict=True):
        lenders = torch.tensor(_lenders(group, survivor, most), device=shared.device)
        inputs, units = _responses(layers, shared, lenders)
        goal = _centred(wanted.double())
        goal = goal / torch.linalg.vector_norm(goal, dim=0).clamp(min=1e-300)
        chosen = []
        for into, out in zip(reversed(inputs), reversed(units), strict=True):
            chosen.append(choose(out, goal, out.shape[1] // len(lenders)))
            goal = _centred(into[:, chosen[-1]])
        _write(layers, survivor, lenders, shared, inputs, chosen[::-1], ridge)


def choose(candidates: Tensor, goal: Tensor, count: int) -> Tensor:
    """Greedily, ``count`` columns of ``candidates (N, M)`` whose span is nearest to ``goal (N, q)``, ``(count,)``.

    Each is the column that, with those chosen before and a constant, leaves the least of the centred ``goal`` in the
    sense of least squares: simultaneous orthogonal matching pursuit (Tropp, Gilbert, Strauss, 2006), the gain of a
    column taken exactly. No column twice; ties go to the first. The steps are those of a Cholesky factorisation of
    the columns' inner products whose pivots are the choices: O(N · M² + M · count²), in the dtype of ``candidates``.
    """
    columns, goal = _centred(candidates), _centred(goal.to(candidates.dtype))
    gram, cross = columns.mT @ columns, columns.mT @ goal
    left = gram.diagonal().clone()  # squared length of each column outside the span of those chosen
    floor = FLOOR[candidates.dtype] * left.max()
    factor = columns.new_zeros(count, len(left))
    taken = torch.zeros_like(left, dtype=torch.bool)
    chosen: list[int] = []
    for step in range(count):
        usable = left > floor
        gain = torch.where(usable, cross.square().sum(1) / torch.where(usable, left, 1.0), -1.0)
        best = int(gain.masked_fill_(taken, -2.0).argmax())
        chosen.append(best)
        taken[best] = True
        if not usable[best]:
            continue
        length = left[best].sqrt()
        along = (gram[best] - factor[:step, best] @ factor[:step]) / length
        factor[step] = along
        cross -= torch.outer(along, cross[best] / length)
        left -= along.square()
    return torch.tensor(chosen, device=candidates.device)


def _lenders(group: Sequence[int], survivor: int, most: int) -> list[int]:
    """The branches that lend units: all, or the survivor and others evenly spaced."""
    if len(group) <= most:
        return list(group)
    others = [branch for branch in group if branch != survivor]
    return sorted([survivor, *(others[place * len(others) // (most - 1)] for place in range(most - 1))])


def _responses(layers: Sequence[nn.Module], shared: Tensor, lenders: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """What every unit of each layer receives, and what it passes on: ``(N, lenders · width)`` for each Linear layer."""
    dtype = torch.promote_types(shared.dtype, torch.float32)
    features = shared.to(dtype).unsqueeze(0).expand(len(lenders), *shared.shape)
    inputs: list[Tensor] = []
    units: list[Tensor] = []
    for layer in layers:
        if isinstance(layer, nn.Linear):
            if inputs:
                units.append(_flat(features))
            features = features @ layer.weight[lenders].to(dtype).mT
            features = features if layer.bias is None else features + layer.bias[lenders].to(dtype).unsqueeze(1)
            inputs.append(_flat(features))
        else:
            features = _elementwise(layer, features)
    return inputs, [*units, _flat(features)]


def _write(
    layers: Sequence[nn.Module],
    survivor: int,
    lenders: Tensor,
    shared: Tensor,
    inputs: Sequence[Tensor],
    chosen: Sequence[Tensor],
    ridge: float,
) -> None:
    """Put the chosen units in the survivor's place, layer by layer."""
    features = shared.double()
    level = 0
    for layer in layers:
        if not isinstance(layer, nn.Linear):
            features = _elementwise(layer, features)
            continue
        width = layer.weight.shape[1]
        if level == 0:
            at = lenders[chosen[0] // width], chosen[0] % width
            weight, bias = layer.weight[at].double(), None if layer.bias is None else layer.bias[at].double()
        else:
            received = inputs[level][:, chosen[level]].double()
            weight, bias = _fitted(features, received, ridge, free=layer.bias is not None)
        layer.weight[survivor] = weight.to(layer.weight.dtype)
        features = features @ layer.weight[survivor].double().mT
        if layer.bias is not None and bias is not None:
            layer.bias[survivor] = bias.to(layer.bias.dtype)
            features = features + layer.bias[survivor].double()
        level += 1


def _fitted(features: Tensor, wanted: Tensor, ridge: float, *, free: bool) -> tuple[Tensor, Tensor]:
    """Weights ``(q, M)`` and bias ``(q,)`` by ridge regression of ``wanted (N, q)``; the bias 0 unless ``free``."""
    centre = features.mean(0) if free else torch.zeros_like(features[0])
    offset = wanted.mean(0) if free else torch.zeros_like(wanted[0])
    columns = features - centre
    factor = ridged_cholesky(columns.mT @ columns, ridge)
    weight = torch.cholesky_solve(columns.mT @ (wanted - offset), factor).mT
    return weight, offset - weight @ centre


def _elementwise(layer: nn.Module, features: Tensor) -> Tensor:
    """An activation; dropout passes all, as in evaluation."""
    result: Tensor = features if isinstance(layer, nn.Dropout) else layer(features)
    return result


def _flat(features: Tensor) -> Tensor:
    """``(g, N, O)`` → ``(N, g · O)``."""
    return features.movedim(1, 0).flatten(1)


def _centred(columns: Tensor) -> Tensor:
    """Columns of mean 0."""
    return columns - columns.mean(0)
