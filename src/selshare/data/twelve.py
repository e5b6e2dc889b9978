"""Twelve linear tasks in six pairs: the synthetic benchmark of SRDML (Bai and Zhao, KDD 2022, arXiv 2207.01117)."""

from __future__ import annotations

import torch
from torch import Generator, nn
from torch.utils.data import TensorDataset

from ..tasks import Task
from .problem import Problem, Recipe

FEATURES = 20
SLOPES = (1, 1, 2, 2, 3, 3, -1, -1, -2, -2, -3, -3)


def twelve(*, samples: int = 10, noise: float = 0.01, seed: int = 0) -> Problem:
    """Return twelve regressions ``y = s·Σx + noise`` in six pairs of equal slope s: ±1, ±2 and ±3.

    Every task has points of its own, ``x ~ N(0, I)`` in 20 dimensions, so each sample has one label and eleven
    missing ones: 10 points a task for training, 40 for validation and 40 for testing. The recipe is the benchmark's:
    full batches, SGD at .01, 150 iterations. The inputs' distribution, the validation points (the benchmark has
    none) and the width of the branches, 20, are *ours*.

    Parameters
    ----------
    samples
        Training points per task.
    noise
        Standard deviation of the labels' noise.
    seed
        Draws points and noise.

    Returns
    -------
    Problem
        With ``groups`` the six pairs. Tasks are named by slope: ``+2 a`` and ``+2 b`` belong together.

    Raises
    ------
    ValueError
        Where a value is out of its range.
    """
    if samples < 1:
        raise ValueError(f"twelve was given samples={samples}; it must be at least 1.")
    if noise < 0:
        raise ValueError(f"twelve was given noise={noise}; it must not be negative.")
    generator = torch.Generator().manual_seed(seed)
    names = [f"{slope:+d} {twin}" for slope, twin in zip(SLOPES, "ab" * 6, strict=True)]
    return Problem(
        name="twelve",
        description=f"SRDML's synthetic benchmark: twelve linear tasks in six pairs, {samples} training points each.",
        tasks=tuple(Task.regression(name, metric="mse") for name in names),
        train=_sample(samples, noise, generator),
        validation=_sample(40, noise, generator),
        test=_sample(40, noise, generator),
        make_trunk=nn.Identity,
        shared_features=FEATURES,
        hidden=(FEATURES,),
        recipe=Recipe(lr=0.01, momentum=0.0, batch_size=samples * len(SLOPES), epochs=150),
        groups=tuple(zip(names[::2], names[1::2], strict=True)),
        citation="G. Bai, L. Zhao: Saliency-regularized deep multi-task learning, KDD 2022, arXiv 2207.01117",
        licence="Generated; no data of others.",
    )


def _sample(samples: int, noise: float, generator: Generator) -> TensorDataset:
    """Draw ``samples`` points per task: inputs ``(12·samples, 20)``, targets with one label a row."""
    count = samples * len(SLOPES)
    inputs = torch.randn(count, FEATURES, generator=generator)
    task = torch.arange(count) % len(SLOPES)
    values = torch.tensor(SLOPES)[task] * inputs.sum(1) + noise * torch.randn(count, generator=generator)
    targets = torch.full((count, len(SLOPES)), torch.nan)
    targets[torch.arange(count), task] = values
    return TensorDataset(inputs, targets)
