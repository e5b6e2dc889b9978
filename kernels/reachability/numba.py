"""Distances row by row in Numba, several rows at a time: time O(n²·d), memory O(n²) for the result alone."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .jit import compiled, in_threads
from .points import Points

Array = NDArray[np.float64]


def core_distances(points: Points, k: int) -> Tensor:
    """(n,) float64, squared."""
    return torch.from_numpy(_cores(squared_distances(points), k))


def mutual_reachability(points: Points, k: int) -> Tensor:
    """(n, n) float64, squared."""
    matrix = squared_distances(points)
    cores = _cores(matrix, k)
    in_threads(_raise_to_cores, len(matrix), matrix, cores)
    return torch.from_numpy(matrix)


def squared_distances(points: Points) -> Array:
    """(n, n) squared distances as :mod:`.points` defines them, or the given distances, with a zero diagonal."""
    values = points.values.numpy()
    n = len(values)
    if points.metric == "precomputed":
        matrix: Array = values.copy()
        np.fill_diagonal(matrix, 0.0)
        return matrix
    matrix = np.empty((n, n))
    in_threads(_distance_rows, n, values, points.sign, matrix)
    return matrix


def _cores(matrix: Array, k: int) -> Array:
    """The k-th smallest entry of each row, the diagonal left out."""
    cores = np.empty(len(matrix))
    in_threads(_core_rows, len(matrix), matrix, k, cores)
    return cores


@compiled
def squared_distance(a: Array, b: Array, sign: float) -> float:
    """The squared norm of ``a + sign·b``, summed in the lanes of :mod:`.points`."""
    d = len(a)
    s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = 0.0
    whole = d - d % 8
    for f in range(0, whole, 8):
        t0, t1 = a[f] + sign * b[f], a[f + 1] + sign * b[f + 1]
        t2, t3 = a[f + 2] + sign * b[f + 2], a[f + 3] + sign * b[f + 3]
        t4, t5 = a[f + 4] + sign * b[f + 4], a[f + 5] + sign * b[f + 5]
        t6, t7 = a[f + 6] + sign * b[f + 6], a[f + 7] + sign * b[f + 7]
        s0 += t0 * t0
        s1 += t1 * t1
        s2 += t2 * t2
        s3 += t3 * t3
        s4 += t4 * t4
        s5 += t5 * t5
        s6 += t6 * t6
        s7 += t7 * t7
    rest = np.zeros(8)
    for f in range(whole, d):
        t = a[f] + sign * b[f]
        rest[f - whole] = t * t
    total: float = s0 + rest[0]
    total += s1 + rest[1]
    total += s2 + rest[2]
    total += s3 + rest[3]
    total += s4 + rest[4]
    total += s5 + rest[5]
    total += s6 + rest[6]
    total += s7 + rest[7]
    return total


@compiled
def _distance_rows(start: int, stop: int, values: Array, sign: float, matrix: Array) -> None:
    """Rows start … stop of the distance matrix."""
    for i in range(start, stop):
        for j in range(len(values)):
            matrix[i, j] = squared_distance(values[i], values[j], sign) if i != j else 0.0


@compiled
def _core_rows(start: int, stop: int, matrix: Array, k: int, cores: Array) -> None:
    """The k-th smallest entries off the diagonal, kept in a sorted list of k."""
    nearest = np.empty(k)
    for i in range(start, stop):
        nearest[:] = np.inf
        for j in range(len(matrix)):
            value = matrix[i, j]
            if value < nearest[k - 1] and i != j:
                slot = k - 1
                while slot > 0 and nearest[slot - 1] > value:
                    nearest[slot] = nearest[slot - 1]
                    slot -= 1
                nearest[slot] = value
        cores[i] = nearest[k - 1]


@compiled
def _raise_to_cores(start: int, stop: int, matrix: Array, cores: Array) -> None:
    """Each distance becomes the largest of itself and both core distances."""
    for i in range(start, stop):
        for j in range(len(cores)):
            matrix[i, j] = max(matrix[i, j], max(cores[i], cores[j]))
