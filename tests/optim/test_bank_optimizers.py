"""BankSGD, BankAdam and BankAdamW against torch.optim, step by step and in everything around a step."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from selshare import MultiTaskModel, Task
from selshare.model.bank import resize_stacked, stacked_tensors
from selshare.model.lazy_gradient import LazyGradient, add_gradient, factors_of
from selshare.optim import BankAdam, BankAdamW, BankSGD

PAIRS: list[tuple[type[torch.optim.Optimizer], type[torch.optim.Optimizer], dict[str, Any]]] = [
    (BankSGD, torch.optim.SGD, {"lr": 0.1}),
    (BankSGD, torch.optim.SGD, {"lr": 0.05, "momentum": 0.9, "weight_decay": 1e-3}),
    (BankSGD, torch.optim.SGD, {"lr": 0.05, "momentum": 0.9, "nesterov": True}),
    (BankSGD, torch.optim.SGD, {"lr": 0.05, "momentum": 0.9, "dampening": 0.4}),
    (BankAdam, torch.optim.Adam, {"lr": 0.01, "weight_decay": 1e-3}),
    (BankAdam, torch.optim.Adam, {"lr": 0.01, "amsgrad": True}),
    (BankAdamW, torch.optim.AdamW, {"lr": 0.01, "weight_decay": 0.1}),
]
IDS = [f"{bank.__name__}-{'-'.join(options)}" for bank, _, options in PAIRS]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """The models here are too small to share out."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def model(dtype: torch.dtype = torch.float32, tasks: int = 4) -> MultiTaskModel:
    """A trunk, branches 12-24-20 that differ from each other, and binary heads."""
    torch.manual_seed(1)
    trunk = nn.Sequential(nn.Linear(9, 12), nn.Tanh())
    made = MultiTaskModel(trunk, 12, (24, 20), [Task.binary(f"t{i}") for i in range(tasks)]).to(dtype)
    with torch.no_grad():
        for parameter in made.bank.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return made


def batch(seed: int, dtype: torch.dtype = torch.float32, tasks: int = 4) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(16, 9, generator=generator, dtype=dtype)
    targets = (torch.rand(16, tasks, generator=generator) < 0.5).to(dtype)
    targets[3, 1] = torch.nan
    return inputs, targets


def backward(one: MultiTaskModel, seed: int) -> None:
    inputs, targets = batch(seed, one.bank.first_weight.dtype)
    one.loss(one(inputs), targets).backward()


def train(one: MultiTaskModel, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for seed in steps:
        optimizer.zero_grad()
        backward(one, seed)
        optimizer.step()


def agree(one: MultiTaskModel, other: MultiTaskModel, tolerance: float) -> None:
    for (name, ours), theirs in zip(one.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance, msg=name)


def is_lazy(parameter: nn.Parameter) -> bool:
    return factors_of(parameter.grad) is not None


@pytest.mark.parametrize(("bank", "plain", "options"), PAIRS, ids=IDS)
def test_100_steps_equal_torch(bank: Callable[..., Any], plain: Callable[..., Any], options: dict[str, Any]) -> None:
    for dtype, steps, tolerance in ((torch.float32, 100, 1e-4), (torch.float64, 20, 1e-11)):
        ours, theirs = model(dtype), model(dtype)
        train(ours, bank(ours.parameters(), **options), range(steps))
        train(theirs, plain(theirs.parameters(), **options), range(steps))
        agree(ours, theirs, tolerance)


def test_the_bank_weights_are_never_formed() -> None:
    """Those of heads are: they are smaller than what they would be formed from."""
    one = model()
    optimizer = BankSGD(one.parameters(), lr=0.1, momentum=0.9)
    train(one, optimizer, range(2))
    for name, parameter in one.named_parameters():
        assert is_lazy(parameter) == (parameter.ndim == 3 and name.startswith("bank")), name
    optimizer.zero_grad()
    assert one.bank.first_weight.grad is None


def test_state_dicts_are_exchanged_with_torch() -> None:
    ours, theirs = model(), model()
    first, second = BankSGD(ours.parameters(), lr=0.1, momentum=0.9), torch.optim.SGD(theirs.parameters(), lr=9.0)
    train(ours, first, range(3))
    theirs.load_state_dict(ours.state_dict())
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    train(ours, first, range(3, 6))
    train(theirs, second, range(3, 6))
    agree(ours, theirs, 1e-5)
    third = BankSGD(ours.parameters(), lr=9.0)
    third.load_state_dict(copy.deepcopy(second.state_dict()))
    assert third.param_groups[0]["lr"] == 0.1
    train(ours, third, range(6, 8))
    train(theirs, second, range(6, 8))
    agree(ours, theirs, 1e-5)


def test_param_groups_schedulers_hooks_and_closures() -> None:
    results = []
    for kind in (BankSGD, torch.optim.SGD):
        one = model()
        optimizer = kind([{"params": one.bank.parameters(), "lr": 0.2}, {"params": one.trunk.parameters()}], lr=0.1)
        optimizer.add_param_group({"params": one.heads.parameters(), "lr": 0.05, "momentum": 0.5})
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5)
        calls: list[str] = []
        optimizer.register_step_pre_hook(lambda *_, calls=calls: calls.append("before"))
        optimizer.register_step_post_hook(lambda *_, calls=calls: calls.append("after"))

        def closure(one: MultiTaskModel = one, optimizer: torch.optim.Optimizer = optimizer) -> float:
            optimizer.zero_grad()
            backward(one, 5)
            return 3.5

        for _ in range(4):
            assert optimizer.step(closure) == 3.5
            scheduler.step()
        assert calls == ["before", "after"] * 4
        assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.05, 0.025, 0.0125])
        results.append(one)
    agree(*results, 1e-5)


