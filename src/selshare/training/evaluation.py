"""Loss and metrics of a model on a data set."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..distributed import ShardedModel
from ..model import MultiTaskModel
from ..objectives import pack_targets, task_losses
from ..tasks import TaskLayout
from .batches import Data, as_loader, to_device
from .metrics import mean_metric, score


@dataclass(frozen=True)
class Evaluation:
    """What a model does on a data set.

    Attributes
    ----------
    loss
        Weighted sum of the tasks' losses over the whole data set.
    losses
        The mean loss of each task by name; NaN for a task without labels there.
    metrics
        The metric of each task by name; NaN for a task without labels there.
    mean_metric
        See :func:`selshare.training.metrics.mean_metric`.
    """

    loss: float
    losses: dict[str, float]
    metrics: dict[str, float]
    mean_metric: float


def evaluate(model: MultiTaskModel, data: Data, batch_size: int = 512) -> Evaluation:
    """Run ``model`` over ``data`` in evaluation mode and score every task.

    The mode is put back after. Losses that compare samples with each other (ranking) see pairs within a batch, as in
    training; metrics see all samples.
    """
    was_training = model.training
    model.eval()
    try:
        outputs, targets, losses, count = run_batches(model, as_loader(data, batch_size, shuffle=False))
    finally:
        model.train(was_training)
    return evaluation_of(model.layout, outputs, targets, losses, count)


def evaluation_of(layout: TaskLayout, outputs: Tensor, targets: Tensor, total: Tensor, count: Tensor) -> Evaluation:
    """The evaluation for all outputs and packed targets, and each task's summed loss and number of labels."""
    losses = total / count.clamp(min=1)
    metrics = score(layout, outputs, targets)
    weights = torch.tensor(layout.weights, dtype=torch.float64)
    by_name = dict(zip(layout.names, losses.where(count > 0, torch.nan).tolist(), strict=True))
    return Evaluation(float((weights * losses).sum()), by_name, metrics, mean_metric(layout, metrics))


@torch.no_grad()
def run_batches(model: MultiTaskModel, loader: Iterable[Any]) -> tuple[Tensor, ...]:
    """All outputs and packed targets on the CPU, and each task's summed loss and number of labels.

    ``model`` is in evaluation mode; there may be no batch.
    """
    first = next(model.parameters())
    outputs = [torch.empty(0, model.layout.output_width, dtype=first.dtype)]
    targets = [torch.empty(0, model.layout.target_width)]
    total = torch.zeros(len(model.tasks), dtype=torch.float64, device=first.device)
    count = torch.zeros_like(total)
    for batch in loader:
        inputs, given = to_device(batch, first.device, first.dtype)
        packed = pack_targets(model.layout, given)
        predicted = model(inputs)
        losses = task_losses(model.layout, predicted, packed)
        total += losses.values.double() * losses.labelled
        count += losses.labelled
        outputs.append(predicted)
        targets.append(packed)
    return _joined(outputs), _joined(targets), total.cpu(), count.cpu()


def _joined(parts: list[Tensor]) -> Tensor:
    """All rows, on the CPU; the first part, which is empty, says what none look like."""
    return torch.cat(parts[1:] or parts).cpu()


@torch.no_grad()
def evaluate_sharded(model: ShardedModel, loader: Iterable[Any]) -> Evaluation:
    """Run a sharded model, in evaluation mode, over whole batches; every rank scores its tasks and hears of all."""
    part = model.part
    first = next(part.parameters())
    outputs, targets = [], []
    told = torch.zeros(3, len(part.tasks), dtype=torch.float64, device=first.device)  # losses, labels, metrics
    for batch in loader:
        inputs, given = to_device(batch, first.device, first.dtype)
        packed = pack_targets(part.layout, model.own_targets(given))
        predicted = model.own_outputs(inputs)
        losses = task_losses(part.layout, predicted, packed)
        told[0] += losses.values.double() * losses.labelled
        told[1] += losses.labelled
        outputs.append(predicted)
        targets.append(packed)
    if model.own_tasks:
        own = score(part.layout, torch.cat(outputs), torch.cat(targets))
        told[2] = torch.tensor(list(own.values()), dtype=torch.float64)
    total, count, scores = model.of_all(told, "evaluation").cpu()
    losses_of_all = total / count.clamp(min=1)
    metrics = dict(zip(model.layout.names, scores.tolist(), strict=True))
    weights = torch.tensor(model.layout.weights, dtype=torch.float64)
    return Evaluation(
        float((weights * losses_of_all).sum()),
        dict(zip(model.layout.names, losses_of_all.where(count > 0, torch.nan).tolist(), strict=True)),
        metrics,
        mean_metric(model.layout, metrics),
    )
