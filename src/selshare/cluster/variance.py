"""The variance criterion: the cut of a dendrogram whose clusters lie farthest apart."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..kernels.reachability.jit import compiled
from .dendrogram import Floats

RELATIVE = 1e-12  # mean squares this close are equal: what rounding leaves of a tie


def variance_cut(linkage: ArrayLike, points: ArrayLike) -> NDArray[np.intp]:
    """Labels of the horizontal cut that maximises the between-cluster mean square ``Σ n_c‖μ_c−μ‖²/(k−1)``, k ≥ 2.

    The variance criterion of selective sharing: few large clusters, no noise (intent known, form *ours*). Merges at
    one distance are cut together or not at all, so the labels do not depend on the order of the rows; equal mean
    squares go to fewer clusters. A single point is one cluster.

    All cuts are compared in one pass: undoing the merge of clusters a and b adds
    ``n_a·n_b/(n_a+n_b)·‖μ_a−μ_b‖²`` to the between-cluster sum of squares, and the sums start at zero at the root.
    Time O(n·d), memory O(n·d).

    Parameters
    ----------
    linkage
        (n - 1, 4) single-linkage dendrogram in SciPy's format, such as
        ``HDBSCAN().fit(points).single_linkage_tree_.to_numpy()``.
    points
        (n, d).

    Returns
    -------
    ndarray
        (n,) labels 0 … k - 1, numbered by first appearance.

    Raises
    ------
    ValueError
        If ``linkage`` is not (n - 1, 4) for the n points.
    """
    rows = np.asarray(points, dtype=np.float64)
    merges = np.ascontiguousarray(linkage, dtype=np.float64)
    if rows.ndim != 2 or merges.shape != (len(rows) - 1, 4):
        raise ValueError(f"linkage has shape {merges.shape} and points {rows.shape}; give (n - 1, 4) and (n, d).")
    return labels_at(merges, best_cut(merges, rows))


def best_cut(merges: Floats, rows: Floats) -> int:
    """How many merges, counted from the first, the best cut keeps."""
    if len(rows) == 1:
        return 0
    gains = np.empty(len(merges))
    _gains(merges, np.ascontiguousarray(rows - rows.mean(axis=0)), gains)  # one layout, compiled once
    between = np.cumsum(gains[::-1])[::-1]  # of the cut that keeps merges 0 … r - 1: the sum of r … n - 2
    mean_square = between / np.arange(len(merges), 0, -1)
    possible = np.append(True, merges[1:, 2] > merges[:-1, 2])
    best = mean_square[possible].max()
    return int(np.flatnonzero(possible & (mean_square >= best * (1.0 - RELATIVE)))[-1])


def labels_at(merges: Floats, kept: int) -> NDArray[np.intp]:
    """(n,) clusters after the first ``kept`` merges, numbered by first appearance."""
    n = len(merges) + 1
    cluster = np.arange(n + kept)
    for row in range(kept - 1, -1, -1):  # from the last merge down, each child takes its parent's cluster
        cluster[merges[row, :2].astype(np.intp)] = cluster[n + row]
    _, first, labels = np.unique(cluster[:n], return_index=True, return_inverse=True)
    renamed: NDArray[Any] = np.empty(len(first), dtype=np.intp)
    renamed[np.argsort(first)] = np.arange(len(first))
    return renamed[labels]


@compiled
def _gains(merges: Floats, sums: Floats, gains: Floats) -> None:
    """What undoing each merge adds to the sum of squares; ``sums`` holds each cluster's sum in its leftmost row."""
    n, d = sums.shape
    slot = np.arange(2 * n - 1)
    size = np.ones(2 * n - 1)
    for row in range(n - 1):
        a, b = int(merges[row, 0]), int(merges[row, 1])
        left, right = slot[a], slot[b]
        squared = 0.0
        for f in range(d):
            step = sums[left, f] / size[a] - sums[right, f] / size[b]
            squared += step * step
            sums[left, f] += sums[right, f]
        gains[row] = squared * size[a] * size[b] / (size[a] + size[b])
        slot[n + row] = left
        size[n + row] = size[a] + size[b]
