"""C++ (csrc/cpu/spanning_tree.cpp) and matrix products: the exact tree in memory O(n·(d + k)).

1. One pass over half of all blocks keeps the nearest neighbours of each point and makes the core distances exact
   (:mod:`..reachability.nearest`). Their edges give a first forest.
2. A sample of points is compared with all others, so that the trees of the forest meet, by short edges.
3. A second pass over half of all blocks looks for edges that improve the tree. By the cycle property an edge is in the
   minimum spanning tree only if it is not heavier than the longest edge on the path between its ends in *any* tree.
   With the points in the order of the tree's dendrogram, that longest edge is the largest of the heights between two
   leaves: a running maximum, so the test costs two comparisons of a vector each. What passes on a lower bound
   (:mod:`..reachability.screen`) is computed exactly and enters Kruskal's algorithm together with the tree.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from selshare import _native

from ..reachability.native import cores_of, is_small, squared_matrix
from ..reachability.nearest import Nearest
from ..reachability.points import Points
from ..reachability.screen import TILE, Doubles, Indices, rounded_down

SAMPLE = 128  # points compared with all others in the second step, at least
CUT = 64  # longest edges of the forest that are cut for it
RESTARTS = 8  # how often a much better tree starts the second pass again
BETTER = 1e-3


def mutual_reachability_mst(points: Points, k: int) -> Tensor:
    """(n - 1, 3) float64 rows (i, j, squared weight), in any order."""
    if is_small(points, k):
        return _of_matrix(points, k)
    nearest = Nearest.of(points, k)
    forest = _connected(nearest, _first_forest(nearest))
    finished, restarts = False, 0
    while not finished:
        forest, finished = _improved(nearest, forest, may_stop=restarts < RESTARTS)
        restarts += 1
    return (forest if nearest.screen.is_sum else forest.with_stars()).edges(nearest.screen.unit)


def _of_matrix(points: Points, k: int) -> Tensor:
    """Prim's algorithm on the full matrix."""
    matrix = squared_matrix(points)
    cores = cores_of(matrix, k)
    tree = torch.empty((len(matrix) - 1, 3), dtype=torch.float64)
    _native.prim(matrix.ctypes.data, cores.ctypes.data, len(matrix), tree.data_ptr())
    return tree


@dataclass(frozen=True, slots=True)
class Forest:
    """Edges (a, b) of squared weight ``weights``, and the order of the points in which each tree is contiguous.

    ``heights[t]`` is the weight at which the trees of ``leaves[t]`` and ``leaves[t + 1]`` met, infinite where they
    have not: the longest edge between the leaves s < t is the maximum of ``heights[s:t]``.
    """

    a: Indices
    b: Indices
    weights: Doubles
    leaves: Indices
    heights: Doubles

    @classmethod
    def of(cls, n: int, a: Indices, b: Indices, weights: Doubles) -> Forest:
        """Kruskal's forest of edges, in the order (weight, i, j)."""
        chosen, leaves, heights = np.empty(n - 1, dtype=np.int64), np.empty(n, dtype=np.int32), np.empty(n - 1)
        count = _native.forest(
            n,
            a.ctypes.data,
            b.ctypes.data,
            weights.ctypes.data,
            len(a),
            chosen.ctypes.data,
            leaves.ctypes.data,
            heights.ctypes.data,
        )
        kept = chosen[:count]
        return cls(a[kept], b[kept], weights[kept], leaves, heights)

    def joined(self, a: Indices, b: Indices, weights: Doubles) -> Forest:
        """The minimum spanning forest of this one and more edges."""
        a, b = np.concatenate((self.a, a)), np.concatenate((self.b, b))
        return Forest.of(len(self.leaves), a, b, np.concatenate((self.weights, weights)))

    def edges(self, unit: float) -> Tensor:
        """(edges, 3) rows (i, j, squared weight) with i < j."""
        columns = np.minimum(self.a, self.b), np.maximum(self.a, self.b), self.weights * unit
        return torch.from_numpy(np.stack(columns, axis=1, dtype=np.float64))

    def with_stars(self) -> Forest:
        """The forest with equal points, which edges of weight 0 connect, all joined to the first of them.

        Of the edges between them, all of weight 0, those come first.
        """
        starts = np.flatnonzero(np.append(True, self.heights > 0.0))
        first = np.repeat(np.minimum.reduceat(self.leaves, starts), np.diff(starts, append=len(self.leaves)))
        equal, longer = self.leaves != first, self.weights > 0.0
        a = np.concatenate((first[equal], self.a[longer]))
        b = np.concatenate((self.leaves[equal], self.b[longer]))
        weights = np.concatenate((np.zeros(equal.sum()), self.weights[longer]))
        return Forest(a, b, weights, self.leaves, self.heights)


def _weights(nearest: Nearest, a: Indices, b: Indices) -> Doubles:
    """Exact squared mutual reachability of pairs."""
    return np.maximum(nearest.screen.squared(a, b), np.maximum(nearest.cores[a], nearest.cores[b]))


