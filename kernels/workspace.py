"""Large tensors whose memory is used again.

The allocator returns large pieces of memory to the system as soon as they are free, and the system hands them out
again page by page, zeroed: at 1,000 branches that alone doubled a training step. :func:`empty` keeps the memory of a
tensor for the next one of about its size, once nothing refers to the tensor (or a view of it) any more.
"""

from __future__ import annotations

import math
import threading
import weakref

import numpy as np
import torch
from torch import Tensor

LEAST_BYTES = 1 << 20  # smaller ones stay in the allocator's own lists
ALIGNMENT = 64
PATIENCE = 100  # a piece idle for that many calls of empty() is given up

_lock = threading.RLock()  # reentrant: a finalizer may run while the lock is held
_idle: list[tuple[int, np.ndarray]] = []  # when it was given back (by the count of _takes), and the memory
_takes = 0


def empty(shape: tuple[int, ...], like: Tensor) -> Tensor:
    """An uninitialised contiguous tensor with the dtype and device of ``like``.

    On the CPU and from 1 MiB on, its memory comes from, and later returns to, a pool; elsewhere this is
    ``torch.empty``. A piece of the pool serves tensors of its size down to 4/5 of it. Pieces idle for long are given
    up: sizes change when branches merge, and then the old ones are of no more use.
    """
    size = math.prod(shape) * like.element_size()
    if like.device.type != "cpu" or size < LEAST_BYTES:
        return torch.empty(shape, dtype=like.dtype, device=like.device)
    block = _take(size)
    lease = block[:size]  # an object of its own: torch holds on to it for as long as the tensor's storage lives
    weakref.finalize(lease, _give_back, block).atexit = False
    return torch.from_numpy(lease).view(like.dtype).view(shape)


def idle_bytes() -> int:
    """How much memory waits to be used again."""
    with _lock:
        return sum(block.nbytes for _, block in _idle)


def release() -> None:
    """Give up all idle memory."""
    with _lock:
        _idle.clear()


def renew_lock() -> None:
    """In a forked child: another thread of the parent may have held the lock, and is not there to give it back."""
    global _lock
    _lock = threading.RLock()


def _take(size: int) -> np.ndarray:
    """The smallest idle piece that fits, or a new one."""
    global _takes
    with _lock:
        _takes += 1
        _idle[:] = [piece for piece in _idle if piece[0] + PATIENCE >= _takes]
        fitting = [i for i, (_, block) in enumerate(_idle) if size <= block.nbytes <= size * 5 // 4]
        if fitting:
            return _idle.pop(min(fitting, key=lambda i: _idle[i][1].nbytes))[1]
    memory = np.empty(size + ALIGNMENT, dtype=np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + size]


def _give_back(block: np.ndarray) -> None:
    """What the end of a tensor calls."""
    with _lock:
        _idle.append((_takes, block))
