"""A multiclass task and the task, or tasks, whose labels go with its classes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..tasks import Task, TaskLayout

Target = str | Sequence[str]
"""The name of a multilabel, multiclass or binary task, or the names of several binary tasks."""


class LinkedTasks:
    """Where two linked tasks lie in packed outputs and targets.

    Parameters
    ----------
    layout
        All tasks.
    source
        A multiclass task.
    target
        See :data:`Target`.

    Attributes
    ----------
    exclusive
        Whether exactly one label of the target holds (a multiclass task).
    separate
        Whether the labels are tasks of their own.
    classes, labels
        How many there are.
    label_names
        The tasks' names where labels are tasks of their own, else numbers.
    described
        The target in words, for messages.

    Raises
    ------
    ValueError
        If a task is unknown, of another kind, or its own target.
    """

    def __init__(self, layout: TaskLayout, source: str, target: Target) -> None:
        names = (target,) if isinstance(target, str) else tuple(target)
        tasks = [_known(layout, name) for name in (source, *names)]
        first, targets = tasks[0], tasks[1:]
        _check(first, targets)
        self.source = source
        self.exclusive = targets[0].kind == "multiclass"
        self.separate = targets[0].kind == "binary"
        self.classes = first.outputs
        self.labels = sum(task.outputs for task in targets)
        self.label_names = names if self.separate else tuple(map(str, range(self.labels)))
        plural = f"tasks {', '.join(map(repr, names[:3]))}{' …' if len(names) > 3 else ''}"
        self.described = plural if len(names) > 1 else f"task {names[0]!r}"
        self._source = layout.index(source)
        self._targets = [layout.index(name) for name in names]
        self._layout = layout

    def source_logits(self, outputs: Tensor) -> Tensor:
        """``(B, E)``."""
        return outputs[:, self._layout.output_slices[self._source]]

    def target_logits(self, outputs: Tensor) -> Tensor:
        """``(B, A)``."""
        return torch.cat([outputs[:, self._layout.output_slices[index]] for index in self._targets], dim=1)

    def source_members(self, packed: Tensor) -> Tensor:
        """``(B, E)`` float64: 1 at the sample's class; all 0 where that is missing."""
        return _one_hot(packed[:, self._layout.target_slices[self._source]], self.classes)

    def target_labels(self, packed: Tensor) -> tuple[Tensor, Tensor]:
        """The labels, 0 where missing, and which are known: ``(B, A)`` float64, 0 or 1 each."""
        given = torch.cat([packed[:, self._layout.target_slices[index]] for index in self._targets], dim=1)
        known = (~given.isnan()).double()
        if self.exclusive:
            return _one_hot(given, self.labels), known.expand(-1, self.labels)
        return given.double().nan_to_num(0.0), known


def _one_hot(indices: Tensor, classes: int) -> Tensor:
    """``(B, 1)`` class indices as ``(B, classes)``; a row of zeros where it is NaN."""
    return (indices == torch.arange(classes, device=indices.device)).double()


def _known(layout: TaskLayout, name: str) -> Task:
    """The task of that name."""
    if name not in layout.names:
        raise ValueError(
            f"There is no task {name!r} to match; the tasks are {', '.join(map(repr, layout.names[:10]))}."
        )
    return layout.tasks[layout.index(name)]


def _check(source: Task, targets: Sequence[Task]) -> None:
    """The kinds fit."""
    if source.kind != "multiclass":
        raise ValueError(
            f"The source task {source.name!r} is {source.kind}; it must be multiclass, one of whose classes holds."
        )
    if not targets:
        raise ValueError(f"The source task {source.name!r} was given no target task; name one or more.")
    wrong = [task for task in targets if task.kind not in ("multilabel", "multiclass", "binary") or task == source]
    if wrong:
        raise ValueError(
            f"Task {wrong[0].name!r} ({wrong[0].kind}) cannot be the target of {source.name!r}; the target is another "
            "task, multilabel, multiclass or binary."
        )
    if len(targets) > 1 and any(task.kind != "binary" for task in targets):
        other = next(task for task in targets if task.kind != "binary")
        raise ValueError(f"Several target tasks must all be binary, but {other.name!r} is {other.kind}.")
