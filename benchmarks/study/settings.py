"""What the study trains on: each data set at a size, with a recipe.

Splits are drawn anew for every seed. One-vs-rest tasks are judged by average precision: of ten classes, nine tenths
of the labels are negative, so that accuracies differ in the third digit only. Whether the epochs were enough is for
the tables to show: the best epoch, and what the last quarter of them brought.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from torch import nn

from selshare.data import Problem, Recipe, load
from selshare.data.trunks import conv_trunk


@dataclass(frozen=True)
class Setting:
    """A row of the study: ``build(seed)`` gives the problem, recipe and all."""

    name: str
    build: Callable[[int], Problem]


def small_letter_trunk() -> nn.Sequential:
    """The digits' trunk on letters pooled to 14×14 pixels: ``(B, 1, 28, 28)`` → ``(B, 360)``."""
    return nn.Sequential(nn.AvgPool2d(2), conv_trunk(kernel=3, padding=1))


def _problem(name: str, recipe: Recipe, options: dict[str, Any], seed: int) -> Problem:
    problem = load(name, seed=seed, **options)
    tasks = problem.tasks
    if all(task.kind == "binary" for task in tasks):
        tasks = tuple(replace(task, metric="average_precision") for task in tasks)
    return replace(problem, tasks=tasks, recipe=recipe)


def _letters(name: str, recipe: Recipe, options: dict[str, Any], seed: int) -> Problem:
    return replace(_problem(name, recipe, options, seed), make_trunk=small_letter_trunk, shared_features=360)


def _fashion(train_size: int, recipe: Recipe) -> Setting:
    options = {"train_size": train_size, "validation_size": min(2 * train_size, 5000)}
    return Setting(f"fashion-{train_size}", partial(_problem, "fashion-mnist", recipe, options))


ALPHABETS = Recipe(lr=0.05, momentum=0.9, epochs=100, schedule="cosine")
GLYPHS = Recipe(optimizer="adam", lr=0.001, batch_size=100, epochs=40, schedule="cosine")
LETTERS = {"letters": 12, "renderings": 10}  # 543 letters, 10 images of each
SETTINGS = {
    setting.name: setting
    for setting in (
        Setting("digits", partial(_problem, "digits", Recipe(epochs=80), {})),
        _fashion(500, Recipe(epochs=200)),
        _fashion(2_000, Recipe(epochs=100)),
        _fashion(50_000, Recipe(epochs=40)),
        Setting("alphabets", partial(_letters, "alphabets", ALPHABETS, LETTERS)),
        Setting("glyphs", partial(_letters, "glyphs", GLYPHS, LETTERS)),
    )
}
