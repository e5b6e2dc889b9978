"""Function-preserving merges: heads refitted so that a task's outputs survive the change of its branch.

*Ours* (the paper leaves heads as they are): a head was trained on its own branch's features, and means little on
another's. On samples of the shared representation it is fitted in closed form, by ridge regression, to give on the
new branch what it gave on the old one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from ..model import MultiTaskModel
from .plan import MergePlan
from .ridge import RIDGE, ridged_cholesky

ELEMENTS = 2**25  # of the largest temporary, 256 MB in float64

# Optimizer state that is a sum of past gradients, by the names torch gives it. It points where the old features led.
FIRST_MOMENTS = ("momentum_buffer", "exp_avg", "prev")


def tasks_to_refit(plan: MergePlan, assignment: Tensor, *, changed_survivors: bool) -> Tensor:
    """Tasks whose branch a plan changes, ``(n,)`` int64 on the CPU, ascending.

    Those are the tasks that move and, where survivors do not stay what they were, every task of a group.
    """
    changed = torch.zeros(plan.branches, dtype=torch.bool)
    for group, survivor in zip(plan.groups, plan.survivors, strict=True):
        changed[list(group)] = True
        changed[survivor] = changed_survivors
    return changed[assignment.cpu()].nonzero().flatten()


@torch.no_grad()
def outputs_on(model: MultiTaskModel, shared: Tensor) -> Tensor:
    """Raw outputs ``(N, output_width)`` on shared representations ``(N, …)``, branches in evaluation mode."""
    with _evaluating(model):
        return torch.cat([model.outputs_from(part) for part in shared.split(_chunk(model))])


@torch.no_grad()
def refit_heads(
    model: MultiTaskModel,
    shared: Tensor,
    outputs: Tensor,
    tasks: Tensor,
    optimizers: Sequence[torch.optim.Optimizer] = (),
    *,
    ridge: float = RIDGE,
) -> None:
    """Fit the heads of ``tasks`` to give ``outputs`` on the branches they read now.

    Minimises ``‖F W + c − Z‖² + λ‖W‖²`` per head, with ``F (N, F)`` the features of its branch, ``Z`` its columns of
    ``outputs``, the bias ``c`` free, and ``λ = ridge`` × the mean variance of the features × N. Normal equations
    around the means, one Cholesky factorisation per branch, all heads of a width together, in float64. Where the new
    features span the old ones the outputs are kept up to λ; elsewhere they are the nearest linear function.

    Parameters
    ----------
    model
        Its heads change in place; other tasks' heads, trunk and branches do not.
    shared
        ``(N, …)`` shared representations. Fewer than the features is no error: the ridge decides then.
    outputs
        ``(N, output_width)`` what to keep, from :func:`outputs_on` before the merge.
    tasks
        Indices, ``(n,)``.
    optimizers
        Those that train the heads. A refitted head's momentum (``momentum_buffer``, ``exp_avg``, ``prev``) is set to
        zero: it was a direction among the old features. Second moments stay, as the scale of its gradients does.
    ridge
        Relative strength, above 0, so that dead features do no harm.
    """
    if len(tasks) == 0:
        return
    branches, slot = model.assignment[tasks.to(model.assignment.device)].unique(return_inverse=True)
    moved = set(tasks.tolist())
    slot_of = dict(zip(tasks.tolist(), slot.tolist(), strict=True))
    for width, members in model.layout.widths.items():
        rows = [row for row, task in enumerate(members) if task in moved]
        if not rows:
            continue
        chosen = [members[row] for row in rows]
        columns = torch.tensor([list(range(*model.layout.output_slices[task].indices(2**62))) for task in chosen])
        wanted = outputs[:, columns.to(outputs.device)].movedim(1, 0)  # (n, N, width)
        at = torch.tensor([slot_of[task] for task in chosen], device=shared.device)
        weight, bias = _ridge(model, shared, wanted, branches, at, ridge)
        heads = model.heads.weights[str(width)], model.heads.biases[str(width)]
        for parameter, value in zip(heads, (weight, bias), strict=True):
            parameter[rows] = value.to(parameter.dtype)
            _forget(parameter, rows, optimizers)


def _ridge(
    model: MultiTaskModel, shared: Tensor, wanted: Tensor, branches: Tensor, at: Tensor, ridge: float
) -> tuple[Tensor, Tensor]:
    """Weights ``(n, width, F)`` and biases ``(n, width)`` in float64 for ``wanted (n, N, width)``.

    ``at (n,)`` is the place of each head's branch among ``branches``.
    """
    features = _features(model, shared, branches)
    count = len(shared)
    sums = [(x.sum(1), x.mT @ x) for x in features]
    mean = torch.stack([total for total, _ in sums]).sum(0) / count
    gram = torch.stack([product for _, product in sums]).sum(0) - count * mean.unsqueeze(2) * mean.unsqueeze(1)
    target_mean = wanted.double().mean(1)
    cross = torch.zeros(len(wanted), mean.shape[1], wanted.shape[2], dtype=torch.float64, device=shared.device)
    start = 0
    for x in _features(model, shared, branches):
        z = wanted[:, start : start + x.shape[1]].double() - target_mean.unsqueeze(1)
        start += x.shape[1]
        for heads in torch.arange(len(wanted), device=at.device).split(max(1, ELEMENTS // x[0].numel())):
            cross[heads] += (x[at[heads]] - mean[at[heads]].unsqueeze(1)).mT @ z[heads]
    factor = ridged_cholesky(gram, ridge)
    solved = [
        torch.cholesky_solve(cross[heads], factor[at[heads]])
        for heads in torch.arange(len(wanted), device=at.device).split(max(1, ELEMENTS // factor[0].numel()))
    ]
    weight = torch.cat(solved).mT
    return weight, target_mean - (weight @ mean[at].unsqueeze(2)).squeeze(2)


def _features(model: MultiTaskModel, shared: Tensor, branches: Tensor) -> Iterator[Tensor]:
    """Features of some branches in float64, ``(len(branches), n, F)`` for a part of the samples at a time."""
    with _evaluating(model):
        for part in shared.split(_chunk(model)):
            yield model.bank(part)[branches].double()


def _chunk(model: MultiTaskModel) -> int:
    """Samples at a time such that the features of all branches stay small."""
    width = max(int(weight.shape[2]) for weight in model.heads.weights.values())
    return max(1, ELEMENTS // (model.bank.branches * max(width, model.bank.first_weight.shape[1])))


@contextmanager
def _evaluating(model: MultiTaskModel) -> Iterator[None]:
    """The bank in evaluation mode: no dropout, no running statistics touched."""
    modes = [(module, module.training) for module in model.bank.modules()]
    model.bank.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def _forget(parameter: Tensor, rows: list[int], optimizers: Sequence[torch.optim.Optimizer]) -> None:
    """Zero the first moments of some rows."""
    for optimizer in optimizers:
        state = optimizer.state.get(parameter, {})
        for name in FIRST_MOMENTS:
            value = state.get(name)
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                value[rows] = 0
