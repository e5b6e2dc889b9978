"""Running operations on a device for tests that know only the CPU (on_device.py)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from on_device import moved_to, on_device, to_cpu
from selshare.kernels import backend


class Two(NamedTuple):
    a: Tensor
    b: int


@dataclass(frozen=True)
class Held:
    parts: list[Tensor]
    two: Two


def test_storages_are_moved_whole_and_back() -> None:
    base = torch.arange(12.0)
    view, other, alone = base[1::3].unflatten(0, (2, 2)), base[5:7], torch.tensor([1, 2])

    def double(x: Tensor, *, y: Tensor, z: Tensor) -> tuple[Tensor, list[Tensor]]:
        assert x.stride() == view.stride()
        assert x.untyped_storage().data_ptr() == y.untyped_storage().data_ptr() != base.data_ptr()
        x.mul_(2)
        z.add_(1)
        return y + 1, [x]

    first, (second,) = on_device(double, "cpu")(view, y=other, z=alone)
    assert base.tolist() == [0, 2, 2, 3, 8, 5, 6, 14, 8, 9, 20, 11]
    assert alone.tolist() == [2, 3]
    assert first.tolist() == [6, 7]
    assert second.tolist() == [[2, 8], [14, 20]]


def test_results_keep_their_types() -> None:
    held = Held([torch.ones(2)], Two(torch.zeros(1), 3))
    moved = to_cpu((held, None))
    assert type(moved) is tuple
    assert type(moved[0]) is Held
    assert type(moved[0].two) is Two
    assert moved[0].two.b == 3


def test_only_calls_with_cpu_tensors_are_moved() -> None:
    with moved_to("meta"):
        assert backend.choose("batched_eigh", "meta").backend == "reference"
        values, _ = backend.select("batched_eigh", torch.device("meta"))(torch.empty(2, 3, 3, device="meta"))
    assert values.shape == (2, 3)
