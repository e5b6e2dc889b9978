"""Free capture against accumulation, for every rule of SGD, and where it is refused."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from selshare import MultiTaskModel, Task
from selshare.optim import BankSGD
from selshare.sharing import FreeCapture, GradientCapture, SGDRule, gradient_sum_from_displacement

RULES: list[dict[str, Any]] = [
    {},
    {"momentum": 0.9},
    {"momentum": 0.5, "maximize": True},
    {"momentum": 0.9, "nesterov": True},
    {"dampening": 0.3},
    {"momentum": 0.9, "dampening": 0.3},
]


def run(weight: nn.Parameter, optimizer: torch.optim.Optimizer, steps: int) -> Tensor:
    """Steps with random gradients; their sum."""
    total = torch.zeros_like(weight, dtype=torch.float64)
    for _ in range(steps):
        weight.grad = torch.randn_like(weight)
        total += weight.grad
        optimizer.step()
    return total


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-4)], ids=str)
@pytest.mark.parametrize("options", RULES, ids=str)
def test_the_sum_follows_from_the_displacement(dtype: torch.dtype, tolerance: float, options: dict[str, Any]) -> None:
    weight = nn.Parameter(torch.randn(3, 4, 5, dtype=dtype))
    optimizer = torch.optim.SGD([weight], lr=0.02, **options)
    rule = SGDRule(0.02, **options)
    for epoch in range(2):
        if epoch == 0 and options.get("momentum") and options.get("dampening"):
            run(weight, optimizer, 1)  # the first momentum step is not dampened
        before = weight.detach().clone(), copy.deepcopy(optimizer.state[weight].get("momentum_buffer"))
        total = run(weight, optimizer, 50)
        after = weight.detach(), optimizer.state[weight].get("momentum_buffer")
        found = gradient_sum_from_displacement(before[0], after[0], before[1], after[1], rule)
        scale = total.abs().max().item()
        torch.testing.assert_close(found.double(), total, rtol=0, atol=tolerance * scale)


@pytest.mark.parametrize(
    ("rule", "why"),
    [
        (SGDRule(0.1, weight_decay=0.1), "weight decay"),
        (SGDRule(0.0), "learning rate of 0"),
        (SGDRule(0.1, momentum=1.0), "forgets nothing"),
        (SGDRule(0.1, momentum=0.5, dampening=1.0), "lets no gradient in"),
        (SGDRule(0.1, momentum=0.5, dampening=0.1), "first momentum step"),
    ],
)
def test_refused_where_it_is_not_exact(rule: SGDRule, why: str) -> None:
    weight = torch.zeros(2)
    with pytest.raises(ValueError, match=why):
        gradient_sum_from_displacement(weight, weight, None, None, rule)


def model() -> MultiTaskModel:
    torch.manual_seed(3)
    trunk = nn.Sequential(nn.Linear(6, 8), nn.Tanh())
    made = MultiTaskModel(trunk, 8, (5, 4), [Task.binary(f"t{i}") for i in range(4)]).double()
    with torch.no_grad():
        for parameter in made.bank.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return made


def step(one: MultiTaskModel, optimizer: torch.optim.Optimizer, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(10, 6, generator=generator, dtype=torch.float64)
    targets = (torch.rand(10, 4, generator=generator) < 0.5).double()
    optimizer.zero_grad()
    one.loss(one(inputs), targets).backward()
    optimizer.step()


@pytest.mark.parametrize("kind", [BankSGD, torch.optim.SGD, torch.optim.Adam])
@pytest.mark.parametrize("options", [{}, {"momentum": 0.9, "nesterov": True}, {"weight_decay": 0.1}], ids=str)
def test_free_capture_equals_accumulation(kind: Any, options: dict[str, Any]) -> None:
    if kind is torch.optim.Adam:
        options = {name: value for name, value in options.items() if name == "weight_decay"}
    one = model()
    optimizer = kind(one.parameters(), lr=0.02, **options)
    free, exact = FreeCapture(), GradientCapture()
    free.start(one, [optimizer])
    exact.start(one, [optimizer])
    for epoch in range(3):
        for seed in range(5):
            step(one, optimizer, 10 * epoch + seed)
        torch.testing.assert_close(free.gradients(), exact.gradients(), rtol=1e-8, atol=1e-10)
        free.reset()
        exact.reset()
        optimizer.param_groups[0]["lr"] *= 0.5  # a schedule between epochs
    free.stop()
    exact.stop()
    step(one, optimizer, 0)


def test_a_rate_that_changes_within_the_epoch() -> None:
    one = model()
    optimizer = BankSGD(one.parameters(), lr=0.02, momentum=0.9)
    free, exact = FreeCapture(), GradientCapture()
    free.start(one, [optimizer])
    exact.start(one, [optimizer])
    for seed in range(6):
        optimizer.param_groups[0]["lr"] = 0.02 / (1 + seed // 2)
        step(one, optimizer, seed)
    torch.testing.assert_close(free.gradients(), exact.gradients(), rtol=1e-8, atol=1e-10)
    optimizer.param_groups[0]["weight_decay"] = 0.1
    with pytest.raises(RuntimeError, match="change them between epochs"):
        step(one, optimizer, 7)
    free.reset()  # from now on it accumulates
    exact.reset()
    step(one, optimizer, 8)
    torch.testing.assert_close(free.gradients(), exact.gradients())


def test_a_weight_changed_from_outside_is_noticed() -> None:
    one = model()
    optimizer = BankSGD(one.parameters(), lr=0.02)
    free = FreeCapture()
    free.start(one, [optimizer])
    step(one, optimizer, 0)
    with torch.no_grad():
        one.bank.first_weight.mul_(0.5)
    with pytest.raises(RuntimeError, match="something other than its optimizer"):
        free.gradients()
    with pytest.raises(RuntimeError, match="something other than its optimizer"):
        step(one, optimizer, 1)


def test_not_started() -> None:
    with pytest.raises(RuntimeError, match="not been started"):
        FreeCapture().gradients()
