"""One method on one problem: the paper's baselines and selective sharing through the same code."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from sklearn.metrics import adjusted_rand_score
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler

from ..data import Problem, Recipe
from ..model import MultiTaskModel
from ..objectives import SaliencyRegularizer, TaskRelations
from ..optim import BankAdam, BankAdamW, BankSGD
from ..sharing import SelectiveSharing
from ..tasks import TaskLayout
from .evaluation import evaluate
from .history import History
from .method_names import check_methods, method_parts
from .method_objectives import make_objectives
from .metrics import mean_metric
from .single_task import only_task
from .trainer import MakeOptimizer, Trainer


@dataclass(frozen=True)
class Result:
    """One row of a comparison: a method with one seed, measured on the test data.

    Attributes
    ----------
    method, seed
        As :func:`run_method` takes it, and the seed of weights, order and dropout.
    metrics, mean_metric
        Per task and their mean, on the test split, with the weights of the best validation epoch.
    parameters, branch_parameters
        Trainable parameters in all and of the live branches.
    branches
        Live branches; 0 for STL, which has a network per task.
    lock_epoch
        When the sharing locked; ``None`` if it did not.
    groups
        Task names by branch: who shares with whom in the end. Branches of a single task are left out.
    seconds_per_epoch
        Mean over epochs; for STL the sum over its networks.
    adjusted_rand
        Agreement of the groups with the true ones where the problem knows them (1 is perfect, 0 is chance).
    """

    method: str
    seed: int
    metrics: dict[str, float]
    mean_metric: float
    parameters: int
    branch_parameters: int
    branches: int
    lock_epoch: int | None
    groups: list[list[str]]
    seconds_per_epoch: float
    adjusted_rand: float | None = None

    def to_json(self) -> dict[str, Any]:
        """As data that ``json.dumps`` takes."""
        return asdict(self)


@dataclass(frozen=True)
class Run:
    """A result with the history it came from and the trained model; STL has several of these and gives neither.

    ``relations`` are those that ``srdml`` has learned.
    """

    result: Result
    history: History | None = None
    model: MultiTaskModel | None = field(default=None, repr=False)
    relations: TaskRelations | None = None


def run_method(
    problem: Problem,
    method: str,
    *,
    seed: int = 0,
    epochs: int | None = None,
    progress: bool = True,
    sharing_options: dict[str, Any] | None = None,
    objective_options: Mapping[str, Mapping[str, Any]] | None = None,
) -> Run:
    """Train ``method`` on ``problem`` and test it.

    Parameters
    ----------
    problem
        See :func:`selshare.data.load`.
    method
        ``"stl"`` (one network per task), ``"mtl"`` (all branches, never merged), a criterion of selective sharing,
        ``"srdml"`` or ``"distribution-matching"`` (with all branches), or several of these joined by ``+``:
        ``"srdml+similarity"``.
    seed
        Of the initial weights, the order of the samples and dropout.
    epochs
        The problem's own number when ``None``.
    progress
        Show progress on the terminal.
    sharing_options
        Further arguments of :class:`selshare.SelectiveSharing`.
    objective_options
        See :func:`selshare.training.method_objectives.make_objectives`.

    Raises
    ------
    ValueError
        If the method is unknown, or the tasks do not allow it.
    """
    check_methods([method])
    epochs = problem.recipe.epochs if epochs is None else epochs
    if method == "stl":
        return _single_tasks(problem, seed, epochs, progress)
    parts = method_parts(method)
    model = build_model(problem, seed)
    # Free where the recipe's optimizer allows it, accumulated elsewhere: exact either way.
    options = {"capture": "free", "seed": seed, **(sharing_options or {})}
    sharing = None if parts.criterion is None else SelectiveSharing(parts.criterion, **options)
    objectives = make_objectives(problem, parts.objectives, objective_options)
    shown = {"progress": progress, "title": method if progress else ""}
    trainer = make_trainer(problem, model, sharing, epochs=epochs, objectives=objectives, seed=seed, **shown)
    history = trainer.fit(problem.train, problem.validation, epochs)
    tested = evaluate(model, problem.test)
    result = _result(problem, method, seed, model, history, tested.metrics)
    learned = next((term.relations() for term in objectives if isinstance(term, SaliencyRegularizer)), None)
    return Run(result, history, model, learned)


def build_model(problem: Problem, seed: int) -> MultiTaskModel:
    """An untrained model for ``problem``, its weights drawn with ``seed``; the global random state is left alone."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return MultiTaskModel(
            problem.make_trunk(),
            problem.shared_features,
            problem.hidden,
            problem.tasks,
            dropout=problem.dropout,
        )


