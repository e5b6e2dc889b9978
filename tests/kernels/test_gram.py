"""Gram matrices and projections: every implementation against numpy in float64."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from backends import each_backend, forced
from selshare.kernels.gram import gram_matrices, project_matrices

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)


@pytest.fixture(params=each_backend("gram_matrices"))
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    yield from forced("gram_matrices", request.param)


def close(found: Tensor, wanted: np.ndarray, eps: float = 1e-14) -> None:
    np.testing.assert_allclose(found.numpy(), wanted, rtol=0, atol=eps * max(1.0, float(np.abs(wanted).max(initial=0))))


@DTYPES
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 5, 70), (2, 17, 33), (1, 130, 40), (2, 70, 3), (0, 4, 5), (2, 3, 0)])
def test_gram_matrices(backend: str, shape: tuple[int, int, int], dtype: torch.dtype) -> None:
    matrices = torch.randn(shape, dtype=dtype)
    wide = matrices.double().numpy()
    found = gram_matrices(matrices)
    assert found.dtype == torch.float64
    close(found, wide @ wide.swapaxes(1, 2))
    assert torch.equal(found, found.mT)
    close(gram_matrices(matrices.mT), wide.swapaxes(1, 2) @ wide)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision(backend: str, dtype: torch.dtype) -> None:
    matrices, basis = torch.randn(2, 17, 66).to(dtype), torch.randn(2, 17, 3, dtype=torch.float64)
    wide = matrices.double()
    found = gram_matrices(matrices)
    assert found.dtype == torch.float64
    close(found, (wide @ wide.mT).numpy())
    projected = project_matrices(basis, matrices)
    assert projected.dtype == torch.float32
    close(projected, (basis.mT @ wide).numpy(), 1e-7)


def test_columns_shared_among_programs(backend: str) -> None:
    matrices = torch.randn(1, 18, 1607)
    wide = matrices.double().numpy()
    close(gram_matrices(matrices), wide @ wide.swapaxes(1, 2))


def test_small_directions_of_float32_numbers_survive(backend: str) -> None:
    turn = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64)).Q
    rows = torch.linalg.qr(torch.randn(200, 4, dtype=torch.float64)).Q.T
    values = torch.tensor([1.0, 1e-2, 1e-4, 1e-6], dtype=torch.float64)
    matrix = ((turn * values) @ rows).float()
    found = torch.linalg.eigvalsh(gram_matrices(matrix[None]))[0].flip(0).sqrt()
    exact = np.linalg.svd(matrix.double().numpy(), compute_uv=False)
    np.testing.assert_allclose(found.numpy(), exact, rtol=1e-3)


@DTYPES
@pytest.mark.parametrize(
    "shape", [(1, 1, 1, 1), (3, 5, 2, 70), (2, 35, 17, 65), (1, 18, 70, 9), (2, 4, 0, 3), (0, 2, 1, 3)]
)
def test_projections(backend: str, shape: tuple[int, int, int, int], dtype: torch.dtype) -> None:
    count, rows, rank, columns = shape
    basis, matrices = (
        torch.randn(count, rows, rank, dtype=torch.float64),
        torch.randn(count, rows, columns, dtype=dtype),
    )
    wanted = basis.numpy().swapaxes(1, 2) @ matrices.double().numpy()
    eps = 1e-7 if dtype == torch.float32 else 1e-14
    for given in (basis, basis.mT.contiguous().mT):
        found = project_matrices(given, matrices)
        assert found.dtype == dtype
        assert found.is_contiguous()
        close(found, wanted, eps)
    close(project_matrices(basis, matrices.mT.contiguous().mT), wanted, eps)
