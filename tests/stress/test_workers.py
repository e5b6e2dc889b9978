"""Processes: loaders' workers by fork and spawn, with kernels in them, and forks after parallel regions never hang."""

from __future__ import annotations

import os
import signal
import time
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from selshare import MultiTaskModel, SelectiveSharing, Task, Trainer, kernels
from selshare.cluster import HDBSCAN
from worker_data import Spectra

PATIENCE = 90  # seconds; a hang would last for ever


def trained(workers: int, context: str | None = None) -> dict[str, torch.Tensor]:
    """The weights after an epoch of shuffled batches."""
    torch.manual_seed(0)
    model = MultiTaskModel(nn.Linear(6, 12), 12, (8,), [Task.binary(f"task {index}") for index in range(3)])
    loader = DataLoader(
        Spectra(), 8, shuffle=True, generator=torch.Generator().manual_seed(1), num_workers=workers,
        multiprocessing_context=context, timeout=PATIENCE if workers else 0,
    )  # fmt: skip
    sharing = SelectiveSharing(warmup=0)
    Trainer(model, sharing=sharing, progress=False).fit(loader, (torch.randn(8, 6), torch.ones(8, 3)), epochs=1)
    return model.state_dict()


@pytest.mark.parametrize(("context", "workers"), [("fork", 2), ("spawn", 1)])
def test_training_with_workers_that_call_kernels(context: str, workers: int) -> None:
    kernels.batched_eigh(torch.randn(400, 12, 12))  # a parallel region before the fork
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12: a fork beside threads
        loaded = trained(workers, context)
    alone = trained(0)
    assert loaded.keys() == alone.keys()
    for name, tensor in alone.items():
        torch.testing.assert_close(loaded[name], tensor, rtol=0, atol=0)


def in_fork(work: Callable[[], object]) -> int:
    """How a forked child ends that does ``work``: its exit status, or minus the signal that ended it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException:
            os._exit(1)
        os._exit(0)
    ends = time.monotonic() + PATIENCE
    while time.monotonic() < ends:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return -signal.SIGALRM


@pytest.mark.parametrize("backend", ["native", "reference"])
def test_a_fork_after_parallel_regions_does_not_hang(backend: str) -> None:
    matrices, tensors, points = torch.randn(400, 12, 12), torch.randn(64, 36), torch.randn(300, 8)

    def work() -> None:
        with kernels.use(backend, "reference"):
            kernels.batched_eigh(matrices)
            kernels.tt_svd(tensors, (6, 6))
            kernels.mutual_reachability_mst(points, 4)
            kernels.stacked_linear(tensors.view(8, 8, 36), torch.randn(8, 40, 36), None)
            kernels.capture_gradients(torch.randn(8, 16, 20), torch.randn(16, 90), torch.zeros(8, 20, 90))

    work()
    assert in_fork(work) == 0


def test_clustering_in_a_fork_does_not_hang() -> None:
    def work() -> None:
        HDBSCAN(min_cluster_size=5).fit(torch.randn(700, 6))

    work()
    assert in_fork(work) == 0


def test_a_fork_while_memory_is_being_handed_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pool's lock, held by another thread of the parent, is free in the child."""
    kernels.workspace._lock.acquire()
    try:
        taken = kernels.workspace._lock

        def work() -> None:
            assert kernels.workspace._lock is not taken
            kernels.workspace.empty((1 << 20,), torch.zeros(()))

        assert in_fork(work) == 0
    finally:
        taken.release()
