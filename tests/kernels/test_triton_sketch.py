"""The Triton kernel under sketched capture: memory it must leave alone, and offsets past 2³¹."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from backends import forced
from fences import Fenced, spread
from selshare.kernels import SketchProjection, sketch_gradients


@pytest.fixture(autouse=True)
def backend() -> Iterator[str]:
    yield from forced("sketch_gradients", "triton")


def check(delta: Tensor, shared: Tensor, accumulator: Tensor, projection: SketchProjection) -> None:
    directions = projection.directions.reshape(projection.per_output, projection.outputs, -1)
    wanted = accumulator - 2 * torch.einsum("gbo,bh,joh->gjo", delta, shared, directions).reshape(accumulator.shape)
    sketch_gradients(delta, shared, accumulator, projection, scale=-2.0)
    torch.testing.assert_close(accumulator, wanted, rtol=0, atol=1e-5 * (1 + wanted.abs().max().item()))


@pytest.mark.parametrize(
    "shape", [(1, 1, 1, 1, 1), (9, 5, 33, 7, 17), (8, 6, 32, 4, 16), (3, 3, 5, 4, 3), (2, 3, 65, 4, 17)]
)
def test_within_its_tensors(shape: tuple[int, int, int, int, int]) -> None:
    G, B, N, H, per_output = shape
    delta, accumulator = Fenced(torch.randn(G, B, N)), Fenced(torch.randn(G, per_output * N))
    check(delta.tensor, torch.randn(B, H), accumulator.tensor, SketchProjection(N, H, per_output * N))
    assert accumulator.untouched()


@pytest.mark.parametrize("strides", [(2**30 + 64, 5, 1), (5, 2**30 + 1, 1), (20, 5, 2**29 + 1)])
def test_strides_past_two_to_the_31(tmp_path: Path, strides: tuple[int, int, int]) -> None:
    delta = spread(torch.randn(3, 4, 5), strides, tmp_path)
    check(delta, torch.randn(4, 6), torch.randn(3, 10), SketchProjection(5, 6, 10))
