"""The sketched capture against the exact one: the same inner products, the same groups."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn

from selshare import MultiTaskModel, SelectiveSharing, Task, Trainer
from selshare.data import load
from selshare.optim import BankSGD
from selshare.sharing import Capture, GradientCapture, SketchedCapture
from selshare.sharing.capture import make_capture
from selshare.sharing.sketched_capture import WholeOrSketchedCapture
from selshare.training.methods import build_model

OPTIMIZERS = [torch.optim.SGD, BankSGD]


def small_model(tasks: int = 5, outputs: int = 6) -> MultiTaskModel:
    trunk = nn.Sequential(nn.Linear(4, 30), nn.ReLU())
    return MultiTaskModel(trunk, 30, (outputs, 3), [Task.binary(str(i)) for i in range(tasks)])


def train(model: MultiTaskModel, optimizer: torch.optim.Optimizer, steps: int = 4) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        model.loss(model(torch.randn(8, 4)), torch.randint(0, 2, (8, len(model.tasks))).float()).backward()
        optimizer.step()


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_it_is_the_projection_of_the_exact_capture(kind: type[torch.optim.Optimizer]) -> None:
    model = small_model()
    optimizer = kind(model.parameters(), lr=0.1)
    exact, sketched = GradientCapture(), SketchedCapture(48, seed=3)
    for capture in (exact, sketched):
        capture.start(model, [optimizer])
    train(model, optimizer)
    assert isinstance(sketched, Capture)
    assert sketched._projection is not None
    directions = sketched._projection.directions.double().reshape(8, 6, 30)
    expected = (exact.gradients().double().unsqueeze(1) * directions).sum(-1)
    torch.testing.assert_close(sketched.gradients().double(), expected, rtol=1e-4, atol=1e-6)


def test_distances_are_kept_within_the_stated_deviation() -> None:
    model = small_model(tasks=12)
    optimizer = BankSGD(model.parameters(), lr=0.1)
    exact = GradientCapture()
    exact.start(model, [optimizer])
    sketches = [SketchedCapture(600, seed=seed) for seed in range(10)]
    for sketch in sketches:
        sketch.start(model, [optimizer])
    train(model, optimizer)
    true = torch.pdist(exact.gradients().double().flatten(1)).square()
    ratios = torch.stack([torch.pdist(s.gradients().double().flatten(1)).square() / true for s in sketches])
    # Relative standard deviation of a squared distance is at most √(2/q), q = 100 directions for each output.
    assert abs(float(ratios.mean()) - 1) < 0.03
    assert float((ratios - 1).square().mean().sqrt()) < (2 / 100) ** 0.5


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_it_finds_the_planted_groups(kind: type[torch.optim.Optimizer]) -> None:
    problem = load("synthetic", tasks=60, groups=6, samples=1500, seed=1)
    model = build_model(problem, seed=0)
    make = partial(kind, lr=problem.recipe.lr, momentum=problem.recipe.momentum)
    sharing = SelectiveSharing(capture="sketch", sketch_size=1000, sketch_above=0)
    Trainer(model, make, sharing, progress=False).fit(problem.train, epochs=1)
    assert problem.groups is not None
    found = {frozenset(model.layout.names[t] for t in tasks) for tasks in model.tasks_by_branch()}
    assert found == {frozenset(group) for group in problem.groups}


def test_it_follows_merges_and_stops() -> None:
    model = small_model()
    capture = SketchedCapture(60)
    with pytest.raises(RuntimeError, match="has not been started"):
        capture.gradients()
    capture.start(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    train(model, optimizer)
    assert capture.gradients().any()
    capture.reset()
    assert not capture.gradients().any()
    model.eval()
    train(model, optimizer)
    assert not capture.gradients().any(), "only training counts"
    capture.stop()
    model.train()
    train(model, optimizer)


@pytest.mark.parametrize(("above", "size", "whole"), [(900, 6, True), (899, 6, False), (0, 180, True), (0, 179, False)])
def test_gradients_are_kept_whole_up_to_a_size(above: int, size: int, whole: bool) -> None:
    model = small_model(tasks=5)  # 5 branches, 6 × 30 numbers each: 900
    optimizer = BankSGD(model.parameters(), lr=0.1)
    exact, capture = (
        GradientCapture(),
        make_capture(SelectiveSharing(capture="sketch", sketch_size=size, sketch_above=above).settings),
    )
    assert isinstance(capture, WholeOrSketchedCapture)
    with pytest.raises(RuntimeError, match="has not been started"):
        capture.gradients()
    for each in (exact, capture):
        each.start(model, [optimizer])
    train(model, optimizer)
    assert capture.sketches is not whole
    if whole:
        torch.testing.assert_close(capture.gradients(), exact.gradients(), rtol=0, atol=0)
    else:
        assert capture.gradients().shape == (5, size // 6, 6)
    capture.reset()
    assert not capture.gradients().any()
    capture.stop()


def test_a_sketch_below_the_layers_outputs_is_refused() -> None:
    with pytest.raises(ValueError, match="sketch_size is 5, but the first layer of a branch has 6 outputs"):
        SelectiveSharing(capture="sketch", sketch_size=5, sketch_above=0).attach(small_model())
    with pytest.raises(ValueError, match="sketch_size must be a whole number"):
        SelectiveSharing(sketch_size=0)
    model = small_model()
    model.bank.first_weight.requires_grad_(False)
    with pytest.raises(ValueError, match="frozen"):
        SelectiveSharing(capture="sketch").attach(model)
