from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from scipy.cluster import hierarchy

from selshare.report import figures
from selshare.report.figures.matrix import _order
from selshare.report.figures.tree import _joins
from selshare.report.partitions import formation
from selshare.report.run import Record, read_run
from selshare.report.summary import by_method

NAMES = ['<b>&"x"', "$\\alpha$", "漢字", *(f"task {index}" for index in range(7))]


@pytest.fixture
def record(write_run: Callable[..., Path]) -> Record:
    return read_run(write_run(names=NAMES)).records[-1]


def texts(svg: str | None) -> list[str]:
    """The text of a figure, which must be well-formed and have no placeholder colour left."""
    assert svg is not None
    assert "#a0b" not in svg
    root = ElementTree.fromstring(svg)
    assert root.get("role") == "img"
    assert root.get("aria-label")
    return [element.text or "" for element in root.iter("{http://www.w3.org/2000/svg}text")]


def test_timeline_names_tasks_groups_and_epochs(record: Record) -> None:
    svg = figures.timeline(formation(record.events), 12, record.lock_epoch, record.best_epoch)
    shown = texts(svg)
    assert set(NAMES) <= set(shown)
    assert {"group 1: 3 tasks", "group 2: 3 tasks", "group 3: 3 tasks", "alone: 1 task", "locked", "tested"} <= set(
        shown
    )
    assert {f"var(--c{number})" for number in range(3)} <= set(re.findall(r"var\(--c\d\)", svg))


def test_a_run_in_which_nothing_merges_has_a_timeline(record: Record) -> None:
    event = {**record.events[0], "merged": [], "groups": []}
    shown = texts(figures.timeline(formation([event]), 1, None, None))
    assert f"alone: {len(NAMES)} tasks" in shown
    assert "locked" not in shown


def test_dendrogram_names_its_leaves_in_order(record: Record) -> None:
    event = record.events[0]
    leaves = hierarchy.leaves_list(np.array(event["linkage"]))
    shown = texts(figures.dendrogram(event, formation(record.events).group_of))
    expected = [event["branch_tasks"][leaf][0] for leaf in leaves]
    assert [text for text in shown if text in NAMES] == expected


def test_joins_are_those_scipy_draws(record: Record) -> None:
    linkage = np.array(record.events[0]["linkage"])
    drawn = hierarchy.dendrogram(linkage, no_plot=True)
    lines, within = _joins(linkage, drawn["leaves"], [0] * 5 + [1] * 5)
    # scipy sets leaves at 5, 15, 25 … and we at 0, 1, 2 …
    theirs = {
        tuple(sorted((float(x), y / 10 - 0.5) for x, y in zip(dcoord, icoord, strict=True)))
        for dcoord, icoord in zip(drawn["dcoord"], drawn["icoord"], strict=True)
    }
    assert {tuple(sorted((float(x), float(y)) for x, y in line)) for line in lines} == theirs
    assert within[-1] == -1  # the root holds both clusters


def test_matrix_puts_clusters_side_by_side_and_noise_last(record: Record) -> None:
    event = record.events[0]
    order = _order(event, event["labels"])
    ordered = [event["labels"][leaf] for leaf in order]
    assert sorted(order) == list(range(len(NAMES)))
    runs = [cluster for index, cluster in enumerate(ordered) if index == 0 or cluster != ordered[index - 1]]
    assert len(runs) == len(set(runs))
    assert runs[-1] == -1
    shown = texts(figures.distance_matrix(event, formation(record.events).group_of))
    assert [text for text in shown if text in NAMES] == [NAMES[leaf] for leaf in order]


@pytest.mark.parametrize("missing", ["linkage", "distances"])
def test_what_an_event_does_not_hold_is_not_drawn(record: Record, missing: str) -> None:
    event = {**record.events[0], missing: None}
    tree, matrix = figures.dendrogram(event, {}), figures.distance_matrix(event, {})
    assert (tree is None) == (missing == "linkage")
    assert (matrix is None) == (missing == "distances")


def test_infinite_distances_and_equal_ones(record: Record) -> None:
    event: dict[str, Any] = {**record.events[0]}
    event["distances"] = [[0.0 if i == j else None for j in range(len(NAMES))] for i in range(len(NAMES))]
    texts(figures.distance_matrix(event, {}))
    event["distances"] = np.zeros((len(NAMES), len(NAMES))).tolist()
    texts(figures.distance_matrix(event, {}))


def test_clusters_stand_for_their_branches_where_names_would_not_fit(write_run: Callable[..., Path]) -> None:
    record = read_run(write_run(tasks=200, groups=10)).records[-1]
    event, formed = record.events[0], formation(record.events)
    for svg in (figures.dendrogram(event, formed.group_of), figures.distance_matrix(event, formed.group_of)):
        shown = texts(svg)
        assert "10 branches" in shown
        assert "task 7" not in shown
    assert "group 10: 19 tasks" in texts(figures.timeline(formed, 12, 5, 6))


def test_curves_draw_each_seed_and_skip_what_is_not_there(write_run: Callable[..., Path]) -> None:
    records = read_run(write_run(seeds=3)).records
    svg = figures.curve(records, {"mtl": 1, "similarity": 2}, "validation_loss", "Validation loss")
    assert "epoch" in texts(svg)
    assert {"var(--c1)", "var(--c2)"} == set(re.findall(r"var\(--c\d\)", svg or ""))
    assert figures.curve(records, {"mtl": 1}, "nothing", "Nothing") is None
    holes = [{**epoch, "mean_metric": None if epoch["epoch"] == 2 else 0.5} for epoch in records[0].epochs]
    texts(figures.curve([Record("mtl", 0, tuple(holes), ())], {"mtl": 0}, "mean_metric", "Metric"))
    texts(figures.curve([Record("mtl", 0, tuple(holes[:1]), ())], {"mtl": 0}, "mean_metric", "One epoch"))


def test_metric_by_task(write_run: Callable[..., Path]) -> None:
    rows = [dict(row) for row in read_run(write_run(names=NAMES)).rows]
    shown = texts(figures.metric_by_task(by_method(rows)))
    ranked = sorted(NAMES, key=lambda task: -rows[0]["metrics"][task])
    assert [text for text in shown if text in NAMES] == ranked
    assert {"stl", "mtl", "similarity"} <= set(shown)
    rows[1]["metrics"] = {**rows[1]["metrics"], NAMES[0]: 135.4}  # a mean absolute error has no place on that scale
    assert figures.metric_by_task(by_method(rows)) is None


def test_the_same_figure_gives_the_same_bytes(record: Record) -> None:
    event = record.events[0]
    assert figures.dendrogram(event, {}) == figures.dendrogram(event, {})
