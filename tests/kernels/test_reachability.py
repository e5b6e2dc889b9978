"""Core distances and mutual reachability: every implementation against SciPy in float64 and against the definition."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from torch import Tensor

from backends import each_backend, forced, preferred
from selshare.kernels import core_distances, mutual_reachability

RELATIVE = {torch.float64: 1e-12, torch.float32: 1e-6}


@pytest.fixture(params=each_backend("mutual_reachability"))
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    yield from forced("mutual_reachability", request.param)


def expected(points: Tensor, k: int, metric: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Core distances and the matrix, by SciPy and sorting."""
    values = points.double().numpy()
    if metric == "antipodal":
        norms = np.linalg.norm(values, axis=1, keepdims=True)
        values = values / np.where(norms > 0, norms, 1.0)
        distances = cdist(values, -values)
        np.fill_diagonal(distances, 0.0)
    else:
        distances = values if metric == "precomputed" else cdist(values, values)
    others = distances + np.where(np.eye(len(values)), np.inf, 0.0)
    cores = np.sort(others, axis=1)[:, k - 1]
    return cores, np.maximum(distances, np.maximum(cores[:, None], cores[None, :]))


@pytest.mark.parametrize("metric", ["euclidean", "antipodal"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("n", "d", "k"), [(2, 1, 1), (3, 5, 2), (23, 7, 5), (70, 1, 3), (65, 130, 64), (9, 0, 2)])
def test_against_scipy(backend: str, metric: str, dtype: torch.dtype, n: int, d: int, k: int) -> None:
    points = torch.randn(n, d, dtype=dtype)
    cores, matrix = expected(points, k, metric) if d else (np.zeros(n), np.zeros((n, n)))
    got = mutual_reachability(points, k, metric=metric)
    assert got.dtype == dtype
    assert got.shape == (n, n)
    np.testing.assert_allclose(got.numpy(), matrix, rtol=RELATIVE[dtype], atol=1e-15)
    np.testing.assert_allclose(
        core_distances(points, k, metric=metric).numpy(), cores, rtol=RELATIVE[dtype], atol=1e-15
    )
    assert torch.equal(got, got.T)
    assert torch.equal(got.diagonal(), core_distances(points, k, metric=metric))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("metric", ["euclidean", "antipodal", "precomputed"])
def test_half_precision_is_what_float64_of_its_values_is(backend: str, metric: str, dtype: torch.dtype) -> None:
    points = torch.randn(20, 7).to(dtype)
    if metric == "precomputed":
        points = torch.cdist(points.float(), points.float()).fill_diagonal_(0).to(dtype)
    wanted = mutual_reachability(points.double(), 3, metric=metric).float()
    found, cores = mutual_reachability(points, 3, metric=metric), core_distances(points, 3, metric=metric)
    assert found.dtype == cores.dtype == torch.float32
    assert torch.equal(found, wanted)
    assert torch.equal(cores, wanted.diagonal())


@pytest.mark.parametrize("size", [1e-8, 1e-200, 1e200])
def test_the_size_of_the_points_does_not_matter(backend: str, size: float) -> None:
    points = torch.randn(20, 9, dtype=torch.float64)
    np.testing.assert_allclose(
        (mutual_reachability(points * size, 3) / size).numpy(), mutual_reachability(points, 3).numpy(), rtol=1e-12
    )
    np.testing.assert_allclose(
        mutual_reachability(points * size, 3, metric="antipodal").numpy(),
        mutual_reachability(points, 3, metric="antipodal").numpy(),
        rtol=1e-12,
    )


def test_near_points_far_from_the_origin_keep_their_digits(backend: str) -> None:
    near = 1e-6 * torch.randn(30, 40, dtype=torch.float64)
    far = near + 1e4  # rounds to a multiple of 1.8e-12
    _, matrix = expected(far, 4, "euclidean")
    np.testing.assert_allclose(mutual_reachability(far, 4).numpy(), matrix, rtol=1e-12)


def test_antipodal_is_the_definition(backend: str) -> None:
    points = torch.tensor([[3.0, 0.0], [-0.5, 0.0], [0.0, 2.0], [0.0, 0.0], [0.0, 0.0]], dtype=torch.float64)
    root = 2.0**0.5
    distances = torch.tensor(  # opposite 0, equal 2, orthogonal √2, a zero row 1 from all and 0 from another
        [[0, 0, root, 1, 1], [0, 0, root, 1, 1], [root, root, 0, 1, 1], [1, 1, 1, 0, 0], [1, 1, 1, 0, 0]],
        dtype=torch.float64,
    )
    cores = torch.tensor([0, 0, 1, 0, 0], dtype=torch.float64)
    wanted = torch.maximum(distances, torch.maximum(cores[:, None], cores[None]))
    torch.testing.assert_close(mutual_reachability(points, 1, metric="antipodal"), wanted)


def test_precomputed_distances(backend: str) -> None:
    points = torch.randn(25, 6, dtype=torch.float64)
    given_distances = torch.from_numpy(cdist(points, points))
    cores, matrix = expected(given_distances, 4, "precomputed")
    before = given_distances.clone()
    torch.testing.assert_close(mutual_reachability(given_distances, 4, metric="precomputed"), torch.from_numpy(matrix))
    torch.testing.assert_close(core_distances(given_distances, 4, metric="precomputed"), torch.from_numpy(cores))
    assert torch.equal(given_distances, before)


def test_equal_points(backend: str) -> None:
    points = torch.tensor([[1.0, 2.0]]).repeat(6, 1)
    assert torch.equal(mutual_reachability(points, 3), torch.zeros(6, 6))
    assert bool((core_distances(torch.zeros(4, 3), 1) == 0).all())


@given(st.integers(2, 40), st.integers(1, 20), st.integers(0, 2**31), st.sampled_from(["euclidean", "antipodal"]))
def test_all_implementations_agree(n: int, d: int, seed: int, metric: str) -> None:
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(n, d, dtype=torch.float64, generator=generator).mul(3).round()  # many ties
    k = 1 + seed % (n - 1)
    results = []
    for name in each_backend("mutual_reachability"):
        with preferred("mutual_reachability", name):
            results.append((mutual_reachability(points, k, metric=metric), core_distances(points, k, metric=metric)))
    for matrix, cores in results[1:]:
        assert torch.equal(cores, results[0][1])
        torch.testing.assert_close(matrix, results[0][0], rtol=1e-15, atol=0.0)


@pytest.mark.parametrize("operation", [core_distances, mutual_reachability])
def test_errors_name_the_cause(operation: object) -> None:
    assert callable(operation)
    points = torch.randn(5, 3)
    with pytest.raises(ValueError, match="k = 5 needs at least 6 points, because k counts other points only"):
        operation(points, 5)
    with pytest.raises(ValueError, match="k must be at least 1; it is 0"):
        operation(points, 0)
    with pytest.raises(TypeError, match=r"k must be a whole number; it is 1\.5"):
        operation(points, 1.5)
    with pytest.raises(ValueError, match="metric is 'manhattan'; choose from euclidean"):
        operation(points, 1, metric="manhattan")
    with pytest.raises(TypeError, match=r"points has dtype torch.int64|points have dtype"):
        operation(torch.ones(4, 2, dtype=torch.int64), 1)
    with pytest.raises(ValueError, match=r"must have shape \(n, d\)"):
        operation(torch.ones(4), 1)
    points[3, 1] = torch.nan
    with pytest.raises(ValueError, match="NaN or Inf in branch 3"):
        operation(points, 1)
    with pytest.raises(ValueError, match="must be square"):
        operation(torch.ones(4, 3), 1, metric="precomputed")
    with pytest.raises(ValueError, match="negative value in row 0"):
        operation(-torch.ones(4, 4), 1, metric="precomputed")
    with pytest.raises(ValueError, match="not symmetric in row 0"):
        operation(torch.tensor([[0.0, 1.0], [2.0, 0.0]]), 1, metric="precomputed")
