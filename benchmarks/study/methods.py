"""The study's methods: a name → a trained model and its row.

| name | what it is |
|---|---|
| `stl` | a network per task |
| `mtl` | a branch per task, never merged |
| `hard` | one branch for all tasks from the start |
| `oracle` | a branch for each true group from the start, where groups are planted |
| `default` | `SelectiveSharing()` as it comes |
| `paper` | `preset="paper"`: the published method to the letter |
| `dissimilarity`, `variance`, `random` | the other criteria, with the default's settings |
| `paper-dissimilarity`, … | the same with the paper's |
| `default-mean`, `default-max`, `default-min` | the other merge rules |
| `chance` | random groups of the sizes that `default` ended with, same seed and settings |
| `paper-chance` | random groups of the sizes that `paper` had after each of its merges, merged at the same epochs |
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from selshare import MultiTaskModel, SelectiveSharing
from selshare.data import Problem
from selshare.sharing import CRITERIA, Clustering, ClusterSettings, MergePlan, apply
from selshare.tasks import TaskLayout
from selshare.training.evaluation import evaluate
from selshare.training.history import EpochRecord, History
from selshare.training.methods import build_model, make_trainer
from selshare.training.metrics import mean_metric
from selshare.training.single_task import only_task

from .results import Row, find

Partitions = Sequence[tuple[int, Sequence[Sequence[str]]]]
RULES = ("mean", "max", "min")
BASELINES = ("stl", "mtl", "hard", "oracle")
CONTROLS = {"chance": "default", "paper-chance": "paper"}
PAPER: dict[str, Any] = {"preset": "paper"}


def names() -> tuple[str, ...]:
    """All methods."""
    criteria = [name for name in CRITERIA if name != "similarity"]
    sharing = ["default", "paper", *criteria, *(f"paper-{name}" for name in criteria)]
    return (*BASELINES, *sharing, *(f"default-{rule}" for rule in RULES), *CONTROLS)


def run(problem: Problem, method: str, seed: int, rows: Sequence[Row] = ()) -> Row:
    """Train and test; ``rows`` holds the run that a control takes its groups from.

    Raises
    ------
    ValueError
        If the method is unknown, or a control comes before what it controls.
    """
    if method not in names():
        raise ValueError(f"unknown method {method!r}; choose from {', '.join(names())}.")
    if method == "stl":
        return _single_tasks(problem, seed)
    model = build_model(problem, seed)
    groups = _given_groups(problem, method, model)
    if groups:
        # All branches start with the same weights: to merge them before the first step changes no output.
        apply(MergePlan(len(model.tasks), groups, tuple(group[0] for group in groups)), model)
    history, seconds = fit(problem, model, _sharing(method, seed, model, rows), seed)
    return row_of(problem, method, seed, model, history, seconds)


def fit(
    problem: Problem, model: MultiTaskModel, sharing: SelectiveSharing | None, seed: int
) -> tuple[History, list[float]]:
    """Train by the recipe; the history, and the processor's seconds for each epoch, its evaluation included."""
    clock = [time.process_time()]

    def tick(record: EpochRecord) -> None:
        clock.append(time.process_time())

    # Weights of the best epoch by the metric: it is what the tables compare.
    chosen: dict[str, Any] = {"seed": seed, "select_by": "metric", "callbacks": [tick], "progress": False}
    trainer = make_trainer(problem, model, sharing, **chosen)
    history = trainer.fit(problem.train, problem.validation, problem.recipe.epochs)
    return history, [after - before for before, after in itertools.pairwise(clock)]


def row_of(
    problem: Problem, method: str, seed: int, model: MultiTaskModel, history: History, seconds: list[float]
) -> Row:
    """What is kept of a run."""
    tested = evaluate(model, problem.test)
    names = model.layout.names
    return {
        "method": method,
        "seed": seed,
        "metrics": tested.metrics,
        "mean_metric": tested.mean_metric,
        "test_loss": tested.loss,
        "epochs": len(history.epochs),
        "steps": len(history.epochs) * _steps(problem),
        "best_epoch": history.best_epoch,
        "lock_epoch": history.lock_epoch,
        "branches": model.bank.branches,
        "branch_parameters": model.branch_parameter_count(),
        "parameters": model.parameter_count(),
        "groups": [[names[task] for task in members] for members in model.tasks_by_branch() if len(members) > 1],
        "merges": [[event.epoch, event.groups] for event in history.events if event.merged],
        "curve": {
            "train_loss": [record.train_loss for record in history.epochs],
            "validation_loss": [record.validation_loss for record in history.epochs],
            "mean_metric": [record.mean_metric for record in history.epochs],
            "branches": [record.branches for record in history.epochs],
            "seconds": [record.seconds + record.sharing_seconds for record in history.epochs],
            "processor_seconds": seconds,
        },
    }


