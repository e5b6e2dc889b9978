"""Tensors between fences, to see whether a kernel reads or writes where it should not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

FENCE = 1 << 15


class Fenced:
    """A contiguous copy of ``values`` with NaN before and after it in memory."""

    def __init__(self, values: Tensor) -> None:
        self._buffer = torch.full((values.numel() + 2 * FENCE,), torch.nan, dtype=values.dtype)
        self.tensor = self._buffer[FENCE:-FENCE].view(values.shape)
        self.tensor.copy_(values)

    def untouched(self) -> bool:
        """Whether nothing was written outside the tensor."""
        return bool(self._buffer[:FENCE].isnan().all() and self._buffer[-FENCE:].isnan().all())


def spread(values: Tensor, strides: tuple[int, ...], folder: Path) -> Tensor:
    """``values`` with these strides, however large: in a sparse file, of which only the pages in use exist."""
    last = sum((size - 1) * stride for size, stride in zip(values.shape, strides, strict=True))
    numbers = np.memmap(folder / "numbers", dtype=values.numpy().dtype, mode="w+", shape=(last + 1,))
    tensor = torch.from_numpy(numbers).as_strided(values.shape, strides)
    tensor.copy_(values)
    return tensor
