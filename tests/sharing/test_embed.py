"""Embeddings: distances between rows are distances between unit-norm gradients, in both forms."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from selshare.kernels import tt_svd
from selshare.sharing import embed

METHODS = ("joint", "per_branch")


def unit_rows(gradients: torch.Tensor) -> np.ndarray:
    """The gradients as unit vectors, by numpy in float64."""
    rows = gradients.double().numpy().reshape(len(gradients), -1)
    rows = rows / np.abs(rows).max(axis=1, keepdims=True)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def distances(rows: torch.Tensor) -> np.ndarray:
    return cdist(rows.double().numpy(), rows.double().numpy())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", [(9, 10, 12), (5, 7, 13), (4, 1, 8), (3, 6, 1), (2, 5, 4)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-7), (torch.float32, 2e-3)])
def test_without_truncation_distances_are_exact(method, shape, dtype, tolerance):
    gradients = torch.randn(shape, dtype=dtype)
    embedding = embed(gradients, method, relative_error=0.0)
    assert embedding.rows.dtype == dtype
    assert embedding.branches.tolist() == list(range(shape[0]))
    norms = torch.linalg.vector_norm(embedding.rows, dim=1)
    torch.testing.assert_close(norms, torch.ones_like(norms), rtol=1e-6, atol=1e-6)
    rows = unit_rows(gradients)
    np.testing.assert_allclose(distances(embedding.rows), cdist(rows, rows), atol=tolerance)


@pytest.mark.parametrize("method", METHODS)
def test_distances_do_not_depend_on_the_scale_of_a_gradient(method):
    gradients = torch.randn(6, 8, 6)
    scales = torch.tensor([1e-30, 1e-20, 1e-8, 1.0, 1e8, 1e30])
    plain = embed(gradients, method)
    scaled = embed(gradients * scales[:, None, None], method)
    np.testing.assert_allclose(distances(scaled.rows), distances(plain.rows), atol=2e-3)


def test_joint_truncation_loses_no_more_than_asked_for():
    """The stack's error bound holds, so directions turn by no more than it allows."""
    gradients = torch.randn(20, 3, dtype=torch.float64) @ torch.randn(3, 10 * 12, dtype=torch.float64)
    gradients = (gradients + 1e-3 * torch.randn(20, 120, dtype=torch.float64)).reshape(20, 10, 12)
    embedding = embed(gradients, relative_error=1e-2)
    assert embedding.rows.shape[1] == 3
    rows = unit_rows(gradients)
    error = np.abs(distances(embedding.rows) - cdist(rows, rows)).max()
    assert error < 2 * 1e-2 * np.sqrt(20)
    assert embed(gradients, relative_error=0.0, max_rank=2).rows.shape == (20, 2)


def test_joint_rows_are_the_truncated_svd_of_the_unit_gradients():
    gradients = torch.randn(9, 4, 6, dtype=torch.float64)
    gradients[0] = 0.0
    gradients[0, 1, 2] = 5.0  # one large entry, so that a norm by the largest entry would weigh it otherwise
    U, S, _ = np.linalg.svd(unit_rows(gradients), full_matrices=False)
    rows = (U * S)[:, :3]
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    embedding = embed(gradients, relative_error=0.0, max_rank=3)
    np.testing.assert_allclose(distances(embedding.rows), cdist(rows, rows), atol=1e-9)


def test_per_branch_truncation_gives_the_distances_of_the_trains():
    gradients = torch.randn(7, 6, 8, dtype=torch.float64)
    rows = torch.from_numpy(unit_rows(gradients))
    trains = tt_svd(rows, (2, 3, 2, 4), max_rank=2).reconstruct().reshape(7, -1)
    trains = trains / torch.linalg.vector_norm(trains, dim=1, keepdim=True)
    embedding = embed(gradients, "per_branch", relative_error=0.0, max_rank=2)
    np.testing.assert_allclose(distances(embedding.rows), distances(trains), atol=1e-7)


@pytest.mark.parametrize("method", METHODS)
@given(dead=st.sets(st.integers(0, 5)), data=st.integers(0, 9))
def test_branches_without_a_gradient_have_no_row(method, dead, data):
    generator = torch.Generator().manual_seed(data)
    gradients = torch.randn(6, 4, 4, generator=generator)
    live = sorted(set(range(6)) - dead)
    gradients[sorted(dead)] = 0
    embedding = embed(gradients, method)
    assert embedding.branches.tolist() == live
    assert len(embedding.rows) == len(live)
    if len(live) > 1:
        alone = embed(gradients[live], method)
        np.testing.assert_allclose(distances(embedding.rows), distances(alone.rows), atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_equal_and_opposite_gradients(method):
    gradient = torch.randn(4, 6)
    embedding = embed(torch.stack([gradient, 3 * gradient, -gradient]), method)
    np.testing.assert_allclose(distances(embedding.rows)[0], [0, 0, 2], atol=1e-3)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_nan_names_its_task(bad):
    gradients = torch.randn(3, 4, 4)
    gradients[1, 2, 3] = bad
    with pytest.raises(ValueError, match="NaN or Inf for task 'sandal'; look for"):
        embed(gradients, names=["task 'bag'", "task 'sandal'", "task 'coat'"])
    gradients[2, 0, 0] = bad
    with pytest.raises(ValueError, match="NaN or Inf for branch 1, branch 2;"):
        embed(gradients)


def test_unknown_method():
    with pytest.raises(ValueError, match="unknown embedding 'svd'; choose from joint, per_branch"):
        embed(torch.randn(2, 3, 3), "svd")
