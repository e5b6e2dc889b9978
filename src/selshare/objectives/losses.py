"""Losses of many tasks at once, with missing labels.

Every loss is computed for a whole group of tasks (one kind, width and loss) on the columns of the packed tensors.
What belongs to a missing label is replaced *before* the loss is computed, so that no NaN or Inf can reach the
gradient through a product with zero.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from ..kernels.checks import require_tensor
from ..tasks import Loss, TaskGroup, TaskLayout

# Where a label is missing, the logit or the s_j − s_i of the pair is set to minus this: loss and slope are exactly 0.
_SURE = 1e4


class TaskLosses(NamedTuple):
    """The loss of each task in a batch, in the order of the tasks.

    Attributes
    ----------
    values
        ``(T,)``: mean of the task's loss over what is labelled, 0 where nothing is.
    labelled
        ``(T,)`` int64: how many terms the mean is over: labels (a multilabel task has up to one per sample and label,
        a regression one per sample and value), pairs for ranking, wholly labelled samples for a loss of one's own.
        ``Σ values · labelled / Σ labelled`` over batches is therefore the mean over all of them.
    """

    values: Tensor
    labelled: Tensor


def task_losses(layout: TaskLayout, outputs: Tensor, packed: Tensor) -> TaskLosses:
    """The loss of every task, without a loop over tasks.

    Parameters
    ----------
    layout
        The layout of the tasks.
    outputs
        Packed outputs ``(B, output_width)``, raw: logits, values, scores. float16 and bfloat16 are computed in
        float32.
    packed
        Packed targets ``(B, target_width)`` from :func:`~selshare.objectives.pack_targets`, which has checked their
        values; they are not looked at again here.

    Returns
    -------
    TaskLosses
        Per task, with the following losses.

        - binary, multilabel ``cross_entropy``: ``softplus(s) − y·s`` per label.
        - multiclass ``cross_entropy``: ``logsumexp(s) − s_y`` per sample.
        - regression ``mse``, ``l1``, ``huber``: ``d²``, ``|d|``, or ``d²/2`` where ``|d| ≤ 1`` and ``|d| − 1/2``
          elsewhere, per value.
        - ranking ``logistic``, ``hinge``: ``softplus(−y(s_i − s_j))`` or ``max(0, 1 − y(s_i − s_j))``,
          ``y = sign(t_i − t_j)``, per pair of labelled samples of the batch whose targets differ. The published
          formula (Strezoski et al., ICMR 2019) is lost: the logistic form is ours.
        - a callable: what it returns per sample. It gets outputs ``(B, n, w)`` and targets ``(B, n, d)`` of the n
          tasks that share it, and returns ``(B, n)``. A sample counts where all its d targets are there; elsewhere
          outputs and targets are 0 and the result is left out.

    Raises
    ------
    ValueError
        If a shape does not fit the layout, or a callable returns another shape than ``(B, n)``.
    TypeError
        If outputs are not floats, or a callable does not return a float tensor.

    Notes
    -----
    Time and memory O(B · output_width), for ranking O(B² · n). No value decides what is computed, so that
    ``torch.compile(fullgraph=True)`` takes it whole.
    """
    check_shapes(layout, outputs, packed)
    outputs = outputs.float() if outputs.dtype in (torch.float16, torch.bfloat16) else outputs
    values, labelled = [], []
    for number, group in enumerate(layout.groups):
        predicted = layout.group_outputs(number, outputs)
        targets = layout.group_targets(number, packed)
        total, count = (
            _own_loss(layout, group, predicted, targets)
            if callable(group.loss)
            else _BUILT_IN[group.kind](predicted, targets, group.loss)
        )
        values.append(total / count.clamp(min=1))
        labelled.append(count)
    return TaskLosses(layout.in_task_order(values), layout.in_task_order(labelled))


def weighted_sum(layout: TaskLayout, losses: TaskLosses) -> Tensor:
    """``Σ_t weight_t · values_t``: the loss to call ``backward`` on."""
    if not layout.weighted:
        return losses.values.sum()
    values = losses.values
    weights = layout.constant("weights", values.device, values.dtype)
    return (values * weights).sum()  # not values @ weights, which autocast would round


class NonFiniteLoss(ValueError):
    """The loss of some tasks is NaN or Inf.

    Attributes
    ----------
    tasks
        Their names.
    """

    def __init__(self, tasks: Sequence[str]) -> None:
        self.tasks = tuple(tasks)
        shown = ", ".join(map(repr, tasks[:5])) + (f" and {len(tasks) - 5} more" if len(tasks) > 5 else "")
        super().__init__(
            f"The loss of task {shown} is NaN or Inf; check the inputs for NaN and Inf, or lower the learning rate."
        )


def check_finite_losses(layout: TaskLayout, losses: TaskLosses) -> None:
    """Raise :class:`NonFiniteLoss` where a task's loss is NaN or Inf; on a GPU this waits for the device."""
    finite = torch.isfinite(losses.values.detach())
    if bool(finite.all()):
        return
    raise NonFiniteLoss([layout.names[index] for index in (~finite).nonzero().flatten().tolist()])


