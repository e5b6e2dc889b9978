"""What the CUDA solvers promise beyond their suites, on their source compiled for the CPU: order, sweeps, all sizes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cuda_on_cpu import solve_in_order

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)


@DTYPES
@pytest.mark.parametrize("n", [1, 2, 3, 6, 7, 18, 29])
def test_work_between_barriers_may_come_in_any_order(dtype: torch.dtype, n: int) -> None:
    matrices = torch.randn(2, n, n, dtype=dtype)
    for operation, given, sizes in (
        ("eigh", matrices + matrices.mT, (n,)),
        ("left_svd", matrices, (n, n)),
        ("left_svd", torch.randn(2, n, 2 * n + 1, dtype=dtype), (n, 2 * n + 1)),
    ):
        right = [torch.full_like(given, torch.nan) for _ in range(2)] if operation == "left_svd" else []
        forwards = solve_in_order(operation, given, sizes, *right[:1])
        backwards = solve_in_order(operation, given, sizes, *right[1:], backwards=True)
        for one, other in zip((*forwards, *right[:1]), (*backwards, *right[1:]), strict=True):
            assert torch.equal(one, other)


@DTYPES
@pytest.mark.parametrize("n", [127, 128])
def test_the_largest_sizes(dtype: torch.dtype, n: int) -> None:
    matrices = torch.randn(1, n, n, dtype=torch.float64).to(dtype)
    symmetric = matrices + matrices.mT
    eps = torch.finfo(dtype).eps
    values, vectors, sweeps = solve_in_order("eigh", symmetric, (n,))
    assert 5 <= int(sweeps) <= 14
    exact = symmetric[0].double().numpy()
    assert np.abs(values[0].double().numpy() - np.linalg.eigvalsh(exact)[::-1]).max() <= 8 * eps * np.linalg.norm(exact)
    v = vectors[0].double().numpy()
    assert np.abs(v.T @ v - np.eye(n)).max() <= 16 * eps
    assert np.abs(exact @ v - v * values[0].double().numpy()).max() <= 8 * eps * np.linalg.norm(exact)
    values, vectors, sweeps = solve_in_order("left_svd", matrices, (n, n), None)
    assert 5 <= int(sweeps) <= 16
    exact = matrices[0].double().numpy()
    largest = np.linalg.norm(exact, 2)
    assert np.abs(values[0].double().numpy() - np.linalg.svd(exact, compute_uv=False)).max() <= 16 * eps * largest
    u = vectors[0].double().numpy()
    assert np.abs(u.T @ u - np.eye(n)).max() <= 16 * eps


@DTYPES
def test_diagonal_input_takes_one_sweep(dtype: torch.dtype) -> None:
    diagonal = torch.diag(torch.tensor([3.0, -1.0, 2.0, 0.0, 5.0], dtype=dtype))[None]
    values, vectors, sweeps = solve_in_order("eigh", diagonal, (5,))
    assert int(sweeps) == 1
    assert values.tolist() == [[5, 3, 2, 0, -1]]
    assert vectors[0].abs().sum().item() == 5
    assert int(solve_in_order("left_svd", diagonal, (5, 5), None)[2]) == 1


@DTYPES
def test_steep_spectra_stay_below_half_of_the_sweeps_allowed(dtype: torch.dtype) -> None:
    n = 48
    left, _ = torch.linalg.qr(torch.randn(1, n, n, dtype=torch.float64))
    right, _ = torch.linalg.qr(torch.randn(1, n, n, dtype=torch.float64))
    for decades in (4, 8, 14, 30):
        steep = torch.logspace(0, -decades, n, dtype=torch.float64)
        assert int(solve_in_order("eigh", ((left * steep) @ left.mT).to(dtype), (n,))[2]) <= 30
        assert int(solve_in_order("left_svd", ((left * steep) @ right.mT).to(dtype), (n, n), None)[2]) <= 30


@DTYPES
def test_right_vectors_are_orthonormal_however_small_their_values(dtype: torch.dtype) -> None:
    values = torch.tensor([1.0, 1e-2, 1e-5, 0.0], dtype=torch.float64)
    left, _ = torch.linalg.qr(torch.randn(3, 4, 4, dtype=torch.float64))
    wanted, _ = torch.linalg.qr(torch.randn(3, 17, 3, dtype=torch.float64))
    matrices = ((left * values)[:, :, :3] @ wanted.mT).to(dtype)
    matrices[2] = 0
    right = torch.full_like(matrices, torch.nan)
    found, vectors, _ = solve_in_order("left_svd", matrices, (4, 17), right)
    eps = torch.finfo(dtype).eps
    products = right[:2, :3].double() @ right[:2, :3].double().mT
    torch.testing.assert_close(products, torch.eye(3, dtype=torch.float64).expand(2, 3, 3), rtol=0, atol=40 * eps)
    rebuilt = vectors.double() * found.double()[:, None] @ right.double()
    torch.testing.assert_close(rebuilt, matrices.double(), rtol=0, atol=20 * eps)
    assert bool((right[2] == 0).all())