def test_gradients_accumulate_over_backwards() -> None:
    ours, theirs = model(), model()
    first, second = BankSGD(ours.parameters(), lr=0.1, momentum=0.9), torch.optim.SGD(theirs.parameters(), 0.1, 0.9)
    for round_ in range(3):
        for one, optimizer in ((ours, first), (theirs, second)):
            optimizer.zero_grad()
            for part in range(3):
                backward(one, 10 * round_ + part)
            optimizer.step()
    agree(ours, theirs, 1e-5)


def test_clipping_sees_and_scales_the_gradient() -> None:
    ours, theirs = model(), model()
    first, second = BankSGD(ours.parameters(), lr=0.1), torch.optim.SGD(theirs.parameters(), lr=0.1)
    norms = []
    for one, optimizer in ((ours, first), (theirs, second)):
        backward(one, 0)
        norms.append(torch.nn.utils.clip_grad_norm_(one.parameters(), 1e-2))
        optimizer.step()
    torch.testing.assert_close(*norms)
    agree(ours, theirs, 1e-6)


@pytest.mark.parametrize("to_none", [True, False])
def test_dropped_gradients_stay_dropped(to_none: bool) -> None:
    ours, theirs = model(), model()
    for one, kind in ((ours, BankSGD), (theirs, torch.optim.SGD)):
        optimizer = kind(one.parameters(), lr=0.1)
        backward(one, 0)
        one.zero_grad(set_to_none=to_none)
        optimizer.step()
        backward(one, 1)
        optimizer.step()
    agree(ours, theirs, 1e-6)


def test_a_lazy_gradient_is_the_gradient() -> None:
    ours, theirs = model(torch.float64), model(torch.float64)
    BankSGD(ours.parameters(), lr=0.1)
    seen: list[Tensor] = []
    ours.bank.first_weight.register_hook(lambda gradient: seen.append(gradient.sum()))
    backward(ours, 0)
    backward(theirs, 0)
    gradient, wanted = ours.bank.first_weight.grad, theirs.bank.first_weight.grad
    assert gradient is not None
    assert wanted is not None
    assert gradient.shape == wanted.shape
    assert gradient.dtype == wanted.dtype
    torch.testing.assert_close(gradient + 0, wanted)
    torch.testing.assert_close(seen[0], wanted.sum())
    assert repr(gradient).startswith("tensor")
    assert torch.tensor(gradient.tolist()).shape == wanted.shape
    assert gradient.numpy().shape == wanted.shape
    assert type(copy.deepcopy(gradient)) is Tensor
    inputs, targets = batch(1, torch.float64)
    (direct,) = torch.autograd.grad(ours.loss(ours(inputs), targets), [ours.bank.first_weight])
    (expected,) = torch.autograd.grad(theirs.loss(theirs(inputs), targets), [theirs.bank.first_weight])
    torch.testing.assert_close(direct + 0, expected)


