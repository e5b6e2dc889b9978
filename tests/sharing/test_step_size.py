"""The gradient of a merged branch: divided in the bank only, with every way to hold a gradient."""

import copy

import pytest
import torch

from selshare.optim import BankSGD
from selshare.sharing import GradientCapture, MergedGradient, MergePlan, apply

PLAN = MergePlan(6, ((0, 1, 4), (2, 3)), (1, 2))
PARTS = {"sum": [1.0, 1.0, 1.0], "root": [3**-0.5, 2**-0.5, 1.0], "mean": [1 / 3, 1 / 2, 1.0]}


def merged(make_model):
    model = make_model()
    apply(PLAN, model)
    return model


def backward(model, seed: int = 0, call=None):
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(12, 6, generator=generator)
    targets = torch.randint(0, 2, (12, 6), generator=generator).float()
    model.loss((model if call is None else call)(inputs), targets).backward()


@pytest.mark.parametrize("rule", PARTS)
@pytest.mark.parametrize("compiled", [False, True])
def test_only_the_bank_is_divided(make_model, compiled, rule):
    model = merged(make_model)
    plain = copy.deepcopy(model)
    backward(plain)
    scaled = MergedGradient(rule)
    scaled.start(model)
    backward(model, call=torch.compile(model, backend="aot_eager") if compiled else None)
    for (name, parameter), other in zip(model.named_parameters(), plain.parameters(), strict=True):
        parts = torch.tensor(PARTS[rule]).view(-1, *[1] * (other.ndim - 1)) if name.startswith("bank") else 1.0
        torch.testing.assert_close(parameter.grad, other.grad * parts)
    scaled.stop()
    model.zero_grad()
    backward(model)
    torch.testing.assert_close(model.bank.first_weight.grad, plain.bank.first_weight.grad)


def test_unformed_gradients_stay_so_and_are_captured(make_model):
    lazy, plain = merged(make_model), merged(make_model)
    plain.load_state_dict(lazy.state_dict())
    optimizers = BankSGD(lazy.parameters(), lr=0.1, momentum=0.5), torch.optim.SGD(plain.parameters(), 0.1, 0.5)
    captures = GradientCapture(), GradientCapture()
    for model, capture in zip((lazy, plain), captures, strict=True):
        capture.start(model)
        MergedGradient("mean").start(model)
    for step in range(3):
        for model, optimizer in zip((lazy, plain), optimizers, strict=True):
            optimizer.zero_grad()
            backward(model, step)
            optimizer.step()
    for one, other in zip(lazy.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one, other)
    rows = [capture.gradients().flatten(1) for capture in captures]
    torch.testing.assert_close(*(row / row.norm(dim=1, keepdim=True) for row in rows))


def test_the_counts_follow_a_merge(make_model):
    model = make_model()
    mean = MergedGradient("mean")
    mean.start(model)
    plain = copy.deepcopy(model)
    apply(PLAN, model)
    apply(PLAN, plain)
    mean.refresh()
    backward(model)
    mean.stop()
    plain.bank.first_weight._backward_hooks = None
    backward(plain)
    expected = plain.bank.first_weight.grad * torch.tensor(PARTS["mean"]).view(-1, 1, 1)
    torch.testing.assert_close(model.bank.first_weight.grad, expected)


def test_a_rule_that_is_none():
    with pytest.raises(ValueError, match="one of sum, root, mean, not 'half'"):
        MergedGradient("half")