class FixedGroups:
    """A criterion that knows what it wants: given groups, from given epochs on.

    Parameters
    ----------
    model
        The model to share in, which says whose each branch is.
    partitions
        ``(epoch, groups of task indices)``, by epoch: from that epoch's end on these are the clusters.
    """

    __name__ = "fixed groups"

    def __init__(self, model: MultiTaskModel, partitions: Sequence[tuple[int, Sequence[Sequence[int]]]]) -> None:
        self._model, self._partitions = model, partitions

    def __call__(self, rows: Tensor, settings: ClusterSettings) -> Clustering:
        """One label per branch."""
        groups = next((groups for epoch, groups in reversed(self._partitions) if epoch <= settings.epoch), ())
        label = {task: index for index, group in enumerate(groups) for task in group}
        return Clustering(torch.tensor([label.get(tasks[0], -1) for tasks in self._model.tasks_by_branch()]))


def _given_groups(problem: Problem, method: str, model: MultiTaskModel) -> tuple[tuple[int, ...], ...]:
    """The groups of tasks that share a branch from the start."""
    if method == "hard":
        return (tuple(range(len(model.tasks))),)
    if method == "oracle":
        if problem.groups is None:
            raise ValueError(f"{problem.name} has no true groups for an oracle to know.")
        index = {name: task for task, name in enumerate(model.layout.names)}
        groups = (tuple(sorted(index[name] for name in group)) for group in problem.groups if len(group) > 1)
        return tuple(sorted(groups))
    return ()


def _sharing(method: str, seed: int, model: MultiTaskModel, rows: Sequence[Row]) -> SelectiveSharing | None:
    """What merges a method's branches."""
    if method in BASELINES:
        return None
    options: dict[str, Any] = {"capture": "free", "seed": seed, **_settings(method)}
    if method in CONTROLS:
        row = _row(rows, CONTROLS[method], seed)
        partitions = row["merges"] if method == "paper-chance" else [[1, row["groups"]]]
        return SelectiveSharing(FixedGroups(model, shuffled(model, partitions, seed)), **options)
    last = method.rpartition("-")[2]
    if last in RULES:
        return SelectiveSharing(merge=last, **options)
    return SelectiveSharing(last if last in CRITERIA else "similarity", **options)


def _settings(method: str) -> dict[str, Any]:
    """The settings that a method's name begins with."""
    return PAPER if method.partition("-")[0] == "paper" else {}


def _row(rows: Sequence[Row], method: str, seed: int) -> Row:
    found = find(rows, method=method, seed=seed)
    if found is None:
        raise ValueError(f"random groups of the same sizes need {method} with seed {seed} first.")
    return found


def shuffled(model: MultiTaskModel, partitions: Partitions, seed: int) -> list[tuple[int, list[list[int]]]]:
    """Groups of task names at each epoch, with the tasks permuted: the same sizes."""
    order = np.random.default_rng([seed, 6]).permutation(len(model.tasks)).tolist()
    index = {name: order[task] for task, name in enumerate(model.layout.names)}
    return [(epoch, [[index[name] for name in group] for group in groups]) for epoch, groups in partitions]


def _steps(problem: Problem) -> int:
    """Steps in an epoch; a last batch of one sample is left out, as the Trainer does."""
    full, rest = divmod(len(problem.train), problem.recipe.batch_size)  # type: ignore[arg-type]
    return full + (rest > 1)


def _single_tasks(problem: Problem, seed: int) -> Row:
    """A network per task, each with the best epoch of its own; sizes and times are summed."""
    parts = []
    for index in range(len(problem.tasks)):
        single = only_task(problem, index)
        model = build_model(single, seed)
        history, seconds = fit(single, model, None, seed)
        parts.append(row_of(single, "stl", seed, model, history, seconds))
    metrics = {name: value for part in parts for name, value in part["metrics"].items()}
    curves = {
        key: np.sum([part["curve"][key] for part in parts], axis=0).tolist()
        for key in ("train_loss", "validation_loss", "seconds", "processor_seconds")
    }
    curves["mean_metric"] = np.mean([part["curve"]["mean_metric"] for part in parts], axis=0).tolist()
    return {
        "method": "stl",
        "seed": seed,
        "metrics": metrics,
        "mean_metric": mean_metric(TaskLayout(problem.tasks), metrics),
        "test_loss": sum(part["test_loss"] for part in parts),
        "epochs": parts[0]["epochs"],
        "steps": sum(part["steps"] for part in parts),
        "best_epoch": None,
        "lock_epoch": None,
        "branches": 0,
        "branch_parameters": sum(part["branch_parameters"] for part in parts),
        "parameters": sum(part["parameters"] for part in parts),
        "groups": [],
        "merges": [],
        "curve": curves,
    }
