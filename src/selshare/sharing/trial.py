"""Validated merges: a merged group is on trial until its tasks' validation loss has recovered, or is undone.

*Ours* (the paper never looks back): before a merge the group's branches, heads and optimizer state are set aside;
they come back, to the bit, where the validation loss stays worse than it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..model import MultiTaskModel
from ..model.bank import resize_stacked, stacked_tensors
from .plan import NOISE, MergePlan

TOLERANCE = 0.01


@dataclass(eq=False)
class Trial:
    """One merged group, and all that is needed to undo it.

    Attributes
    ----------
    parts
        The tasks of each branch that was merged.
    origins
        The branches of the start that each of them came from.
    losses
        Validation loss of each task before the merge, in the order of ``parts``.
    epochs_left
        After which the group is undone if it has not recovered.
    branches, heads
        Rows set aside: of the bank's tensors and of the heads' parameters, and of the optimizers' state of both.
    """

    parts: tuple[tuple[int, ...], ...]
    origins: tuple[tuple[int, ...], ...]
    losses: tuple[float, ...]
    epochs_left: int
    branches: dict[str, Tensor]
    heads: dict[str, Tensor]

    @property
    def tasks(self) -> tuple[int, ...]:
        """All tasks of the group, in the order of ``parts``."""
        return tuple(task for part in self.parts for task in part)

    def recovered(self, losses: Tensor) -> bool:
        """Whether the group's losses ``(T,)`` are back to what they were: their mean ratio is at most 1.01.

        A task without a validation label (NaN) does not count; nor does one whose loss was 0.
        """
        ratios = [float(losses[t]) / was for t, was in zip(self.tasks, self.losses, strict=True) if was > 0]
        known = [ratio for ratio in ratios if ratio == ratio]
        return not known or sum(known) / len(known) <= 1 + TOLERANCE

    def state_dict(self) -> dict[str, Any]:
        """What to save: plain values and tensors."""
        return dict(vars(self))


def begin_trials(
    plan: MergePlan,
    model: MultiTaskModel,
    optimizers: Sequence[torch.optim.Optimizer],
    losses: Tensor,
    epochs: int,
    origins: Sequence[tuple[int, ...]],
) -> list[Trial]:
    """A trial for each group of a plan that is about to be carried out.

    ``losses (T,)`` are the validation losses now; ``origins`` the branches of the start each branch came from.
    """
    members = model.tasks_by_branch()
    trials = []
    for group in plan.groups:
        parts = tuple(members[branch] for branch in group)
        tasks = [task for part in parts for task in part]
        rows = torch.tensor(group)
        trials.append(
            Trial(
                parts=parts,
                origins=tuple(origins[branch] for branch in group),
                losses=tuple(float(losses[task]) for task in tasks),
                epochs_left=epochs,
                branches={n: t.detach()[rows.to(t.device)].clone() for n, t, _ in _stacked(model, optimizers)},
                heads={n: t.detach()[at].clone() for n, t, at in _head_rows(model, optimizers, tasks)},
            )
        )
    return trials


@torch.no_grad()
def undo(
    trial: Trial, model: MultiTaskModel, optimizers: Sequence[torch.optim.Optimizer], origins: Sequence[tuple[int, ...]]
) -> tuple[tuple[int, ...], ...]:
    """Take a merged group apart again; branches, heads and optimizer state of its tasks are as before the merge.

    Other branches keep all they have; branches are ordered by where they came from. The trunk has trained on.

    Returns
    -------
    tuple
        The ``origins`` of the branches now.
    """
    merged = int(model.assignment[trial.tasks[0]])
    others = [branch for branch in range(model.bank.branches) if branch != merged]
    after = [*(origins[branch] for branch in others), *trial.origins]
    order = sorted(range(len(after)), key=lambda place: after[place])
    parts = [*(model.tasks_by_branch()[branch] for branch in others), *trial.parts]
    grown: dict[str, Tensor] = {}
    for name, tensor, put in list(_stacked(model, optimizers)):
        saved = trial.branches.get(name)
        if saved is None:  # state that did not exist then
            saved = torch.zeros_like(tensor[:1]).expand(len(trial.parts), *tensor.shape[1:])
        rows = torch.cat([tensor.detach()[others], saved.to(tensor.device)])[order]
        if put is None:
            grown[name] = rows
        else:
            put(rows)
    resize_stacked(model.bank, grown)
    assignment = model.assignment.clone()
    for branch, place in enumerate(order):
        assignment[list(parts[place])] = branch
    model.reassign(assignment)
    for name, tensor, at in _head_rows(model, optimizers, trial.tasks):
        tensor[at] = trial.heads[name].to(tensor.device) if name in trial.heads else 0
    return tuple(after[place] for place in order)


def barred(
    labels: Sequence[int],
    members: Sequence[Sequence[int]],
    apart: Sequence[Sequence[Sequence[int]]],
    busy: Sequence[int],
) -> tuple[int, ...]:
    """Cluster labels ``(G,)`` without the clusters that may not merge: those become noise.

    ``members`` are the tasks of each branch, ``apart`` groups that were undone (the tasks of each of their parts, no
    two of which may meet again), ``busy`` tasks that are on trial.
    """
    refused = set()
    for label in set(labels) - {NOISE}:
        tasks = {task for branch, own in enumerate(labels) if own == label for task in members[branch]}
        if not tasks.isdisjoint(busy) or any(sum(not tasks.isdisjoint(p) for p in parts) > 1 for parts in apart):
            refused.add(label)
    return tuple(NOISE if label in refused else label for label in labels)


def _stacked(
    model: MultiTaskModel, optimizers: Sequence[torch.optim.Optimizer]
) -> Iterator[tuple[str, Tensor, Callable[[Tensor], None] | None]]:
    """Each tensor with a row per branch: a name, the tensor, and how to replace it if it is optimizer state."""
    tensors = stacked_tensors(model.bank)
    for name, tensor in tensors.items():
        yield name, tensor, None
        for number, optimizer in enumerate(optimizers):
            state = optimizer.state.get(tensor, {}) if isinstance(tensor, torch.nn.Parameter) else {}
            for key, value in state.items():
                if isinstance(value, Tensor) and value.ndim == tensor.ndim and len(value) == len(tensor):
                    yield f"{name}/{number}/{key}", value, _setter(state, key)


def _setter(state: dict[str, Any], key: str) -> Callable[[Tensor], None]:
    """Puts a tensor into a state."""
    return lambda rows: state.__setitem__(key, rows)


def _head_rows(
    model: MultiTaskModel, optimizers: Sequence[torch.optim.Optimizer], tasks: Sequence[int]
) -> Iterator[tuple[str, Tensor, list[int]]]:
    """Each tensor with a row per head of a width: a name, the tensor, and the rows of ``tasks`` in it."""
    wanted = set(tasks)
    for width, members in model.layout.widths.items():
        rows = [row for row, task in enumerate(members) if task in wanted]
        for kind, parameters in (("weight", model.heads.weights), ("bias", model.heads.biases)):
            parameter = parameters[str(width)]
            yield f"{kind}/{width}", parameter, rows
            for number, optimizer in enumerate(optimizers):
                for key, value in optimizer.state.get(parameter, {}).items():
                    if isinstance(value, Tensor) and value.shape == parameter.shape:
                        yield f"{kind}/{width}/{number}/{key}", value, rows
