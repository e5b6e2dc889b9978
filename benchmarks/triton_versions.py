"""``python -m benchmarks.triton_versions``: does the Triton that Python finds compile every kernel, without spills?

For another version: ``pip install --no-deps --target DIR "triton==3.6.*"``, then ``PYTHONPATH=DIR python -m …``.
Nothing is counted, so this is quicker than :mod:`benchmarks.triton_aot`. Exits with 1 on a spill or a stack frame.
"""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor

import triton

from benchmarks.triton_aot import ARCHITECTURES
from benchmarks.triton_cases import CASES, Case
from benchmarks.triton_compile import compiled


def stacks(case: Case) -> list[int]:
    """Bytes of a thread's stack on each architecture."""
    return [compiled(case.launch(case.size), architecture).stack for architecture in ARCHITECTURES]


def main() -> int:
    """The command."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = list(pool.map(stacks, CASES))
    for case, bytes_ in zip(CASES, found, strict=True):
        if any(bytes_):
            print(f"{case.operation} {case.variant}: stack of {bytes_} bytes on sm {ARCHITECTURES}")
    clean = sum(not any(bytes_) for bytes_ in found)
    print(f"triton {triton.__version__}: {len(CASES)} kernels compiled for sm {ARCHITECTURES}, {clean} without a stack")
    return int(clean < len(CASES))


if __name__ == "__main__":
    sys.exit(main())
