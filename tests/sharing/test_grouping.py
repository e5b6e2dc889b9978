"""When groups are final, when they are stable, and what noise counts as."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from selshare.sharing.grouping import Grouping, noise_apart, one_holds_most

LABELS = st.lists(st.integers(-1, 4), min_size=1, max_size=20)
ONE, OTHER = torch.tensor([0, 0, 0, 1, 1, 1, -1, -1]), torch.tensor([0, 1, 0, 1, 0, 1, 0, 1])


@given(LABELS)
def test_noise_points_are_apart_and_the_clusters_stay(labels: list[int]) -> None:
    apart = noise_apart(labels)
    assert apart.min() >= 0
    for label, (old, new) in enumerate(zip(labels, apart, strict=True)):
        together = [place for place, value in enumerate(labels) if value == old] if old >= 0 else [label]
        assert np.flatnonzero(apart == new).tolist() == together


def test_noise_points_come_after_the_clusters_in_their_order() -> None:
    assert noise_apart([-1, 0, -1, 1, 0]).tolist() == [2, 0, 3, 1, 0]
    assert noise_apart([-1, -1]).tolist() == [0, 1]


@given(LABELS)
def test_labels_given_are_left_as_they_are(labels: list[int]) -> None:
    given_labels = np.array(labels)
    noise_apart(given_labels)
    assert given_labels.tolist() == labels


@pytest.mark.parametrize(
    ("labels", "most"),
    [
        ([0, 0, 0, 1], True),
        ([0, 0, 1, 1], False),
        ([0, 0, 0, 1, 1], True),
        ([0, 0, 0, 1, 1, 1], False),
        ([0, 0, -1, -1, -1], False),
        ([-1, -1, -1, 0], False),
        ([-1, -1, -1, -1], False),
        ([-1], False),
        ([0], True),
    ],
)
def test_noise_is_no_cluster_that_holds_most(labels: list[int], most: bool) -> None:
    assert one_holds_most(torch.tensor(labels)) is most


def test_the_gradients_of_the_first_epochs_add_up_and_are_then_final() -> None:
    grouping, gradient = Grouping(group_epochs=3, stable_epochs=0), torch.ones(8, 2, 2)
    for epoch in (1, 2, 3):
        assert not grouping.final
        summed = grouping.summed(gradient)
        assert torch.equal(summed, epoch * gradient)
        grouping.observe(ONE, summed, epoch)
    assert grouping.final
    assert grouping.earlier is None


def test_the_papers_way_keeps_no_gradients_and_is_never_final() -> None:
    grouping, gradient = Grouping(group_epochs=0, stable_epochs=0), torch.ones(8, 2, 2)
    for epoch in range(1, 5):
        assert grouping.summed(gradient) is gradient
        grouping.observe(ONE, gradient, epoch)
        assert grouping.earlier is None
        assert not grouping.final


def test_groups_are_stable_after_agreeing_often_enough_in_a_row() -> None:
    grouping, gradient = Grouping(group_epochs=0, stable_epochs=2), torch.ones(8, 2, 2)
    seen = []
    for epoch, labels in enumerate((ONE, ONE, OTHER, OTHER, OTHER), 1):
        grouping.observe(labels, gradient, epoch)
        seen.append(grouping.stable)
    assert seen == [False, False, False, False, True]


def test_other_names_for_the_same_groups_agree() -> None:
    grouping, gradient = Grouping(group_epochs=0, stable_epochs=1), torch.ones(8, 2, 2)
    grouping.observe(ONE, gradient, 1)
    grouping.observe(torch.tensor([1, 1, 1, 0, 0, 0, -1, -1]), gradient, 2)
    assert grouping.stable


def test_stable_groups_are_final_before_their_epochs_are_over() -> None:
    grouping, gradient = Grouping(group_epochs=9, stable_epochs=1), torch.ones(8, 2, 2)
    grouping.observe(ONE, gradient, 1)
    assert not grouping.final
    grouping.observe(ONE, gradient, 2)
    assert grouping.final


def test_a_merge_starts_the_count_again() -> None:
    grouping, gradient = Grouping(group_epochs=0, stable_epochs=1), torch.ones(8, 2, 2)
    grouping.observe(ONE, gradient, 1)
    grouping.observe(ONE, gradient, 2)
    grouping.restart()
    assert not grouping.stable
    assert not grouping.could_be_stable
    grouping.observe(ONE, gradient, 3)
    assert not grouping.stable


def test_it_goes_on_from_what_was_saved() -> None:
    saved = Grouping(group_epochs=3, stable_epochs=1)
    saved.observe(ONE, torch.full((8, 2, 2), 2.0), 1)
    loaded = Grouping(group_epochs=3, stable_epochs=1)
    loaded.load_state_dict(saved.state_dict())
    assert loaded.labels == saved.labels
    assert torch.equal(loaded.summed(torch.ones(8, 2, 2)), torch.full((8, 2, 2), 3.0))
    loaded.observe(ONE, torch.ones(8, 2, 2), 2)
    assert loaded.final
