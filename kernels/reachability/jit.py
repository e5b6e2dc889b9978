"""Numba without its traps: kernels compiled once and kept on disk, run by plain threads.

Kernels are compiled without ``parallel=True`` and release the interpreter lock; :func:`in_threads` runs them on
ranges of rows in threads that end with the call. So there is no OpenMP region of Numba's that a later ``fork`` could
hang in, and cached code loads in milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar, cast

import numba
import torch

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """``function`` compiled by Numba at first use, kept on disk, run without the interpreter lock."""
    return cast(Function, numba.njit(cache=True, nogil=True, error_model="numpy")(function))


def in_threads(kernel: Callable[..., Any], n: int, *arguments: Any, chunk: int = 64) -> None:
    """Run ``kernel(start, stop, *arguments)`` over 0 … n in chunks, on as many threads as torch uses.

    Each chunk must write only what belongs to its rows, so that the result does not depend on the threads.
    """
    threads = min(torch.get_num_threads(), -(-n // chunk))
    if threads <= 1:
        kernel(0, n, *arguments)
        return
    with ThreadPoolExecutor(threads) as pool:
        ranges = [(start, min(start + chunk, n)) for start in range(0, n, chunk)]
        for done in [pool.submit(kernel, start, stop, *arguments) for start, stop in ranges]:
            done.result()
