"""The CUDA solvers' source, compiled for the CPU, in the place of the library, so that suites run it without a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from selshare import _native
from selshare.kernels import backend, cuda_library


def solve(operation: str, matrices: Tensor, sizes: tuple[int, ...], *more: Tensor | None) -> tuple[Tensor, Tensor]:
    """As ``cuda_library.solve``."""
    values, vectors, sweeps = solve_in_order(operation, matrices, sizes, *more)
    assert bool((sweeps > 0).all()) or vectors.numel() == 0, sweeps
    return values, vectors


def solve_in_order(
    operation: str, matrices: Tensor, sizes: tuple[int, ...], *more: Tensor | None, backwards: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Values, vectors and sweeps; independent items one after another, or the other way round."""
    matrices = matrices.contiguous()
    count, n = len(matrices), sizes[0]
    values, vectors = matrices.new_full((count, n), torch.nan), matrices.new_full((count, n, n), torch.nan)
    sweeps = torch.zeros(count, dtype=torch.int32)
    if vectors.numel():
        suffix = cuda_library.FLOATS[matrices.dtype]
        run = getattr(_native, f"block_{operation}_{suffix}")
        pointers = (0 if one is None else one.data_ptr() for one in (matrices, values, vectors, *more, sweeps))
        run(*pointers, count, *sizes, backwards)
    return values, vectors, sweeps


@contextmanager
def solved_on_cpu(operation: str, name: str) -> Iterator[None]:
    """If ``name`` is "cuda": CPU tensors may take that implementation of ``operation``."""
    with pytest.MonkeyPatch.context() as patch:
        if name == "cuda":
            rows = [
                replace(row, devices=("cpu",), missing=backend.nothing_missing) if row.backend == "cuda" else row
                for row in backend.implementations(operation)
            ]
            patch.setitem(backend._REGISTRY, operation, rows)
            patch.setattr(cuda_library, "solve", solve)
        yield
