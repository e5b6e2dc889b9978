"""Launches of Triton kernels: on which device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode


class Kernel:
    """Stands for a kernel: records the device that is current at its launch."""

    def __init__(self) -> None:
        self.current: list[torch.device | None] = [None]
        self.launched: list[torch.device | None] = []

    def __getitem__(self, grid: tuple[int]) -> Any:
        return lambda **arguments: self.launched.append(self.current[-1])


@pytest.mark.parametrize("device", ["cuda:1", "cuda:0", "cpu"])
def test_the_device_of_the_tensors_is_current(monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    # Not at the head: the module needs Triton, which some machines lack.
    from selshare.kernels.launch import Launch

    kernel = Kernel()

    @contextmanager
    def current(device: torch.device) -> Iterator[None]:
        kernel.current.append(device)
        yield
        kernel.current.pop()

    monkeypatch.setattr(torch.cuda, "device", current)
    with FakeTensorMode():
        tensor = torch.empty(1, device=device)
    Launch(kernel, 1, {"none": None, "number": 1, "tensor": tensor}).run()
    assert kernel.launched == [None if device == "cpu" else torch.device(device)]
    assert kernel.current == [None]
