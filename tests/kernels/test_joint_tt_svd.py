"""joint_tt_svd: every implementation against numpy's SVD in float64, its own stated bounds, and its refusals."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod, sqrt

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from backends import each_backend, forced
from selshare.kernels import JointTensorTrain, joint_tt_svd

EPS = {torch.float32: 1e-6, torch.float64: 1e-14}
DTYPES = pytest.mark.parametrize("dtype", list(EPS), ids=str)
DIRECT = "donot_use_mm_for_euclid_dist"  # x² + y² − 2xy would cancel
# Few and many branches, more branches than values, one branch, one mode, modes of 1.
CASES = pytest.mark.parametrize(
    ("branches", "modes"),
    [
        (1, (4, 5)),
        (2, (1, 3, 1)),
        (6, (30,)),
        (9, (4, 5, 3, 2)),
        (50, (3, 4)),
        (130, (7, 5, 4)),
        (200, (4, 5, 3, 4)),
        (300, (150,)),
    ],
)


@pytest.fixture(params=each_backend("joint_tt_svd"))
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    yield from forced("joint_tt_svd", request.param)


def decaying(branches: int, values: int, rate: float, dtype: torch.dtype, seed: int = 0) -> Tensor:
    """A stack whose singular values fall as ``exp(−rate·k)``, in random directions."""
    generator = torch.Generator().manual_seed(seed)
    rank = min(branches, values)
    left = torch.linalg.qr(torch.randn(branches, rank, generator=generator, dtype=torch.float64)).Q
    right = torch.linalg.qr(torch.randn(values, rank, generator=generator, dtype=torch.float64)).Q
    return ((left * torch.exp(-rate * torch.arange(rank))) @ right.T).to(dtype)


def grouped(branches: int, values: int, dtype: torch.dtype) -> Tensor:
    """Unit-norm rows around eight centres: what gradients of related tasks look like. Full rank."""
    generator = torch.Generator().manual_seed(1)
    centres = torch.randn(8, values, generator=generator, dtype=torch.float64)
    rows = centres[torch.arange(branches) % 8] + 0.3 * torch.randn(
        branches, values, generator=generator, dtype=torch.float64
    )
    return torch.nn.functional.normalize(rows, dim=1).to(dtype)


def lost(stack: Tensor, reconstruction: Tensor) -> float:
    return float(torch.linalg.vector_norm(stack.double() - reconstruction.double()))


def norm(stack: Tensor) -> float:
    return float(torch.linalg.vector_norm(stack.double()))


def tail(stack: Tensor, rank: int) -> float:
    """The least error of any approximation of that rank (Eckart and Young), by numpy."""
    values = np.linalg.svd(stack.double().numpy(), compute_uv=False)
    return float(np.linalg.norm(values[rank:]))


def assert_error_is_bounded(train: JointTensorTrain, stack: Tensor, eps: float) -> None:
    """In all and row by row; and the bound is not idle."""
    rows = torch.linalg.vector_norm(stack.double() - train.reconstruct().double(), dim=1)
    true = float(rows.norm())
    assert true <= train.error_bound <= true * 1.01 + eps * norm(stack)
    assert train.relative_error_bound == pytest.approx(train.error_bound / norm(stack), rel=1e-5)
    assert bool((rows <= train.residuals).all())


def assert_bases_are_orthogonal(train: JointTensorTrain, eps: float) -> None:
    """The rows of each core and of the basis; the columns of the embedding, with falling norms."""
    for matrix in (*(core.reshape(len(core), -1) for core in train.cores), train.basis()):
        products = matrix.double() @ matrix.double().T
        torch.testing.assert_close(products, torch.eye(len(matrix), dtype=torch.float64), rtol=0, atol=20 * eps)
    products = train.embedding.double().T @ train.embedding.double()
    squares = products.diagonal()
    assert float((products - torch.diag(squares)).abs().max()) <= 10 * eps * float(squares.max())
    assert bool((squares.diff() <= eps * squares.max()).all())


def assert_distances_shrink_as_stated(train: JointTensorTrain, stack: Tensor, eps: float) -> None:
    """The embedding is the stack in the basis, so distances only shrink, and by no more than stated."""
    projected = stack.double() @ train.basis().double().T
    torch.testing.assert_close(train.embedding.double(), projected, rtol=0, atol=20 * eps * float(stack.abs().max()))
    near, far = (torch.cdist(x, x, compute_mode=DIRECT) for x in (train.embedding.double(), stack.double()))
    slack = 20 * eps * norm(stack) ** 2 / len(stack)
    each = (train.residuals[:, None] + train.residuals).square()
    assert bool((near.square() <= far.square() + slack).all())
    assert bool((far.square() <= near.square() + each.clamp(max=2 * train.error_bound**2) + slack).all())


@DTYPES
@CASES
@pytest.mark.parametrize(("kind", "relative_error"), [("grouped", 0.3), ("decaying", 1e-2)])
def test_error_bases_and_distances_are_as_stated(
    backend: str, branches: int, modes: tuple[int, ...], dtype: torch.dtype, kind: str, relative_error: float
) -> None:
    values = prod(modes)
    stack = grouped(branches, values, dtype) if kind == "grouped" else decaying(branches, values, 0.3, dtype)
    train = joint_tt_svd(stack, modes, relative_error=relative_error)
    eps = 4 * EPS[dtype]

    assert train.modes == modes
    assert train.embedding.shape == (branches, train.ranks[0])
    assert [core.shape[2] for core in train.cores] == [*train.ranks[1:], 1]
    assert train.embedding.dtype == train.cores[0].dtype == dtype
    assert lost(stack, train.reconstruct()) <= relative_error * norm(stack) * (1 + eps)
    # The rank is the least whose own tail fits its part of the budget.
    part = relative_error * norm(stack) / sqrt(len(modes))
    assert train.ranks[0] == 1 or tail(stack, train.ranks[0] - 1) > part * (1 - 1e-3)

    assert_error_is_bounded(train, stack, eps)
    assert_bases_are_orthogonal(train, eps)
    assert_distances_shrink_as_stated(train, stack, eps)


@DTYPES
@pytest.mark.parametrize("shape", [(40, 30), (12, 500), (300, 20), (260, 900)])
@pytest.mark.parametrize("rank", [1, 12])
def test_one_mode_is_the_svd(backend: str, shape: tuple[int, int], rank: int, dtype: torch.dtype) -> None:
    stack = decaying(*shape, 0.4, dtype)
    train = joint_tt_svd(stack, (shape[1],), max_rank=rank, relative_error=0.0)
    values = np.linalg.svd(stack.double().numpy(), compute_uv=False)[:rank]
    norms = torch.linalg.vector_norm(train.embedding.double(), dim=0).numpy()
    np.testing.assert_allclose(norms, values, rtol=0, atol=max(1e-4 * values[-1] ** 2, 10 * EPS[dtype]))
    assert lost(stack, train.reconstruct()) <= tail(stack, rank) * (1 + 1e-4) + 20 * EPS[dtype]


@DTYPES
@pytest.mark.parametrize("rate", [0.05, 0.5])
def test_the_least_rank_is_found_among_many_directions(backend: str, rate: float, dtype: torch.dtype) -> None:
    """Large enough for random probing, for slow to fast decay; the singular values are known from the making."""
    stack = decaying(600, 650, rate, dtype)
    energies = np.exp(-2 * rate * np.arange(600))
    tails = np.sqrt(energies[::-1].cumsum()[::-1] / energies.sum())
    train = joint_tt_svd(stack, (650,))
    assert train.ranks == (int((tails > 1e-2).sum()),)
    assert lost(stack, train.reconstruct()) <= 1e-2 * norm(stack)
    assert train.relative_error_bound == pytest.approx(tails[train.ranks[0]], rel=2e-2)


@pytest.mark.parametrize(("branches", "rank"), [(240, 12), (600, 30)])
def test_at_the_cap_the_error_is_near_the_least_and_below_svd_lowrank(backend: str, branches: int, rank: int) -> None:
    stack = grouped(branches, 700, torch.float32)
    train = joint_tt_svd(stack, (700,), max_rank=rank)
    left, values, right = torch.svd_lowrank(stack, q=rank, niter=2)
    error = lost(stack, train.reconstruct())
    assert train.ranks == (rank,)
    assert error <= lost(stack, (left * values) @ right.T) * (1 + 1e-5)
    assert error <= 1.01 * tail(stack, rank)


@DTYPES
def test_directions_run_out_at_the_rank(backend: str, dtype: torch.dtype) -> None:
    stack = torch.randn(600, 5, dtype=dtype) @ torch.randn(5, 620, dtype=dtype)
    for cap, relative_error in [(None, 1e-2), (40, 0.0)]:
        train = joint_tt_svd(stack, (20, 31), max_rank=cap, relative_error=relative_error)
        assert train.ranks == (5, 31)
        assert train.relative_error_bound <= 30 * EPS[dtype]


@DTYPES
@pytest.mark.parametrize("branches", [7, 90, 400])
def test_ranks_of_an_exact_tensor_train_are_found(backend: str, branches: int, dtype: torch.dtype) -> None:
    sides, ranks = [branches, 4, 5, 6, 3], [1, 3, 4, 5, 2, 1]
    product = torch.ones(1, 1, dtype=torch.float64)
    for k, side in enumerate(sides):
        core = torch.randn(ranks[k], side * ranks[k + 1], dtype=torch.float64)
        product = (product @ core).reshape(-1, ranks[k + 1])
    stack = product.reshape(branches, -1).to(dtype)
    train = joint_tt_svd(stack, sides[1:], relative_error=1e-3)
    assert train.ranks == (3, 4, 5, 2)
    assert lost(stack, train.reconstruct()) <= 20 * EPS[dtype] * norm(stack)


@DTYPES
@pytest.mark.parametrize("branches", [8, 300])
def test_inner_ranks_meet_tt_svd_from_the_last_mode(backend: str, branches: int, dtype: torch.dtype) -> None:
    """With the branch rank uncut, the error is that of numpy's TT-SVD run from the last mode to the first."""
    modes, caps = (5, 4, 6), (3, 4)
    stack = decaying(branches, prod(modes), 0.2, dtype)
    rest = stack.double().numpy()
    for mode, inner, cap in [(6, 1, caps[1]), (4, caps[1], caps[0])]:
        left, values, _ = np.linalg.svd(rest.reshape(-1, mode * inner), full_matrices=False)
        rest = left[:, :cap] * values[:cap]
    theirs = sqrt(norm(stack) ** 2 - np.linalg.norm(rest) ** 2)
    train = joint_tt_svd(stack, modes, max_rank=(min(stack.shape), *caps), relative_error=0.0)
    assert train.ranks[1:] == caps
    assert lost(stack, train.reconstruct()) == pytest.approx(theirs, rel=1e-4)


