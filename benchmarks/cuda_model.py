"""``python -m benchmarks.cuda_model``: what the CUDA solvers take of a multiprocessor, and how long they should run.

Prints the tables of docs/gpu.md. Needs the built library and no GPU. The model: in each round of a sweep a block
moves its triangle once and its vectors once through shared memory, at 128 bytes a cycle, and waits once for a chain of
a root, quotients and two barriers, which the other blocks of the multiprocessor hide.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import dataclass

import torch

from selshare.kernels import cuda_library

KIB = 1024
REGISTERS = 64  # a thread, at most (csrc/cuda/compile.py --resources)
SHARED_RATE, L2_RATE = 128, 40  # bytes a cycle and multiprocessor
CHAIN = 500  # cycles: root, quotients, barriers; an estimate
SWEEPS = {torch.float32: 9, torch.float64: 10}  # of random matrices with 80 to 128 rows, measured on the CPU
LAUNCH = 5e-3  # milliseconds


@dataclass(frozen=True)
class GPU:
    """A device: multiprocessors, cycles a second, bytes of shared memory in a multiprocessor and for a block."""

    name: str
    processors: int
    clock: float
    shared: int
    shared_block: int

    @classmethod
    def present(cls, device: str) -> GPU:
        """The one that torch finds."""
        properties = torch.cuda.get_device_properties(device)
        shared_block, processors = cuda_library.limits(torch.cuda.current_device())
        clock = 1e3 * getattr(properties, "clock_rate", 1.7e6)
        return cls(properties.name, processors, clock, properties.shared_memory_per_multiprocessor, shared_block)


A100 = GPU("A100", 108, 1.41e9, 164 * KIB, 163 * KIB)
H100 = GPU("H100", 132, 1.76e9, 228 * KIB, 227 * KIB)


def plan(gpu: GPU, operation: str, dtype: torch.dtype, count: int, sizes: tuple[int, ...]) -> cuda_library.Plan:
    """How the library launches it there."""
    return cuda_library.plan(operation, (gpu.shared_block, gpu.processors), dtype, count, sizes)


def resident(gpu: GPU, launch: cuda_library.Plan) -> int:
    """Blocks that a multiprocessor holds at once."""
    return min(
        32,
        2048 // launch.threads,
        65536 // (REGISTERS * launch.threads),
        gpu.shared // (launch.shared_bytes + KIB),
    )


def milliseconds(gpu: GPU, operation: str, dtype: torch.dtype, count: int, sizes: tuple[int, ...]) -> float:
    """The predicted time of a launch."""
    n, m = sizes[0], sizes[-1]
    launch = plan(gpu, operation, dtype, count, sizes)
    first, second = (n * n, 2 * n * n) if operation == "eigh" else (3 * n * m, 2 * n * n)
    cycles = dtype.itemsize * (
        first / (L2_RATE if launch.shared == 2 else SHARED_RATE) + second / (L2_RATE if launch.shared else SHARED_RATE)
    )
    blocks = min(resident(gpu, launch), -(-count // gpu.processors))
    rounds = SWEEPS[dtype] * (n + n % 2 - 1)
    per_matrix = rounds * max(cycles, (cycles + CHAIN) / blocks)
    return LAUNCH + 1e3 * per_matrix * (-(-count // gpu.processors)) / gpu.clock


def tables(sizes: Iterable[int] = (8, 16, 32, 64, 80, 100, 128)) -> str:
    """Markdown."""
    lines = [
        "| solver | n | threads | shared memory, KiB | vectors | blocks a multiprocessor, A100 / H100 | "
        "1,000 matrices, ms: A100 / H100 |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for operation in ("eigh", "left_svd"):
        for dtype in SWEEPS:
            for n in sizes:
                size = (n,) if operation == "eigh" else (n, n)
                a, h = (plan(gpu, operation, dtype, 1000, size) for gpu in (A100, H100))
                places = ["workspace" if one.shared else "shared" for one in (a, h)]
                times = [milliseconds(gpu, operation, dtype, 1000, size) for gpu in (A100, H100)]
                lines.append(
                    f"| {operation} {str(dtype).removeprefix('torch.')} | {n} | {a.threads} | "
                    f"{_both(f'{one.shared_bytes / KIB:.3g}' for one in (a, h))} | {_both(places)} | "
                    f"{resident(A100, a)} / {resident(H100, h)} | {times[0]:.2g} / {times[1]:.2g} |"
                )
    return "\n".join(lines)


def _both(texts: Iterable[str]) -> str:
    """Two texts, or one if they agree."""
    return " / ".join(dict.fromkeys(texts))


def main() -> None:
    """The command."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    print(tables())


if __name__ == "__main__":
    main()
