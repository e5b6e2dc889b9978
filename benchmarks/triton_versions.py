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
from benchmarks.triton_cases import CASES, COMPILED_ONLY, Case
from benchmarks.triton_compile import compiled


def stacks(case: Case) -> list[int]:
    """Bytes of a thread's stack on each architecture."""
    return [compiled(case.launch(case.size), architecture).stack for architecture in ARCHITECTURES]


def main() -> int:
    """The command."""
    cases = CASES + COMPILED_ONLY
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = list(pool.map(stacks, cases))
    for case, bytes_ in zip(cases, found, strict=True):
        if any(bytes_):
            print(f"{case.operation} {case.variant}: stack of {bytes_} bytes on sm {ARCHITECTURES}")
    clean = sum(not any(bytes_) for bytes_ in found)
    print(f"triton {triton.__version__}: {len(cases)} kernels compiled for sm {ARCHITECTURES}, {clean} without a stack")
    return int(clean < len(cases))


if __name__ == "__main__":
    sys.exit(main())