@DTYPES
def test_small_singular_values_survive(backend: str, dtype: torch.dtype) -> None:
    """Values from 1 to 1e-6 (float32) or 1e-12: a Gram matrix in the input's precision would lose half of them."""
    decades = 6 if dtype == torch.float32 else 12
    for shape in [(24, 600), (600, 24)]:
        stack = decaying(*shape, decades * np.log(10) / 23, dtype)
        train = joint_tt_svd(stack, (shape[1],), relative_error=0.0)
        values = np.linalg.svd(stack.double().numpy(), compute_uv=False)
        norms = torch.linalg.vector_norm(train.embedding.double(), dim=0).numpy()
        np.testing.assert_allclose(norms, values[: len(norms)], rtol=0.1, atol=0.2 * EPS[dtype])
        assert len(norms) >= 20


@DTYPES
@pytest.mark.parametrize("scale", [1e-30, 1e-8, 1e8, 1e30])
def test_scaling_the_stack_scales_the_embedding_alone(backend: str, scale: float, dtype: torch.dtype) -> None:
    stack = grouped(60, 24, dtype)
    one, other = (joint_tt_svd(s, (4, 6), relative_error=0.1) for s in (stack, stack * scale))
    assert one.ranks == other.ranks
    torch.testing.assert_close(other.embedding / scale, one.embedding, rtol=0, atol=1e-4)
    assert other.relative_error_bound == pytest.approx(one.relative_error_bound, rel=1e-3)
    assert other.norm == pytest.approx(one.norm * scale, rel=1e-5)


