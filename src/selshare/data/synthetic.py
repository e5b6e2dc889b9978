"""Planted groups: many related binary tasks whose true groups are known, to see whether sharing finds them."""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn
from torch.utils.data import TensorDataset

from ..tasks import Task
from .problem import Problem

VALIDATION_SIZE, TEST_SIZE = 1_000, 4_000


def synthetic(
    *,
    tasks: int = 200,
    groups: int = 10,
    samples: int = 2_000,
    features: int = 32,
    relatedness: float = 0.8,
    signal: float = 3.0,
    noise: float = 0.1,
    seed: int = 0,
) -> Problem:
    """Return ``tasks`` binary tasks in ``groups`` planted groups of (nearly) equal size.

    Task t of group g follows a logistic model with weights
    ``w_t = signal · (√relatedness · c_g + √(1 − relatedness) · n_t)``: ``c_g`` the group's random direction, ``n_t``
    the task's own, both of unit length. So the weights of two tasks of one group are at cosine ``relatedness`` on
    average, those of two groups at cosine 0. A label is drawn from ``sigmoid(w_t · x)``, then flipped with probability
    ``noise``, independently for every task and sample, so no two tasks have the same labels. All tasks see the same
    inputs ``x ~ N(0, I)``; the order of the tasks says nothing about their groups.

    Parameters
    ----------
    tasks, groups
        Number of tasks and of planted groups; at most one group a task.
    samples
        Training samples; validation has 1,000 more and test 4,000.
    features
        Width of an input; the trunk is the identity, so this is the width of the shared representation too.
    relatedness
        Cosine of the weights within a group, between 0 (none) and 1 (tasks differ in their labels only).
    signal
        Length of a task's weights: the larger, the surer the labels.
    noise
        Share of labels flipped, below .5.
    seed
        Draws weights, groups, inputs and labels.

    Returns
    -------
    Problem
        With ``groups`` the planted groups. Tasks are named by group and number: ``g3-t017``.

    Raises
    ------
    ValueError
        Where a value is out of its range.
    """
    _check(tasks, groups, samples, features, relatedness, signal, noise)
    generator = torch.Generator().manual_seed(seed)
    group_of = (torch.arange(tasks) % groups)[torch.randperm(tasks, generator=generator)]
    centres = _unit_rows(groups, features, generator)
    own = _unit_rows(tasks, features, generator)
    weights = signal * (relatedness**0.5 * centres[group_of] + (1 - relatedness) ** 0.5 * own)

    group_width, task_width = len(str(groups - 1)), len(str(tasks - 1))
    names = [f"g{g:0{group_width}d}-t{t:0{task_width}d}" for t, g in enumerate(group_of.tolist())]
    members = [tuple(names[t] for t in (group_of == g).nonzero()[:, 0].tolist()) for g in range(groups)]
    return Problem(
        name="synthetic",
        description=f"Planted groups: {tasks:,} related binary tasks in {groups} groups, {samples:,} training samples.",
        tasks=tuple(Task.binary(name) for name in names),
        train=_sample(weights, noise, samples, generator),
        validation=_sample(weights, noise, VALIDATION_SIZE, generator),
        test=_sample(weights, noise, TEST_SIZE, generator),
        make_trunk=nn.Identity,
        shared_features=features,
        groups=tuple(members),
    )


def _unit_rows(rows: int, features: int, generator: Generator) -> Tensor:
    return nn.functional.normalize(torch.randn(rows, features, generator=generator))


def _sample(weights: Tensor, noise: float, samples: int, generator: Generator) -> TensorDataset:
    """Draw inputs ``(samples, features)`` and labels ``(samples, tasks)`` from the tasks' logistic models."""
    inputs = torch.randn(samples, weights.shape[1], generator=generator)
    labels = torch.bernoulli(torch.sigmoid(inputs @ weights.T), generator=generator)
    flipped = torch.rand(labels.shape, generator=generator) < noise
    return TensorDataset(inputs, torch.where(flipped, 1 - labels, labels))


def _check(
    tasks: int, groups: int, samples: int, features: int, relatedness: float, signal: float, noise: float
) -> None:
    for what, value in {"tasks": tasks, "groups": groups, "samples": samples, "features": features}.items():
        if value < 1:
            raise ValueError(f"synthetic was given {what}={value}; it must be at least 1.")
    if groups > tasks:
        raise ValueError(
            f"synthetic was given {groups} groups for {tasks} tasks; there can be at most one group a task."
        )
    if not 0 <= relatedness <= 1:
        raise ValueError(f"synthetic was given relatedness={relatedness}; it must lie between 0 and 1.")
    if not 0 <= noise < 0.5:
        raise ValueError(f"synthetic was given noise={noise}; the share of flipped labels must lie in [0, .5).")
    if signal <= 0:
        raise ValueError(f"synthetic was given signal={signal}; it must be above 0.")
