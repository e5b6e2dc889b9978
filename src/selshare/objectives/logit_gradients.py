"""Gradients of every task's logit with respect to the shared representation, in one vectorised pass.

A task's logit at sample b depends on the shared representation of that sample alone, through the task's branch and
head. So the gradient of the logits summed over the batch holds every sample's own, and the tasks are one more
dimension of a vectorised call: there is no loop over tasks or samples. The result can be differentiated again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.func import functional_call

if TYPE_CHECKING:
    from ..model import MultiTaskModel

Readout = Callable[..., Tensor]


def logit_gradients(model: MultiTaskModel, shared: Tensor) -> Tensor:
    """``∂f_t/∂A`` for every task t and sample: how each task's logit reacts to the shared representation A.

    Bai and Zhao (KDD 2022, arXiv 2207.01117) define it for tasks of one logit. For others, *ours*: a multiclass task's
    logit is that of its likeliest class (as class activation maps do), that of a multilabel or many-valued regression
    task the mean over its outputs.

    Branches run in evaluation mode here (*ours*): dropout would make the gradients of like tasks differ, and batch
    statistics would make a sample's logit depend on the others. Their mode is put back after.

    Parameters
    ----------
    model
        The model; tasks that share a branch after a merge have gradients of their own, through their own heads.
    shared
        ``(B, …)`` as :meth:`selshare.MultiTaskModel.shared` returns it.

    Returns
    -------
    Tensor
        ``(T, B, …)``, tasks in order, differentiable with respect to ``shared`` and all parameters of branches and
        heads.

    Notes
    -----
    Time of a forward and a backward of every task's branch, memory T times that of the shared representation and of
    a branch's activations, whatever the number of live branches.
    """
    gradients, order = [], []
    with _evaluating(model.bank.stacked):
        for members, readout, parameters in _readouts(model):
            gradients.append(_gradients(model, members, readout, parameters, shared))
            order += members
    joined = gradients[0] if len(gradients) == 1 else torch.cat(gradients)
    if order == list(range(len(order))):
        return joined
    return joined.index_select(0, torch.tensor(order, device=joined.device).argsort())


def loss_gradients(model: MultiTaskModel, shared: Tensor, by_outputs: Tensor) -> Tensor:
    """The gradient of each task's loss with respect to the shared representation ``(T, B, …)``.

    Parameters
    ----------
    model, shared
        As for :func:`logit_gradients`; here too branches run in evaluation mode, without dropout.
    by_outputs
        The gradient of the summed losses with respect to the packed outputs ``(B, output_width)``: as each loss is
        of its own task's outputs, its columns are the tasks' own.
    """
    gradients: list[Tensor] = []
    order: list[int] = []
    with _evaluating(model.bank.stacked):
        for width, tasks in model.layout.widths.items():
            columns = torch.stack([by_outputs[:, model.layout.output_slices[task]] for task in tasks])
            parameters = (model.heads.weights[str(width)], columns)
            gradients.append(_gradients(model, list(tasks), _along, parameters, shared))
            order += tasks
    return torch.cat(gradients)[torch.tensor(order, device=shared.device).argsort()]


def _gradients(
    model: MultiTaskModel, members: list[int], readout: Readout, parameters: tuple[Tensor, ...], shared: Tensor
) -> Tensor:
    """The gradients ``(n, B, …)`` of tasks whose logits are read out alike."""
    stacked = model.bank.stacked
    in_order = model._one_to_one and members == list(range(len(model.tasks)))  # every branch once: no copies
    branches = model.assignment[torch.tensor(members, device=model.assignment.device)]
    weights = {name: tensor if in_order else tensor[branches] for name, tensor in stacked.named_parameters()}
    buffers = {name: tensor if in_order else tensor[branches] for name, tensor in stacked.named_buffers()}

    def logit(
        at: Tensor, weights: dict[str, Tensor], buffers: dict[str, Tensor], parameters: tuple[Tensor, ...]
    ) -> Tensor:
        return readout(functional_call(stacked, (weights, buffers), (at,)), *parameters)

    every_task = torch.func.vmap(torch.func.grad(logit), in_dims=(None, 0, 0, 0))
    gradients: Tensor = every_task(shared, weights, buffers, parameters)
    return gradients


def _readouts(model: MultiTaskModel) -> Iterator[tuple[list[int], Readout, tuple[Tensor, ...]]]:
    """Tasks that are read out alike: their indices, the function, and the heads it takes, stacked."""
    rows: list[Tensor] = []
    linear: list[int] = []
    for width, tasks in model.layout.widths.items():
        weight, bias = model.heads.weights[str(width)], model.heads.biases[str(width)]
        classes = [place for place, task in enumerate(tasks) if model.tasks[task].kind == "multiclass"]
        others = [place for place in range(len(tasks)) if place not in set(classes)]
        if classes:
            yield [tasks[place] for place in classes], _largest, (weight[classes], bias[classes])
        if others:
            rows.append(weight.mean(1) if not classes else weight[others].mean(1))
            linear += [tasks[place] for place in others]
    if linear:
        yield linear, _linear, (rows[0] if len(rows) == 1 else torch.cat(rows),)


def _linear(features: Tensor, row: Tensor) -> Tensor:
    """One logit that is linear in the features, summed over the batch (the bias has no gradient)."""
    return (features @ row).sum()


def _largest(features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The largest of a task's logits, summed over the batch."""
    return nn.functional.linear(features, weight, bias).max(dim=1).values.sum()


def _along(features: Tensor, weight: Tensor, direction: Tensor) -> Tensor:
    """All outputs of a task along a direction ``(B, w)``, summed (the bias has no gradient)."""
    return (nn.functional.linear(features, weight) * direction).sum()


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """``module`` in evaluation mode, each part put back to its own mode after."""
    training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True
