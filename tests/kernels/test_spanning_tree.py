"""The minimum spanning tree: every implementation against SciPy's on the full matrix, and its order among ties."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components, minimum_spanning_tree
from scipy.spatial.distance import cdist
from sklearn import datasets
from torch import Tensor

from backends import each_backend, forced, preferred
from selshare.kernels import mutual_reachability_mst


@pytest.fixture(params=each_backend("mutual_reachability_mst"))
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    yield from forced("mutual_reachability_mst", request.param)


def reachability(points: Tensor, k: int, metric: str = "euclidean") -> NDArray[np.float64]:
    """The full matrix by SciPy in float64."""
    values = points.double().numpy()
    if metric == "antipodal":
        values = values / np.linalg.norm(values, axis=1, keepdims=True)
    distances = cdist(values, -values if metric == "antipodal" else values)
    np.fill_diagonal(distances, 0.0)
    cores = np.sort(distances + np.where(np.eye(len(values)), np.inf, 0.0), axis=1)[:, k - 1]
    return np.maximum(distances, np.maximum(cores[:, None], cores[None, :]))


def scipy_weights(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sorted weights of SciPy's tree. SciPy takes zeros for missing edges, hence the shift of all weights by one."""
    shifted = matrix + 1.0
    np.fill_diagonal(shifted, 0.0)
    return np.sort(minimum_spanning_tree(shifted).data) - 1.0


def check(tree: Tensor, matrix: NDArray[np.float64], tolerance: float) -> None:
    """``tree`` spans all points, is sorted, has the weights of ``matrix`` and those of SciPy's tree."""
    n = len(matrix)
    assert tree.dtype == torch.float64
    assert tree.shape == (n - 1, 3)
    rows, columns, weights = tree.numpy().T
    i, j = rows.astype(int), columns.astype(int)
    assert (i < j).all()
    assert (np.lexsort((j, i, weights)) == np.arange(n - 1)).all()
    graph = np.zeros((n, n))
    graph[i, j] = 1.0
    assert connected_components(graph, directed=False)[0] == 1
    scale = max(matrix.max(), 1e-300)
    np.testing.assert_allclose(weights, matrix[i, j], rtol=tolerance, atol=1e-15 * scale)
    np.testing.assert_allclose(weights, scipy_weights(matrix), rtol=tolerance, atol=1e-14 * max(scale, 1.0))


def grid(side: int) -> NDArray[np.float64]:
    return np.stack(np.meshgrid(np.arange(side), np.arange(side)), axis=-1).reshape(-1, 2).astype(float)


def problems() -> dict[str, NDArray[np.float64]]:
    random = np.random.default_rng(0)
    blobs = datasets.make_blobs(300, 10, centers=6, random_state=1)[0]
    return {
        "blobs": blobs,
        "moons": datasets.make_moons(200, noise=0.05, random_state=0)[0],
        "circles": datasets.make_circles(200, noise=0.03, factor=0.5, random_state=0)[0],
        "iris": datasets.load_iris().data,
        "digits": datasets.load_digits().data[:300],
        "duplicates": np.repeat(random.standard_normal((30, 4)), 5, axis=0)[random.permutation(150)],
        "all equal": np.full((20, 3), 0.3),
        "grid": grid(14),
        "offset": blobs + 1e4,
        "far clusters": np.concatenate(
            (1e-4 * random.standard_normal((60, 8)), 1e4 + 1e-4 * random.standard_normal((60, 8)))
        ),
        "two points": np.array([[0.0], [1.5]]),
        "three points": np.array([[0.0, 1.0], [1.5, 1.0], [1.0, 1.0]]),
        "one column": random.standard_normal((150, 1)),
        "4,000 columns": random.standard_normal((90, 4000)),
    }


PROBLEMS = problems()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_is_what_float64_of_its_values_is(backend: str, dtype: torch.dtype) -> None:
    halves = torch.randn(20, 7).to(dtype)
    assert torch.equal(mutual_reachability_mst(halves, 3), mutual_reachability_mst(halves.double(), 3))


@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_weights_are_those_of_scipy(backend: str, name: str, dtype: torch.dtype) -> None:
    points = torch.from_numpy(PROBLEMS[name]).to(dtype)
    tolerance = 1e-6 if dtype == torch.float32 else 1e-10
    for k in {1, min(5, len(points) - 1)}:
        check(mutual_reachability_mst(points, k), reachability(points, k), tolerance)


@pytest.mark.parametrize("name", ["blobs", "digits", "4,000 columns"])
def test_antipodal(backend: str, name: str) -> None:
    points = torch.from_numpy(PROBLEMS[name])
    for k in (1, 5):
        check(mutual_reachability_mst(points, k, metric="antipodal"), reachability(points, k, "antipodal"), 1e-10)


def test_precomputed(backend: str) -> None:
    points = torch.from_numpy(PROBLEMS["blobs"])
    distances = torch.from_numpy(cdist(points, points))
    check(mutual_reachability_mst(distances, 5, metric="precomputed"), reachability(points, 5), 1e-12)


@given(st.integers(2, 60), st.integers(1, 12), st.integers(0, 2**31), st.sampled_from(["euclidean", "antipodal"]))
def test_all_implementations_give_the_same_tree(n: int, d: int, seed: int, metric: str) -> None:
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(n, d, dtype=torch.float64, generator=generator)
    points = points.mul(2).round() if seed % 2 else points  # many ties, many equal points
    k = 1 + seed % min(n - 1, 8)
    trees = []
    for name in each_backend("mutual_reachability_mst"):
        with preferred("mutual_reachability_mst", name):
            trees.append(mutual_reachability_mst(points, k, metric=metric))
    for tree in trees[1:]:
        assert torch.equal(tree, trees[0])


def test_ties_go_to_the_smaller_indices(backend: str) -> None:
    corners = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    assert mutual_reachability_mst(corners, 1).tolist() == [[0, 1, 1], [0, 2, 1], [1, 3, 1]]


def test_the_order_of_the_rows_does_not_change_the_weights(backend: str) -> None:
    points = torch.from_numpy(PROBLEMS["blobs"][:150]).float()
    tree = mutual_reachability_mst(points, 5)
    for _ in range(3):
        order = torch.randperm(len(points))
        assert torch.equal(mutual_reachability_mst(points[order], 5)[:, 2], tree[:, 2])


def test_the_number_of_threads_does_not_change_the_tree(backend: str) -> None:
    points = torch.from_numpy(PROBLEMS["blobs"][:150]).float()
    tree = mutual_reachability_mst(points, 5)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        assert torch.equal(mutual_reachability_mst(points, 5), tree)
    finally:
        torch.set_num_threads(threads)


def test_too_many_neighbours_is_an_error() -> None:
    with pytest.raises(ValueError, match="k = 3 needs at least 4 points"):
        mutual_reachability_mst(torch.randn(3, 2), 3)
    with pytest.raises(ValueError, match="k = 1 needs at least 2 points"):
        mutual_reachability_mst(torch.randn(1, 2), 1)
