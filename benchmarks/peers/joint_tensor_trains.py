"""One embedding of many gradients, ours and by what people use today: same stack, same rank, same process.

The stack: 2,000 unit-norm gradients of a 100 × 300 layer, float32; rank 64. ``grouped``: rows around 100 centres
with noise, full rank. ``power``: singular values near 1/k. Contestants take turns; the fastest run of each counts.
Beside wall time stands processor time, over all threads, which a busy machine disturbs less.

- ``ours, 1 mode``: what clustering uses. ``ours, 4 modes``: a tensor train (10, 10, 15, 20), cores and all.
- ``torch.svd_lowrank`` with q = 64, niter = 2, and its embedding ``U·S``.
- ``sklearn randomized_svd`` with its default power iterations, and with 2.
- ``torch.linalg.svd``: all singular values (only with ``--full``).

Errors are of the stack in the Frobenius norm, by the least possible at that rank. ``distances``: the largest part of
the stated bound that a squared distance of two embeddings really lost, over all pairs of 300 rows; at most 100 %.

Run ``python benchmarks/peers/joint_tensor_trains.py [--branches N] [--rank R] [--full] [--json FILE]``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from sklearn.utils.extmath import randomized_svd
from threadpoolctl import threadpool_limits
from torch import Tensor

from _machine import environment
from selshare.kernels import joint_tt_svd

OUTPUTS, INPUTS = 100, 300
MODES = (10, 10, 15, 20)
ROWS = 300  # whose distances are compared


def make_stack(kind: str, branches: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    values = OUTPUTS * INPUTS
    noise = torch.randn(branches, values, generator=generator)
    if kind == "grouped":
        centres = torch.randn(100, values, generator=generator)
        return torch.nn.functional.normalize(centres[torch.arange(branches) % 100] + 0.3 * noise, dim=1)
    left = torch.linalg.qr(torch.randn(branches, branches, generator=generator)).Q
    return (left / torch.arange(1, branches + 1)) @ (noise / values**0.5)


@dataclass
class Result:
    """What a contestant made: the embedding, how to get the stack back, and our bound where it is ours."""

    embedding: Tensor
    reconstruct: Callable[[], Tensor]
    bound: float | None = None


def contestants(stack: Tensor, rank: int, full: bool) -> dict[str, Callable[[], Result]]:
    """By name, in the order of the table."""
    array = stack.numpy()

    def ours(modes: tuple[int, ...]) -> Result:
        train = joint_tt_svd(stack, modes, max_rank=rank)
        return Result(train.embedding, train.reconstruct, train.error_bound)

    def theirs(left: Tensor, values: Tensor, right: Tensor) -> Result:
        embedding = left * values
        return Result(embedding, lambda: embedding @ right)

    def lowrank() -> Result:
        left, values, right = torch.svd_lowrank(stack, q=rank, niter=2)
        return theirs(left, values, right.T)

    def sklearn(iterations: int | str) -> Result:
        parts = randomized_svd(array, rank, n_iter=iterations, random_state=0)
        return theirs(*(torch.from_numpy(part) for part in parts))

    def everything() -> Result:
        left, values, right = torch.linalg.svd(stack, full_matrices=False)
        return theirs(left[:, :rank], values[:rank], right[:rank])

    made: dict[str, Callable[[], Result]] = {
        "ours, 1 mode": lambda: ours((OUTPUTS * INPUTS,)),
        "ours, 4 modes": lambda: ours(MODES),
        "torch.svd_lowrank": lowrank,
        "sklearn, 2 iterations": lambda: sklearn(2),
        "sklearn, auto": lambda: sklearn("auto"),
    }
    if full:
        made["torch.linalg.svd"] = everything
    return made


def measure(stack: Tensor, rank: int, full: bool, rounds: int) -> dict[str, dict[str, float]]:
    """Milliseconds, errors and distances of each contestant."""
    runners = contestants(stack, rank, full)
    wall: dict[str, list[float]] = {name: [] for name in runners}
    processor: dict[str, list[float]] = {name: [] for name in runners}
    results = {}
    for _ in range(rounds):
        for name, run in runners.items():
            started, used = time.perf_counter(), time.process_time()
            results[name] = run()
            wall[name].append(time.perf_counter() - started)
            processor[name].append(time.process_time() - used)
    least = least_error(stack, rank)
    return {
        name: {
            "ms": 1e3 * min(wall[name]),
            "median_ms": 1e3 * statistics.median(wall[name]),
            "processor_ms": 1e3 * min(processor[name]),
            "error": float(torch.linalg.vector_norm(stack - result.reconstruct(), dtype=torch.float64)) / least,
            **({} if result.bound is None else {"distances": distances_lost(stack, result)}),
        }
        for name, result in results.items()
    }


def least_error(stack: Tensor, rank: int) -> float:
    """Of any approximation of that rank."""
    wide = stack.double()
    return float(torch.linalg.eigvalsh(wide @ wide.T)[:-rank].sum().sqrt())


def distances_lost(stack: Tensor, result: Result) -> float:
    """The largest (true − embedded squared distance) / (2 · bound²); a distance that grew would make it infinite."""
    chosen = torch.linspace(0, len(stack) - 1, ROWS).long()
    true, embedded = (
        torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist").square()
        for rows in (stack[chosen].double(), result.embedding[chosen].double())
    )
    lost = true - embedded
    if float(lost.min()) < -1e-5 * float(true.max()):
        return float("inf")
    assert result.bound is not None
    return float(lost.max()) / (2 * result.bound**2)


def show(kind: str, stack: Tensor, rank: int, rows: dict[str, dict[str, float]]) -> None:
    """One table."""
    theirs = rows["torch.svd_lowrank"]
    print(f"\n{kind}: {len(stack):,} × {stack.shape[1]:,}, rank {rank}")
    titles = f"{'':22s} {'ms':>8s} {'median':>8s} {'cpu ms':>8s} {'lowrank / it':>13s} {'cpu':>6s}"
    print(f"{titles} {'error/least':>12s} bound used")
    for name, row in rows.items():
        ratios = f"{theirs['ms'] / row['ms']:13.2f} {theirs['processor_ms'] / row['processor_ms']:6.2f}"
        used = f"{row['distances']:10.1%}" if "distances" in row else ""
        times = f"{row['ms']:8.0f} {row['median_ms']:8.0f} {row['processor_ms']:8.0f}"
        print(f"{name:22s} {times} {ratios} {row['error']:12.5f} {used}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--branches", type=int, default=2000)
    parser.add_argument("--rank", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--full", action="store_true", help="run torch.linalg.svd too")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    results: dict[str, Any] = {
        "environment": environment(("scikit-learn", "numpy", "scipy")),
        "branches": arguments.branches,
        "rank": arguments.rank,
    }
    print(json.dumps(results["environment"]))
    for kind in ("grouped", "power"):
        stack = make_stack(kind, arguments.branches)
        with threadpool_limits(arguments.threads):
            rows = results[kind] = measure(stack, arguments.rank, arguments.full, arguments.rounds)
        show(kind, stack, arguments.rank, rows)
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
