"""The dendrogram: at which distance branches join, from the single-linkage tree that was clustered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from scipy.cluster import hierarchy

from ..partitions import cluster_groups, label
from ..run import Event
from .svg import INK, colour, names_width, new_axes, style, to_svg

NAMED_LEAVES = 80
ROW, TALLEST = 17.0, 900.0


def dendrogram(event: Event, group_of: Mapping[str, int]) -> str | None:
    """Return the dendrogram of an event, root on the right; ``None`` where the event has no tree.

    Leaves are the branches that were clustered, joins within one cluster are drawn in the colour of the final group
    that most of the cluster's tasks ended in, other joins muted.
    """
    if not event.get("linkage"):
        return None
    linkage = np.asarray(event["linkage"], dtype=np.float64)
    order = [int(leaf) for leaf in hierarchy.leaves_list(linkage)]
    names = [label(event["branch_tasks"][branch]) for branch in event["embedded"]]
    clusters = [event["labels"][branch] for branch in event["embedded"]]
    groups = cluster_groups(event, group_of)
    named = len(order) <= NAMED_LEAVES
    height = ROW * len(order) if named else min(max(3.0 * len(order), 320.0), TALLEST)
    left = names_width(names) if named else 90.0
    with style():
        figure, axes = new_axes(1000, height + 44, (left, 24, 36, 8))
        lines, joined = _joins(linkage, order, clusters)
        colours = [colour(groups.get(cluster)) for cluster in joined]
        axes.add_collection(LineCollection(lines, colors=colours, linewidths=min(1.6, 0.4 * height / len(order))))
        _limit(axes, linkage[:, 2])
        axes.set_ylim(len(order) - 0.5, -0.5)
        if named:
            axes.set_yticks(range(len(order)), [names[leaf] for leaf in order])
            for tick, leaf in zip(axes.get_yticklabels(), order, strict=True):
                tick.set_color(colour(groups[clusters[leaf]]) if clusters[leaf] >= 0 else INK)
        else:
            label_runs(axes, [clusters[leaf] for leaf in order], groups)
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)
        axes.tick_params(axis="x", length=3)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=8))
        axes.set_xlabel("mutual reachability distance")
        return to_svg(figure, f"Dendrogram of {len(order)} branches at the end of epoch {event['epoch']}.")


def label_runs(axes: Axes, clusters: Sequence[int], groups: Mapping[int, int | None]) -> None:
    """Write how many branches each cluster has beside its run of rows, where single names would not fit."""
    starts = [i for i, cluster in enumerate(clusters) if i == 0 or cluster != clusters[i - 1]]
    smallest = len(clusters) * 14 / TALLEST  # rows as high as a line of text
    ticks, texts, colours = [], [], []
    for start, stop in zip(starts, [*starts[1:], len(clusters)], strict=True):
        if clusters[start] >= 0 and stop - start >= smallest:
            ticks.append((start + stop - 1) / 2)
            texts.append(f"{stop - start} branches")
            colours.append(colour(groups[clusters[start]]))
    axes.set_yticks(ticks, texts)
    for tick, tint in zip(axes.get_yticklabels(), colours, strict=True):
        tick.set_color(tint)


def _limit(axes: Axes, heights: NDArray[np.float64]) -> None:
    """Show distances from a little before the first join: the space between 0 and there says nothing."""
    first, last = float(heights.min()), float(heights.max())
    room = (last - first) or max(last, 1.0)
    axes.set_xlim(max(0.0, first - 0.15 * room), last + 0.03 * room)


def _joins(
    linkage: NDArray[np.float64], order: Sequence[int], clusters: Sequence[int]
) -> tuple[list[list[tuple[float, float]]], list[int]]:
    """One bracket for each row of the linkage, and the cluster that holds all leaves under it, -1 for none."""
    leaves = len(order)
    row = np.empty(2 * leaves - 1)
    row[list(order)] = np.arange(leaves)
    height = np.zeros(2 * leaves - 1)
    within = list(clusters)
    lines: list[list[tuple[float, float]]] = []
    for node, (first, second, distance, _) in enumerate(linkage, start=leaves):
        i, j = int(first), int(second)
        within.append(within[i] if within[i] == within[j] else -1)
        row[node], height[node] = (row[i] + row[j]) / 2, distance
        lines.append([(height[i], row[i]), (distance, row[i]), (distance, row[j]), (height[j], row[j])])
    return lines, within[leaves:]
