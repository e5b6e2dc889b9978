"""The matrix-free spanning tree and core distances: to the bit those of the reference, whatever the blocks hold."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from backends import forced
from selshare.kernels import core_distances, mutual_reachability_mst, use
from selshare.kernels.reachability.points import checked

KINDS = (
    *("normal", "rounded", "clusters", "tight and far", "repeated", "binary"),
    *("offset", "spiky", "simplex", "equal", "tiny"),
)


@pytest.fixture(autouse=True)
def native() -> Iterator[str]:
    yield from forced("mutual_reachability_mst", "native")


@pytest.fixture(params=[32, 1024], ids=["small tiles", "whole tiles"])
def tiles(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """No matrix for small problems; tiles of a few rows, so that a test has many, or of the usual size."""
    from selshare.kernels.reachability import native, nearest, screen
    from selshare.kernels.spanning_tree import native as tree

    monkeypatch.setattr(native, "SMALL", -1.0)
    for module in (screen, nearest, tree):
        monkeypatch.setattr(module, "TILE", request.param)
    size: int = request.param
    return size


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Where problems and tiles are tiny, threads would mostly wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def made(kind: str, n: int, d: int, seed: int) -> Tensor:
    random = np.random.default_rng(seed)
    points = random.standard_normal((n, d))
    if kind == "rounded":
        points = (2 * points).round()
    elif kind == "clusters":
        points += 10.0 * random.integers(0, 4, (n, 1))
    elif kind == "tight and far":
        points = 1e-4 * points + 1e4 * random.integers(0, 2, (n, 1))
    elif kind == "repeated":
        points = points[random.integers(0, n // 5 + 1, n)]
    elif kind == "binary":
        points = (points > 0).astype(float)
    elif kind == "offset":
        points += 1e4
    elif kind == "spiky":
        points = random.standard_t(1, (n, d))
    elif kind == "simplex":
        points = np.eye(n)
    elif kind == "equal":
        points[: n - 3] = points[0]
    elif kind == "tiny":
        points *= 1e-160
    return torch.from_numpy(points)


def reference(points: Tensor, k: int, metric: str) -> tuple[Tensor, Tensor]:
    with use("reference"):
        return mutual_reachability_mst(points, k, metric=metric), core_distances(points, k, metric=metric)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("metric", ["euclidean", "antipodal"])
def test_it_is_the_reference_to_the_bit(tiles: int, kind: str, metric: str) -> None:
    for seed, (n, d, k) in enumerate([(110, 3, 1), (120, 9, 5), (70, 20, 20)]):
        points = made(kind, n, d, seed)
        points = points.float() if seed == 1 and kind != "tiny" else points
        tree, cores = reference(points, k, metric)
        assert torch.equal(core_distances(points, k, metric=metric), cores)
        assert torch.equal(mutual_reachability_mst(points, k, metric=metric), tree)


@pytest.mark.usefixtures("one_thread")
@settings(max_examples=15)
@given(st.integers(50, 130), st.integers(1, 20), st.sampled_from(KINDS), st.integers(0, 2**31))
def test_any_sizes(n: int, d: int, kind: str, seed: int) -> None:
    from selshare.kernels.reachability import native, nearest, screen
    from selshare.kernels.spanning_tree import native as tree

    points, k = made(kind, n, d, seed), 1 + seed % 12
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "SMALL", -1.0)
        for module in (screen, nearest, tree):
            patch.setattr(module, "TILE", 48)
        assert torch.equal(mutual_reachability_mst(points, k), reference(points, k, "euclidean")[0])


def test_the_path_without_a_matrix_is_taken(tiles: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from selshare.kernels.spanning_tree import native as tree

    def refuse(*arguments: object) -> None:
        raise AssertionError("a full matrix was computed")

    monkeypatch.setattr(tree, "squared_matrix", refuse)
    mutual_reachability_mst(torch.randn(100, 5), 3)
    with pytest.raises(AssertionError, match="full matrix"):
        mutual_reachability_mst(torch.randn(16, 5), 3)  # shorter than a list of neighbours


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bounds_hold(dtype: torch.dtype) -> None:
    from selshare.kernels.reachability.screen import Screen

    for kind in KINDS[:-1]:  # not the tiny ones, whose squares vanish
        for metric in ("euclidean", "antipodal"):
            points = checked(made(kind, 60, 300, 0) * 7.3, 1, metric)
            screen = Screen.of(points, dtype)
            products = screen.products(screen.rows, screen.rows, torch.empty(3600, dtype=dtype))
            norms = screen.norms.double()
            lower = norms[:, None] - 2.0 * (products - screen.half).double()
            a, b = (index.to(torch.int32).numpy() for index in torch.triu_indices(60, 60, offset=1))
            exact = screen.squared(a, b)
            assert (lower.numpy()[a, b] <= exact).all()
            scale = norms.max().item()
            assert (exact - lower.numpy()[a, b]).max() <= 4 * scale * (300 + 40) * torch.finfo(dtype).eps


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("kind", ["clusters", "repeated"])
def test_threads_change_nothing(tiles: int, kind: str) -> None:
    points = made(kind, 130, 12, 4).float()
    tree, cores = mutual_reachability_mst(points, 4), core_distances(points, 4)
    torch.set_num_threads(3)
    assert torch.equal(mutual_reachability_mst(points, 4), tree)
    assert torch.equal(core_distances(points, 4), cores)


@pytest.mark.usefixtures("one_thread")
def test_the_order_of_the_rows_does_not_change_the_weights(tiles: int) -> None:
    points = made("clusters", 300, 12, 4).float()
    tree, cores = mutual_reachability_mst(points, 4), core_distances(points, 4)
    order = torch.randperm(len(points))
    assert torch.equal(mutual_reachability_mst(points[order], 4)[:, 2], tree[:, 2])
    assert torch.equal(core_distances(points[order], 4), cores[order])


@pytest.mark.usefixtures("one_thread")
def test_a_bad_first_tree_costs_time_and_nothing_else(tiles: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from selshare.kernels.spanning_tree import native as tree

    points = made("clusters", 200, 6, 3)
    passes = []

    def chain(nearest: tree.Nearest, forest: tree.Forest) -> tree.Forest:
        a = np.arange(199, dtype=np.int32)
        return tree.Forest.of(200, a, a + 1, tree._weights(nearest, a, a + 1))

    def counted(nearest: tree.Nearest, forest: tree.Forest, may_stop: bool) -> tuple[tree.Forest, bool]:
        result = improved(nearest, forest, may_stop)
        passes.append(result[1])
        return result

    improved = tree._improved
    monkeypatch.setattr(tree, "_connected", chain)
    monkeypatch.setattr(tree, "_improved", counted)
    assert torch.equal(mutual_reachability_mst(points, 4), reference(points, 4, "euclidean")[0])
    if tiles == 32:  # the pairs that such a tree does not rule out fill the room for them
        assert passes[0] is False
    assert passes[-1] is True
    monkeypatch.setattr(tree, "RESTARTS", 0)
    assert torch.equal(mutual_reachability_mst(points, 4), reference(points, 4, "euclidean")[0])


def test_reduced_precision_products_are_not_trusted(tiles: int) -> None:
    points = made("clusters", 150, 20, 5).float()
    tree, _ = reference(points, 3, "euclidean")
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        assert torch.equal(mutual_reachability_mst(points, 3), tree)
    finally:
        torch.set_float32_matmul_precision(before)
