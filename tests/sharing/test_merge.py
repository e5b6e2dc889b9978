"""Merging: what survivors, the optimizer and untouched tasks hold afterwards, to the bit."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from selshare.model import MultiTaskModel
from selshare.sharing import RULES, MergePlan, apply, plan_merges, replay
from selshare.tasks import Task

# Of 8 branches, 4 and 7 stay alone.
GROUPS, SURVIVORS = ((0, 3), (1, 2, 5, 6)), (3, 1)
KEPT = (1, 3, 4, 7)
ASSIGNMENT = [1, 0, 0, 1, 2, 0, 0, 3]
COMBINE = {"mean": np.mean, "max": np.max, "min": np.min}

OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.02),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.02, momentum=0.5),
    "nesterov": lambda p: torch.optim.SGD(p, lr=0.02, momentum=0.5, nesterov=True, weight_decay=1e-3),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01),
    "amsgrad": lambda p: torch.optim.Adam(p, lr=0.01, amsgrad=True, foreach=False),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01),
    "fused adamw": lambda p: torch.optim.AdamW(p, lr=0.01, fused=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.5, centered=True),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=0.01),
    "adadelta": lambda p: torch.optim.Adadelta(p),
    "nadam": lambda p: torch.optim.NAdam(p, lr=0.01),
    "rprop": lambda p: torch.optim.Rprop(p, lr=0.01),
    "adafactor": lambda p: torch.optim.Adafactor(p, lr=0.01),
}


def plan_of(rule: str) -> MergePlan:
    return MergePlan(8, GROUPS, SURVIVORS, rule)


def combined(rows: np.ndarray, group: tuple[int, ...], survivor: int, rule: str) -> np.ndarray:
    """A group's row under a rule: in float64, rounded once. Integers are the survivor's."""
    if rule == "best" or rows.dtype.kind != "f":
        return rows[survivor]
    return COMBINE[rule](rows[list(group)].astype(np.float64), axis=0).astype(rows.dtype)


def expected(stacked: torch.Tensor, rule: str) -> np.ndarray:
    """All rows after :func:`plan_of`."""
    rows = stacked.detach().numpy()
    new = rows[list(KEPT)].copy()
    for group, survivor in zip(GROUPS, SURVIVORS, strict=True):
        new[KEPT.index(survivor)] = combined(rows, group, survivor, rule)
    return new


def trained(make_model, train_step, optimizer: str = "momentum", **options):
    """A model some steps into training, with its optimizer."""
    model = make_model(8, **options)
    stepper = OPTIMIZERS[optimizer](model.parameters())
    for _ in range(3):
        train_step(model, stepper)
    return model, stepper


def normalised_branch() -> nn.Module:
    """A branch with floating-point and integer buffers, on the general path of the bank."""
    return nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 3))


@pytest.mark.parametrize("rule", RULES)
def test_weights_follow_the_rule(make_model, train_step, rule):
    model, optimizer = trained(make_model, train_step)
    before = {name: tensor.clone() for name, tensor in model.bank.stacked.state_dict().items()}
    parameters = list(model.parameters())
    apply(plan_of(rule), model, optimizer)
    assert model.bank.branches == 4
    assert model.assignment.tolist() == ASSIGNMENT
    assert all(new is old for new, old in zip(model.parameters(), parameters, strict=True))
    for name, tensor in model.bank.stacked.state_dict().items():
        np.testing.assert_array_equal(tensor.numpy(), expected(before[name], rule), err_msg=name)


@pytest.mark.parametrize("rule", RULES)
def test_buffers_follow_the_rule_and_counters_the_survivor(make_model, rule):
    model = make_model(8, branch=normalised_branch())
    stacked = model.bank.stacked
    for name, buffer in stacked.named_buffers():
        buffer.copy_(torch.randint(1, 9, buffer.shape))
        assert buffer.shape[0] == 8, name
    before = {name: buffer.clone() for name, buffer in stacked.named_buffers()}
    assert any(buffer.dtype == torch.int64 for buffer in before.values())
    apply(plan_of(rule), model)
    for name, buffer in stacked.named_buffers():
        np.testing.assert_array_equal(buffer.numpy(), expected(before[name], rule), err_msg=name)


@pytest.mark.parametrize("rule", RULES)
def test_outputs_are_those_of_the_combined_branches(make_model, make_inputs, rule):
    """Against each task's head on its group's combined branch, with the branches taken apart and run one by one."""
    model, inputs = make_model(8), make_inputs()
    modules, shared = model.bank.to_modules(), model.trunk(inputs)
    states = {name: np.stack([m.state_dict()[name].numpy() for m in modules]) for name in modules[0].state_dict()}
    apply(plan_of(rule), model)
    outputs = model(inputs)
    for group, survivor in zip(GROUPS, SURVIVORS, strict=True):
        branch = copy.deepcopy(modules[0])
        branch.load_state_dict(
            {name: torch.from_numpy(combined(rows, group, survivor, rule)) for name, rows in states.items()}
        )
        for task in group:
            want = branch(shared) @ model.heads.weights["1"][task].T + model.heads.biases["1"][task]
            assert torch.equal(outputs[:, task : task + 1], want)


@pytest.mark.parametrize("rule", RULES)
def test_tasks_outside_the_plan_keep_identical_outputs(make_model, make_inputs, rule):
    model, inputs = make_model(8), make_inputs()
    before = model(inputs)
    apply(plan_of(rule), model)
    after = model(inputs)
    assert torch.equal(after[:, [4, 7]], before[:, [4, 7]])
    if rule == "best":
        assert torch.equal(after[:, [1, 3]], before[:, [1, 3]])


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizer_state_moves_with_the_branches(make_model, train_step, name, rule):
    model, optimizer = trained(make_model, train_step, name)
    bank = set(model.bank.parameters())
    before = copy.deepcopy(list(optimizer.state.values()))
    apply(plan_of(rule), model, optimizer)
    moved = 0
    for (parameter, state), old in zip(optimizer.state.items(), before, strict=True):
        for key, value in state.items():
            if not isinstance(value, torch.Tensor):
                assert value == old[key]
            elif parameter in bank and value.ndim and len(old[key]) == 8:
                want = expected(old[key], "mean" if rule == "mean" else "best")
                np.testing.assert_array_equal(value.numpy(), want, err_msg=key)
                moved += 1
            else:
                assert torch.equal(value, old[key])
    assert moved >= len(bank) or name == "sgd"
    assert all(parameter.grad is None for parameter in bank)
    train_step(model, optimizer)


@pytest.mark.parametrize("name", ["momentum", "adamw"])
def test_untouched_branches_train_on_as_if_nothing_had_happened(make_model, train_step, name):
    """With a trunk that stands still, a branch outside the plan takes the same steps in the merged and whole bank."""
    whole = make_model(8)
    merged = copy.deepcopy(whole)
    results = {}
    for key, model in (("whole", whole), ("merged", merged)):
        model.trunk.requires_grad_(False)
        optimizer = OPTIMIZERS[name](list(model.bank.parameters()) + list(model.heads.parameters()))
        torch.manual_seed(1)
        for step in range(6):
            if step == 3 and model is merged:
                apply(plan_of("best"), model, optimizer)
            train_step(model, optimizer)
        results[key] = [
            parameter.detach()[KEPT[2:], ...] if key == "whole" else parameter.detach()[2:]
            for parameter in model.bank.parameters()
        ]
    for one, other in zip(results["whole"], results["merged"], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_training_goes_on_while_an_earlier_loss_is_alive(make_model, train_step):
    model, optimizer = trained(make_model, train_step)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)
    alive = train_step(model, optimizer)
    pending = model.loss(model(torch.ones(3, 6)), torch.zeros(3, 8))
    apply(plan_of("best"), model, optimizer)
    for _ in range(2):
        before = model.bank.first_weight.clone()
        later = train_step(model, optimizer)
        scheduler.step()
        assert not torch.equal(model.bank.first_weight, before)
    assert optimizer.param_groups[0]["lr"] == 0.005
    assert later.isfinite()
    assert alive.isfinite()
    assert pending.isfinite()


def test_several_optimizers_move_what_is_theirs(make_model, train_step):
    model = make_model(8)
    branches = torch.optim.Adam(model.bank.parameters(), lr=0.01)
    rest = torch.optim.SGD([*model.trunk.parameters(), *model.heads.parameters()], lr=0.02, momentum=0.5)
    train_step(model, rest)
    branches.step()
    before = branches.state[model.bank.first_weight]["exp_avg"].clone()
    apply(plan_of("best"), model, [branches, rest])
    np.testing.assert_array_equal(branches.state[model.bank.first_weight]["exp_avg"], expected(before, "best"))
    train_step(model, rest)
    branches.step()


def test_a_plan_without_groups_changes_nothing(make_model, train_step):
    model, optimizer = trained(make_model, train_step)
    before = copy.deepcopy(model.state_dict())
    gradient = model.bank.first_weight.grad.clone()
    apply(MergePlan(8, (), ()), model, optimizer)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(model.bank.first_weight.grad, gradient)


@given(labels=st.lists(st.integers(-1, 2), min_size=7, max_size=7), rule=st.sampled_from(RULES), seed=st.integers(0, 5))
def test_any_clustering_puts_every_task_on_its_groups_branch(make_model, labels, rule, seed):
    torch.manual_seed(seed)
    model = make_model(7)
    modules = [module.state_dict() for module in model.bank.to_modules()]
    losses = torch.rand(7)
    apply(plan_merges(labels, losses, rule), model)
    merged = [module.state_dict() for module in model.bank.to_modules()]
    for task, label in enumerate(labels):
        group = [task] if label == -1 else [other for other in range(7) if labels[other] == label]
        best = min(group, key=lambda branch: losses[branch])
        for name, tensor in merged[model.assignment[task]].items():
            rows = np.stack([module[name].numpy() for module in modules])
            np.testing.assert_array_equal(tensor.numpy(), combined(rows, tuple(group), best, rule))


def test_replay_gives_the_same_model(make_model):
    model = make_model(8)
    fresh = copy.deepcopy(model)
    plans = [plan_of("best"), MergePlan(4, ((0, 2),), (2,), "mean")]
    for plan in plans:
        apply(plan, model)
    replay([MergePlan.from_json(plan.to_json()) for plan in plans], fresh)
    assert model.assignment.tolist() == [0, 1, 1, 0, 1, 1, 1, 2]
    assert all(torch.equal(value, fresh.state_dict()[name]) for name, value in model.state_dict().items())


def test_a_merged_branch_saves_180600_parameters():
    """METHOD.md: 2·(300·300 + 300) a branch of two 300-unit layers on 300 inputs; the heads stay."""
    model = MultiTaskModel(nn.Identity(), 300, (300, 300), [Task.multiclass(f"t{i}", classes=9) for i in range(7)])
    heads = sum(parameter.numel() for parameter in model.heads.parameters())
    for groups, gone in ((((0, 2, 4),), 2), (((0, 1), (2, 3, 4)), 3)):
        before = sum(parameter.numel() for parameter in model.parameters())
        apply(MergePlan(model.bank.branches, groups, tuple(group[0] for group in groups)), model)
        assert before - sum(parameter.numel() for parameter in model.parameters()) == gone * 180_600
    assert model.bank.branches == 2
    assert sum(parameter.numel() for parameter in model.heads.parameters()) == heads


def test_errors_leave_all_as_it_was(make_model, train_step):
    model, optimizer = trained(make_model, train_step)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match="for 7 branches, but the bank has 8"):
        apply(MergePlan(7, ((0, 1),), (0,)), model, optimizer)
    with pytest.raises(TypeError, match="expected torch optimizers, got Linear"):
        apply(plan_of("best"), model, [optimizer, nn.Linear(1, 1)])
    with pytest.raises(TypeError, match="LBFGS"):
        apply(plan_of("best"), model, torch.optim.LBFGS(model.parameters()))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    train_step(model, optimizer)
