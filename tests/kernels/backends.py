"""The implementations of an operation as test parameters, so that one suite runs them all."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from selshare.kernels import backend, use


def each_backend(operation: str) -> list[str]:
    """The names of all implementations of ``operation``, for ``pytest.mark.parametrize`` or fixture params."""
    return [implementation.backend for implementation in backend.implementations(operation)]


def forced(operation: str, name: str, device: str = "cpu") -> Iterator[str]:
    """Body of a fixture: force ``name`` for the test, or skip with the reason why it cannot run here."""
    (implementation,) = (i for i in backend.implementations(operation) if i.backend == name)
    reason = implementation.unusable(device)
    if reason is not None:
        pytest.skip(f"{operation} on {name}: {reason}")
    with use(name):
        yield name
