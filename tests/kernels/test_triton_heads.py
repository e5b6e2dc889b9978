"""The Triton kernels for layers that share inputs: memory they must leave alone, and offsets past 2³¹."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from backends import forced
from fences import Fenced, spread
from selshare.kernels import stacked_linear, stacked_linear_backward, weight_gradient

# S, G, B, O, I: heads of one output; more than a tile of samples, outputs and features; a branch without a head.
CASES = pytest.mark.parametrize("case", [(2, 5, 3, 1, 4), (3, 4, 65, 20, 70), (6, 3, 66, 70, 33)])


@pytest.fixture(autouse=True)
def backend() -> Iterator[str]:
    yield from forced("stacked_linear", "triton")


def close(actual: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(actual, wanted, rtol=0, atol=1e-5 * (1 + wanted.abs().max().item()))


@CASES
def test_within_their_tensors(case: tuple[int, int, int, int, int]) -> None:
    # Not at the head: these modules need Triton, which some machines lack.
    from selshare.kernels.gradient_tile import gradient_launch
    from selshare.kernels.stacked_linear.triton import backward_launch, forward_launch

    S, G, B, N, features = case
    source = torch.arange(G).flip(0) * 2 % S
    inputs, weight = Fenced(torch.randn(S, B, features)), Fenced(torch.randn(G, N, features))
    bias, delta = Fenced(torch.randn(G, N)), Fenced(torch.randn(G, B, N))
    outputs, by_inputs = Fenced(torch.zeros(G, B, N)), Fenced(torch.zeros(S, B, features))
    forward_launch(inputs.tensor, weight.tensor, bias.tensor, source, True, outputs.tensor).run()
    own = inputs.tensor[source]
    close(outputs.tensor, torch.baddbmm(bias.tensor[:, None], own.relu(), weight.tensor.mT))
    backward_launch(delta.tensor, inputs.tensor, weight.tensor, source, True, by_inputs.tensor).run()
    summed = torch.zeros(S, B, features).index_add(0, source, torch.bmm(delta.tensor, weight.tensor))
    close(by_inputs.tensor, torch.where(inputs.tensor <= 0, 0.0, summed))
    by_weight = Fenced(torch.zeros(G, N, features))
    gradient_launch(delta.tensor, inputs.tensor, by_weight.tensor, source=source, rectify=True, overwrite=True).run()
    close(by_weight.tensor, torch.einsum("gbo,gbi->goi", delta.tensor, own.relu()))
    assert all(fenced.untouched() for fenced in (outputs, by_inputs, by_weight))


# Inputs, samples and features (past a block of them) that are far apart.
@pytest.mark.parametrize(
    ("shape", "strides"),
    [((3, 4, 5), (2**30 + 64, 5, 1)), ((3, 4, 5), (20, 2**30 + 1, 1)), ((3, 4, 34), (8, 2, 2**26 + 1))],
)
def test_strides_past_two_to_the_31(tmp_path: Path, shape: tuple[int, int, int], strides: tuple[int, int, int]) -> None:
    values, weight, source = torch.randn(shape), torch.randn(2, 6, shape[2]), torch.tensor([2, 0])
    delta = torch.randn(2, 4, 6)
    inputs = spread(values, strides, tmp_path)
    close(stacked_linear(inputs, weight, None, source=source), torch.bmm(values[source], weight.mT))
    gradients = stacked_linear_backward(delta, inputs, weight, source=source, rectify=True)
    wanted = torch.zeros(shape).index_add(0, source, torch.bmm(delta, weight))
    assert gradients.inputs is not None
    close(gradients.inputs, torch.where(values <= 0, 0.0, wanted))
    close(weight_gradient(delta, inputs, source=source), torch.einsum("gbo,gbi->goi", delta, values[source]))


def test_weights_and_biases_with_strides_past_two_to_the_31(tmp_path: Path) -> None:
    values, source = torch.randn(2, 6, 34), torch.tensor([2, 0])
    weight = spread(values, (16, 2, 2**26 + 1), tmp_path)
    inputs, delta = torch.randn(3, 4, 34), torch.randn(2, 4, 6)
    close(stacked_linear(inputs, weight, None, source=source), torch.bmm(inputs[source], values.mT))
    gradients = stacked_linear_backward(delta, inputs, weight, source=source)
    assert gradients.inputs is not None
    close(gradients.inputs, torch.zeros(3, 4, 34).index_add(0, source, torch.bmm(delta, values)))
    numbers = torch.randn(2, 6)
    bias = spread(numbers, (1, 2**29 + 1), tmp_path)
    close(
        stacked_linear(inputs, values, bias, source=source), torch.baddbmm(numbers[:, None], inputs[source], values.mT)
    )