def make_trainer(
    problem: Problem,
    model: MultiTaskModel,
    sharing: SelectiveSharing | None = None,
    *,
    epochs: int | None = None,
    **options: Any,
) -> Trainer:
    """A trainer by the problem's recipe: its optimizer, its rate over ``epochs``, its batches.

    Parameters
    ----------
    problem, model, sharing
        What is trained, and what merges its branches.
    epochs
        How long the rate's schedule is; the recipe's own number when ``None``.
    options
        Further arguments of :class:`selshare.Trainer`.
    """
    recipe = problem.recipe
    optimizer = make_optimizer(recipe)(model.parameters())
    scheduler = make_scheduler(recipe, optimizer, recipe.epochs if epochs is None else epochs)
    return Trainer(model, optimizer, sharing, scheduler=scheduler, batch_size=recipe.batch_size, **options)


def make_optimizer(recipe: Recipe) -> MakeOptimizer:
    """A function that builds the recipe's optimizer from parameters."""
    decay = recipe.weight_decay
    if recipe.optimizer == "sgd":
        return partial(BankSGD, lr=recipe.lr, momentum=recipe.momentum, weight_decay=decay)
    kinds: dict[str, Callable[..., torch.optim.Optimizer]] = {"adam": BankAdam, "adamw": BankAdamW}
    return partial(kinds[recipe.optimizer], lr=recipe.lr, weight_decay=decay)


def make_scheduler(recipe: Recipe, optimizer: torch.optim.Optimizer, epochs: int) -> LRScheduler | None:
    """The recipe's schedule over so many epochs, a step an epoch; ``None`` where the rate is constant."""
    return CosineAnnealingLR(optimizer, epochs) if recipe.schedule == "cosine" else None


def _result(
    problem: Problem, method: str, seed: int, model: MultiTaskModel, history: History, metrics: dict[str, float]
) -> Result:
    """The row of a multi-task model."""
    names = model.layout.names
    groups = [[names[task] for task in members] for members in model.tasks_by_branch() if len(members) > 1]
    return Result(
        method=method,
        seed=seed,
        metrics=metrics,
        mean_metric=mean_metric(model.layout, metrics),
        parameters=model.parameter_count(),
        branch_parameters=model.branch_parameter_count(),
        branches=model.bank.branches,
        lock_epoch=history.lock_epoch,
        groups=groups,
        seconds_per_epoch=history.seconds_per_epoch,
        adjusted_rand=None if method_parts(method).criterion is None else _agreement(problem, model),
    )


def _agreement(problem: Problem, model: MultiTaskModel) -> float | None:
    """Adjusted Rand index of the final groups against the true ones."""
    if problem.groups is None:
        return None
    truth = {name: index for index, group in enumerate(problem.groups) for name in group}
    return float(adjusted_rand_score([truth[name] for name in model.layout.names], model.assignment.tolist()))


def _single_tasks(problem: Problem, seed: int, epochs: int, progress: bool) -> Run:
    """One network per task, each trained and selected by itself; their sizes and times are summed."""
    layout = TaskLayout(problem.tasks)
    metrics: dict[str, float] = {}
    parameters = branch_parameters = 0
    seconds = 0.0
    tasks = range(len(problem.tasks))
    for index in track(tasks, "stl, a network per task", console=Console(stderr=True), disable=not progress):
        single = only_task(problem, index)
        model = build_model(single, seed)
        trainer = make_trainer(single, model, epochs=epochs, seed=seed, progress=False)
        history = trainer.fit(single.train, single.validation, epochs)
        metrics |= evaluate(model, single.test).metrics
        parameters += model.parameter_count()
        branch_parameters += model.branch_parameter_count()
        seconds += history.seconds_per_epoch
    mean = mean_metric(layout, metrics)
    return Run(Result("stl", seed, metrics, mean, parameters, branch_parameters, 0, None, [], seconds))
