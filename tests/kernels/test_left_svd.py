"""left_svd: every implementation against numpy in float64, at working precision, and its refusals."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from backends import each_backend, forced, preferred
from selshare.kernels import left_svd

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
# n rows, m columns: single ones, odd and even, narrow, square, wide enough for a QR decomposition first.
SHAPES = pytest.mark.parametrize(
    "shape", [(1, 1), (1, 7), (2, 2), (5, 3), (7, 14), (8, 17), (16, 16), (33, 40), (40, 9), (31, 90), (48, 48)]
)


@pytest.fixture(params=each_backend("left_svd"))
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    yield from forced("left_svd", request.param)


def with_spectrum(values: Tensor, columns: int, dtype: torch.dtype, count: int = 2) -> Tensor:
    """``U diag(values) Zᵀ`` with random orthogonal U and Z."""
    left, _ = torch.linalg.qr(torch.randn(count, len(values), len(values), dtype=torch.float64))
    right, _ = torch.linalg.qr(torch.randn(count, columns, columns, dtype=torch.float64))
    width = min(len(values), columns)
    return (left[:, :, :width] * values[:width].double() @ right[:, :, :width].mT).to(dtype)


def assert_solves(matrices: Tensor) -> tuple[Tensor, Tensor]:
    """Orthogonal vectors, numpy's float64 values, orthogonal rows of ``UᵀA`` of these lengths, order and signs."""
    values, vectors = left_svd(matrices)
    count, n, m = matrices.shape
    assert values.shape == (count, n)
    assert vectors.shape == (count, n, n)
    assert values.dtype == vectors.dtype == matrices.dtype
    tolerance = torch.finfo(matrices.dtype).eps * (16 + 2 * n)
    for matrix, s, u in zip(matrices.double().numpy(), values.double().numpy(), vectors.double().numpy(), strict=True):
        size = np.abs(matrix).max(initial=0.0) or 1.0
        wanted = np.zeros(n)
        wanted[: min(n, m)] = np.linalg.svd(matrix / size, compute_uv=False)
        largest = max(1.0, wanted[0])
        assert np.abs(s / size - wanted).max() <= tolerance * largest
        assert np.abs(u.T @ u - np.eye(n)).max() <= tolerance
        rest = u.T @ (matrix / size)
        assert np.abs(np.linalg.norm(rest, axis=1) - wanted).max() <= tolerance * largest
        assert np.abs(rest @ rest.T - np.diag(wanted**2)).max() <= tolerance * largest**2
        assert (np.diff(s) <= 0).all()
        assert (s >= 0).all()
        assert (u[np.abs(u).argmax(axis=0), np.arange(n)] > 0).all()
    return values, vectors


@DTYPES
@SHAPES
def test_random_matrices(backend: str, dtype: torch.dtype, shape: tuple[int, int]) -> None:
    assert_solves(torch.randn(5, *shape, dtype=dtype))


@DTYPES
@pytest.mark.parametrize("shape", [(6, 9), (9, 30)])
def test_each_matrix_as_if_alone(backend: str, dtype: torch.dtype, shape: tuple[int, int]) -> None:
    matrices = torch.randn(7, *shape, dtype=dtype) * torch.logspace(0, -30, 7, dtype=dtype)[:, None, None]
    values, vectors = assert_solves(matrices)
    for index in range(0, 7, 3):
        alone = left_svd(matrices[index : index + 1])
        torch.testing.assert_close(values[index], alone[0][0], rtol=0, atol=0)
        torch.testing.assert_close(vectors[index], alone[1][0], rtol=0, atol=0)


@DTYPES
@pytest.mark.parametrize("n", [2, 10, 33])
@pytest.mark.parametrize("wide", [1, 3])
def test_special_spectra(backend: str, dtype: torch.dtype, n: int, wide: int) -> None:
    graded = torch.logspace(0, -14, n, dtype=torch.float64)
    rank_three = torch.cat([torch.tensor([3.0, 2.0, 1.0]), torch.zeros(n)])[:n]
    pairs = torch.repeat_interleave(torch.arange(n, 0, -1), 2)[:n]
    for spectrum in (graded, rank_three, pairs, torch.ones(n)):
        assert_solves(with_spectrum(spectrum, wide * n, dtype))


@DTYPES
@pytest.mark.parametrize("scale", [1e-30, 1e-8, 1e30])
@pytest.mark.parametrize("m", [11, 40])
def test_any_scale(backend: str, dtype: torch.dtype, scale: float, m: int) -> None:
    assert_solves((torch.randn(3, 12, m, dtype=torch.float64) * scale).to(dtype))


def test_small_values_beyond_the_reach_of_a_gram_matrix(backend: str) -> None:
    values, _ = left_svd(with_spectrum(torch.tensor([1.0, 1e-3, 1e-9, 1e-12]), 6, torch.float64))
    wanted = torch.tensor([1.0, 1e-3, 1e-9, 1e-12], dtype=torch.float64).expand(2, 4)
    torch.testing.assert_close(values, wanted, rtol=1e-3, atol=0)


@DTYPES
def test_zero_matrices_and_rows(backend: str, dtype: torch.dtype) -> None:
    matrices = torch.randn(4, 6, 8, dtype=dtype)
    matrices[1] = 0
    matrices[2, ::2] = 0
    matrices[3, :, 1:] = 0
    values, _ = assert_solves(matrices)
    assert bool((values[1] == 0).all())


@DTYPES
@pytest.mark.parametrize("shape", [(0, 4, 4), (3, 0, 5), (3, 4, 0), (0, 0, 0)])
def test_nothing_to_do(backend: str, dtype: torch.dtype, shape: tuple[int, int, int]) -> None:
    values, vectors = left_svd(torch.zeros(shape, dtype=dtype))
    assert values.shape == shape[:2]
    assert bool((values == 0).all())
    torch.testing.assert_close(vectors, torch.eye(shape[1], dtype=dtype).repeat(shape[0], 1, 1), rtol=0, atol=0)


@DTYPES
def test_strided_input_is_left_as_it_is(backend: str, dtype: torch.dtype) -> None:
    matrices = torch.randn(3, 9, 5, dtype=dtype)
    strided = matrices.mT.contiguous().mT.requires_grad_()
    values, vectors = left_svd(strided)
    assert not values.requires_grad
    assert torch.equal(strided, matrices)
    torch.testing.assert_close(values, left_svd(matrices)[0], rtol=0, atol=0)
    torch.testing.assert_close(vectors, left_svd(matrices)[1], rtol=0, atol=0)


@given(st.integers(1, 3), st.integers(1, 14), st.integers(1, 40), st.sampled_from([torch.float32, torch.float64]))
def test_any_small_shape_on_every_backend(count: int, n: int, m: int, dtype: torch.dtype) -> None:
    for name in each_backend("left_svd"):
        with preferred("left_svd", name):
            assert_solves(torch.randn(count, n, m, dtype=dtype))


def test_wrong_input_is_refused(backend: str) -> None:
    with pytest.raises(ValueError, match=r"shape \(N, n, m\); it has shape \(3, 3\)"):
        left_svd(torch.eye(3))
    with pytest.raises(TypeError, match=r"dtype torch\.int64"):
        left_svd(torch.eye(3, dtype=torch.int64)[None])
    matrices = torch.zeros(3, 2, 4)
    matrices[2, 1, 3] = float("inf")
    with pytest.raises(ValueError, match="NaN or Inf in matrix 2"):
        left_svd(matrices)
