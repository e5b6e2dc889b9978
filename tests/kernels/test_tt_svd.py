"""tt_svd: every implementation against numpy's decompositions in float64, its error bounds, and its refusals."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from backends import each_backend, forced, preferred
from selshare.kernels import TensorTrain, tt_svd

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
RESOLUTION = {torch.float32: 2.0**-22, torch.float64: 2.0**-47}
ROUNDING = {torch.float32: 2e-6, torch.float64: 5e-14}
"""Relative error that rounding alone may cause."""


@pytest.fixture(params=each_backend("tt_svd"))
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    yield from forced("tt_svd", request.param)


def random_tensors(count: int, modes: tuple[int, ...], dtype: torch.dtype, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, *modes, dtype=torch.float64, generator=generator).to(dtype)


def low_rank(count: int, modes: tuple[int, ...], rank: int, dtype: torch.dtype) -> Tensor:
    """Tensors of exact tensor-train ranks ``rank`` (before rounding to ``dtype``)."""
    product = torch.ones(count, 1, 1, dtype=torch.float64)
    for mode in modes[:-1]:
        core = torch.randn(count, product.shape[2], mode * rank, dtype=torch.float64)
        product = (product @ core).reshape(count, -1, rank)
    last = torch.randn(count, product.shape[2], modes[-1], dtype=torch.float64)
    return (product @ last).reshape(count, *modes).to(dtype)


def graded(count: int, modes: tuple[int, ...], smallest: float, dtype: torch.dtype) -> Tensor:
    """Tensors whose middle unfolding has singular values falling evenly from 1 to ``smallest``."""
    half = len(modes) // 2
    m, n = math.prod(modes[:half]), math.prod(modes[half:])
    q = min(m, n)
    U, _ = torch.linalg.qr(torch.randn(count, m, q, dtype=torch.float64))
    V, _ = torch.linalg.qr(torch.randn(count, n, q, dtype=torch.float64))
    values = torch.logspace(0, math.log10(smallest), q, dtype=torch.float64)
    return ((U * values) @ V.mT).reshape(count, *modes).to(dtype)


def numpy_error(tensor: NDArray[np.float64], ranks: list[int]) -> float:
    """Error of the TT-SVD of these ranks by LAPACK in float64."""
    modes = tensor.shape
    size = float(np.abs(tensor).max()) or 1.0
    rest, rank, product = tensor / size, 1, np.ones((1, 1))
    for mode, kept in zip(modes[:-1], ranks, strict=True):
        U, S, Vh = np.linalg.svd(rest.reshape(rank * mode, -1), full_matrices=False)
        product = (product @ U[:, :kept].reshape(rank, mode * kept)).reshape(-1, kept)
        rest, rank = S[:kept, None] * Vh[:kept], kept
    return size * float(np.linalg.norm((product @ rest.reshape(rank, modes[-1])).ravel() - tensor.ravel() / size))


def assert_train(train: TensorTrain, tensors: Tensor, modes: tuple[int, ...]) -> None:
    """Shapes, dtype, padding, left-orthogonality and signs."""
    count, dtype = len(tensors), tensors.dtype
    assert len(train) == count
    assert train.modes == modes
    assert train.ranks.dtype == torch.int64
    assert train.ranks.shape == (count, len(modes) - 1)
    rank = 1
    for k, core in enumerate(train.cores):
        assert core.dtype == dtype
        assert core.is_contiguous()
        assert core.shape[:3] == (count, rank, modes[k])
        rank = core.shape[3]
        if k == len(modes) - 1:
            assert rank == 1
            continue
        assert rank == (int(train.ranks[:, k].max()) if count else 1)
        unfolded = core.double().flatten(1, 2)
        live = torch.arange(rank) < train.ranks[:, k, None]
        eye = torch.diag_embed(live.double())
        torch.testing.assert_close(unfolded.mT @ unfolded, eye, rtol=0, atol=ROUNDING[dtype])
        assert bool((unfolded.mT[~live] == 0).all())
        if count:
            assert bool((unfolded.gather(1, unfolded.abs().argmax(1, keepdim=True))[:, 0][live] > 0).all())


def errors(train: TensorTrain, tensors: Tensor) -> Tensor:
    """Norms of the reconstruction errors, from the cores in float64, each relative to its tensor's largest entry."""
    size = tensors.flatten(1).double().abs().amax(1).clamp(min=1e-300)
    cores = [core.double() for core in train.cores]
    cores[-1] = cores[-1] / size[:, None, None, None]
    whole = TensorTrain(cores, train.modes, train.ranks).reconstruct()
    return (whole - tensors.flatten(1).double() / size[:, None]).norm(dim=1) * size


