"""Borůvka's algorithm on distances that are computed where they are needed, exactly, and never stored: Triton.

In a round every component takes the edge that comes first, in the order (weight, i, j), of all that leave it. The
row-argmin over points of other components is a kernel; the rest are operations on n numbers, on the device. Of two
equal weights in a row the smaller column comes first in that order too. A row's edge stays its first for as long as it
leaves the component, and its weight bounds those to come from below: only rows whose edge no longer leaves, and could
still matter, are gone through again. The host waits for two numbers a round.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..launch import Launch
from ..reachability.points import Points
from ..reachability.triton import BLOCK_I, WARPS, core_distances, metric_arguments, squared_distances, table_of


def mutual_reachability_mst(points: Points, k: int) -> Tensor:
    """(n - 1, 3) float64 rows (i, j, squared weight), in any order: O(n²·d) a round, memory O(n·d)."""
    table, cores = table_of(points), core_distances(points, k)
    n = len(cores)
    numbers = torch.arange(n, device=cores.device)
    component, other, weight = numbers, numbers.clone(), torch.zeros_like(cores)
    tree: list[Tensor] = []
    edges = 0
    while edges < n - 1:
        leaves = component[other] != component
        first = _least(component, torch.where(leaves, weight, torch.inf))
        rows = (~leaves & (weight <= first[component])).nonzero()[:, 0]
        if len(rows):
            argmin_launch(table, points.metric, cores, component, rows, weight, other).run()
        roots = (component == numbers).nonzero()[:, 0]
        edge, weights = _first_edges(component, other, weight, roots)
        tree.append(_distinct(edge, weights, n))
        edges += len(tree[-1])
        component = _joined(component, edge, roots)
    return torch.cat(tree)


def _least(component: Tensor, values: Tensor) -> Tensor:
    """(n,) the least value of each component, at the place of its number."""
    most = torch.inf if values.is_floating_point() else torch.iinfo(values.dtype).max
    return torch.full_like(values, most).scatter_reduce_(0, component, values, "amin")


def _first_edges(component: Tensor, other: Tensor, weight: Tensor, roots: Tensor) -> tuple[Tensor, Tensor]:
    """For each component the edge that comes first of those that leave it, as ``i·n + j``, and its weight."""
    n = len(component)
    numbers = torch.arange(n, device=component.device)
    leaves = component[other] != component
    first = _least(component, torch.where(leaves, weight, torch.inf))
    edge = torch.minimum(numbers, other) * n + torch.maximum(numbers, other)
    is_first = leaves & (weight == first[component])
    edge = _least(component, torch.where(is_first, edge, torch.iinfo(edge.dtype).max))
    return edge[roots], first[roots]


def _distinct(edge: Tensor, weights: Tensor, n: int) -> Tensor:
    """The edges as rows (i, j, weight), those that two components took only once."""
    edge, order = edge.sort()
    fresh = torch.cat((torch.ones_like(edge[:1], dtype=torch.bool), edge[1:] != edge[:-1]))
    edge, weights = edge[fresh], weights[order][fresh]
    return torch.stack(((edge // n).double(), (edge % n).double(), weights), dim=1)


def _joined(component: Tensor, edge: Tensor, roots: Tensor) -> Tensor:
    """The components that these edges make, each named by one of its points that named one before.

    As all edges differ in order, the components that take them form trees, but for the two that took one edge.
    """
    n = len(component)
    numbers = torch.arange(n, device=component.device)
    parent = numbers.clone()
    parent[roots] = component[edge // n] + component[edge % n] - roots
    parent = torch.where((parent[parent] == numbers) & (numbers < parent), numbers, parent)
    for _ in range(n.bit_length()):
        parent = parent[parent]
    return parent[component]


def argmin_launch(
    table: Tensor, metric: str, cores: Tensor, component: Tensor, rows: Tensor, weight: Tensor, other: Tensor
) -> Launch:
    """For each of ``rows`` the point of another component that it reaches first, into ``other``, and its weight."""
    arguments = metric_arguments(table, metric) | {
        "cores": cores,
        "component": component,
        "rows": rows,
        "weight": weight,
        "other": other,
        "n": len(cores),
        "count": len(rows),
    }
    return Launch(_nearest_outside, triton.cdiv(len(rows), BLOCK_I), arguments, WARPS, fuse=False)


@triton.jit
def _nearest_outside(
    table,
    cores,
    component,
    rows,
    weight,
    other,
    n,
    count,
    stride,
    features,
    GIVEN: tl.constexpr,
    SUM: tl.constexpr,
    BLOCK_I: tl.constexpr,
    BLOCK_J: tl.constexpr,
):
    r = tl.program_id(0) * BLOCK_I + tl.arange(0, BLOCK_I)
    exists_i = r < count
    i = tl.load(rows + r, exists_i, other=0)
    own, core_i = tl.load(component + i, exists_i, other=-1), tl.load(cores + i, exists_i, other=0.0)
    least = tl.full((BLOCK_I,), float("inf"), tl.float64)
    place = tl.zeros((BLOCK_I,), tl.int64)
    for start in range(0, n, BLOCK_J):
        j = start + tl.arange(0, BLOCK_J)
        exists_j = j < n
        squared = squared_distances(table, stride, features, i, j, exists_i, exists_j, GIVEN, SUM)
        theirs, core_j = tl.load(component + j, exists_j, other=-1), tl.load(cores + j, exists_j, other=0.0)
        reach = tl.maximum(squared, tl.maximum(core_i[:, None], core_j[None, :]))
        outside = exists_i[:, None] & exists_j[None, :] & (own[:, None] != theirs[None, :])
        here, at = tl.min(tl.where(outside, reach, float("inf")), axis=1, return_indices=True)
        nearer = here < least  # the first column of equal ones stays
        least = tl.where(nearer, here, least)
        place = tl.where(nearer, (start + at).to(tl.int64), place)
    tl.store(weight + i, least, exists_i)
    tl.store(other + i, place, exists_i)