def test_rows_of_zeros_embed_to_zeros(backend: str) -> None:
    for branches in (6, 300):
        stack = grouped(branches, 600, torch.float32)
        stack[3] = 0
        train = joint_tt_svd(stack, (20, 30), relative_error=0.1)
        assert train.embedding[3].count_nonzero() == 0
        assert train.residuals[3] == 0
        assert bool((train.embedding.norm(dim=1)[torch.arange(branches) != 3] > 0.5).all())


@DTYPES
@pytest.mark.parametrize(("branches", "modes"), [(1, (3,)), (5, (4, 6)), (300, (20, 30))])
def test_a_stack_of_zeros_has_rank_one_and_embeds_to_zeros(
    backend: str, branches: int, modes: tuple[int, ...], dtype: torch.dtype
) -> None:
    train = joint_tt_svd(torch.zeros(branches, prod(modes), dtype=dtype), modes)
    assert train.ranks == (1,) * len(modes)
    assert train.embedding.count_nonzero() == 0
    assert train.reconstruct().count_nonzero() == 0
    assert train.error_bound == train.relative_error_bound == 0
    torch.testing.assert_close(train.basis().norm(), torch.ones((), dtype=dtype))


def test_duplicated_branches_have_equal_embeddings(backend: str) -> None:
    stack = grouped(150, 700, torch.float64).repeat(2, 1)
    train = joint_tt_svd(stack, (700,), relative_error=0.05)
    torch.testing.assert_close(train.embedding[:150], train.embedding[150:], rtol=0, atol=1e-12)


