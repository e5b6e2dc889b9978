"""Gradients of the trunk put together from the tasks' own by an aggregator, such as TorchJD's PCGrad or UPGrad."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..model import MultiTaskModel
from ..objectives import loss_gradients

Aggregator = Callable[[Tensor], Tensor]
"""``(T, P)``, a task's gradient a row → ``(P,)``: what ``torchjd.aggregation.PCGrad()`` is, or any function."""


def aggregated_backward(
    model: MultiTaskModel, shared: Tensor, outputs: Tensor, loss: Tensor, further: Tensor | None, aggregator: Aggregator
) -> None:
    """``(loss + further).backward()``, with the tasks' gradients of the trunk put together by ``aggregator``.

    Branches and heads get their gradients as ever: what a branch gets from its tasks is not in conflict with others.
    The further objectives, such as the saliency regulariser, add theirs to the aggregate, as SRDML with PCGrad does
    (Bai and Zhao, KDD 2022). Aggregating by a sum is plain training.

    Parameters
    ----------
    model
        The model.
    shared, outputs
        Of the batch, still in the graph.
    loss
        ``model.loss(outputs, targets)``: the weighted sum of the tasks' losses.
    further
        The sum of the further objectives; ``None`` where there are none.
    aggregator
        See :data:`Aggregator`.

    Raises
    ------
    ValueError
        If the trunk has nothing to learn, or the aggregator returns another shape than ``(P,)``.

    Notes
    -----
    One vectorised pass through the branches and one through the trunk for all tasks; memory O(T·P) for the trunk's P
    parameters, and T times the trunk's own for its backward pass: for tens of tasks, not for thousands.
    """
    parameters = [parameter for parameter in model.trunk.parameters() if parameter.requires_grad]
    if not parameters:
        raise ValueError("The trunk has no parameters that learn, so there is nothing to aggregate; give none.")
    matrix = _trunk_gradients(model, shared, outputs, loss, parameters)
    (loss if further is None else loss + further).backward()
    together = aggregator(matrix)
    if together.shape != matrix.shape[1:]:
        raise ValueError(
            f"The aggregator made shape {tuple(together.shape)} of gradients {tuple(matrix.shape)}; it must return "
            f"({matrix.shape[1]},)."
        )
    change = (together - matrix.sum(0)).split([parameter.numel() for parameter in parameters])
    for parameter, part in zip(parameters, change, strict=True):
        difference = part.view_as(parameter)
        parameter.grad = difference if parameter.grad is None else parameter.grad + difference


def _trunk_gradients(
    model: MultiTaskModel, shared: Tensor, outputs: Tensor, loss: Tensor, parameters: list[torch.nn.Parameter]
) -> Tensor:
    """The gradient of each task's weighted loss with respect to the trunk ``(T, P)``."""
    (by_outputs,) = torch.autograd.grad(loss, outputs, retain_graph=True)
    at_fork = loss_gradients(model, shared.detach(), by_outputs).detach()
    found = torch.autograd.grad(
        shared, parameters, at_fork, retain_graph=True, is_grads_batched=True, allow_unused=True
    )
    rows = [
        parameter.new_zeros(len(at_fork), parameter.numel()) if gradient is None else gradient.flatten(1)
        for parameter, gradient in zip(parameters, found, strict=True)
    ]
    return torch.cat(rows, dim=1)
