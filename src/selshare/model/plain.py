"""A trained model as an ordinary module, for people and tools that know nothing of banks."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from .multitask import MultiTaskModel


class PlainModel(nn.Module):
    """Trunk, a list of branches and a list of heads: what a merged :class:`MultiTaskModel` computes, spelled out.

    It holds copies of the weights and imports nothing of selshare when it runs. ``torch.export`` and
    ``torch.onnx.export`` take it as it is. A branch that several tasks share runs once.

    Attributes
    ----------
    trunk
        As in the model.
    branches
        ``nn.ModuleList``, one per live branch.
    heads
        ``nn.ModuleList`` of ``nn.Linear``, one per task.
    names
        Task names, in the order of the outputs.
    assignment
        The branch of each task.
    """

    def __init__(self, model: MultiTaskModel) -> None:
        super().__init__()
        self.trunk = copy.deepcopy(model.trunk)
        self.branches = nn.ModuleList(model.bank.to_modules())
        self.heads = nn.ModuleList(head_modules(model))
        self.names = model.layout.names
        self.assignment = tuple(model.assignment.tolist())
        self.train(model.training)

    def forward(self, inputs: Tensor) -> tuple[Tensor, ...]:
        """Raw outputs of each task, ``(B, outputs)`` each, in the order of ``names``.

        ``torch.cat(outputs, dim=1)`` is what the model returns.
        """
        shared = self.trunk(inputs)
        features = [branch(shared) for branch in self.branches]
        return tuple(head(features[branch]) for head, branch in zip(self.heads, self.assignment, strict=True))


def head_modules(model: MultiTaskModel) -> list[nn.Linear]:
    """A copy of every task's head as ``nn.Linear``, in the order of the tasks."""
    heads: list[nn.Linear | None] = [None] * len(model.tasks)
    for width, members in model.layout.widths.items():
        weights, biases = model.heads.weights[str(width)], model.heads.biases[str(width)]
        for row, task in enumerate(members):
            head = nn.utils.skip_init(nn.Linear, weights.shape[2], width, device=weights.device, dtype=weights.dtype)
            with torch.no_grad():
                head.weight.copy_(weights[row])
                head.bias.copy_(biases[row])
            heads[task] = head
    return [head for head in heads if head is not None]