def test_the_largest_entry_of_each_column_is_positive(backend: str) -> None:
    for branches in (9, 300):
        embedding = joint_tt_svd(grouped(branches, 60, torch.float64), (5, 12)).embedding
        assert bool((embedding.gather(0, embedding.abs().argmax(0, keepdim=True)) > 0).all())


def test_the_order_of_branches_changes_nothing_else(backend: str) -> None:
    stack = decaying(300, 900, 0.4, torch.float64)
    order = torch.randperm(300)
    one = joint_tt_svd(stack, (30, 30), relative_error=1e-2)
    other = joint_tt_svd(stack[order], (30, 30), relative_error=1e-2)
    assert one.ranks == other.ranks
    distances = torch.cdist(one.embedding, one.embedding)
    torch.testing.assert_close(
        torch.cdist(other.embedding, other.embedding), distances[order][:, order], rtol=0, atol=2e-2
    )


def test_strided_and_unflattened_input_gives_the_same(backend: str) -> None:
    stack = grouped(40, 60, torch.float64)
    expected = joint_tt_svd(stack, (3, 4, 5))
    strided = torch.empty(60, 40, dtype=torch.float64).T.copy_(stack)
    for given_stack in (strided, stack.reshape(40, 3, 4, 5), stack.reshape(40, 12, 5), stack.clone().requires_grad_()):
        train = joint_tt_svd(given_stack, (3, 4, 5))
        assert torch.equal(train.embedding, expected.embedding)
        assert not train.embedding.requires_grad