def test_other_optimizers_take_lazy_gradients_too() -> None:
    ours, theirs = model(), model()
    BankSGD(ours.parameters(), lr=0.1)
    train(ours, torch.optim.RMSprop(ours.parameters(), lr=0.01), range(3))
    train(theirs, torch.optim.RMSprop(theirs.parameters(), lr=0.01), range(3))
    agree(ours, theirs, 1e-5)


def test_copies_of_model_and_optimizer_stay_fused() -> None:
    one = model()
    optimizer = BankAdam(one.parameters(), lr=0.1)
    backward(one, 0)
    optimizer.step()
    twin, copied = copy.deepcopy((one, optimizer))
    for each in (one, twin):
        each.zero_grad()
    train(one, optimizer, range(2))
    train(twin, copied, range(2))
    assert is_lazy(twin.bank.first_weight)
    agree(one, twin, 0.0)


def test_capture_happens_in_the_step_once() -> None:
    one, other = model(torch.float64), model(torch.float64)
    captured = torch.zeros_like(one.bank.first_weight, requires_grad=False)
    one.bank.first_weight.register_hook(lambda gradient: add_gradient(captured, gradient))
    total = torch.zeros_like(captured)
    ours = BankSGD(one.parameters(), lr=0.1, momentum=0.5)
    theirs = torch.optim.SGD(other.parameters(), lr=0.1, momentum=0.5)
    train(one, ours, range(3))
    for seed in range(3):
        theirs.zero_grad()
        backward(other, seed)
        total += other.bank.first_weight.grad
        theirs.step()
    assert is_lazy(one.bank.first_weight)
    torch.testing.assert_close(captured, total)
    ours.step()  # the same gradient again: an update, no second capture
    torch.testing.assert_close(captured, total)
    backward(one, 4)  # accumulates onto the gradient in .grad, which forms both
    assert not is_lazy(one.bank.first_weight)


def test_a_merge_drops_the_gradient_and_training_goes_on() -> None:
    ours, theirs = model(), model()
    for one, kind in ((ours, BankSGD), (theirs, torch.optim.SGD)):
        optimizer = kind(one.parameters(), lr=0.1, momentum=0.9)
        train(one, optimizer, range(2))
        resize_stacked(one.bank, {name: tensor[:2].clone() for name, tensor in stacked_tensors(one.bank).items()})
        for parameter in one.bank.parameters():
            state = optimizer.state[parameter]
            state["momentum_buffer"] = state["momentum_buffer"][:2].clone()
        one.reassign(torch.tensor([0, 1, 1, 0]))
        assert one.bank.first_weight.grad is None
        train(one, optimizer, range(2, 5))
    agree(ours, theirs, 1e-5)


def test_an_input_changed_in_place_before_the_step_is_noticed() -> None:
    one = model()
    optimizer = BankSGD(one.parameters(), lr=0.1)
    inputs, targets = batch(0)
    shared = one.shared(inputs)
    one.loss(one.outputs_from(shared), targets).backward()
    with torch.no_grad():
        shared.zero_()
    with pytest.raises(RuntimeError, match="changed in place between backward and step"):
        optimizer.step()


def test_invalid_arguments_are_torchs_errors() -> None:
    with pytest.raises(ValueError, match="learning rate"):
        BankSGD(model().parameters(), lr=-1.0)
    with pytest.raises(ValueError, match="Nesterov"):
        BankSGD(model().parameters(), lr=0.1, nesterov=True)


def test_lazy_gradients_are_tensors_without_memory() -> None:
    one = model()
    BankSGD(one.parameters(), lr=0.1)
    backward(one, 0)
    gradient = one.bank.first_weight.grad
    assert isinstance(gradient, LazyGradient)
    assert gradient.detach() is not gradient
    assert is_lazy(one.bank.first_weight), "detaching does not form it"
