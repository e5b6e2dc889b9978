"""Many threads of Python at once, and more threads of OpenMP than cores: the results of one call alone, to the bit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor

from selshare import kernels
from selshare.kernels.sketch import SketchProjection

CALLERS, ROUNDS = 8, 3


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)
    kernels.batched_eigh(torch.eye(9).repeat(64, 1, 1))  # ends the threads that are too many


def in_place(kernel: Callable[[Tensor], None], *shape: int) -> Tensor:
    changed = torch.ones(shape)
    kernel(changed)
    return changed


def calls(seed: int) -> dict[str, Callable[[], object]]:
    """A call of every native kernel, large enough for several threads."""
    g = torch.Generator().manual_seed(seed)
    delta, shared = torch.randn(24, 32, 40, generator=g), torch.randn(32, 90, generator=g)
    symmetric = torch.randn(96, 12, 12, generator=g)
    tensors, points = torch.randn(48, 6 * 6 * 5, generator=g), torch.randn(400, 12, generator=g)
    inputs, weight = torch.randn(24, 32, 90, generator=g), torch.randn(24, 40, 90, generator=g)
    projection = SketchProjection(40, 90, 200)
    return {
        "batched_eigh": lambda: kernels.batched_eigh(symmetric + symmetric.mT),
        "tt_svd": lambda: tuple(kernels.tt_svd(tensors, (6, 6, 5), max_rank=4).cores),
        "joint_tt_svd": lambda: kernels.joint_tt_svd(tensors, (180,), max_rank=8).embedding,
        "capture": lambda: in_place(lambda a: kernels.capture_gradients(delta, shared, a), 24, 40, 90),
        "sgd": lambda: in_place(lambda w: kernels.fused_sgd_step(delta, shared, w, None, None, lr=0.1), 24, 40, 90),
        "adam": lambda: in_place(
            lambda w: kernels.fused_adam_step(
                delta, shared, w, torch.zeros_like(w), torch.zeros_like(w), None, step=1, lr=0.1
            ),
            24,
            40,
            90,
        ),
        "sketch": lambda: in_place(lambda a: kernels.sketch_gradients(delta, shared, a, projection), 24, 200),
        "stacked_linear": lambda: kernels.stacked_linear(inputs, weight, None),
        "backward": lambda: tuple(kernels.stacked_linear_backward(delta, inputs, weight)),
        "weight_gradient": lambda: kernels.weight_gradient(delta, inputs),
        "core_distances": lambda: kernels.core_distances(points, 5),
        "mutual_reachability": lambda: kernels.mutual_reachability(points, 5),
        "spanning_tree": lambda: kernels.mutual_reachability_mst(points, 5),
    }


def assert_equal(found: object, wanted: object) -> None:
    torch.testing.assert_close(found, wanted, rtol=0, atol=0)


@pytest.mark.parametrize("name", list(calls(0)))
def test_threads_that_call_at_once(name: str) -> None:
    alone = [calls(seed)[name]() for seed in range(CALLERS)]
    with ThreadPoolExecutor(CALLERS) as pool:
        for _ in range(ROUNDS):
            for found, wanted in zip(pool.map(lambda seed: calls(seed)[name](), range(CALLERS)), alone, strict=True):
                assert_equal(found, wanted)


def test_threads_that_call_different_kernels_at_once() -> None:
    alone = {name: call() for name, call in calls(1).items()}
    with ThreadPoolExecutor(CALLERS) as pool:
        running = [(name, pool.submit(call)) for _ in range(ROUNDS) for name, call in calls(1).items()]
        for name, future in running:
            assert_equal(future.result(), alone[name])


@pytest.mark.parametrize("count", [1, 3, 64])
def test_more_threads_than_cores(threads: Callable[[int], None], count: int) -> None:
    blas = ("joint_tt_svd",)  # products of matrices, whose sums torch orders by its threads
    alone = {name: call() for name, call in calls(2).items()}
    threads(count)
    for name, call in calls(2).items():
        if name not in blas:
            assert_equal(call(), alone[name])
    with ThreadPoolExecutor(3) as pool:  # each with threads of its own
        found = list(pool.map(lambda _: kernels.batched_eigh(torch.eye(12).repeat(96, 1, 1))[0], range(3)))
    assert_equal(found[0], found[2])


def test_more_threads_than_pieces_of_a_layer(threads: Callable[[int], None]) -> None:
    """4825 rows in 201 wanted pieces are 193 of 25: there were pieces beyond the last row, and a division by zero."""
    inputs, weight = torch.randn(2, 64, 170), torch.randn(2, 4825, 170)
    alone = kernels.stacked_linear(inputs, weight, None)
    threads(400)
    assert_equal(kernels.stacked_linear(inputs, weight, None), alone)


def test_a_forced_backend_is_forced_for_its_own_thread_only() -> None:
    points = torch.randn(20, 3)
    with ThreadPoolExecutor(1) as pool, kernels.use("triton"):
        found = pool.submit(kernels.core_distances, points, 3).result()
    assert_equal(found, kernels.core_distances(points, 3))
