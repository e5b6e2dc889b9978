"""batched_eigh: every implementation against numpy in float64, at working precision, and its refusals."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from backends import each_backend, forced, preferred
from selshare.kernels import batched_eigh

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
SIZES = pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 7, 8, 13, 16, 20, 31, 32, 33, 50, 80])


@pytest.fixture(params=each_backend("batched_eigh"))
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    yield from forced("batched_eigh", request.param)


def symmetric(count: int, n: int, dtype: torch.dtype, seed: int = 0) -> Tensor:
    """Random symmetric matrices with eigenvalues of both signs."""
    matrices = torch.randn(count, n, n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return (matrices + matrices.mT).to(dtype)


def with_spectrum(values: Tensor, count: int, dtype: torch.dtype) -> Tensor:
    """``Q diag(values) Qᵀ`` with random orthogonal Q, exactly symmetric."""
    rotations, _ = torch.linalg.qr(torch.randn(count, len(values), len(values), dtype=torch.float64))
    matrices = (rotations * values.double()) @ rotations.mT
    return ((matrices + matrices.mT) / 2).to(dtype)


def assert_solves(matrices: Tensor, factor: float = 1.0) -> tuple[Tensor, Tensor]:
    """Orthogonal vectors, small residual, numpy's float64 values, the order and the signs: at working precision."""
    values, vectors = batched_eigh(matrices)
    count, n = matrices.shape[:2]
    assert values.shape == (count, n)
    assert vectors.shape == (count, n, n)
    assert values.dtype == vectors.dtype == matrices.dtype
    exact, lower = matrices.double().numpy(), np.tril_indices(n)
    tolerance = factor * torch.finfo(matrices.dtype).eps * (16 + 4 * n)
    for index in range(count):
        full = np.zeros((n, n))
        full[lower] = exact[index][lower]
        full = np.maximum(np.abs(full), np.abs(full.T)) * np.sign(full + np.tril(full, -1).T)
        w, v = values[index].double().numpy(), vectors[index].double().numpy()
        size = np.abs(full).max() or 1.0
        assert np.abs(v.T @ v - np.eye(n)).max() <= tolerance
        assert np.abs(full / size @ v - v * (w / size)).max() <= tolerance * max(1.0, np.linalg.norm(full / size, 2))
        wanted = np.linalg.eigvalsh(full / size)[::-1]
        assert np.abs(w / size - wanted).max() <= tolerance * max(1.0, np.abs(wanted).max())
        assert (np.diff(w) <= 0).all()
        largest = np.abs(v).argmax(axis=0)
        assert (v[largest, np.arange(n)] > 0).all()
    return values, vectors


@DTYPES
@SIZES
def test_random_matrices(backend: str, dtype: torch.dtype, n: int) -> None:
    assert_solves(symmetric(19, n, dtype))


@DTYPES
@pytest.mark.parametrize("count", [1, 2, 7, 8, 9, 15, 16, 17, 40])
def test_every_count_of_matrices(backend: str, dtype: torch.dtype, count: int) -> None:
    matrices = symmetric(count, 9, dtype, seed=count)
    values, vectors = assert_solves(matrices)
    for index in range(0, count, 3):
        alone = batched_eigh(matrices[index : index + 1])
        torch.testing.assert_close(values[index], alone[0][0], rtol=0, atol=0)
        torch.testing.assert_close(vectors[index], alone[1][0], rtol=0, atol=0)


@DTYPES
@pytest.mark.parametrize("scale", [1e-30, 1e-18, 1e-8, 1e8, 1e18, 1e30])
@pytest.mark.parametrize("n", [3, 12, 40])
def test_any_scale(backend: str, dtype: torch.dtype, scale: float, n: int) -> None:
    assert_solves((symmetric(5, n, torch.float64) * scale).to(dtype))


@DTYPES
@pytest.mark.parametrize("n", [1, 2, 5, 24, 48])
def test_matrices_of_different_size_in_one_batch(backend: str, dtype: torch.dtype, n: int) -> None:
    scales = torch.tensor([0.0, 1e-30, 1.0, 1e-7, 1e25, 3.0, 0.0, 1e-12, 1e3], dtype=torch.float64)
    assert_solves((symmetric(9, n, torch.float64) * scales[:, None, None]).to(dtype))


@DTYPES
@pytest.mark.parametrize("n", [2, 10, 33, 60])
def test_special_spectra(backend: str, dtype: torch.dtype, n: int) -> None:
    graded = torch.logspace(0, -14, n)
    rank_three = torch.cat([torch.tensor([3.0, 2.0, 1.0]), torch.zeros(n)])[:n]
    pairs = torch.repeat_interleave(torch.arange(n, 0, -1), 2)[:n] - n / 2
    for spectrum in (graded, -graded, rank_three, pairs, torch.ones(n), torch.tensor([1.0] + [-1.0] * (n - 1))):
        assert_solves(with_spectrum(spectrum, 3, dtype))


