"""One output layer per task, stacked by output width."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from ..tasks import TaskLayout
from .stacked_linear import stacked_linear


class Heads(nn.Module):
    """A linear output layer for every task; tasks of one width are computed together.

    Heads of one width start from the same weights, like the branches: what tells tasks apart in the first epoch's
    gradients is then their labels alone.

    Parameters
    ----------
    layout
        The tasks and their columns.
    features
        Width ``F`` of a branch's output.
    widths
        Output widths to have parameters for, without rows where no task has that width; the tasks' when ``None``.
    """

    def __init__(self, layout: TaskLayout, features: int, widths: Iterable[int] | None = None) -> None:
        super().__init__()
        self.weights = nn.ParameterDict()
        self.biases = nn.ParameterDict()
        for width in layout.widths if widths is None else widths:
            initial, heads = nn.Linear(features, width), len(layout.widths.get(width, ()))
            self.weights[str(width)] = nn.Parameter(initial.weight.detach().repeat(heads, 1, 1))
            self.biases[str(width)] = nn.Parameter(initial.bias.detach().repeat(heads, 1))
        self.lay_out(layout)

    def lay_out(self, layout: TaskLayout) -> None:
        """Belong to the tasks of ``layout``; the rows of the parameters are theirs, or are to be set by the caller."""
        device = next(self.parameters()).device
        for width in map(int, self.weights):
            members = torch.tensor(layout.widths.get(width, ()), dtype=torch.int64, device=device)
            self.register_buffer(f"members_{width}", members, persistent=False)
        self._widths = tuple(layout.widths)
        self.register_buffer("_columns", _column_order(layout).to(device), persistent=False)

    def forward(self, features: Tensor, assignment: Tensor | None, *, rectify: bool = False) -> Tensor:
        """Outputs of all tasks.

        Parameters
        ----------
        features
            ``(G, B, F)`` from the bank.
        assignment
            ``(T,)`` the branch of each task, or ``None`` when task ``t`` reads branch ``t``.
        rectify
            Read the features through a ReLU.

        Returns
        -------
        Tensor
            ``(B, output_width)``: raw outputs, tasks in order.
        """
        parts = []
        for width in self._widths:
            source = self._source(width, assignment)
            weight, bias = self.weights[str(width)], self.biases[str(width)]
            outputs = stacked_linear(features, weight, bias, source=source, rectify=rectify)
            parts.append(outputs.transpose(0, 1).flatten(1))
        if len(parts) == 1:
            return parts[0]
        return torch.cat(parts, dim=1).index_select(1, self.get_buffer("_columns"))

    def _source(self, width: int, assignment: Tensor | None) -> Tensor | None:
        """The branch each head of one width reads; ``None`` if they are all branches in order."""
        members = self.get_buffer(f"members_{width}")
        if assignment is not None:
            return assignment[members]
        return None if len(self._widths) == 1 else members


def _column_order(layout: TaskLayout) -> Tensor:
    """For each packed output column, its place among the columns gathered width by width."""
    gathered = [
        column
        for members in layout.widths.values()
        for task in members
        for column in range(layout.output_slices[task].start, layout.output_slices[task].stop)
    ]
    return torch.argsort(torch.tensor(gathered))
