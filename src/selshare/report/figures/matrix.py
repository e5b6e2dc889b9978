"""The distance matrix, rows and columns ordered by group, so that groups are blocks on the diagonal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from scipy.cluster import hierarchy

from ..partitions import cluster_groups, label
from ..run import Event
from .svg import INK, MUTED, colour, names_width, new_axes, style, to_svg
from .tree import label_runs

NAMED_BRANCHES = 60
LARGEST = 720.0
NEAR = to_rgb("#1b7fc4")  # one hue whose opacity says how near, so that it reads on light and dark pages


def distance_matrix(event: Event, group_of: Mapping[str, int]) -> str | None:
    """Return the matrix of an event; ``None`` where the event has no distances.

    The darker a cell, the smaller the distance, on the scale of this matrix. Clusters come in the order of the
    dendrogram and are framed in the colour of the final group that most of their tasks ended in; noise comes last.
    """
    if not event.get("distances"):
        return None
    distances = np.array(event["distances"], dtype=np.float64)  # None, for infinite, becomes NaN
    clusters = [event["labels"][branch] for branch in event["embedded"]]
    order = _order(event, clusters)
    names = [label(event["branch_tasks"][branch]) for branch in event["embedded"]]
    groups = cluster_groups(event, group_of)
    named = len(order) <= NAMED_BRANCHES
    left = names_width(names) if named else 90.0
    side = min(max(len(order) * 17.0, 240.0), LARGEST)
    with style():
        figure, axes = new_axes(left + side + 96, side + 16, (left, 96, 8, 8))
        low, high = _draw_cells(axes, distances[np.ix_(order, order)])
        ordered = [clusters[leaf] for leaf in order]
        _frame_clusters(axes, ordered, groups)
        if named:
            axes.set_yticks(range(len(order)), [names[leaf] for leaf in order], color=INK)
        else:
            label_runs(axes, ordered, groups)
        axes.set_xticks([])
        axes.tick_params(length=0)
        for spine in axes.spines.values():
            spine.set_visible(False)
        scale(axes, low, high, "distance")
        return to_svg(figure, f"Distances of {len(order)} branches at the end of epoch {event['epoch']}, by group.")


def _order(event: Event, clusters: Sequence[int]) -> list[int]:
    """Clusters one after the other as the dendrogram has them, in its order within; noise last."""
    leaves = list(range(len(clusters)))
    if event.get("linkage"):
        leaves = [int(leaf) for leaf in hierarchy.leaves_list(np.asarray(event["linkage"], dtype=np.float64))]
    first = {cluster: position for position, cluster in reversed(list(enumerate(clusters[leaf] for leaf in leaves)))}
    return sorted(leaves, key=lambda leaf: (clusters[leaf] < 0, first[clusters[leaf]]))


def _draw_cells(axes: Axes, distances: NDArray[np.float64]) -> tuple[float, float]:
    """Draw the cells and return the smallest and the largest distance between two branches."""
    between = distances[~np.eye(len(distances), dtype=bool)]
    between = between[np.isfinite(between)]
    low, high = (float(between.min()), float(between.max())) if between.size else (0.0, 1.0)
    nearness = np.nan_to_num(1 - (distances - low) / ((high - low) or 1.0), nan=0.0)
    axes.imshow(shades(nearness), interpolation="none", aspect="equal")
    return low, high


def shades(nearness: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return opacities of the one hue, from nearly nothing at 0 to full at 1; the power makes near pairs stand out."""
    cells = np.empty((*nearness.shape, 4))
    cells[..., :3] = NEAR
    cells[..., 3] = 0.03 + 0.97 * np.clip(nearness, 0, 1) ** 1.6
    return cells


def _frame_clusters(axes: Axes, clusters: Sequence[int], groups: Mapping[int, int | None]) -> None:
    for cluster, group in groups.items():
        if cluster in clusters:
            start, size = clusters.index(cluster), clusters.count(cluster)
            frame = Rectangle((start - 0.5, start - 0.5), size, size, fill=False, linewidth=2, edgecolor=colour(group))
            frame.set_clip_on(False)
            axes.add_patch(frame)


def scale(axes: Axes, low: float, high: float, title: str) -> None:
    """Draw a bar beside a matrix that tells which shade is which value; the upper end is ``low``."""
    bar = axes.inset_axes((1.04, 0.0, 0.03, 0.35))
    bar.imshow(shades(np.linspace(0, 1, 64)[:, None]), aspect="auto", interpolation="none", extent=(0, 1, 0, 1))
    bar.set_xticks([])
    bar.set_yticks([0, 1], [f"{low:.3g}", f"{high:.3g}"], color=MUTED)
    bar.yaxis.tick_right()
    bar.tick_params(length=0)
    for spine in bar.spines.values():
        spine.set_visible(False)
    bar.set_title(title, fontsize=11, color=MUTED, loc="left", pad=12)