def assert_as_good_as_lapack(train: TensorTrain, tensors: Tensor, modes: tuple[int, ...]) -> None:
    """The error is at most (1 + 1e-5) times LAPACK's of the same ranks, but for rounding."""
    found = errors(train, tensors)
    for index in range(len(tensors)):
        tensor = tensors[index].double().reshape(modes).numpy()
        best = numpy_error(tensor, train.ranks[index].tolist())
        size = np.abs(tensor).max()
        rounding = ROUNDING[tensors.dtype] * float(size and np.linalg.norm(tensor / size)) * size
        assert found[index].item() <= (1 + 1e-5) * math.hypot(best, rounding)


SHAPES = [
    (5,),
    (1,),
    (4, 6),
    (6, 4),
    (1, 7),
    (7, 1),
    (3, 4, 5),
    (5, 1, 4),
    (2, 2, 2, 2, 2),
    (10, 10, 15),
    (9, 3, 11, 2),
]


@DTYPES
@pytest.mark.parametrize("modes", SHAPES, ids=str)
def test_full_rank_reproduces_the_tensors(backend: str, dtype: torch.dtype, modes: tuple[int, ...]) -> None:
    tensors = random_tensors(9, modes, dtype)
    train = tt_svd(tensors, modes)
    assert_train(train, tensors, modes)
    torch.testing.assert_close(
        train.reconstruct(), tensors.flatten(1), rtol=0, atol=10 * ROUNDING[dtype] * tensors.abs().max().item()
    )