@DTYPES
def test_special_matrices(backend: str, dtype: torch.dtype) -> None:
    n = 21
    ones, identity, zero = torch.ones(n, n), torch.eye(n), torch.zeros(n, n)
    anti = identity.flip(0)
    index = torch.arange(n, dtype=torch.float64)
    wilkinson = (
        torch.diag((index - n // 2).abs()) + torch.diag(torch.ones(n - 1), 1) + torch.diag(torch.ones(n - 1), -1)
    )
    laplacian = 2 * torch.eye(n) - torch.diag(torch.ones(n - 1), 1) - torch.diag(torch.ones(n - 1), -1)
    arrow = torch.diag(index)
    arrow[-1, :] = arrow[:, -1] = 1.0
    steep = torch.diag(10.0**-index) + 1e-3 * torch.outer(10.0**-index, 10.0**-index).sqrt()
    split = torch.zeros(n, n)
    split[:4, :4], split[4:, 4:] = 1.0, 2.0
    rows = [
        ones,
        identity,
        zero,
        anti,
        wilkinson,
        laplacian,
        arrow,
        steep,
        split,
        torch.diag(index),
        torch.diag(-index),
    ]
    assert_solves(torch.stack([row.to(dtype) for row in rows]))


@DTYPES
def test_graded_matrices_either_way_up(backend: str, dtype: torch.dtype) -> None:
    scale = torch.logspace(0, -9, 30, dtype=torch.float64)
    matrices = symmetric(4, 30, torch.float64)
    down = scale[:, None] * matrices * scale
    assert_solves(torch.cat([down, down.flip(1, 2)]).to(dtype))


@DTYPES
def test_zero_matrices_give_an_orthonormal_basis(backend: str, dtype: torch.dtype) -> None:
    values, vectors = batched_eigh(torch.zeros(3, 6, 6, dtype=dtype))
    assert bool((values == 0).all())
    torch.testing.assert_close(vectors.mT @ vectors, torch.eye(6, dtype=dtype).expand(3, 6, 6))


@DTYPES
@pytest.mark.parametrize("shape", [(0, 4, 4), (3, 0, 0), (0, 0, 0)])
def test_nothing_to_do(backend: str, dtype: torch.dtype, shape: tuple[int, int, int]) -> None:
    values, vectors = batched_eigh(torch.zeros(shape, dtype=dtype))
    assert values.shape == shape[:2]
    assert vectors.shape == shape


@DTYPES
def test_only_the_lower_triangle_is_read_and_nothing_is_written(backend: str, dtype: torch.dtype) -> None:
    matrices = symmetric(11, 10, dtype)
    lower = matrices.tril()
    before = lower.clone()
    torch.testing.assert_close(batched_eigh(lower)[0], batched_eigh(matrices)[0], rtol=0, atol=0)
    assert torch.equal(lower, before)


@DTYPES
def test_strided_and_differentiable_input(backend: str, dtype: torch.dtype) -> None:
    matrices = symmetric(12, 14, dtype)
    strided = torch.stack([matrices, -matrices], dim=-1)[..., 0].requires_grad_()
    values, vectors = batched_eigh(strided)
    assert not values.requires_grad
    torch.testing.assert_close(values, batched_eigh(matrices)[0], rtol=0, atol=0)
    torch.testing.assert_close(vectors, batched_eigh(matrices)[1], rtol=0, atol=0)


@given(st.integers(0, 24), st.integers(1, 18), st.integers(0, 10**6), st.sampled_from([torch.float32, torch.float64]))
def test_permuting_a_matrix_permutes_its_vectors(count: int, n: int, seed: int, dtype: torch.dtype) -> None:
    for name in each_backend("batched_eigh"):
        with preferred("batched_eigh", name):
            matrices = symmetric(count, n, dtype, seed)
            order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
            permuted = matrices[:, order][:, :, order]
            assert_solves(permuted)
            difference = batched_eigh(permuted)[0] - batched_eigh(matrices)[0]
            assert difference.abs().max().item() <= 200 * torch.finfo(dtype).eps * n if count else True


@given(st.integers(1, 9), st.integers(1, 12), st.integers(-28, 28), st.integers(0, 10**6))
def test_powers_of_two_scale_exactly(count: int, n: int, exponent: int, seed: int) -> None:
    matrices = symmetric(count, n, torch.float32, seed)
    for name in each_backend("batched_eigh"):
        with preferred("batched_eigh", name):
            values, _ = batched_eigh(matrices)
            scaled, _ = batched_eigh(matrices * 2.0**exponent)
            torch.testing.assert_close(scaled / 2.0**exponent, values, rtol=1e-4, atol=1e-5 * n)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_not_finite_names_the_matrix(backend: str, bad: float) -> None:
    matrices = symmetric(6, 3, torch.float32)
    matrices[4, 2, 1] = bad
    with pytest.raises(ValueError, match="NaN or Inf in matrix 4"):
        batched_eigh(matrices)


def test_wrong_input_is_refused(backend: str) -> None:
    with pytest.raises(ValueError, match=r"shape \(N, n, n\); it has shape \(3, 3\)"):
        batched_eigh(torch.eye(3))
    with pytest.raises(ValueError, match=r"shape \(N, n, n\); they have shape \(2, 3, 4\)"):
        batched_eigh(torch.zeros(2, 3, 4))
    with pytest.raises(TypeError, match=r"dtype torch\.int64"):
        batched_eigh(torch.eye(3, dtype=torch.int64)[None])
