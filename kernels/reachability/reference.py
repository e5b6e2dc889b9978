"""The definition, in plain torch and float64, on the full matrix: time O(n²·d), memory O(8·n²)."""

from __future__ import annotations

import torch
from torch import Tensor

from .points import LANES, Points


def squared_distances(points: Points) -> Tensor:
    """(n, n) squared distances as :mod:`.points` defines them, or the given distances, with a zero diagonal."""
    if points.metric == "precomputed":
        return points.values.clone().fill_diagonal_(0.0)
    n = points.values.shape[0]
    lanes = points.values.new_zeros(LANES, n, n)
    for column in range(points.values.shape[1]):
        values = points.values[:, column]
        lanes[column % LANES] += (values[:, None] + points.sign * values[None, :]).square()
    squared = lanes[0]
    for lane in lanes[1:]:
        squared = squared + lane
    return squared.fill_diagonal_(0.0)


def core_distances(points: Points, k: int) -> Tensor:
    """(n,) float64: the k-th smallest squared distance of each row, the point itself left out."""
    return _cores(squared_distances(points), k)


def mutual_reachability(points: Points, k: int) -> Tensor:
    """(n, n) float64: the largest of both core distances and the distance, squared."""
    matrix = squared_distances(points)
    cores = _cores(matrix, k)
    return torch.maximum(matrix, torch.maximum(cores[:, None], cores[None, :]))


def _cores(matrix: Tensor, k: int) -> Tensor:
    """The k-th smallest entry of each row, the diagonal left out."""
    others = matrix.clone().fill_diagonal_(torch.inf)
    return others.kthvalue(k, dim=1).values
