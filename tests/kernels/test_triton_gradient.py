"""The Triton kernel under capture and the fused steps: memory it must leave alone, offsets past 2³¹, sources."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from backends import forced
from fences import Fenced, spread
from selshare.kernels import capture_gradients, fused_adam_step, fused_sgd_step

# G, B, O, H: one tile, tiles that end within a branch, rows that run through several branches.
SHAPES = pytest.mark.parametrize("shape", [(1, 1, 1, 1), (3, 18, 30, 66), (2, 33, 65, 20)])


@pytest.fixture(autouse=True)
def backend() -> Iterator[str]:
    yield from forced("capture_gradients", "triton")


def gradient_of(delta: Tensor, shared: Tensor) -> Tensor:
    return torch.einsum("gbo,gbh->goh", delta.double(), shared.double().expand(len(delta), *shared.shape[-2:]))


def close(actual: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(actual.double(), wanted.double(), rtol=0, atol=1e-5 * (1 + wanted.abs().max().item()))


@SHAPES
@pytest.mark.parametrize("per_branch", [False, True])
def test_capture_keeps_within_its_tensors(shape: tuple[int, int, int, int], per_branch: bool) -> None:
    G, B, N, H = shape
    delta = Fenced(torch.randn(G, B, N))
    shared = Fenced(torch.randn(*([G] if per_branch else []), B, H))
    accumulator = Fenced(torch.ones(G, N, H))
    capture_gradients(delta.tensor, shared.tensor, accumulator.tensor, scale=-2.0)
    close(accumulator.tensor, 1 - 2 * gradient_of(delta.tensor, shared.tensor))
    assert accumulator.untouched()


@SHAPES
def test_the_fused_steps_keep_within_their_tensors(shape: tuple[int, int, int, int]) -> None:
    G, B, N, H = shape
    delta, shared = Fenced(torch.randn(B, G, N)), Fenced(torch.randn(B, H))
    state = [Fenced(torch.zeros(G, N, H)) for _ in range(4)]
    weight, first, second, accumulator = (fenced.tensor for fenced in state)
    gradient = gradient_of(delta.tensor.transpose(0, 1), shared.tensor)
    fused_sgd_step(delta.tensor.transpose(0, 1), shared.tensor, weight, first, accumulator, lr=1.0, momentum=0.5)
    close(weight, -gradient)
    close(first, gradient)
    close(accumulator, gradient)
    first.zero_()
    fused_adam_step(
        delta.tensor.transpose(0, 1), shared.tensor, weight, first, second, accumulator, step=1, lr=1.0, betas=(0.5, 0)
    )
    close(first, 0.5 * gradient)
    close(second, gradient.square())
    close(weight, -gradient - gradient / (gradient.abs() + 1e-8))
    assert all(fenced.untouched() for fenced in state)


# Branches, samples (past a block of them) and outputs or inputs that are far apart.
FAR = pytest.mark.parametrize(
    ("shape", "strides"),
    [((3, 4, 5), (2**30 + 64, 5, 1)), ((2, 18, 5), (5, 2**27 + 1, 1)), ((2, 4, 5), (20, 5, 2**29 + 1))],
)


@FAR
def test_strides_past_two_to_the_31(tmp_path: Path, shape: tuple[int, int, int], strides: tuple[int, int, int]) -> None:
    branches, samples, outputs = shape
    delta = spread(torch.randn(shape).half(), strides, tmp_path)
    shared = torch.randn(samples, 6).half()
    for inputs in (shared, shared.expand(branches, samples, 6)):
        accumulator = torch.zeros(branches, outputs, 6)
        capture_gradients(delta, inputs, accumulator, check_finite=False)
        close(accumulator, gradient_of(delta, inputs))


@FAR
def test_inputs_with_strides_past_two_to_the_31(
    tmp_path: Path, shape: tuple[int, int, int], strides: tuple[int, int, int]
) -> None:
    branches, samples, inputs = shape
    delta, shared = torch.randn(branches, samples, 4).half(), spread(torch.randn(shape).half(), strides, tmp_path)
    accumulator = torch.zeros(branches, 4, inputs)
    capture_gradients(delta, shared, accumulator, check_finite=False)
    close(accumulator, gradient_of(delta, shared))
