"""From points to clusters: core distances, the minimum spanning tree, the dendrogram."""

from __future__ import annotations

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from scipy.cluster.hierarchy import dendrogram

from selshare.cluster import HDBSCAN, single_linkage
from selshare.kernels import core_distances, mutual_reachability_mst

from .palette import COLOURS, GREY

NEIGHBOURS = 4


def mutual_reachability() -> Figure:
    """Three panels on one set of 34 points."""
    points = _points()
    labels = HDBSCAN(min_cluster_size=5, min_samples=NEIGHBOURS).fit(points.numpy()).labels_
    colours = [COLOURS[label] if label >= 0 else GREY for label in labels]
    edges = mutual_reachability_mst(points, NEIGHBOURS).numpy()
    figure = Figure(figsize=(8.4, 3.1))
    left, middle, right = figure.subplots(1, 3)
    for point, core in zip(points.numpy(), core_distances(points, NEIGHBOURS).tolist(), strict=True):
        left.add_patch(Circle(point, core, fill=False, edgecolor=GREY, linewidth=0.6))
    left.set_title("1. core distances: to the\nfourth nearest other point")
    for i, j, _ in edges:
        ends = points.numpy()[[int(i), int(j)]]
        middle.plot(ends[:, 0], ends[:, 1], color="black", linewidth=0.8, zorder=0)
    middle.set_title("2. minimum spanning tree of\nmax(core a, core b, distance)")
    for axes in (left, middle):
        axes.scatter(points[:, 0], points[:, 1], s=14, color=colours)
        axes.set_aspect("equal")
        axes.set_axis_off()
    _tree(right, edges, colours)
    figure.tight_layout()
    return figure


def _tree(axes: Axes, edges: np.ndarray, colours: list[str]) -> None:
    drawn = dendrogram(single_linkage(edges), ax=axes, link_color_func=lambda link: "black", no_labels=True)
    axes.scatter(
        [5 + 10 * place for place in range(len(colours))],
        [0] * len(colours),
        s=14,
        color=[colours[leaf] for leaf in drawn["leaves"]],
        clip_on=False,
        zorder=3,
    )
    axes.set_title("3. its dendrogram; HDBSCAN keeps\nthe clusters that last, grey is noise")
    axes.set_ylabel("mutual reachability distance")


def _points() -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    blobs = [(0.0, 0.0, 0.35, 12), (3.0, 0.6, 0.5, 12), (1.3, 2.7, 0.3, 7)]
    parts = [
        torch.tensor([x, y]) + spread * torch.randn(count, 2, generator=generator) for x, y, spread, count in blobs
    ]
    strays = torch.tensor([[-1.2, 2.4], [3.3, 3.2], [1.4, -1.3]])
    return torch.cat([*parts, strays]).double()
