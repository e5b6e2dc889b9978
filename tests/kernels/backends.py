"""The implementations of an operation as test parameters, so that one suite runs them all.

On a machine with a GPU ``SELSHARE_TEST_DEVICE=cuda`` runs the Triton and CUDA implementations there, on the same cases
(on_device.py). Without one, Triton's interpreter runs the former (test_triton_interpreted.py), and the source of the
latter, compiled for the CPU, stands in for them (cuda_on_cpu.py).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

from cuda_on_cpu import solved_on_cpu
from on_device import moved_to
from selshare.kernels import backend, use

DEVICE = os.environ.get("SELSHARE_TEST_DEVICE", "cpu")


def each_backend(operation: str) -> list[str]:
    """The names of all implementations of ``operation``, for ``pytest.mark.parametrize`` or fixture params."""
    return [implementation.backend for implementation in backend.implementations(operation)]


def forced(operation: str, name: str) -> Iterator[str]:
    """Body of a fixture: force ``name`` for the test, or skip with the reason why it cannot run here."""
    with _elsewhere(operation, name):
        (implementation,) = (i for i in backend.implementations(operation) if i.backend == name)
        reason = implementation.unusable("cpu" if implementation.fits("cpu") or DEVICE == "cpu" else DEVICE)
        if reason is not None:
            pytest.skip(f"{operation} on {name}: {reason}")
        with use(name):
            yield name


@contextmanager
def preferred(operation: str, name: str) -> Iterator[None]:
    """Run ``name`` where it can run here, else the reference: for loops over :func:`each_backend` within a test."""
    with _elsewhere(operation, name), use(name, "reference"):
        yield


def _elsewhere(operation: str, name: str) -> AbstractContextManager[None]:
    """Makes CPU tensors work with implementations for GPUs."""
    if name in ("triton", "cuda") and DEVICE != "cpu":
        return moved_to(DEVICE)
    return solved_on_cpu(operation, name)
