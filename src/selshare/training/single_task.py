"""A problem restricted to one of its tasks, for the single-task baseline."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset, Subset, TensorDataset

from ..data import Problem
from ..tasks import TaskLayout


def only_task(problem: Problem, task: int) -> Problem:
    """The problem with its ``task``-th task alone; samples without a label for it are left out.

    Data sets other than ``TensorDataset`` are read through once to find the labelled samples.

    Raises
    ------
    ValueError
        If no training sample has a label for the task.
    """
    columns = TaskLayout(problem.tasks).target_slices[task]
    train = _labelled(problem.train, columns)
    if len(train) == 0:  # type: ignore[arg-type]  # sized: as_loader checks it
        raise ValueError(
            f"Task {problem.tasks[task].name!r} has no labelled sample to train a network of its own on; leave it out "
            "of the tasks, or leave out stl."
        )
    return replace(
        problem,
        tasks=(problem.tasks[task],),
        train=train,
        validation=_labelled(problem.validation, columns),
        test=_labelled(problem.test, columns),
        groups=None,
    )


class _Columns(Dataset[tuple[Tensor, ...]]):
    """A data set with some of its target columns."""

    def __init__(self, data: Dataset[Any], columns: slice) -> None:
        self._data, self._columns = data, columns

    def __len__(self) -> int:
        return len(self._data)  # type: ignore[arg-type]  # sized: as_loader checks it

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        inputs, targets = self._data[index]
        return inputs, targets[self._columns]


def _labelled(data: Dataset[tuple[Tensor, ...]], columns: slice) -> Dataset[tuple[Tensor, ...]]:
    """The samples that have a label in ``columns``, with those targets."""
    if isinstance(data, TensorDataset):
        inputs, targets = data.tensors
        labelled = ~targets[:, columns].isnan().all(dim=1)
        if bool(labelled.all()):
            return TensorDataset(inputs, targets[:, columns])
        return TensorDataset(inputs[labelled], targets[labelled, columns])
    part = _Columns(data, columns)
    return Subset(part, [index for index in range(len(part)) if not bool(part[index][1].isnan().all())])
