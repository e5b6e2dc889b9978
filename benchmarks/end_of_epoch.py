"""How long the end of an epoch takes beside the epoch: ``python -m benchmarks.end_of_epoch [--branches 2000]``.

Embed, cluster, plan and merge once, against 200 training steps (batch 64, 300 shared features, branches 100-100-1,
SGD with momentum) measured in the same run. The clustering's first call is not counted: it imports hdbscan.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch

from selshare import BankSGD, SelectiveSharing

from .planted import planted_batches, planted_model, train

EPOCH = 200


def measure(branches: int, capture: str, steps: int, preset: str) -> dict[str, Any]:
    """Seconds of one step (median) and of each stage at the end of an epoch that merges."""
    model = planted_model(branches)
    optimizer = BankSGD(model.parameters(), lr=0.02, momentum=0.5)
    sharing = SelectiveSharing(capture=capture, preset=preset, warmup=0).attach(model, optimizer)
    seconds = []
    for batch in planted_batches(branches, steps):
        started = time.perf_counter()
        train(model, optimizer, [batch])
        seconds.append(time.perf_counter() - started)
    step = statistics.median(seconds)
    started = time.perf_counter()
    event = sharing.end_epoch()
    end = time.perf_counter() - started
    return {
        "branches": branches,
        "capture": capture,
        "preset": preset,
        "step": step,
        "end": end,
        "share_of_epoch": end / (EPOCH * step),
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
        print(
            f"{row['branches']} branches, {row['capture']}, {row['preset']}: step {1e3 * row['step']:.1f} ms; end of "
            f"epoch {row['end']:.2f} s = {100 * row['share_of_epoch']:.1f} % of {EPOCH} steps ({stages}); "
            f"{row['branches_after']} branches left"
        )
    if arguments.json:
        arguments.json.write_text(json.dumps({"threads": arguments.threads, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
