"""Operations on CPU tensors carried out on another device: suites written for the CPU run there unchanged.

Whole storages are moved, so that strides, overlaps and what lies around a tensor stay as they are, and are moved back
after the call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass, replace
from types import SimpleNamespace
from typing import Any

import pytest
from torch import Tensor

from selshare.kernels import backend


@contextmanager
def moved_to(device: str) -> Iterator[None]:
    """Operations called on CPU tensors run on ``device``."""
    choose = backend.choose

    def moving(operation: str, where: str) -> Any:
        if where != "cpu":
            return choose(operation, where)
        chosen = choose(operation, device)
        return SimpleNamespace(load=lambda: on_device(chosen.load(), device))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backend, "choose", moving)
        yield


def on_device(function: Callable[..., Any], device: str) -> Callable[..., Any]:
    """``function`` for CPU tensors, computed on ``device``; what it writes into its arguments is written here too."""

    def call(*arguments: Any, **options: Any) -> Any:
        there: dict[int, tuple[Tensor, Tensor]] = {}  # by storage: all of it here, and its copy

        def move(value: Any) -> Any:
            if not isinstance(value, Tensor) or value.device.type != "cpu":
                return value
            address = value.untyped_storage().data_ptr()
            if address not in there:
                items = value.untyped_storage().nbytes() // value.itemsize
                flat = value.detach().as_strided((items,), (1,), 0)
                there[address] = (flat, flat.to(device, copy=True))
            _, copy = there[address]
            return copy.view(value.dtype).as_strided(value.shape, value.stride(), value.storage_offset())

        result = function(*map(move, arguments), **{name: move(value) for name, value in options.items()})
        for flat, copy in there.values():
            flat.copy_(copy)
        return to_cpu(result)

    return call


def to_cpu(value: Any) -> Any:
    """``value`` with all tensors in it on the CPU."""
    if isinstance(value, Tensor):
        return value.cpu()
    if isinstance(value, list | tuple):
        moved = [to_cpu(one) for one in value]
        return type(value)(*moved) if hasattr(value, "_fields") else type(value)(moved)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{field.name: to_cpu(getattr(value, field.name)) for field in fields(value)})
    return value
