"""Function-preserving merges: refitted heads against a direct ridge solution, aligned units, what stays untouched."""

import copy

import numpy as np
import pytest
import torch
from mixed import PLAN, mixed_model
from torch import nn

from selshare.model import MultiTaskModel
from selshare.sharing import MergePlan, align, apply, refit_heads
from selshare.sharing.refit import outputs_on, tasks_to_refit
from selshare.tasks import Task

MOVED = [0, 1, 3]


def columns(model: MultiTaskModel, task: int) -> slice:
    return model.layout.output_slices[task]


def ridge_by_least_squares(features: np.ndarray, wanted: np.ndarray, ridge: float) -> tuple[np.ndarray, np.ndarray]:
    """Weights and bias from an augmented least-squares problem, solved by numpy."""
    centred = features - features.mean(0)
    strength = ridge * (centred**2).sum() / features.shape[1]
    rows = np.vstack([centred, np.sqrt(strength) * np.eye(features.shape[1])])
    right = np.vstack([wanted - wanted.mean(0), np.zeros((features.shape[1], wanted.shape[1]))])
    weight = np.linalg.lstsq(rows, right, rcond=None)[0].T
    return weight, wanted.mean(0) - weight @ features.mean(0)


@pytest.mark.parametrize("rule", ["best", "mean", "max", "min"])
def test_heads_are_the_ridge_solution_on_the_new_branch(rule):
    model = mixed_model()
    shared = torch.randn(200, 8, dtype=torch.float64)
    before = outputs_on(model, shared)
    heads = {name: value.clone() for name, value in model.heads.state_dict().items()}
    plan = MergePlan(6, PLAN.groups, PLAN.survivors, rule)
    apply(plan, model, shared=shared)
    features = model.bank(shared).detach().numpy()
    refitted = MOVED if rule == "best" else [0, 1, 2, 3, 4]
    for width, members in model.layout.widths.items():
        for row, task in enumerate(members):
            weight = model.heads.weights[str(width)][row].detach().numpy()
            bias = model.heads.biases[str(width)][row].detach().numpy()
            if task in refitted:
                wanted = before[:, columns(model, task)].detach().numpy()
                expected = ridge_by_least_squares(features[model.assignment[task]], wanted, 1e-4)
                np.testing.assert_allclose(weight, expected[0], rtol=1e-7, atol=1e-9)
                np.testing.assert_allclose(bias, expected[1], rtol=1e-7, atol=1e-9)
            else:
                np.testing.assert_array_equal(weight, heads[f"weights.{width}"][row])
                np.testing.assert_array_equal(bias, heads[f"biases.{width}"][row])


def test_outputs_survive_where_the_new_branch_spans_the_old_features():
    model = mixed_model(hidden=(9,))
    with torch.no_grad():  # branches 0 and 3 have branch 2's units, in another order and of another size
        first, bias = model.bank.stacked[0].weight, model.bank.stacked[0].bias
        for branch in (0, 3):
            order = torch.randperm(9)
            first[branch], bias[branch] = 3 * first[2][order], 3 * bias[2][order]
    shared = torch.randn(300, 8, dtype=torch.float64)
    unseen = torch.randn(100, 8, dtype=torch.float64)
    before = outputs_on(model, unseen)
    seen = outputs_on(model, shared)
    apply(MergePlan(6, ((0, 2, 3),), (2,)), model)
    refit_heads(model, shared, seen, torch.tensor([0, 3]), ridge=1e-12)
    torch.testing.assert_close(outputs_on(model, unseen), before, rtol=1e-8, atol=1e-8)


def test_a_refit_keeps_most_of_what_a_plain_merge_loses():
    # Branches that started from one set of weights and went different ways, as after some training.
    model = mixed_model(hidden=(40, 30))
    with torch.no_grad():
        for parameter in model.bank.parameters():
            parameter.copy_(parameter[0] + 0.5 * parameter)
    shared, unseen = torch.randn(1024, 8, dtype=torch.float64), torch.randn(300, 8, dtype=torch.float64)
    before = outputs_on(model, unseen)
    lost = {}
    for rule in ("best", "mean"):
        for kept in (None, shared):
            merged = copy.deepcopy(model)
            apply(MergePlan(6, PLAN.groups, PLAN.survivors, rule), merged, shared=kept)
            error = outputs_on(merged, unseen) - before
            lost[rule, kept is not None] = float(error.square().mean() / before.var(0).mean())
    assert lost["best", True] < 0.2 * lost["best", False]
    assert lost["mean", True] < 0.5 * lost["mean", False]