@DTYPES
@pytest.mark.parametrize("max_rank", [1, 2, 3, 8])
@pytest.mark.parametrize("modes", [(4, 6), (3, 4, 5), (7, 2, 9), (5, 6, 7, 8), (2, 3, 2, 3, 2)], ids=str)
def test_truncation_by_rank(backend: str, dtype: torch.dtype, modes: tuple[int, ...], max_rank: int) -> None:
    tensors = random_tensors(10, modes, dtype)
    train = tt_svd(tensors, modes, max_rank=max_rank)
    assert_train(train, tensors, modes)
    sizes = np.cumprod(modes)[:-1]
    most = [min(max_rank, int(size), math.prod(modes) // int(size)) for size in sizes]
    assert (train.ranks <= torch.tensor(most)).all()
    assert_as_good_as_lapack(train, tensors, modes)


@DTYPES
@pytest.mark.parametrize("relative_error", [0.5, 0.1, 1e-2, 1e-3, 1e-5])
def test_truncation_by_error_keeps_its_bound(backend: str, dtype: torch.dtype, relative_error: float) -> None:
    modes = (6, 5, 4, 7)
    tensors = torch.cat([graded(6, modes, 1e-6, dtype), random_tensors(4, modes, dtype)])
    train = tt_svd(tensors, modes, relative_error=relative_error)
    assert_train(train, tensors, modes)
    norms = tensors.flatten(1).double().norm(dim=1)
    bound = max(relative_error, math.sqrt(3) * RESOLUTION[dtype])
    assert (errors(train, tensors) <= (bound + ROUNDING[dtype]) * norms).all()
    assert_as_good_as_lapack(train, tensors, modes)


def test_the_ranks_are_the_smallest_that_the_step_allows(backend: str) -> None:
    tensors = graded(5, (6, 10), 1e-5, torch.float64)
    values = np.linalg.svd(tensors.numpy(), compute_uv=False)
    for relative_error in (0.3, 1e-2, 1e-4):
        ranks = tt_svd(tensors, (6, 10), relative_error=relative_error).ranks[:, 0]
        tails = np.sqrt(np.cumsum(values[:, ::-1] ** 2, axis=1))[:, ::-1]
        wanted = (tails > relative_error * tails[:, :1]).sum(axis=1)
        assert ranks.tolist() == wanted.tolist()


@DTYPES
@pytest.mark.parametrize("smallest", [1e-3, 1e-7])
@pytest.mark.parametrize("modes", [(8, 9), (4, 5, 6, 3), (6, 5, 8, 4)], ids=str)
def test_graded_spectra(backend: str, dtype: torch.dtype, modes: tuple[int, ...], smallest: float) -> None:
    tensors = graded(5, modes, smallest, dtype)
    for max_rank in (2, 8, 30):
        train = tt_svd(tensors, modes, max_rank=max_rank)
        assert_train(train, tensors, modes)
        assert_as_good_as_lapack(train, tensors, modes)


def test_float64_keeps_singular_values_that_a_gram_matrix_loses(backend: str) -> None:
    modes = (8, 9, 10)
    tensors = graded(5, modes, 1e-13, torch.float64)
    train = tt_svd(tensors, modes)
    assert (train.ranks == torch.tensor([8, 10])).all()
    assert (errors(train, tensors) <= 1e-14).all()
    train = tt_svd(tensors, modes, relative_error=1e-11)
    assert (errors(train, tensors) <= 1e-11).all()
    assert (train.ranks[:, 0] < 8).all()


@DTYPES
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_rank_deficient_tensors_show_their_ranks(backend: str, dtype: torch.dtype, rank: int) -> None:
    modes = (5, 6, 7, 4)
    tensors = low_rank(9, modes, rank, dtype)
    for max_rank in (None, 8):
        train = tt_svd(tensors, modes, max_rank=max_rank)
        assert_train(train, tensors, modes)
        assert (train.ranks == rank).all()
        assert_as_good_as_lapack(train, tensors, modes)


@DTYPES
@pytest.mark.parametrize("scale", [1e-30, 1e-8, 1e8, 1e30])
def test_any_scale(backend: str, dtype: torch.dtype, scale: float) -> None:
    modes = (4, 5, 6)
    plain = random_tensors(5, modes, torch.float64)
    tensors = (plain * scale).to(dtype)
    train = tt_svd(tensors, modes, max_rank=3)
    assert_train(train, tensors, modes)
    assert_as_good_as_lapack(train, tensors, modes)
    assert torch.equal(train.ranks, tt_svd(plain.to(dtype), modes, max_rank=3).ranks)


def test_extreme_scales_of_float64(backend: str) -> None:
    modes = (3, 4, 5)
    for scale in (1e-290, 1e-160, 1e160, 1e290):
        tensors = random_tensors(4, modes, torch.float64) * scale
        train = tt_svd(tensors, modes, relative_error=1e-3)
        assert_train(train, tensors, modes)
        assert (errors(train, tensors) / scale <= 1e-3 * (tensors / scale).flatten(1).norm(dim=1)).all()


@DTYPES
def test_zero_tensors_and_a_batch_of_all_kinds(backend: str, dtype: torch.dtype) -> None:
    modes = (4, 5, 6)
    kinds = [
        random_tensors(2, modes, dtype),
        torch.zeros(1, *modes, dtype=dtype),
        low_rank(2, modes, 1, dtype) * 1e-8,
        graded(2, modes, 1e-6, dtype) * 1e20,
        torch.zeros(1, *modes, dtype=dtype),
        torch.ones(1, *modes, dtype=dtype),
    ]
    tensors = torch.cat(kinds)
    train = tt_svd(tensors, modes, relative_error=1e-4)
    assert_train(train, tensors, modes)
    assert_as_good_as_lapack(train, tensors, modes)
    for zero in (2, 7):
        assert train.ranks[zero].tolist() == [1, 1]
        assert bool((train.cores[-1][zero] == 0).all())
        assert bool((train.reconstruct()[zero] == 0).all())


@DTYPES
@pytest.mark.parametrize("max_rank", [None, 3])
def test_each_element_equals_its_single_run(backend: str, dtype: torch.dtype, max_rank: int | None) -> None:
    modes = (6, 5, 8)
    parts = [random_tensors(7, modes, dtype), low_rank(6, modes, 2, dtype), torch.zeros(1, *modes, dtype=dtype)]
    tensors = torch.cat([*parts, graded(5, modes, 1e-4, dtype)])
    train = tt_svd(tensors, modes, max_rank=max_rank, relative_error=1e-3)
    for index in range(0, len(tensors), 2):
        alone = tt_svd(tensors[index : index + 1], modes, max_rank=max_rank, relative_error=1e-3)
        assert torch.equal(alone.ranks[0], train.ranks[index])
        bounds = [1, *alone.ranks[0].tolist(), 1]
        for k, core in enumerate(alone.cores):
            torch.testing.assert_close(
                train.cores[k][index, : bounds[k], :, : bounds[k + 1]], core[0], rtol=0, atol=10 * ROUNDING[dtype]
            )


@DTYPES
def test_both_layouts_and_any_strides(backend: str, dtype: torch.dtype) -> None:
    modes = (3, 4, 5)
    tensors = random_tensors(6, modes, dtype)
    flat = tt_svd(tensors.flatten(1), list(modes), max_rank=2)
    strided = torch.stack([tensors, tensors + 1], dim=-1)[..., 0].requires_grad_()
    split = tt_svd(strided, modes, max_rank=2)
    assert all(torch.equal(a, b) for a, b in zip(flat.cores, split.cores, strict=True))
    assert not any(core.requires_grad for core in split.cores)


@DTYPES
@pytest.mark.parametrize("modes", [(5,), (3, 4), (2, 3, 4)], ids=str)
def test_an_empty_batch(backend: str, dtype: torch.dtype, modes: tuple[int, ...]) -> None:
    train = tt_svd(torch.zeros(0, *modes, dtype=dtype), modes)
    assert_train(train, torch.zeros(0, *modes, dtype=dtype), modes)
    assert train.reconstruct().shape == (0, math.prod(modes))
    assert train.inner(train).shape == (0,)
    assert train.inner_all().shape == (0, 0)


@DTYPES
@pytest.mark.parametrize("modes", [(6,), (4, 5), (5, 1, 3), (4, 5, 6, 3)], ids=str)
def test_inner_products_are_those_of_the_tensors(backend: str, dtype: torch.dtype, modes: tuple[int, ...]) -> None:
    first = tt_svd(random_tensors(8, modes, dtype), modes, max_rank=3)
    second = tt_svd(low_rank(8, modes, 2, dtype), modes, relative_error=1e-2)
    a, b = (train.reconstruct().double() for train in (first, second))
    size = (a.norm(dim=1) * b.norm(dim=1)).max().item()
    torch.testing.assert_close(first.inner(second).double(), (a * b).sum(1), rtol=0, atol=10 * ROUNDING[dtype] * size)
    everything = first.inner_all()
    assert everything.dtype == torch.float64
    assert torch.equal(everything, everything.mT)
    exact = TensorTrain([core.double() for core in first.cores], modes, first.ranks).reconstruct()
    torch.testing.assert_close(everything, exact @ exact.mT, rtol=0, atol=1e-12 * exact.norm(dim=1).max().item() ** 2)


def test_inner_all_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    train = tt_svd(random_tensors(11, (3, 4, 5), torch.float64), (3, 4, 5), max_rank=2)
    whole = train.inner_all()
    monkeypatch.setattr("selshare.kernels.tensor_train.train.CHUNK_ITEMS", 100)
    torch.testing.assert_close(train.inner_all(), whole)
    with pytest.raises(ValueError, match="equal length and modes; these are 11"):
        train.inner(tt_svd(torch.ones(11, 60), (60,)))


@settings(max_examples=20)
@given(
    st.integers(1, 9),
    st.lists(st.integers(1, 6), min_size=1, max_size=5),
    st.integers(1, 9),
    st.sampled_from([0.0, 1e-3, 0.2]),
    st.sampled_from([torch.float32, torch.float64]),
    st.integers(0, 10**6),
)
def test_any_shape(
    count: int, modes: list[int], max_rank: int, relative_error: float, dtype: torch.dtype, seed: int
) -> None:
    shape = tuple(modes)
    tensors = random_tensors(count, shape, dtype, seed)
    for name in each_backend("tt_svd"):
        with preferred("tt_svd", name):
            train = tt_svd(tensors, shape, max_rank=max_rank, relative_error=relative_error)
            assert_train(train, tensors, shape)
            assert_as_good_as_lapack(train, tensors, shape)
            assert int(train.ranks.max()) <= max_rank if len(shape) > 1 else True


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@DTYPES
def test_not_finite_names_the_branch(backend: str, dtype: torch.dtype, bad: float) -> None:
    tensors = random_tensors(20, (3, 4), dtype)
    tensors[17, 2, 3] = bad
    with pytest.raises(ValueError, match="NaN or Inf in branch 17"):
        tt_svd(tensors, (3, 4))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("modes", [(4, 3, 5), (12, 5), (5, 12)])
def test_half_precision_is_what_float32_of_its_values_is(
    backend: str, dtype: torch.dtype, modes: tuple[int, ...]
) -> None:
    halves = low_rank(3, modes, 2, torch.float32).to(dtype)
    found, wanted = tt_svd(halves, modes, relative_error=0.05), tt_svd(halves.float(), modes, relative_error=0.05)
    assert torch.equal(found.ranks, wanted.ranks)
    for core, other in zip(found.cores, wanted.cores, strict=True):
        assert core.dtype == torch.float32
        torch.testing.assert_close(core, other, rtol=0, atol=2e-6 * (1 + other.abs().max().item()))
    error = (found.reconstruct().double().flatten(1) - halves.double().flatten(1)).norm(dim=1)
    assert bool((error <= 0.05 * halves.double().flatten(1).norm(dim=1)).all())


def test_wrong_input_is_refused(backend: str) -> None:
    tensors = torch.ones(2, 12)
    with pytest.raises(ValueError, match=r"shape \(G, 15\) or \(G, 3, 5\) for modes \(3, 5\)"):
        tt_svd(tensors, (3, 5))
    with pytest.raises(ValueError, match="modes must hold at least one number"):
        tt_svd(tensors, ())
    with pytest.raises(ValueError, match="each of modes must be at least 1; it is 0"):
        tt_svd(tensors, (12, 0))
    with pytest.raises(ValueError, match="max_rank must be at least 1; it is 0"):
        tt_svd(tensors, (3, 4), max_rank=0)
    for relative_error in (-0.1, 1.0, float("nan")):
        with pytest.raises(ValueError, match="must be at least 0 and below 1"):
            tt_svd(tensors, (3, 4), relative_error=relative_error)
    with pytest.raises(TypeError, match=r"dtype torch\.int64"):
        tt_svd(tensors.long(), (3, 4))
