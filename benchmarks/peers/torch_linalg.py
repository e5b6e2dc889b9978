"""Kernels beside torch's own linear algebra, in one process: ``python benchmarks/peers/torch_linalg.py [--json FILE]``.

- ``batched_eigh`` and ``torch.linalg.eigh``: 10,000 matrices 16×16 and 2,000 of 80×80.
- ``joint_tt_svd``, 2,000×30,000 to rank 64, and ``torch.svd_lowrank(q=64, niter=2)``.
- ``mutual_reachability_mst``, 10,000 points in 256 dimensions, and one matrix product of that size, ``P Pᵀ``.

The two of a pair take turns; the fastest call of each counts. Everything is float32.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from selshare.kernels import batched_eigh, joint_tt_svd, mutual_reachability_mst


def best_of(ours: Callable[[], Any], theirs: Callable[[], Any], rounds: int) -> tuple[float, float]:
    """Fastest call of each in seconds, after one that does not count."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for turn in range(rounds + 1):
        for call, taken in zip((ours, theirs), seconds, strict=True):
            started = time.perf_counter()
            call()
            if turn:
                taken.append(time.perf_counter() - started)
    return min(seconds[0]), min(seconds[1])


def symmetric(count: int, size: int) -> Tensor:
    matrices = torch.randn(count, size, size)
    return matrices + matrices.mT


def contests() -> dict[str, tuple[Callable[[], Any], Callable[[], Any]]]:
    """Name → ours, theirs."""
    torch.manual_seed(0)
    small, large = symmetric(10_000, 16), symmetric(2_000, 80)
    stack = torch.randn(2_000, 64) @ torch.randn(64, 30_000)
    stack += torch.randn(2_000, 30_000)
    points, product = torch.randn(10_000, 256), torch.empty(10_000, 10_000)
    return {
        "batched_eigh 10,000 × 16×16 / torch.linalg.eigh": (
            lambda: batched_eigh(small),
            lambda: torch.linalg.eigh(small),
        ),
        "batched_eigh 2,000 × 80×80 / torch.linalg.eigh": (
            lambda: batched_eigh(large),
            lambda: torch.linalg.eigh(large),
        ),
        "joint_tt_svd 2,000 × 30,000, rank 64 / torch.svd_lowrank": (
            lambda: joint_tt_svd(stack, (30_000,), max_rank=64, relative_error=0.0),
            lambda: torch.svd_lowrank(stack, q=64, niter=2),
        ),
        "mutual_reachability_mst 10,000 × 256 / one 10,000² sgemm": (
            lambda: mutual_reachability_mst(points, 5),
            lambda: torch.mm(points, points.T, out=product),
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(f"{platform.machine()}, {os.cpu_count()} cores, {arguments.threads} threads, torch {torch.__version__}")
    rows = []
    for name, (ours, theirs) in contests().items():
        mine, other = best_of(ours, theirs, arguments.rounds)
        rows.append({"contest": name, "ours": mine, "theirs": other, "theirs / ours": other / mine})
        print(f"{name}: {1e3 * mine:.1f} / {1e3 * other:.1f} ms = {other / mine:.2f}×", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps({"threads": arguments.threads, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