def test_tasks_in_no_group_and_survivors_keep_their_outputs_to_the_bit():
    model = mixed_model(dropout=0.3)
    shared = torch.randn(64, 8, dtype=torch.float64)
    before = outputs_on(model, shared)
    apply(PLAN, model, shared=shared)
    after = outputs_on(model, shared)
    for task in (2, 4, 5):
        assert torch.equal(after[:, columns(model, task)], before[:, columns(model, task)])
    assert model.bank.training, "the mode is put back"


def test_dead_features_and_few_rows_are_no_obstacle():
    model = mixed_model()
    with torch.no_grad():
        model.bank.stacked[2].bias[2] = -100.0  # no unit of branch 2 ever responds
    for rows in (64, 3):
        merged = copy.deepcopy(model)
        shared = torch.randn(rows, 8, dtype=torch.float64)
        wanted = outputs_on(merged, shared)
        apply(PLAN, merged, shared=shared)
        assert all(torch.isfinite(p).all() for p in merged.parameters())
        after = outputs_on(merged, shared)[:, columns(merged, 0)]
        torch.testing.assert_close(after, wanted[:, columns(merged, 0)].mean().expand_as(after))


def test_which_tasks_are_refitted():
    assignment = torch.tensor([0, 1, 2, 3, 4, 5, 2, 0])
    assert tasks_to_refit(PLAN, assignment, changed_survivors=False).tolist() == [0, 1, 3, 7]
    assert tasks_to_refit(MergePlan(6, ((0, 2),), (2,), "mean"), assignment, changed_survivors=True).tolist() == [
        0,
        2,
        6,
        7,
    ]


@pytest.mark.parametrize("build", [lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9), torch.optim.Adam])
def test_momentum_of_refitted_heads_starts_anew_and_second_moments_stay(build):
    model = mixed_model()
    optimizer = build(model.parameters())
    model.outputs_from(torch.randn(20, 8, dtype=torch.float64)).square().sum().backward()
    optimizer.step()
    state = {p: {k: v.clone() for k, v in optimizer.state[p].items()} for p in model.heads.parameters()}
    apply(PLAN, model, optimizer, shared=torch.randn(30, 8, dtype=torch.float64))
    for width, members in model.layout.widths.items():
        parameter = model.heads.weights[str(width)]
        for name, value in optimizer.state[parameter].items():
            for row, task in enumerate(members if value.ndim else ()):
                if task in MOVED and name in ("momentum_buffer", "exp_avg"):
                    assert not value[row].any()
                else:
                    assert torch.equal(value[row], state[parameter][name][row])


def test_alignment_undoes_a_shuffle_and_changes_no_function():
    model = mixed_model((9, 7))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    first, second = model.bank.stacked[0], model.bank.stacked[2]
    one, two = torch.randperm(9), torch.randperm(7)
    with torch.no_grad():  # branch 0 is branch 2 in another order of its units
        first.weight[0], first.bias[0] = first.weight[2][one], first.bias[2][one]
        second.weight[0], second.bias[0] = second.weight[2][two][:, one], second.bias[2][two]
    for parameter in model.bank.parameters():
        optimizer.state[parameter]["momentum_buffer"] = 2 * parameter.detach()
    shared = torch.randn(50, 8, dtype=torch.float64)
    before = model.bank(shared)
    align(MergePlan(6, ((0, 2, 3),), (2,), "mean"), model.bank, shared, (optimizer,))
    for parameter in model.bank.parameters():
        assert torch.equal(parameter[0], parameter[2])
        assert torch.equal(optimizer.state[parameter]["momentum_buffer"], 2 * parameter)
    after = model.bank(shared)
    assert torch.equal(after[2], before[2])
    torch.testing.assert_close(after[3].sort(1).values, before[3].sort(1).values)  # features in another order


def test_branches_that_cannot_be_aligned_say_so():
    branch = nn.Sequential(nn.Linear(8, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 3))
    model = MultiTaskModel(nn.Linear(5, 8), 8, tasks=[Task.binary(f"t{i}") for i in range(6)], branch=branch)
    shared = torch.randn(20, 8)
    state = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match="which needs branches that are"):
        apply(MergePlan(6, PLAN.groups, PLAN.survivors, "mean"), model, shared=shared)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    apply(PLAN, model, shared=shared)  # "best" merges any template
    assert model.bank.branches == 3
