"""Composed branches: units chosen as a direct search chooses them, functions kept where the units fit, what stays."""

import copy
import itertools
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mixed import PLAN, mixed_model
from torch import nn

from selshare.model import MultiTaskModel
from selshare.sharing import MergePlan, apply, compose
from selshare.sharing.compose import choose
from selshare.sharing.refit import outputs_on, refit_heads
from selshare.tasks import Task


def deaden(model: MultiTaskModel, live: int) -> None:
    """Leave ``live`` units that respond, at random places, in every layer of every branch; the others are constant."""
    with torch.no_grad():
        for layer in model.bank.stacked:
            for branch in range(model.bank.branches if isinstance(layer, nn.Linear) else 0):
                layer.weight[branch, torch.randperm(layer.weight.shape[1])[live:]] = 0


def merge_exactly(plan: MergePlan, model: MultiTaskModel, shared: torch.Tensor) -> None:
    """What ``apply`` does, with next to no ridge."""
    outputs, members = outputs_on(model, shared), model.tasks_by_branch()
    tasks = [[task for branch in group for task in members[branch]] for group in plan.groups]
    columns = model.layout.output_slices
    wanted = [torch.cat([outputs[:, columns[task]] for task in group], dim=1) for group in tasks]
    compose(plan, model.bank, shared, wanted, ridge=1e-11)
    apply(plan, model)
    refit_heads(model, shared, outputs, torch.tensor(sorted(itertools.chain(*tasks))), ridge=1e-11)


@settings(max_examples=15, deadline=None)
@given(
    layers=st.integers(1, 3),
    live=st.integers(1, 3),
    spare=st.integers(0, 4),
    activation=st.sampled_from(["relu", "tanh", "gelu"]),
    dropout=st.sampled_from([0.0, 0.3]),
)
def test_outputs_survive_where_the_units_of_the_group_fit(layers, live, spare, activation, dropout):
    torch.manual_seed(layers + 10 * live + 100 * spare)
    model = mixed_model((3 * live + spare,) * layers, activation=activation, dropout=dropout)
    deaden(model, live)
    shared, unseen = torch.randn(400, 8, dtype=torch.float64), torch.randn(50, 8, dtype=torch.float64)
    before = outputs_on(model, unseen)
    merge_exactly(PLAN, model, shared)
    assert model.bank.branches == 3
    torch.testing.assert_close(outputs_on(model, unseen), before, rtol=1e-5, atol=1e-5)


def test_branches_without_biases_are_composed_as_well():
    branch = nn.Sequential(nn.Linear(8, 6, bias=False), nn.ReLU(), nn.Linear(6, 6, bias=False), nn.LeakyReLU())
    model = MultiTaskModel(nn.Linear(5, 8), 8, tasks=[Task.binary(f"t{i}") for i in range(6)], branch=branch).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter))
    deaden(model, 2)
    shared, unseen = torch.randn(400, 8, dtype=torch.float64), torch.randn(50, 8, dtype=torch.float64)
    before = outputs_on(model, unseen)
    merge_exactly(PLAN, model, shared)
    torch.testing.assert_close(outputs_on(model, unseen), before, rtol=1e-5, atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(4, 12),
    columns=st.integers(1, 7),
    goals=st.integers(1, 3),
    count=st.integers(1, 7),
    twins=st.integers(0, 2),
    seed=st.integers(0, 99),
)
def test_units_are_chosen_as_a_search_with_lstsq_chooses_them(rows, columns, goals, count, twins, seed):
    generator = np.random.default_rng(seed)
    candidates = generator.standard_normal((rows, columns))
    candidates = np.hstack([candidates, 2 * candidates[:, :twins], np.ones((rows, 1))])
    goal = generator.standard_normal((rows, goals))
    count = min(count, candidates.shape[1])
    chosen = choose(torch.from_numpy(candidates), torch.from_numpy(goal), count).tolist()
    assert len(set(chosen)) == count

    def residual(picked: list[int]) -> float:
        design = np.hstack([np.ones((rows, 1)), candidates[:, picked]])
        return float(np.square(goal - design @ np.linalg.lstsq(design, goal, rcond=1e-10)[0]).sum())

    for step in range(count):
        best = min(residual([*chosen[:step], other]) for other in range(candidates.shape[1]))
        assert residual(chosen[: step + 1]) == pytest.approx(best, rel=1e-6, abs=1e-9)


