"""The bank against a loop over modules."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from selshare.model import BranchBank, mlp_branch
from selshare.model.bank import resize_stacked, stacked_tensors


def modules(count: int) -> list[nn.Module]:
    return [mlp_branch(6, (5, 4)).double() for _ in range(count)]


class Residual(nn.Module):
    """A branch that is no plain stack of layers, with a tied weight and batch statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(6)
        self.first = nn.Linear(6, 6)
        self.second = nn.Linear(6, 6, bias=False)
        self.second.weight = self.first.weight

    def forward(self, shared: Tensor) -> Tensor:
        hidden: Tensor = shared + torch.tanh(self.first(self.norm(shared)))
        return hidden * self.second(hidden)


@pytest.mark.parametrize("branches", [1, 2, 7])
def test_forward_and_gradients_equal_a_loop_over_modules(branches: int) -> None:
    originals = modules(branches)
    bank = BranchBank.from_modules(originals)
    shared = torch.randn(3, 6, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(branches, 3, 4, dtype=torch.float64)
    (bank(shared) * weights).sum().backward()
    assert shared.grad is not None
    bank_input_gradient = shared.grad.clone()
    shared.grad = None
    looped = torch.stack([module(shared) for module in originals])
    (looped * weights).sum().backward()
    torch.testing.assert_close(bank(shared), looped, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(bank_input_gradient, shared.grad, rtol=1e-12, atol=1e-12)
    for name, parameter in bank.stacked.named_parameters():
        expected = torch.stack([module.get_parameter(name).grad for module in originals])
        torch.testing.assert_close(parameter.grad, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("training", [False, True])
def test_any_template_runs_stacked(training: bool) -> None:
    originals = [Residual().double().train(training) for _ in range(3)]
    bank = BranchBank.from_modules(originals).train(training)
    shared = torch.randn(5, 6, dtype=torch.float64)
    torch.testing.assert_close(bank(shared), torch.stack([module(shared) for module in originals]))
    unpacked = bank.to_modules()
    for module, original in zip(unpacked, originals, strict=True):
        for name, tensor in original.state_dict().items():
            torch.testing.assert_close(module.state_dict()[name], tensor)
    assert len(list(bank.parameters())) == len(list(originals[0].parameters())), "tied weights stay tied"


def test_branches_start_identical_and_packing_round_trips_to_the_bit() -> None:
    template = mlp_branch(6, (5, 4), dropout=0.2)
    bank = BranchBank(template, 3)
    for module in bank.to_modules():
        assert all(torch.equal(a, b) for a, b in zip(module.parameters(), template.parameters(), strict=True))
    originals = modules(3)
    for module, original in zip(BranchBank.from_modules(originals).to_modules(), originals, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(module.parameters(), original.parameters(), strict=True))


def test_dropout_draws_its_own_mask_for_every_branch() -> None:
    bank = BranchBank(mlp_branch(6, (50,), dropout=0.5), 2)
    shared = torch.randn(4, 6)
    first, second = bank(shared)
    assert not torch.equal(first, second)
    bank.eval()
    first, second = bank(shared)
    torch.testing.assert_close(first, second)


def test_the_plain_stack_and_the_vectorised_template_agree() -> None:
    bank = BranchBank.from_modules(modules(4))
    shared = torch.randn(3, 6, dtype=torch.float64)
    torch.testing.assert_close(bank(shared), bank._vectorised(shared), rtol=1e-12, atol=1e-12)


def test_state_of_another_number_of_branches_loads() -> None:
    small, large = BranchBank(mlp_branch(6, (5, 4)), 2), BranchBank(mlp_branch(6, (5, 4)), 5)
    parameters = list(large.parameters())
    large.load_state_dict(small.state_dict())
    assert large.branches == 2
    assert all(a is b for a, b in zip(parameters, large.parameters(), strict=True))
    shared = torch.randn(3, 6)
    assert torch.equal(large(shared), small(shared))


def test_resizing_keeps_parameters_and_lets_old_graphs_be() -> None:
    bank = BranchBank.from_modules(modules(4))
    before = dict(bank.stacked.named_parameters())
    shared = torch.randn(3, 6, dtype=torch.float64)
    old_loss = bank(shared).sum()
    old_loss.backward()
    resize_stacked(bank, {name: tensor[:2].clone() for name, tensor in stacked_tensors(bank).items()})
    assert dict(bank.stacked.named_parameters()) == before
    bank(shared).sum().backward()
    assert bank.first_weight.grad is not None
    assert bank.first_weight.grad.shape == (2, 5, 6)


def test_resizing_refuses_incomplete_data_and_changes_nothing() -> None:
    bank = BranchBank(mlp_branch(6, (5, 4)), 3)
    saved = copy.deepcopy(bank.state_dict())
    data = {name: tensor[:2] for name, tensor in stacked_tensors(bank).items()}
    name, *_ = data
    with pytest.raises(ValueError, match="same number of branches"):
        resize_stacked(bank, data | {name: data[name][:1]})
    with pytest.raises(ValueError, match="give one tensor for each"):
        resize_stacked(bank, {name: data[name]})
    assert all(torch.equal(saved[key], value) for key, value in bank.state_dict().items())


def test_errors() -> None:
    with pytest.raises(ValueError, match="at least one branch"):
        BranchBank(mlp_branch(2, (2,)), 0)
    with pytest.raises(ValueError, match="no layer with a weight matrix"):
        BranchBank(nn.Sequential(nn.ReLU()), 2)
    with pytest.raises(TypeError, match="has no shape yet"):
        BranchBank(nn.Sequential(nn.LazyLinear(3)), 2)
    with pytest.raises(ValueError, match="the list is empty"):
        BranchBank.from_modules([])
    with pytest.raises(ValueError, match="module 1 differs from module 0"):
        BranchBank.from_modules([mlp_branch(2, (2,)), mlp_branch(2, (3,))])
    with pytest.raises(ValueError, match="unknown activation 'swish'"):
        mlp_branch(2, (2,), activation="swish")
    with pytest.raises(ValueError, match="dropout must be in"):
        mlp_branch(2, (2,), dropout=1.0)
    with pytest.raises(ValueError, match="positive width"):
        mlp_branch(2, ())
