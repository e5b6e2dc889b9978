"""Planted binary tasks for timing: branches 100-100 on 300 shared features, as in the step benchmarks."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from selshare import BankSGD, MultiTaskModel, Task

BATCH, FEATURES, TASKS_PER_GROUP = 64, 300, 20


def planted_model(tasks: int) -> MultiTaskModel:
    """An untrained model without a trunk."""
    torch.manual_seed(0)
    return MultiTaskModel(nn.Identity(), FEATURES, (100, 100), [Task.binary(f"task {i}") for i in range(tasks)])


def planted_batches(tasks: int, steps: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of a logistic model whose weights are a group's centre plus a little of each task's own."""
    generator = torch.Generator().manual_seed(1)
    groups = max(tasks // TASKS_PER_GROUP, 1)
    centres = torch.randn(groups, FEATURES, generator=generator).repeat_interleave(-(-tasks // groups), 0)[:tasks]
    weights = (centres + 0.3 * torch.randn(tasks, FEATURES, generator=generator)) * 3 / FEATURES**0.5
    for _ in range(steps):
        inputs = torch.randn(BATCH, FEATURES, generator=generator)
        chances = (inputs @ weights.T).sigmoid()
        yield inputs, (chances > torch.rand(BATCH, tasks, generator=generator)).float()


def train(model: MultiTaskModel, optimizer: BankSGD, batches: list[tuple[Tensor, Tensor]]) -> None:
    """A step for each batch."""
    for inputs, targets in batches:
        optimizer.zero_grad()
        model.loss(model(inputs), targets).backward()
        optimizer.step()