def test_a_composed_branch_keeps_more_than_the_best_one():
    model = mixed_model((40, 30))
    with torch.no_grad():  # branches that started from one set of weights and went different ways
        for parameter in model.bank.parameters():
            parameter.copy_(parameter[0] + 0.5 * parameter)
    shared, unseen = torch.randn(1024, 8, dtype=torch.float64), torch.randn(300, 8, dtype=torch.float64)
    before = outputs_on(model, unseen)
    lost = {}
    for composing in (False, True):
        merged = copy.deepcopy(model)
        apply(PLAN, merged, shared=shared, compose_branches=composing)
        lost[composing] = float((outputs_on(merged, unseen) - before).square().mean() / before.var(0).mean())
    assert lost[True] < 0.7 * lost[False]


def test_branches_in_no_group_keep_outputs_and_weights_to_the_bit():
    model = mixed_model(dropout=0.3)
    shared = torch.randn(64, 8, dtype=torch.float64)
    before, weights = outputs_on(model, shared), [p[5].clone() for p in model.bank.parameters()]
    apply(PLAN, model, shared=shared, compose_branches=True)
    after = outputs_on(model, shared)
    column = model.layout.output_slices[5]
    assert torch.equal(after[:, column], before[:, column])
    assert all(torch.equal(p[2], kept) for p, kept in zip(model.bank.parameters(), weights, strict=True))
    assert model.bank.training, "the mode is put back"


@pytest.mark.parametrize("rule", ["mean", "max", "min"])
def test_other_rules_are_not_composed(rule):
    model = mixed_model()
    shared = torch.randn(64, 8, dtype=torch.float64)
    other = copy.deepcopy(model)
    plan = MergePlan(6, PLAN.groups, PLAN.survivors, rule)
    apply(plan, model, shared=shared, compose_branches=True)
    apply(plan, other, shared=shared)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))


def test_branches_without_units_are_merged_as_they_are():
    branch = nn.Sequential(nn.Linear(8, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 3))
    model = MultiTaskModel(nn.Linear(5, 8), 8, tasks=[Task.binary(f"t{i}") for i in range(6)], branch=branch)
    other = copy.deepcopy(model)
    shared = torch.randn(20, 8)
    apply(PLAN, model, shared=shared, compose_branches=True)
    apply(PLAN, other, shared=shared)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("build", [lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9), torch.optim.Adam])
def test_momentum_of_composed_branches_starts_anew_and_the_rest_follows(build):
    model = mixed_model()
    optimizer = build(model.parameters())
    model.outputs_from(torch.randn(20, 8, dtype=torch.float64)).square().sum().backward()
    optimizer.step()
    state = {p: {k: v.clone() for k, v in optimizer.state[p].items()} for p in model.bank.parameters()}
    apply(PLAN, model, optimizer, shared=torch.randn(30, 8, dtype=torch.float64), compose_branches=True)
    for parameter in model.bank.parameters():
        for name, value in optimizer.state[parameter].items():
            if value.ndim == 0:
                continue
            assert value.shape == parameter.shape
            for row, branch in enumerate(PLAN.kept()):
                if branch in PLAN.survivors and name in ("momentum_buffer", "exp_avg"):
                    assert not value[row].any()
                else:
                    assert torch.equal(value[row], state[parameter][name][branch])


def test_dead_units_few_rows_and_large_groups_are_no_obstacle(monkeypatch):
    model = mixed_model()
    with torch.no_grad():
        for branch in (0, 2, 3):
            model.bank.stacked[2].bias[branch] = -100.0  # no unit of the group's last layer ever responds
    for rows in (64, 2):
        merged = copy.deepcopy(model)
        shared = torch.randn(rows, 8, dtype=torch.float64)
        wanted = outputs_on(merged, shared)
        apply(PLAN, merged, shared=shared, compose_branches=True)
        assert all(torch.isfinite(p).all() for p in merged.parameters())
        torch.testing.assert_close(outputs_on(merged, shared)[:, :1], wanted[:, :1])  # a constant
    shared = torch.randn(64, 8, dtype=torch.float64)
    monkeypatch.setattr(sys.modules["selshare.sharing.compose"], "UNITS", 2 * 12)
    survivors = copy.deepcopy(model)
    apply(PLAN, model, shared=shared, compose_branches=True)  # two of three branches lend
    rows = torch.cat([survivors.bank.first_weight[branch] for branch in (0, 2)])
    assert all(any(torch.equal(unit, row) for row in rows) for unit in model.bank.first_weight[0])
