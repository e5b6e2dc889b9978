"""Every operation on every implementation that can run on this CPU, as multiples of the fastest one's time.

``python -m benchmarks.backends``: the table of docs/installing.md. Implementations take turns; the fastest run of each
counts. ``--small`` for a quick look.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch

from benchmarks.peers._machine import environment
from selshare import kernels
from selshare.kernels.backend import implementations

Case = tuple[str, str, str, Callable[[], object]]
TURNS = 3


def cases(scale: float) -> list[Case]:
    """(operation, what of it is timed, on what, a call)."""
    torch.manual_seed(0)
    branches, points = int(400 * scale), int(1000 * scale)
    delta, shared = torch.randn(branches, 64, 100), torch.randn(64, 300)
    weight, momentum, captured = (torch.zeros(branches, 100, 300) for _ in range(3))
    layer, inputs = torch.randn(branches, 100, 300) / 17, torch.randn(1, 64, 300)
    projection = kernels.SketchProjection(100, 300, 900)
    sketches = torch.zeros(branches, 900)
    small = torch.randn(10 * branches, 15, 15)
    small = small + small.mT
    tensors = torch.randn(branches, 30_000)
    cloud = torch.randn(points, 64)
    layers = f"{branches} branches, 100 × 300, batch 64"
    return [
        ("stacked_linear", "a layer's forward", layers, lambda: kernels.stacked_linear(inputs, layer, None)),
        ("capture_gradients", "capture", layers, lambda: kernels.capture_gradients(delta, shared, captured)),
        (
            "fused_sgd_step",
            "gradient, capture and SGD",
            layers,
            lambda: kernels.fused_sgd_step(delta, shared, weight, momentum, captured, lr=1e-6, momentum=0.9),
        ),
        (
            "sketch_gradients",
            "sketched capture",
            f"{layers}, 900 numbers",
            lambda: kernels.sketch_gradients(delta, shared, sketches, projection),
        ),
        ("batched_eigh", "eigenproblems", f"{len(small):,} of 15 × 15", lambda: kernels.batched_eigh(small)),
        (
            "tt_svd",
            "tensor trains",
            f"{branches} of 10 × 10 × 15 × 20, rank 8",
            lambda: kernels.tt_svd(tensors, (10, 10, 15, 20), max_rank=8),
        ),
        (
            "joint_tt_svd",
            "the embedding",
            f"{branches} × 30,000, rank 64",
            lambda: kernels.joint_tt_svd(tensors, (30_000,), max_rank=64, relative_error=0.0),
        ),
        (
            "mutual_reachability_mst",
            "spanning tree",
            f"{points:,} points of 64 columns",
            lambda: kernels.mutual_reachability_mst(cloud, 5),
        ),
    ]


def timed(operation: str, call: Callable[[], object]) -> dict[str, float]:
    """Seconds of each implementation that runs here."""
    names = [one.backend for one in implementations(operation) if one.unusable("cpu") is None]
    best = dict.fromkeys(names, float("inf"))
    for turn in range(TURNS + 1):
        for name in names:
            with kernels.use(name):
                started = time.perf_counter()
                call()
                if turn:  # the first turn warms up
                    best[name] = min(best[name], time.perf_counter() - started)
    return best


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="a tenth of the size")
    scale = 0.1 if parser.parse_args().small else 1.0
    print(environment(("numba",)), end="\n\n")
    print("| operation | on | native: ms | Numba | torch alone |\n|---|---|---|---|---|")
    for operation, what, size, call in cases(scale):
        seconds = timed(operation, call)
        least = seconds.get("native", min(seconds.values()))
        cells = [f"{1000 * seconds['native']:.1f}" if "native" in seconds else "–"]
        cells.append(f"{seconds['numba'] / least:.2g}×" if "numba" in seconds else "–")
        plain = {name: seconds[name] / least for name in ("blocked", "reference") if name in seconds}
        cells.append(", ".join(f"{ratio:.2g}× ({name})" for name, ratio in plain.items()))
        print(f"| {what}, `{operation}` | {size} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
