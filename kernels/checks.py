"""Checks on the inputs of operations: each raises one sentence that says what is wrong and what to do."""

from __future__ import annotations

import torch
from torch import Tensor

FLOATS = (torch.float32, torch.float64)
HALVES = (torch.float16, torch.bfloat16)


def require_float(tensor: Tensor, what: str, *, halves: bool = False) -> None:
    """Raise ``TypeError`` unless ``tensor`` is float32 or float64, or (``halves``) float16 or bfloat16."""
    if tensor.dtype not in FLOATS and not (halves and tensor.dtype in HALVES):
        raise TypeError(f"{what} has dtype {tensor.dtype}; convert it to float32 or float64.")


def sums_of(dtype: torch.dtype) -> torch.dtype:
    """What numbers of ``dtype`` are added up in: float32 where they are float16 or bfloat16, else ``dtype``."""
    return torch.float32 if dtype in HALVES else dtype


def require_dimensions(tensor: Tensor, shape: str, what: str) -> None:
    """Raise ``ValueError`` unless ``tensor`` has as many dimensions as ``shape``, e.g. ``"(G, B, O)"``, names."""
    if tensor.ndim != len(shape.split(",")):
        raise ValueError(f"{what} must have shape {shape}; it has shape {tuple(tensor.shape)}.")


def require_finite(tensor: Tensor, what: str, row: str = "branch") -> None:
    """Raise ``ValueError`` that names the first row (index along dimension 0) that holds NaN or Inf.

    One pass when all is finite: the sum of a finite tensor is finite unless it overflows, which is then looked at
    element by element.
    """
    if tensor.numel() == 0 or bool(torch.isfinite(tensor.sum())):
        return
    finite = torch.isfinite(tensor).reshape(tensor.shape[0], -1).all(dim=1)
    if not bool(finite.all()):
        first = int((~finite).nonzero()[0, 0])
        raise ValueError(f"{what} holds NaN or Inf in {row} {first}; leave that {row} out or repair its input.")
