"""Subnormal numbers count as zero inside, on all threads (two, see conftest.py), and are what they were afterwards."""

from __future__ import annotations

import sys
import threading
from contextlib import nullcontext

import pytest
import torch

from selshare.kernels import fused_sgd_step, subnormals, subnormals_as_zero

TINY = {torch.float32: 1e-40, torch.float64: 1e-310}
MANY = 1 << 20  # numbers enough for torch to use all its threads


def flushed() -> bool:
    return sys.float_info.min * 0.5 == 0.0


def zeros_of(values: torch.Tensor) -> int:
    """How many are zero, by their bits: a comparison would take a subnormal number for zero inside."""
    return int((values.view(torch.int32 if values.dtype == torch.float32 else torch.int64) == 0).sum())


@pytest.mark.parametrize("dtype", TINY)
def test_on_all_threads_of_torch(dtype: torch.dtype) -> None:
    tiny = torch.full((MANY,), TINY[dtype], dtype=dtype)
    with subnormals_as_zero():
        inside = tiny * 1.0
    after = tiny * 1.0
    assert zeros_of(inside) == MANY
    assert zeros_of(after) == 0


def test_on_all_threads_of_the_compiled_kernels() -> None:
    branches, outputs, features, samples = 64, 32, 48, 64
    delta, inputs = torch.full((branches, samples, outputs), 1e-20), torch.full((samples, features), 1e-21)
    steps = []
    for mode in (subnormals_as_zero, nullcontext):
        weight = torch.zeros(branches, outputs, features)
        with mode():
            fused_sgd_step(delta, inputs, weight, None, None, lr=1.0)
        steps.append(zeros_of(weight))
    assert steps == [branches * outputs * features, 0]


def test_what_is_normal_is_as_ever() -> None:
    values = torch.logspace(-37, 38, 200)
    with subnormals_as_zero():
        inside = values * 0.3, values.sqrt(), values.log()
    for one, other in zip(inside, (values * 0.3, values.sqrt(), values.log()), strict=True):
        assert torch.equal(one, other)


def test_afterwards_it_is_as_it_was_found() -> None:
    assert not flushed()
    with subnormals_as_zero():
        with subnormals_as_zero():
            assert flushed()
        assert flushed()
    assert not flushed()


def test_an_error_leaves_it_as_it_was_found() -> None:
    with pytest.raises(ZeroDivisionError), subnormals_as_zero():
        raise ZeroDivisionError
    assert not flushed()


def test_other_threads_go_on_as_they_were() -> None:
    found: list[bool] = []
    go, stop = threading.Event(), threading.Event()

    def other() -> None:
        go.wait()
        found.append(flushed())
        stop.set()

    thread = threading.Thread(target=other)
    thread.start()
    with subnormals_as_zero():
        go.set()
        stop.wait()
    thread.join()
    assert found == [False]


def test_without_the_compiled_extension_it_holds_for_the_calling_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subnormals, "native_missing", lambda: "not built")
    subnormals._setter.cache_clear()
    try:
        with subnormals_as_zero():
            assert flushed()
        assert not flushed()
    finally:
        subnormals._setter.cache_clear()
