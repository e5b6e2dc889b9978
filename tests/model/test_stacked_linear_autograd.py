"""The layers' autograd: first and second derivatives, torch.func, vmap, torch.compile and autocast."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from selshare.model.stacked_linear import fork_linear, stacked_linear


def layers(sources: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    """features (S, 4, 5), weight (3, 2, 5), bias (3, 2), to be differentiated."""
    shapes = ((sources, 4, 5), (3, 2, 5), (3, 2))
    features, weight, bias = (torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes)
    return features, weight, bias


@pytest.mark.parametrize("rectify", [False, True])
@pytest.mark.parametrize("source", [None, torch.tensor([1, 0, 1])], ids=["own", "source"])
def test_first_and_second_derivatives(rectify: bool, source: Tensor | None) -> None:
    def run(features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return stacked_linear(features, weight, bias, source=source, rectify=rectify)

    assert torch.autograd.gradcheck(run, layers())
    assert torch.autograd.gradgradcheck(run, layers())


def test_the_fork_has_one_input_for_all() -> None:
    shared = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    _, weight, bias = layers()
    assert torch.autograd.gradcheck(fork_linear, (shared, weight, bias))
    assert torch.autograd.gradgradcheck(fork_linear, (shared, weight, bias))


def test_batched_gradients() -> None:
    features, weight, bias = layers()
    outputs = stacked_linear(features, weight, bias, rectify=True).flatten()
    rows = torch.eye(outputs.numel(), dtype=torch.float64)
    (batched,) = torch.autograd.grad(outputs, [features], rows, is_grads_batched=True, retain_graph=True)
    looped = [torch.autograd.grad(outputs, [features], row, retain_graph=True)[0] for row in rows]
    torch.testing.assert_close(batched, torch.stack(looped))


def test_torch_func() -> None:
    features, weight, bias = (tensor.detach() for tensor in layers())

    def total(weight: Tensor) -> Tensor:
        return stacked_linear(features, weight, bias, rectify=True).square().sum()

    leaf = weight.clone().requires_grad_()
    total(leaf).backward()
    torch.testing.assert_close(torch.func.grad(total)(weight), leaf.grad)
    torch.testing.assert_close(torch.func.vmap(total)(weight.expand(2, 3, 2, 5)), total(weight).expand(2))


def test_compile_takes_the_layer_whole() -> None:
    features, weight, bias = (tensor.detach().float() for tensor in layers())
    compiled = torch.compile(stacked_linear, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(features, weight, bias), stacked_linear(features, weight, bias))


def test_autocast_takes_plain_torch() -> None:
    features, weight, bias = (tensor.detach().float() for tensor in layers())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = stacked_linear(features, weight, bias)
    assert outputs.dtype == torch.bfloat16
    torch.testing.assert_close(outputs.float(), stacked_linear(features, weight, bias), rtol=0.05, atol=0.05)


def test_half_precision_runs() -> None:
    features, weight, bias = (tensor.detach().bfloat16() for tensor in layers())
    assert stacked_linear(features, weight, bias).dtype == torch.bfloat16
