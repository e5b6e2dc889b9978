"""The further objectives of a method, made for a problem."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from ..data import Problem
from ..objectives import DistributionMatching, Objective, SaliencyRegularizer, SoftCoAnnotation, estimate_relation
from ..tasks import TaskLayout


def make_objectives(
    problem: Problem, names: Sequence[str], options: Mapping[str, Mapping[str, Any]] | None = None
) -> list[Objective]:
    """Build the objectives of these names.

    - ``srdml``: :class:`~selshare.objectives.SaliencyRegularizer`; its warm-up is the first epoch (*ours*).
    - ``distribution-matching``: :class:`~selshare.objectives.DistributionMatching` and
      :class:`~selshare.objectives.SoftCoAnnotation` for each of the problem's relations. Where it has none, *ours*:
      from the multiclass task of most classes to every other multiclass, multilabel and binary task, with tables
      estimated from training samples that are labelled for both.

    Parameters
    ----------
    problem
        What is trained.
    names
        Of :data:`~selshare.training.method_names.OBJECTIVES`.
    options
        Objective's name → further arguments of its class; for ``distribution-matching`` those of soft co-annotation.

    Raises
    ------
    ValueError
        Where the tasks do not allow it; names the task.
    """
    made: list[Objective] = []
    for name in names:
        chosen = dict((options or {}).get(name, {}))
        if name == "srdml":
            made.append(_saliency(problem, chosen))
        else:
            made += _matching(problem, chosen)
    return made


def _saliency(problem: Problem, options: dict[str, Any]) -> SaliencyRegularizer:
    """Sets in after one epoch unless told otherwise."""
    steps = -(-len(problem.train) // problem.recipe.batch_size)  # type: ignore[arg-type]  # sized: as_loader checks it
    return SaliencyRegularizer(problem.tasks, **({"warmup": steps} | options))


def _matching(problem: Problem, options: dict[str, Any]) -> list[Objective]:
    """Both terms for each relation."""
    packed, layout = _targets(problem), TaskLayout(problem.tasks)
    relations = problem.relations or _estimated(problem, layout, packed)
    matching: list[Objective] = []
    teaching: list[Objective] = []
    for (source, target), table in relations.items():
        complete = _all_labelled(layout, packed, (source, *([target] if isinstance(target, str) else target)))
        published: dict[str, Any] = {"samples": "all", "weighting": "mean"} if complete else {}
        matching.append(DistributionMatching(source, target, table, use_labels=not complete, **published))
        evidence = {"evidence": "share", "temperature": 1.0} if complete else {}
        teaching.append(SoftCoAnnotation(source, target, table, **(published | evidence | options)))
    return [*matching, *teaching]


def _all_labelled(layout: TaskLayout, packed: Tensor, names: Sequence[str]) -> bool:
    """Whether no sample lacks a label of these tasks; unknown names are for the objectives to refuse."""
    slices = [layout.target_slices[layout.index(name)] for name in names if name in layout.names]
    return not any(bool(packed[:, columns].isnan().any()) for columns in slices)


def _estimated(problem: Problem, layout: TaskLayout, packed: Tensor) -> Mapping[Any, Any]:
    """Tables from co-annotated training samples."""
    classes = [task for task in problem.tasks if task.kind == "multiclass"]
    source = max(classes, key=lambda task: task.outputs, default=None)
    kinds = ("multiclass", "multilabel", "binary")
    targets = [task.name for task in problem.tasks if task.kind in kinds and task is not source]
    if source is None or not targets:
        raise ValueError(
            f"distribution-matching ties a multiclass task to another task with labels, and {problem.name} has no "
            "such pair; leave the method out."
        )
    return {(source.name, name): estimate_relation(layout, packed, source.name, name) for name in targets}


def _targets(problem: Problem) -> Tensor:
    """All packed training targets; data sets other than ``TensorDataset`` are read through once."""
    train: Any = problem.train
    if isinstance(train, TensorDataset):
        return train.tensors[1]
    return torch.stack([train[index][1] for index in range(len(train))])
