"""Prim's algorithm in Numba on the full matrix: time O(n²·d), memory O(8·n²)."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..reachability.jit import compiled
from ..reachability.numba import mutual_reachability
from ..reachability.points import Points

Array = NDArray[np.float64]


def mutual_reachability_mst(points: Points, k: int) -> Tensor:
    """(n - 1, 3) float64 rows (i, j, squared weight), in any order."""
    tree = np.empty((len(points.values) - 1, 3))
    prim(mutual_reachability(points, k).numpy(), tree)
    return torch.from_numpy(tree)


@compiled
def prim(matrix: Array, tree: Array) -> None:
    """The spanning tree that is minimal in the order (weight, i, j), grown from point 0."""
    n = len(matrix)
    weight = np.full(n, np.inf)  # of the best edge from the tree to each point outside
    inside = np.zeros(n, dtype=np.int64)  # its end in the tree; -1 once the point is in the tree
    newest = 0
    for step in range(n - 1):
        inside[newest] = -1
        best = -1
        for j in range(n):
            if inside[j] < 0:
                continue
            value = matrix[newest, j]
            if value < weight[j] or (value == weight[j] and _before(newest, j, inside[j], j)):
                weight[j] = value
                inside[j] = newest
            if (
                best < 0
                or weight[j] < weight[best]
                or (weight[j] == weight[best] and _before(inside[j], j, inside[best], best))
            ):
                best = j
        tree[step, 0] = min(inside[best], best)
        tree[step, 1] = max(inside[best], best)
        tree[step, 2] = weight[best]
        newest = best


@compiled
def _before(a: int, b: int, c: int, d: int) -> bool:
    """Whether the edge {a, b} comes before {c, d} where both weigh the same."""
    return min(a, b) < min(c, d) or (min(a, b) == min(c, d) and max(a, b) < max(c, d))