def test_it_is_repeatable_leaves_its_input_and_the_global_generator_alone(backend: str) -> None:
    stack = grouped(300, 900, torch.float32)
    copy, state = stack.clone(), torch.get_rng_state()
    one, other = (joint_tt_svd(stack, (30, 30), max_rank=12) for _ in range(2))
    assert torch.equal(one.embedding, other.embedding)
    assert all(torch.equal(a, b) for a, b in zip(one.cores, other.cores, strict=True))
    assert torch.equal(stack, copy)
    assert torch.equal(state, torch.get_rng_state())


def test_caps(backend: str) -> None:
    stack = grouped(300, 600, torch.float32)
    assert joint_tt_svd(stack, (20, 30), max_rank=5, relative_error=0.0).ranks == (5, 30)
    assert joint_tt_svd(stack, (20, 30), max_rank=(9, 4), relative_error=0.0).ranks == (9, 4)
    assert joint_tt_svd(stack, (20, 30), max_rank=(90, 2), relative_error=0.0).ranks == (40, 2)


@given(
    branches=st.integers(1, 12),
    modes=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    rank=st.integers(1, 6),
    relative_error=st.sampled_from([0.0, 1e-3, 0.2, 0.9]),
    seed=st.integers(0, 99),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_small_stack_keeps_its_bounds(
    backend: str, branches: int, modes: list[int], rank: int, relative_error: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    values = prod(modes)
    stack = torch.randn(branches, rank, generator=generator) @ torch.randn(rank, values, generator=generator)
    train = joint_tt_svd(stack, modes, relative_error=relative_error)
    true = lost(stack, train.reconstruct())
    assert true <= train.error_bound
    assert true <= (relative_error + 1e-5) * norm(stack)
    assert train.ranks[0] <= min(rank, branches, values)
    capped = joint_tt_svd(stack, modes, max_rank=1, relative_error=relative_error)
    assert capped.ranks[0] == 1
    assert lost(stack, capped.reconstruct()) <= capped.error_bound


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_nan_and_inf_name_the_branch(backend: str, bad: float) -> None:
    stack = grouped(300, 600, torch.float32)
    stack[17, 5] = bad
    with pytest.raises(ValueError, match="tensors holds NaN or Inf in branch 17"):
        joint_tt_svd(stack, (20, 30))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_is_what_float32_of_its_values_is(backend: str, dtype: torch.dtype) -> None:
    stack = grouped(20, 30, torch.float32).to(dtype)
    found, wanted = joint_tt_svd(stack, (5, 6)), joint_tt_svd(stack.float(), (5, 6))
    assert found.embedding.dtype == torch.float32
    assert torch.equal(found.embedding, wanted.embedding)
    assert found.relative_error_bound == wanted.relative_error_bound


def test_refusals() -> None:
    stack = torch.randn(4, 12)
    with pytest.raises(ValueError, match=r"modes \(3, 5\) multiply to 15.*holds 12 values; pad them"):
        joint_tt_svd(stack, (3, 5))
    with pytest.raises(ValueError, match="modes must hold at least one number"):
        joint_tt_svd(stack, ())
    with pytest.raises(ValueError, match="each of modes must be at least 1; it is -3"):
        joint_tt_svd(stack, (-3, -4))
    with pytest.raises(ValueError, match="at least one branch"):
        joint_tt_svd(torch.randn(0, 12), (12,))
    with pytest.raises(ValueError, match="at least one branch"):
        joint_tt_svd(torch.randn(12), (12,))
    for rank in (0, (2, 0), (2,), (2, 2, 2), ()):
        with pytest.raises(ValueError, match=r"max_rank must (be|hold)"):
            joint_tt_svd(stack, (3, 4), max_rank=rank)
    for error in (-0.1, 1.0, float("nan")):
        with pytest.raises(ValueError, match="relative_error must be at least 0 and below 1"):
            joint_tt_svd(stack, (12,), relative_error=error)
    with pytest.raises(TypeError, match=r"dtype torch.int64; convert it"):
        joint_tt_svd(stack.long(), (12,))
