"""The Triton kernels on distances: memory they must leave alone, offsets past 2³¹, many neighbours, and ties."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from backends import forced
from fences import Fenced, spread
from selshare.kernels import core_distances, mutual_reachability_mst, use

SIZES = pytest.mark.parametrize(("n", "d"), [(2, 1), (35, 9)])
METRICS = pytest.mark.parametrize("metric", ["euclidean", "antipodal", "precomputed"])


@pytest.fixture(autouse=True)
def backend() -> Iterator[str]:
    yield from forced("core_distances", "triton")


def squared(table: Tensor, metric: str) -> Tensor:
    if metric == "precomputed":
        return table.clone()
    points = table.T
    return (points[:, None] - (-points if metric == "antipodal" else points)[None]).square().sum(dim=2)


def table_for(n: int, d: int, metric: str) -> Tensor:
    table = torch.randn(n if metric == "precomputed" else d, n, dtype=torch.float64)
    return (table + table.T).square() if metric == "precomputed" else table


def kth(distances: Tensor, k: int) -> Tensor:
    return distances.clone().fill_diagonal_(torch.inf).sort(dim=1).values[:, k - 1]


@SIZES
@METRICS
def test_cores_within_their_tensors(n: int, d: int, metric: str) -> None:
    # Not at the head: the module needs Triton, which some machines lack.
    from selshare.kernels.reachability.triton import core_launch

    table, cores = Fenced(table_for(n, d, metric)), Fenced(torch.full((n,), -1.0, dtype=torch.float64))
    core_launch(table.tensor, metric, min(3, n - 1), cores.tensor).run()
    torch.testing.assert_close(cores.tensor, kth(squared(table.tensor, metric), min(3, n - 1)))
    assert cores.untouched()


@SIZES
@METRICS
def test_matrices_within_their_tensors(n: int, d: int, metric: str) -> None:
    from selshare.kernels.reachability.triton import matrix_launch

    table, cores = Fenced(table_for(n, d, metric)), Fenced(torch.rand(n, dtype=torch.float64))
    result = Fenced(torch.zeros(n, n, dtype=torch.float64))
    matrix_launch(table.tensor, metric, cores.tensor, result.tensor).run()
    distances = squared(table.tensor, metric).fill_diagonal_(0.0)
    wanted = torch.maximum(distances, torch.maximum(cores.tensor[:, None], cores.tensor))
    torch.testing.assert_close(result.tensor, wanted)
    assert result.untouched()


@SIZES
@METRICS
def test_argmins_within_their_tensors(n: int, d: int, metric: str) -> None:
    from selshare.kernels.spanning_tree.triton import argmin_launch

    table, cores = Fenced(table_for(n, d, metric)), Fenced(torch.rand(n, dtype=torch.float64))
    component = torch.arange(n) * 7 % 3 if n > 2 else torch.arange(n)
    rows = torch.arange(n).flip(0)[: max(1, n - 2)]
    weight, other = Fenced(torch.full((n,), 7.0, dtype=torch.float64)), torch.full((n + 200,), -5)
    argmin_launch(table.tensor, metric, cores.tensor, component, rows, weight.tensor, other[100:-100]).run()
    reach = torch.maximum(squared(table.tensor, metric), torch.maximum(cores.tensor[:, None], cores.tensor))
    least, place = torch.where(component[:, None] == component, torch.inf, reach).min(dim=1)
    asked = torch.zeros(n, dtype=torch.bool).index_fill(0, rows, True)
    torch.testing.assert_close(weight.tensor, torch.where(asked, least, 7.0))
    assert torch.equal(other[100:-100], torch.where(asked, place, -5))
    assert weight.untouched()
    assert bool((other[:100] == -5).all() and (other[-100:] == -5).all())


def test_columns_past_two_to_the_31(tmp_path: Path) -> None:
    from selshare.kernels.reachability.triton import core_launch

    values = torch.randn(3, 5, dtype=torch.float64)
    cores = torch.full((5,), -1.0, dtype=torch.float64)
    core_launch(spread(values, (2**30 + 8, 1), tmp_path), "euclidean", 2, cores).run()
    torch.testing.assert_close(cores, kth(squared(values, "euclidean"), 2))


def test_given_distances_past_two_to_the_31(tmp_path: Path) -> None:
    from selshare.kernels.reachability.triton import core_launch, matrix_launch
    from selshare.kernels.spanning_tree.triton import argmin_launch

    values = table_for(4, 0, "precomputed")
    table, cores = spread(values, (2**30 + 8, 1), tmp_path), torch.full((4,), -1.0, dtype=torch.float64)
    core_launch(table, "precomputed", 2, cores).run()
    torch.testing.assert_close(cores, kth(values, 2))
    result = torch.zeros(4, 4, dtype=torch.float64)
    matrix_launch(table, "precomputed", cores, result).run()
    reach = torch.maximum(values, torch.maximum(cores[:, None], cores)).fill_diagonal_(0.0)
    torch.testing.assert_close(result.clone().fill_diagonal_(0.0), reach)
    weight, other = torch.zeros(4, dtype=torch.float64), torch.zeros(4, dtype=torch.int64)
    numbers = torch.arange(4)
    argmin_launch(table, "precomputed", cores, numbers, numbers, weight, other).run()
    assert torch.equal(weight, reach.fill_diagonal_(torch.inf).min(dim=1).values)


@pytest.mark.parametrize("k", [33, 69])
@pytest.mark.parametrize("ties", [False, True])
def test_more_neighbours_than_a_tile_has_columns(k: int, ties: bool) -> None:
    points = torch.randn(70, 2, dtype=torch.float64)
    points = points.round() if ties else points
    with use("reference"):
        wanted = core_distances(points, k)
    assert torch.equal(core_distances(points, k), wanted)


@pytest.mark.parametrize("metric", ["euclidean", "antipodal"])
@pytest.mark.parametrize("ties", [False, True])
def test_trees_equal_the_reference_to_the_bit(metric: str, ties: bool) -> None:
    points = torch.randn(66, 3, dtype=torch.float64)
    points = points.mul(1.5).round() if ties else points
    for k in (1, 4):
        with use("reference"):
            wanted = mutual_reachability_mst(points, k, metric=metric)
        assert torch.equal(mutual_reachability_mst(points, k, metric=metric), wanted)