def check_some_label(losses: TaskLosses) -> None:
    """Raise ``ValueError`` if the batch teaches no task anything; on a GPU this waits for the device."""
    if not bool(losses.labelled.any()):
        raise ValueError(
            "No task has a label in this batch (a ranking task needs two labels that differ); "
            "leave the batch out, or check how missing labels are marked."
        )


# Each built-in loss takes outputs (B, n, w), targets (B, n, d) with NaN where missing, and the loss's name, and
# returns the sum of the loss over what is labelled (n,) and the count of it (n,).


def _binary(outputs: Tensor, targets: Tensor, loss: str) -> tuple[Tensor, Tensor]:
    """Cross entropy of independent labels (binary, multilabel)."""
    present = ~torch.isnan(targets)
    logits = torch.where(present, outputs, -_SURE)
    labels = torch.where(present, targets, 0).to(logits.dtype)
    return F.binary_cross_entropy_with_logits(logits, labels, reduction="none").sum((0, 2)), present.sum((0, 2))


def _multiclass(outputs: Tensor, targets: Tensor, loss: str) -> tuple[Tensor, Tensor]:
    """Softmax cross entropy."""
    present = ~torch.isnan(targets)
    # Classes before tasks, (B, C, n): a softmax over a short last dimension takes three times as long on the CPU.
    logits = torch.where(present, outputs, 0).transpose(1, 2)
    labels = torch.where(present, targets, -100).squeeze(2).long()
    return F.cross_entropy(logits, labels, reduction="none", ignore_index=-100).sum(0), present.sum((0, 2))


def _regression(outputs: Tensor, targets: Tensor, loss: str) -> tuple[Tensor, Tensor]:
    """Mean squared, absolute or Huber error."""
    present = ~torch.isnan(targets)
    error = torch.where(present, outputs - targets.to(outputs.dtype), 0)
    if loss == "mse":
        size = error.square()
    elif loss == "l1":
        size = error.abs()
    else:
        size = F.huber_loss(error, torch.zeros_like(error), reduction="none")
    return size.sum((0, 2)), present.sum((0, 2))


def _ranking(outputs: Tensor, targets: Tensor, loss: str) -> tuple[Tensor, Tensor]:
    """Loss of the pairs (i, j) with target i above target j: each unordered pair once, always with y = 1."""
    scores, grades = outputs.squeeze(2), targets.squeeze(2)
    above = grades.unsqueeze(1) > grades.unsqueeze(0)  # (B, B, n); false where either is NaN
    behind = torch.where(above, scores.unsqueeze(0) - scores.unsqueeze(1), -_SURE)  # s_j − s_i
    size = F.softplus(behind) if loss == "logistic" else F.relu(1 + behind)
    return size.sum((0, 1)), above.sum((0, 1))


_BUILT_IN: dict[str, Callable[[Tensor, Tensor, str], tuple[Tensor, Tensor]]] = {
    "binary": _binary,
    "multiclass": _multiclass,
    "multilabel": _binary,
    "regression": _regression,
    "ranking": _ranking,
}


def _own_loss(layout: TaskLayout, group: TaskGroup, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """A user's loss, over wholly labelled samples."""
    loss: Loss = group.loss  # type: ignore[assignment]
    present = ~torch.isnan(targets).any(dim=2)
    inside = present.unsqueeze(2)
    size = loss(torch.where(inside, outputs, 0), torch.where(inside, targets, 0).to(outputs.dtype))
    task = layout.names[group.members[0]]
    if not isinstance(size, Tensor) or not size.is_floating_point():
        raise TypeError(f"The loss of task {task!r} must return a float tensor, one loss per sample and task.")
    if size.shape != present.shape:
        raise ValueError(
            f"The loss of task {task!r} returned shape {tuple(size.shape)}; it must return one loss per sample and "
            f"task, {tuple(present.shape)}."
        )
    return torch.where(present, size, 0).sum(0), present.sum(0)


def check_shapes(layout: TaskLayout, outputs: Tensor, packed: Tensor) -> None:
    """Outputs and targets have the layout's widths and one batch size."""
    require_tensor(outputs, "outputs")
    if outputs.ndim != 2 or outputs.shape[1] != layout.output_width:
        raise ValueError(
            f"The outputs have shape {tuple(outputs.shape)}; "
            f"the {len(layout)} tasks need (batch, {layout.output_width})."
        )
    if packed.ndim != 2 or packed.shape[1] != layout.target_width:
        raise ValueError(
            f"The targets have shape {tuple(packed.shape)}; "
            f"the {len(layout)} tasks need (batch, {layout.target_width})."
        )
    if outputs.shape[0] != packed.shape[0]:
        raise ValueError(f"There are outputs for {outputs.shape[0]} samples and targets for {packed.shape[0]}.")
    if not outputs.is_floating_point() or not packed.is_floating_point():
        raise TypeError(f"Outputs ({outputs.dtype}) and packed targets ({packed.dtype}) must be floats.")
