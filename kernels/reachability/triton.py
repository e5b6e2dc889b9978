"""Triton: squared distances to the bit, tile by tile in registers, used there and not stored.

Every program goes through all points for some rows. Distances are summed in float64 in the eight lanes of
:mod:`.points` and without fused multiply-add, so that they are those of the definition to the bit and nothing need be
checked or computed again. Up to 32 nearest are kept in registers; more take another pass for each 32.
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from ..launch import MOST_REGISTERS, Launch
from .points import Points

BLOCK_I, BLOCK_J, WARPS = 32, 32, 4


def core_distances(points: Points, k: int) -> Tensor:
    """(n,) float64, squared: time O(n²·d·⌈k/32⌉), memory O(n·d) for the columns one after another."""
    table = table_of(points)
    cores = table.new_full((len(points.values),), -1.0)
    for _ in range(triton.cdiv(k, BLOCK_J)):
        core_launch(table, points.metric, k, cores).run()
    return cores


def mutual_reachability(points: Points, k: int) -> Tensor:
    """(n, n) float64, squared: time O(n²·d), memory O(n²) for the result alone."""
    cores = core_distances(points, k)
    result = cores.new_empty(len(cores), len(cores))
    matrix_launch(table_of(points), points.metric, cores, result).run()
    return result


def table_of(points: Points) -> Tensor:
    """What kernels read: the columns of the points (d, n), so that neighbours in memory are of one column."""
    return points.values if points.metric == "precomputed" else points.values.T.contiguous()


def metric_arguments(table: Tensor, metric: str) -> dict[str, Any]:
    """The arguments that all kernels on distances have in common."""
    return {
        "table": table,
        "stride": table.stride(0),
        "features": table.shape[0],
        "GIVEN": metric == "precomputed",
        "SUM": metric == "antipodal",
        "BLOCK_I": BLOCK_I,
        "BLOCK_J": BLOCK_J,
    }


def core_launch(table: Tensor, metric: str, k: int, cores: Tensor) -> Launch:
    """``cores`` (n,), -1 at first, become the k-th smallest squared distances, or the 32nd beyond what they were."""
    n = len(cores)
    kept = min(k, BLOCK_J)
    arguments = metric_arguments(table, metric) | {
        "cores": cores,
        "n": n,
        "k": k,
        "kept": kept,
        "SLOTS": max(2, triton.next_power_of_2(kept)),
    }
    return Launch(_kth_smallest, triton.cdiv(n, BLOCK_I), arguments, WARPS, fuse=False, registers=MOST_REGISTERS)


def matrix_launch(table: Tensor, metric: str, cores: Tensor, result: Tensor) -> Launch:
    """One program for each tile of ``result`` (n, n), contiguous."""
    n = len(cores)
    arguments = metric_arguments(table, metric) | {"cores": cores, "result": result, "n": n}
    return Launch(
        _mutual_reachability,
        triton.cdiv(n, BLOCK_I) * triton.cdiv(n, BLOCK_J),
        arguments,
        WARPS,
        fuse=False,
    )


@triton.jit
def squared_distances(table, stride, features, i, j, exists_i, exists_j, GIVEN: tl.constexpr, SUM: tl.constexpr):
    """The squared distances of the points i to the points j, float64; not zero on the diagonal where they are sums."""
    squared = tl.zeros((i.shape[0], j.shape[0]), tl.float64)
    if GIVEN:
        there = i.to(tl.int64)[:, None] * stride + j[None, :]
        squared += tl.load(table + there, exists_i[:, None] & exists_j[None, :], other=0.0)
    else:
        for lane in range(8):
            total = tl.zeros((i.shape[0], j.shape[0]), tl.float64)
            for feature in range(lane, features, 8):
                column = table + tl.cast(feature, tl.int64) * stride
                a = tl.load(column + i, exists_i, other=0.0)[:, None]
                b = tl.load(column + j, exists_j, other=0.0)[None, :]
                side = a + b if SUM else a - b
                total += side * side
            squared += total
    return squared


@triton.jit
def _kth_smallest(
    table,
    cores,
    n,
    k,
    kept,
    stride,
    features,
    SLOTS: tl.constexpr,
    GIVEN: tl.constexpr,
    SUM: tl.constexpr,
    BLOCK_I: tl.constexpr,
    BLOCK_J: tl.constexpr,
):
    i = tl.program_id(0) * BLOCK_I + tl.arange(0, BLOCK_I)
    exists_i = i < n
    before = tl.load(cores + i, exists_i, other=0.0)  # what earlier launches found
    # The nearest beyond that, in any order; slots that are not used never hold the largest.
    slots, columns = tl.arange(0, SLOTS)[None, :], tl.arange(0, BLOCK_J)[None, :]
    nearest = tl.where((slots < kept) & (i[:, None] >= 0), float("inf"), -float("inf")).to(tl.float64)
    most, slot = tl.max(nearest, axis=1, return_indices=True)
    found = tl.zeros((BLOCK_I,), tl.int32)  # how many are not beyond
    for start in range(0, n, BLOCK_J):
        j = start + tl.arange(0, BLOCK_J)
        exists_j = j < n
        squared = squared_distances(table, stride, features, i, j, exists_i, exists_j, GIVEN, SUM)
        others = exists_i[:, None] & exists_j[None, :] & (i[:, None] != j[None, :])
        beyond = squared > before[:, None]
        found += tl.sum((others & (squared <= before[:, None])).to(tl.int32), axis=1)
        fresh = tl.where(others & beyond, squared, float("inf"))
        least, column = tl.min(fresh, axis=1, return_indices=True)
        while tl.max((least < most).to(tl.int32), axis=0) > 0:
            nearer = (least < most)[:, None]
            nearest = tl.where(nearer & (slots == slot[:, None]), least[:, None], nearest)
            fresh = tl.where(nearer & (columns == column[:, None]), float("inf"), fresh)
            most, slot = tl.max(nearest, axis=1, return_indices=True)
            least, column = tl.min(fresh, axis=1, return_indices=True)
    # Of those kept, as many as are still wanted.
    wanted = k - found
    excess = tl.where(wanted > 0, kept - wanted, 0)
    while tl.max(excess, axis=0) > 0:
        nearest = tl.where((excess > 0)[:, None] & (slots == slot[:, None]), -float("inf"), nearest)
        most, slot = tl.max(nearest, axis=1, return_indices=True)
        excess -= 1
    tl.store(cores + i, tl.where(wanted > 0, most, before), exists_i)


@triton.jit
def _mutual_reachability(
    table,
    cores,
    result,
    n,
    stride,
    features,
    GIVEN: tl.constexpr,
    SUM: tl.constexpr,
    BLOCK_I: tl.constexpr,
    BLOCK_J: tl.constexpr,
):
    across, tile = tl.cdiv(n, BLOCK_J), tl.program_id(0)
    i, j = tile // across * BLOCK_I + tl.arange(0, BLOCK_I), tile % across * BLOCK_J + tl.arange(0, BLOCK_J)
    exists_i, exists_j = i < n, j < n
    squared = squared_distances(table, stride, features, i, j, exists_i, exists_j, GIVEN, SUM)
    squared = tl.where(i[:, None] == j[None, :], 0.0, squared)
    core_i, core_j = tl.load(cores + i, exists_i, other=0.0), tl.load(cores + j, exists_j, other=0.0)
    reach = tl.maximum(squared, tl.maximum(core_i[:, None], core_j[None, :]))
    there = i.to(tl.int64)[:, None] * n + j[None, :]
    tl.store(result + there, reach, exists_i[:, None] & exists_j[None, :])
