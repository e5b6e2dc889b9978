"""A problem's recipe made into an optimizer and a schedule."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from selshare.data import Recipe, load
from selshare.training.methods import build_model, make_optimizer, make_scheduler, make_trainer, run_method


def test_a_cosine_falls_from_the_rate_to_zero() -> None:
    recipe = Recipe(lr=0.4, schedule="cosine")
    optimizer = make_optimizer(recipe)(nn.Linear(2, 2).parameters())
    scheduler = make_scheduler(recipe, optimizer, 4)
    assert scheduler is not None
    rates = []
    for _ in range(4):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates == pytest.approx([0.2 * (1 + math.cos(math.pi * epoch / 4)) for epoch in range(4)])
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0)


def test_a_method_trains_by_its_recipes_schedule() -> None:
    problem = load("synthetic", tasks=4, groups=2, samples=200, features=8)
    recipe = replace(problem.recipe, lr=0.1, batch_size=50, epochs=3)
    losses = {}
    for schedule in ("constant", "cosine"):
        run = run_method(replace(problem, recipe=replace(recipe, schedule=schedule)), "mtl", progress=False)
        losses[schedule] = torch.tensor([record.train_loss for record in run.history.epochs])
    assert losses["cosine"][0] == losses["constant"][0]
    assert losses["cosine"][2] > losses["constant"][2]  # the rate of the third epoch is a quarter


def test_a_trainer_has_the_recipes_batches_rate_and_schedule() -> None:
    problem = load("synthetic", tasks=4, groups=2, samples=200, features=8)
    problem = replace(problem, recipe=Recipe(lr=0.3, momentum=0.0, batch_size=50, epochs=2, schedule="cosine"))
    trainer = make_trainer(problem, build_model(problem, 0), epochs=4, seed=5, progress=False)
    assert (trainer.batch_size, trainer.optimizer.param_groups[0]["lr"]) == (50, 0.3)
    trainer.fit(problem.train, epochs=2)
    assert trainer.optimizer.param_groups[0]["lr"] == pytest.approx(0.15)  # half of the four epochs
