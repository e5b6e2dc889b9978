"""How long the end of an epoch takes beside the epoch: ``python -m benchmarks.end_of_epoch [--branches 2000]``.

Embed, cluster, plan and merge, against 200 training steps (batch 64, 300 shared features, branches 100-100-1, SGD with
momentum) measured in the same run. The paper's preset merges at the end of its first epoch; the default clusters after
each of five and merges once, after the sixth. The clustering's first call is not counted: it imports hdbscan.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch

from selshare import BankSGD, SelectiveSharing

from .planted import planted_batches, planted_model, train

STEPS = 200
WARMUP = {"paper": 0, "default": 5}
"""Epochs before the one that merges: the default clusters after each of five."""


def measure(branches: int, capture: str, steps: int, preset: str) -> dict[str, Any]:
    """Seconds of a step (median), of the end of an epoch that merges, and of one that only clusters (median)."""
    model = planted_model(branches)
    optimizer = BankSGD(model.parameters(), lr=0.02, momentum=0.5)
    warmup = WARMUP[preset]
    sharing = SelectiveSharing(capture=capture, preset=preset, warmup=warmup).attach(model, optimizer)
    batches = planted_batches(branches, steps * (warmup + 1))
    seconds, ends, event = [], [], None
    for _ in range(warmup + 1):
        for batch in itertools.islice(batches, steps):
            started = time.perf_counter()
            train(model, optimizer, [batch])
            seconds.append(time.perf_counter() - started)
        started = time.perf_counter()
        event = sharing.end_epoch()
        ends.append(time.perf_counter() - started)
    assert event is not None
    return {
        "branches": branches,
        "capture": capture,
        "preset": preset,
        "step": statistics.median(seconds),
        "end": ends[-1],
        "clustering": statistics.median(ends[:-1] or ends),
        "branches_after": event.branches_after,
        "stages": event.seconds,
    }


def main() -> None:
    """Print one line per capture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--branches", type=int, nargs="+", default=[500, 2000])
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    measure(20, "free", 3, "default")
    cases = [("exact", "paper"), ("free", "paper"), ("sketch", "paper"), ("exact", "default")]
    rows = [measure(b, capture, arguments.steps, preset) for b in arguments.branches for capture, preset in cases]
    for row in rows:
        stages = ", ".join(f"{name} {seconds:.3f}" for name, seconds in row["stages"].items())
        merging, clustering = (f"{x:.2f} s = {x / (STEPS * row['step']):.1%}" for x in (row["end"], row["clustering"]))
        print(
            f"{row['branches']} branches, {row['capture']}, {row['preset']}: step {1e3 * row['step']:.1f} ms; the end "
            f"of the epoch that merges {merging} of {STEPS} steps ({stages}), of one that clusters {clustering}; "
            f"{row['branches_after']} branches left"
        )
    if arguments.json:
        arguments.json.write_text(json.dumps({"threads": arguments.threads, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
