"""A launch of a Triton kernel as data: what the GPU runs is also what the ahead-of-time checks compile and count."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import triton.language as tl

from .checks import HALVES

MOST_REGISTERS = 168
"""Of a thread, where the assembler left alone takes fewer, to hold more blocks at once, and spills: three of 128."""


@dataclass(frozen=True, slots=True)
class Launch:
    """A kernel, its arguments and how it is compiled.

    Attributes
    ----------
    kernel
        The function decorated with ``triton.jit``.
    programs
        How many instances run: a grid of one dimension, which may have 2³¹ − 1.
    arguments
        By the names of the kernel's parameters: tensors, numbers, ``None``, and the compile-time constants.
    warps, stages
        Warps per program; depth of the software pipeline of loads in a loop with ``tl.dot``.
    fuse
        Whether products and sums may become fused multiply-adds.
    registers
        The most registers a thread may use; ``None`` leaves it to the compiler.
    """

    kernel: Any
    programs: int
    arguments: Mapping[str, Any]
    warps: int = 4
    stages: int = 2
    fuse: bool = True
    registers: int | None = None

    @property
    def options(self) -> dict[str, Any]:
        """The compiler's options."""
        return {
            "num_warps": self.warps,
            "num_stages": self.stages,
            "enable_fp_fusion": self.fuse,
            "maxnreg": self.registers,
        }

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return next(value.device for value in self.arguments.values() if isinstance(value, torch.Tensor))

    def run(self) -> None:
        """Launch on the current stream of the tensors' device, without waiting for the result.

        Triton launches on the current device, which need not be theirs. Autograd does not see what is changed in
        place: :func:`selshare.kernels.changes.mark_changed` tells it.
        """
        if self.device.type != "cuda":
            self._start()
            return
        with torch.cuda.device(self.device):
            self._start()

    def _start(self) -> None:
        self.kernel[(self.programs,)](**self.arguments, **self.options)


def sums_type(dtype: torch.dtype) -> Any:
    """The type that numbers of ``dtype`` are added up in: float32, or float64 for float64."""
    return tl.float64 if dtype == torch.float64 else tl.float32


def product_precision(dtype: torch.dtype) -> str:
    """How ``tl.dot`` multiplies numbers of ``dtype`` made float32 or float64, exactly in any case.

    TF32 holds every float16 and bfloat16.
    """
    return "tf32" if dtype in HALVES else "ieee"


def index_type(*extents: int) -> Any:
    """The type of offsets within a tile that reaches over so many numbers: int32 where it can hold them."""
    return tl.int32 if max(extents) < 2**31 else tl.int64
