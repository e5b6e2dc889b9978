"""The definition: Kruskal's algorithm on all edges, ordered by (weight, i, j): time O(n²·(d + log n)), memory O(n²)."""

from __future__ import annotations

import torch
from torch import Tensor

from ..reachability.points import Points
from ..reachability.reference import mutual_reachability


def mutual_reachability_mst(points: Points, k: int) -> Tensor:
    """(n - 1, 3) float64 rows (i, j, squared weight), in any order."""
    matrix = mutual_reachability(points, k)
    n = len(matrix)
    rows, columns = torch.triu_indices(n, n, offset=1, device=matrix.device)
    weights, order = matrix[rows, columns].sort(stable=True)  # row-major before, hence (weight, i, j) after
    chosen = _kruskal(n, rows[order].tolist(), columns[order].tolist())
    kept = torch.tensor(chosen, dtype=torch.int64, device=matrix.device)
    edges = order[kept]
    return torch.stack((rows[edges].double(), columns[edges].double(), weights[kept]), dim=1)


def _kruskal(n: int, rows: list[int], columns: list[int]) -> list[int]:
    """Positions of the edges that join two trees, taken in order."""
    parent = list(range(n))

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    chosen: list[int] = []
    for position, (row, column) in enumerate(zip(rows, columns, strict=True)):
        a, b = root(row), root(column)
        if a != b:
            parent[a] = b
            chosen.append(position)
            if len(chosen) == n - 1:
                break
    return chosen
