"""What a launch touches: bytes asked for by its programs, bytes to and from memory behind a cache, addresses.

Counted from the loads and stores of the compiled code (:mod:`benchmarks.triton_ir`), program after program in the
order of launch. A 32-byte sector comes from memory unless it was touched before and no more bytes than the cache
holds have passed since; what is written goes to memory once, by the same rule.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from benchmarks.triton_ir import Code
from selshare.kernels.launch import Launch

SECTOR = 32


@dataclass(frozen=True)
class Traffic:
    """Bytes of a launch."""

    requested: int  # by the programs, of the L2 cache and above
    moved: int  # between L2 cache and memory


def traffic(code: Code, launch: Launch, cache: int) -> Traffic:
    """Count over all programs of ``launch``."""
    given, tensors = _arguments(launch)
    seen = {(name, store): _never(tensor) for name, tensor in tensors.items() for store in (False, True)}
    requested = moved = 0
    passed = 0
    for program in range(launch.programs):
        for access in code.accesses(given, program):
            sectors = np.unique(access.elements * access.width // SECTOR)
            last = seen[access.argument, access.store]
            moved += SECTOR * int((passed - last[sectors] > cache).sum())
            last[sectors] = passed
            passed += SECTOR * len(sectors)
            requested += access.elements.size * access.width
    return Traffic(requested, moved)


def stays_inside(code: Code, launch: Launch) -> bool:
    """Whether the first and last programs touch nothing outside the tensors, and the last element is written."""
    given, tensors = _arguments(launch)
    last_written = False
    for program in (0, launch.programs - 1):
        for access in code.accesses(given, program):
            last = _last(tensors[access.argument])
            if access.elements.size and (access.elements.min() < 0 or access.elements.max() > last):
                return False
            last_written |= access.store and last in access.elements
    return bool(last_written)


def _arguments(launch: Launch) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What steers addresses, and all tensors."""
    tensors = {name: value for name, value in launch.arguments.items() if isinstance(value, Tensor)}
    steering = {
        name: value.numpy() if name in tensors else value
        for name, value in launch.arguments.items()
        if name not in tensors or not value.is_floating_point()
    }
    return steering, tensors


def _last(tensor: Tensor) -> int:
    """The offset of a tensor's last element."""
    return sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))


def _never(tensor: Tensor) -> np.ndarray:
    """For each sector of a tensor, how many bytes had passed when it was last touched: never yet."""
    return np.full((_last(tensor) + 1) * tensor.element_size() // SECTOR + 1, -np.inf)
