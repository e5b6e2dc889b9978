"""C++ (csrc/cpu/reachability.cpp): distances to the bit, and core distances without the matrix of distances."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from selshare import _native

from .nearest import Nearest, list_length
from .points import Points
from .screen import Doubles

SMALL = 1e8  # multiplications up to which all distances are computed directly


def core_distances(points: Points, k: int) -> Tensor:
    """(n,) float64, squared: time O(n²·d), memory O(n·(d + k)); the full matrix where it is small."""
    if is_small(points, k):
        return torch.from_numpy(cores_of(squared_matrix(points), k))
    nearest = Nearest.of(points, k)
    return torch.from_numpy(nearest.cores * nearest.screen.unit)


def mutual_reachability(points: Points, k: int) -> Tensor:
    """(n, n) float64, squared: time O(n²·d), memory O(n²) for the result alone."""
    matrix = squared_matrix(points)
    cores = torch.from_numpy(cores_of(matrix, k))
    result = torch.from_numpy(matrix)
    torch.maximum(result, cores, out=result)
    return torch.maximum(result, cores[:, None], out=result)


def is_small(points: Points, k: int) -> bool:
    """Whether the full matrix is the faster way; always where it is given."""
    n, d = points.values.shape
    return points.metric == "precomputed" or n <= list_length(k) or n * n / 2 * max(d, 8) <= SMALL


def squared_matrix(points: Points) -> Doubles:
    """(n, n) squared distances, or the given distances, with a zero diagonal."""
    n, d = points.values.shape
    if points.metric == "precomputed":
        given: Doubles = points.values.numpy().copy()
        np.fill_diagonal(given, 0.0)
        return given
    matrix: Doubles = np.empty((n, n))
    _native.squared_matrix(
        points.values.data_ptr(),
        n,
        d,
        points.metric == "antipodal",
        matrix.ctypes.data,
        torch.get_num_threads(),
    )
    return matrix


def cores_of(matrix: Doubles, k: int) -> Doubles:
    """(n,) the k-th smallest entry of each row, the diagonal left out."""
    cores: Doubles = np.empty(len(matrix))
    _native.kth_smallest(matrix.ctypes.data, len(matrix), k, cores.ctypes.data, torch.get_num_threads())
    return cores
