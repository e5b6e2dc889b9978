"""Loss and metrics of a model on a data set."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..model import MultiTaskModel
from ..objectives import pack_targets, task_losses
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
    first = next(model.parameters())
    was_training = model.training
    model.eval()
    try:
        outputs, targets, losses, count = _run(model, data, batch_size, first.device, first.dtype)
    finally:
        model.train(was_training)
    metrics = score(model.layout, outputs, targets)
    weights = torch.tensor(model.layout.weights, dtype=torch.float64)
    by_name = dict(zip(model.layout.names, losses.where(count > 0, torch.nan).tolist(), strict=True))
    return Evaluation(float((weights * losses).sum()), by_name, metrics, mean_metric(model.layout, metrics))


@torch.no_grad()
def _run(
    model: MultiTaskModel, data: Data, batch_size: int, device: torch.device, dtype: torch.dtype
) -> tuple[Tensor, ...]:
    """All outputs and packed targets on the CPU, and each task's mean loss and number of labels."""
    outputs, targets = [], []
    total = torch.zeros(len(model.tasks), dtype=torch.float64, device=device)
    count = torch.zeros_like(total)
    for batch in as_loader(data, batch_size, shuffle=False):
        inputs, given = to_device(batch, device, dtype)
        outputs.append(model(inputs))
        targets.append(pack_targets(model.layout, given))
        losses = task_losses(model.layout, outputs[-1], targets[-1])
        total += losses.values.double() * losses.labelled
        count += losses.labelled
    return torch.cat(outputs).cpu(), torch.cat(targets).cpu(), (total / count.clamp(min=1)).cpu(), count.cpu()
