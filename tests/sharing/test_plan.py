"""Merge plans: which branches become one. Invariants over random clusterings, and the exact choices."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from selshare.sharing import RULES, MergePlan, plan_merges
from selshare.sharing.plan import branch_losses

NAN = math.nan


@st.composite
def clusterings(draw):
    """Labels of 1 to 12 branches, and as many losses, NaN, infinite and equal ones among them."""
    count = draw(st.integers(1, 12))
    labels = draw(st.lists(st.integers(-1, 4), min_size=count, max_size=count))
    loss = st.sampled_from([0.0, 0.5, 0.5, 1.0, math.inf, NAN]) | st.floats(0, 10)
    losses = draw(st.lists(loss, min_size=count, max_size=count))
    return labels, losses


@given(clusterings(), st.sampled_from(RULES))
def test_groups_are_the_clusters_of_two_or_more(clustering, rule):
    labels, losses = clustering
    plan = plan_merges(labels, losses, rule)
    expected = {
        frozenset(np.flatnonzero(np.array(labels) == label).tolist())
        for label in set(labels)
        if label >= 0 and labels.count(label) > 1
    }
    assert {frozenset(group) for group in plan.groups} == expected
    assert (plan.branches, plan.rule) == (len(labels), rule)


@given(clusterings())
def test_the_survivor_has_the_lowest_loss_and_nan_never_wins(clustering):
    labels, losses = clustering
    plan = plan_merges(labels, losses)
    for group, survivor in zip(plan.groups, plan.survivors, strict=True):
        numbers = [losses[branch] for branch in group if not math.isnan(losses[branch])]
        if numbers:
            assert losses[survivor] == min(numbers)
            assert survivor == min(b for b in group if losses[b] == min(numbers))
        else:
            assert survivor == group[0]


@given(clusterings())
def test_every_branch_has_one_place_after_the_merge(clustering):
    labels, losses = clustering
    plan = plan_merges(labels, losses)
    kept, places = plan.kept(), plan.assignment_map()
    assert places.dtype == torch.int64
    assert places.shape == (len(labels),)
    assert list(kept) == sorted(kept)
    assert len(kept) == len(labels) - sum(len(group) - 1 for group in plan.groups)
    assert set(places.tolist()) == set(range(len(kept)))
    assert [places[branch].item() for branch in kept] == list(range(len(kept)))
    for first in range(len(labels)):
        for second in range(first):
            together = labels[first] == labels[second] != -1
            assert bool(places[first] == places[second]) == together


@given(clusterings(), st.permutations(range(5)))
def test_renaming_the_clusters_changes_nothing(clustering, names):
    labels, losses = clustering
    renamed = [label if label < 0 else names[label] for label in labels]
    assert plan_merges(renamed, losses) == plan_merges(labels, losses)


@given(clusterings(), st.sampled_from(RULES))
def test_json_round_trip(clustering, rule):
    plan = plan_merges(*clustering, rule)
    text = json.dumps(plan.to_json(), allow_nan=False)
    assert MergePlan.from_json(json.loads(text)) == plan
    assert MergePlan.from_json(text) == plan


def test_takes_tensors_and_arrays():
    plan = plan_merges(torch.tensor([1, 0, 1, -1, 0]), torch.tensor([2.0, 1.0, 1.0, 0.0, 1.0]), "mean")
    assert plan == MergePlan(5, ((0, 2), (1, 4)), (2, 1), "mean")
    assert plan_merges(np.array([1, 0, 1, -1, 0]), np.array([2.0, 1, 1, 0, 1]), "mean") == plan
    assert plan.kept() == (1, 2, 3)
    assert plan.assignment_map().tolist() == [1, 0, 1, 2, 0]


def test_branch_loss_is_the_mean_over_labelled_tasks():
    assignment = torch.tensor([0, 1, 0, 2, 1, 1])
    losses = torch.tensor([1.0, 4.0, 2.0, NAN, NAN, 5.0])
    result = branch_losses(assignment, losses, 3)
    assert result.dtype == torch.float64
    assert result[:2].tolist() == [1.5, 4.5]
    assert result[2].isnan()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, (), (), "best"), "at least one branch"),
        ((3, ((0, 1),), (), "best"), "1 groups but 0 survivors"),
        ((3, ((0,),), (0,), "best"), "two or more"),
        ((3, ((1, 0),), (0,), "best"), "ascending"),
        ((3, ((0, 0),), (0,), "best"), "ascending"),
        ((3, ((1, 3),), (1,), "best"), r"not one of 0 … 2"),
        ((3, ((-1, 1),), (1,), "best"), r"not one of 0 … 2"),
        ((4, ((0, 1), (1, 2)), (0, 2), "best"), "another group"),
        ((4, ((0, 1),), (2,), "best"), "survivor 2 is not in its group"),
        ((4, ((2, 3), (0, 1)), (2, 0), "best"), "ordered by their first branch"),
        ((3, (), (), "median"), "unknown merge rule 'median'; choose from best, mean, max, min"),
    ],
)
def test_refuses_plans_that_cannot_be_carried_out(arguments, message):
    with pytest.raises(ValueError, match=message):
        MergePlan(*arguments)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"extra": 1}, "object with the keys"),
        ({"groups": [0, 1]}, "list of lists"),
        ({"groups": "01"}, "list of lists"),
        ({"survivors": 0}, "list of branches"),
        ({"branches": 3.0}, "whole numbers"),
        ({"survivors": [True]}, "whole numbers"),
        ({"rule": "vote"}, "unknown merge rule"),
    ],
)
def test_refuses_json_that_is_no_plan(change, message):
    data = MergePlan(3, ((0, 1),), (1,)).to_json()
    with pytest.raises(ValueError, match=message):
        MergePlan.from_json(data | change)
    with pytest.raises(ValueError, match=r"object with the keys|Expecting"):
        MergePlan.from_json("[]")


def test_refuses_labels_that_do_not_fit():
    with pytest.raises(ValueError, match="2 cluster labels but 3 branch losses"):
        plan_merges([0, 0], [1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="lowest is -2"):
        plan_merges([0, -2], [1.0, 2.0])
    with pytest.raises(ValueError, match="at least one branch"):
        plan_merges([], [])