def _first_forest(nearest: Nearest) -> Forest:
    """The forest of the edges to near neighbours, each taken once where both ends keep it."""
    n, kept = nearest.indices.shape
    a, b = np.repeat(np.arange(n, dtype=np.int32), kept), nearest.indices.ravel()
    squares = nearest.squares.ravel()
    once = (a < b) | (squares >= nearest.squares.max(axis=1)[b])
    a, b, squares = a[once], b[once], squares[once]
    weights = np.maximum(squares, np.maximum(nearest.cores[a], nearest.cores[b]))
    return Forest.of(n, a, b, weights)


def _connected(nearest: Nearest, forest: Forest) -> Forest:
    """The forest made one tree by edges from sampled points to the nearest point outside their group.

    Groups are the trees of the forest, cut at its longest edges: those may be detours over outliers.
    """
    n = len(forest.leaves)
    finite = forest.heights[np.isfinite(forest.heights)]
    longest = np.partition(finite, -CUT)[-CUT] if len(finite) > CUT else np.inf
    while True:
        by_leaf = np.cumsum(np.append(False, forest.heights >= longest))
        group = np.empty(n, dtype=np.int32)
        group[forest.leaves] = by_leaf
        starts = np.flatnonzero(np.diff(by_leaf, prepend=-1))
        sample = forest.leaves[np.union1d(starts, np.linspace(0, n - 1, SAMPLE).astype(np.int64))]
        outside = _nearest_outside(nearest, sample, torch.from_numpy(group))
        forest = forest.joined(sample, outside, _weights(nearest, sample, outside))
        if len(forest.a) == n - 1:
            return forest
        longest = np.inf


def _nearest_outside(nearest: Nearest, sample: Indices, group: Tensor) -> Indices:
    """About the nearest point to each sampled one that is not in its group."""
    screen = nearest.screen
    n = len(group)
    batch = max(1, TILE * TILE // n)
    workspace = torch.empty(batch * n, dtype=screen.rows.dtype)
    found = []
    for points in torch.from_numpy(sample).long().split(batch):
        values = screen.products(screen.rows[points], screen.rows, workspace).sub_(screen.half)
        values.masked_fill_(group == group[points, None], -torch.inf)
        found.append(values.numpy().argmax(axis=1))
    return np.concatenate(found).astype(np.int32)


def _improved(nearest: Nearest, forest: Forest, may_stop: bool) -> tuple[Forest, bool]:
    """The forest and all edges that its longest edges do not rule out.

    Also whether all pairs were looked at: where so many are not ruled out that the forest so far is much better
    than the one it started with, the pass ends, to start again with sharper limits.
    """
    screen = nearest.screen.take(torch.from_numpy(forest.leaves).long())
    cores = nearest.cores[forest.leaves]
    n, heights, leaves = len(cores), forest.heights, forest.leaves
    scan = _native.crossing_pairs_f32 if screen.rows.dtype == torch.float32 else _native.crossing_pairs_f64
    workspace = torch.empty(TILE * TILE, dtype=screen.rows.dtype)
    found = np.empty((2, 4 * TILE * TILE), dtype=np.int32)
    count, started = 0, forest.weights.sum()
    for row in range(0, n, TILE):
        end = min(row + TILE, n)
        within = np.append(np.maximum.accumulate(heights[row : end - 1][::-1])[::-1], 0.0)
        beyond = np.maximum.accumulate(heights[end - 1 :])
        shifted = rounded_down(screen.half[end:].double() - torch.from_numpy(beyond) / 2, screen.rows.dtype)
        for column in range(row, n, TILE):
            if found.shape[1] - count < TILE * TILE:
                a, b = leaves[found[0, :count]], leaves[found[1, :count]]
                forest, count = forest.joined(a, b, _weights(nearest, a, b)), 0
                if may_stop and forest.weights.sum() < started * (1.0 - BETTER):
                    return forest, False
            rows, columns = screen.rows[row:end], screen.rows[column : column + TILE]
            block = screen.products(rows, columns, workspace)
            offset = max(column - end, 0)
            count += scan(
                block.data_ptr(),
                len(rows),
                len(columns),
                row,
                column,
                screen.half.data_ptr(),
                screen.norms.data_ptr(),
                cores.ctypes.data,
                heights.ctypes.data,
                within.ctypes.data,
                beyond.ctypes.data + beyond.itemsize * offset,
                shifted.data_ptr() + shifted.element_size() * offset,
                screen.is_sum,
                found[0].ctypes.data + found.itemsize * count,
                found[1].ctypes.data + found.itemsize * count,
                TILE * TILE,
                torch.get_num_threads(),
            )
    a, b = leaves[found[0, :count]], leaves[found[1, :count]]
    return forest.joined(a, b, _weights(nearest, a, b)), True
