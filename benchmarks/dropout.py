"""Dropout of a bank's features beside torch's: ``python -m benchmarks.dropout [--branches 50 1000]``.

Forward and backward of p = .2 on features of ``branches`` x 64 samples x 100 units, float32, as the layers leave them
in memory. The two take turns; medians.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from selshare.model.dropout import dropout

from .peers._machine import environment

SAMPLES, UNITS, RATE = 64, 100, 0.2


def seconds(run: Callable[[Tensor], Tensor], features: Tensor, delta: Tensor) -> float:
    """One forward and backward."""
    started = time.perf_counter()
    torch.autograd.grad(run(features), [features], delta)
    return time.perf_counter() - started


def measure(branches: int, threads: int, rounds: int) -> dict[str, Any]:
    """Medians of ours and of torch's, in seconds, and nanoseconds a unit."""
    torch.set_num_threads(threads)
    features, delta = (torch.randn(branches, UNITS, SAMPLES).transpose(1, 2) for _ in range(2))
    features.requires_grad_()
    contestants: dict[str, Callable[[Tensor], Tensor]] = {
        "ours": lambda x: dropout(x, RATE),
        "torch": lambda x: torch.dropout(x, RATE, train=True),
    }
    taken: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, run in contestants.items():
            taken[name].append(seconds(run, features, delta))
    ours, torchs = (statistics.median(taken[name]) for name in contestants)
    units = features.numel()
    return {
        "branches": branches,
        "threads": threads,
        "ours": ours,
        "torch": torchs,
        "ratio": torchs / ours,
        "ours_ns_per_unit": 1e9 * ours / units,
        "torch_ns_per_unit": 1e9 * torchs / units,
    }


def main() -> None:
    """Print one line per number of branches and threads."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--branches", type=int, nargs="+", default=[50, 1000])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    print(json.dumps(environment(())))
    measure(arguments.branches[0], 1, 3)  # first calls are not counted
    cases = [(branches, threads) for branches in arguments.branches for threads in arguments.threads]
    rows = [measure(branches, threads, arguments.rounds) for branches, threads in cases]
    for row in rows:
        print(
            f"{row['branches']} branches, {row['threads']} threads: ours {1e3 * row['ours']:.2f} ms "
            f"({row['ours_ns_per_unit']:.2f} ns a unit), torch {1e3 * row['torch']:.2f} ms "
            f"({row['torch_ns_per_unit']:.2f} ns a unit), {row['ratio']:.1f} times ours"
        )
    if arguments.json:
        arguments.json.write_text(json.dumps({"environment": environment(()), "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
