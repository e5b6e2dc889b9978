"""Subnormal numbers counted as zero: what keeps a converged model as fast as a new one.

Between 0 and the smallest number of full precision (1.2e-38 in float32, 2.2e-308 in float64) lie the subnormal
numbers, with which a processor computes many times slower. Tasks that are learned have such gradients, momentum that
dies away passes through them, and with many tasks there is always one that is learned.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

import torch

from .backend import native_missing


@contextmanager
def subnormals_as_zero() -> Iterator[None]:
    """Within this, subnormal numbers count as zero on the CPU: as operands and as results, in float32 and float64.

    :class:`selshare.Trainer` steps within it; a loop of one's own does well to::

        with subnormals_as_zero():
            model.loss(model(inputs), targets).backward()
            optimizer.step()

    It holds for the calling thread and the threads that torch and the compiled kernels compute with for it
    (``torch.set_flush_denormal``, which is what is used where the compiled extension is missing, sets the calling
    thread only), on x86-64, and on ARM64, where it has not been run; elsewhere nothing changes. Afterwards all is as it
    was found in the calling thread. Costs some microseconds.

    Notes
    -----
    A result changes by less than the smallest number of full precision, which float32 weights above 1e-30 do not
    notice. NumPy warns where it first looks up the limits of a dtype within this, and rightly: the smallest subnormal
    *is* zero then. Hence around a step, not around a program.
    """
    was = _are_zero()
    _setter()(True)
    try:
        yield
    finally:
        _setter()(was)


def _are_zero() -> bool:
    """What the calling thread does now, asked of Python's own floats: torch tells only how it was set."""
    return sys.float_info.min * 0.5 == 0.0


@cache
def _setter() -> Callable[[bool], object]:
    """What sets the mode."""
    if native_missing() is not None:
        return torch.set_flush_denormal
    from selshare import _native  # here, as it need not be there

    return lambda zero: _native.set_subnormals_as_zero(zero, torch.get_num_threads())
