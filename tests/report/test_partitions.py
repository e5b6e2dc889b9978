from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selshare.report.partitions import cluster_groups, formation, label


def make_event(epoch: int, before: list[list[str]], after: list[list[str]]) -> dict[str, Any]:
    merged = [branch for branch in after if branch not in before]
    groups = [branch for branch in after if len(branch) > 1]
    return {"epoch": epoch, "branch_tasks": before, "merged": merged, "groups": groups}


@st.composite
def merging_events(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Events in which random branches merge, epoch after epoch."""
    branches = [[f"t{i}"] for i in draw(st.permutations(range(draw(st.integers(1, 12)))))]
    events = []
    for epoch in range(1, draw(st.integers(2, 5))):
        target = draw(st.lists(st.integers(0, 5), min_size=len(branches), max_size=len(branches)))
        joined: dict[int, list[str]] = {}
        for number, (branch, to) in enumerate(zip(branches, target, strict=True)):
            joined.setdefault(to if to else 100 + number, []).extend(branch)
        after = list(joined.values())
        events.append(make_event(epoch, branches, after))
        branches = after
    return events


@given(merging_events())
def test_order_never_crosses_and_stages_are_the_branches_after_each_change(events: list[dict[str, Any]]) -> None:
    formed = formation(events)
    position = {task: index for index, task in enumerate(formed.order)}
    assert sorted(formed.order) == sorted(t for branch in events[0]["branch_tasks"] for t in branch)
    for stage in formed.stages:
        assert sorted(t for branch in stage.branches for t in branch) == sorted(formed.order)
        for branch in stage.branches:
            places = sorted(position[task] for task in branch)
            assert places == list(range(places[0], places[0] + len(places)))
    changed = [event for event in events if event["merged"]]
    assert [stage.epoch for stage in formed.stages] == [0, *(event["epoch"] for event in changed)]
    following = [event["branch_tasks"] for event in events[1:]]
    for event, after in zip(events, following, strict=False):
        if event["merged"]:
            stage = next(stage for stage in formed.stages if stage.epoch == event["epoch"])
            assert {frozenset(branch) for branch in stage.branches} == {frozenset(branch) for branch in after}


def test_larger_groups_first_and_tasks_left_alone_last() -> None:
    start = [["a"], ["b"], ["c"], ["d"], ["e"], ["f"]]
    after = [["a"], ["b", "d"], ["c", "e", "f"]]
    formed = formation([make_event(1, start, after)])
    assert formed.order == ("c", "e", "f", "b", "d", "a")
    assert formed.groups == (("c", "e", "f"), ("b", "d"))
    assert formed.group_of == {"c": 0, "e": 0, "f": 0, "b": 1, "d": 1}


def test_a_group_that_was_undone_is_left_out() -> None:
    events = [
        make_event(1, [["a"], ["b"], ["c"], ["d"], ["e"]], [["a", "b"], ["c", "d"], ["e"]]) | {"undone": []},
        make_event(2, [["a", "b"], ["c", "d"], ["e"]], [["a", "b", "e"], ["c", "d"]]) | {"undone": []},
        make_event(3, [["a", "b", "e"], ["c", "d"]], [["a", "b", "e"], ["c"], ["d"]])
        | {"merged": [], "undone": [["c", "d"]]},
    ]
    formed = formation(events)
    assert [stage.epoch for stage in formed.stages] == [0, 1, 2]
    assert [set(stage.branches) for stage in formed.stages[1:]] == [
        {("a", "b"), ("c",), ("d",), ("e",)},
        {("a", "b", "e"), ("c",), ("d",)},
    ]
    assert formed.groups == (("a", "b", "e"),)


def test_no_events() -> None:
    with pytest.raises(ValueError, match="no sharing events"):
        formation([])


def test_a_cluster_takes_the_group_most_of_its_tasks_ended_in() -> None:
    event = {
        "branch_tasks": [["a", "b"], ["c"], ["d"], ["e"], ["f"]],
        "labels": [0, 0, 1, -1, 1],
        "embedded": [0, 1, 2, 4],
    }
    assert cluster_groups(event, {"a": 3, "b": 3, "c": 1}) == {0: 3, 1: None}


def test_labels_of_branches() -> None:
    assert label(["sandal"]) == "sandal"
    assert label(["sandal", "shirt", "bag"]) == "sandal +2"
    assert label(["a very long name of a task"], longest=10) == "a very lo…"
