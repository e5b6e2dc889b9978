"""fused_sgd_step and fused_adam_step: every implementation against torch.optim, and their refusals."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from backends import each_backend, forced
from selshare.kernels import fused_adam_step, fused_sgd_step

TOLERANCE = {torch.float32: 5e-6, torch.float64: 1e-13}
DTYPES = pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)
SHAPES = [(1, 1, 1, 1), (3, 5, 7, 11), (9, 64, 20, 70), (5, 17, 33, 65)]  # G, B, O, H
SGD = [
    {},
    {"momentum": 0.9},
    {"momentum": 0.5, "weight_decay": 0.01},
    {"momentum": 0.9, "dampening": 0.3, "weight_decay": 0.1},
    {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01},
    {"momentum": 0.9, "maximize": True, "weight_decay": 0.01},
]
ADAM = [
    {},
    {"betas": (0.8, 0.99), "eps": 1e-4},
    {"weight_decay": 0.1},
    {"weight_decay": 0.1, "maximize": True},
    {"weight_decay": 0.1, "decoupled": True},
]


@pytest.fixture(params=each_backend("fused_sgd_step"))
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    yield from forced("fused_sgd_step", request.param)


def batches(
    shape: tuple[int, int, int, int], dtype: torch.dtype, per_branch: bool, steps: int
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """``(delta, shared, gradient)`` for some steps; the gradient by einsum."""
    G, B, N, H = shape
    made = []
    for _ in range(steps):
        delta = torch.randn(G, B, N, dtype=dtype) / B
        shared = torch.randn(*([G] if per_branch else []), B, H, dtype=dtype)
        gradient = torch.einsum("gbo,gbh->goh", delta.double(), shared.double().expand(G, B, H)).to(dtype)
        made.append((delta, shared, gradient))
    return made


def close(actual: Tensor, wanted: Tensor, dtype: torch.dtype) -> None:
    torch.testing.assert_close(actual, wanted, rtol=0, atol=TOLERANCE[dtype] * (1 + wanted.abs().max().item()))


@DTYPES
@pytest.mark.parametrize("options", SGD, ids=str)
def test_sgd_is_torch_sgd(backend: str, dtype: torch.dtype, options: dict[str, Any]) -> None:
    for per_branch in (False, True):
        _check_sgd(dtype, (3, 5, 7, 11), per_branch, options)


@DTYPES
@pytest.mark.parametrize("shape", SHAPES)
def test_sgd_on_any_shape(backend: str, dtype: torch.dtype, shape: tuple[int, int, int, int]) -> None:
    for per_branch in (False, True):
        _check_sgd(dtype, shape, per_branch, {"momentum": 0.9, "weight_decay": 0.1})


def _check_sgd(dtype: torch.dtype, shape: tuple[int, int, int, int], per_branch: bool, options: dict[str, Any]) -> None:
    G, _, N, H = shape
    theirs = torch.nn.Parameter(torch.randn(G, N, H, dtype=dtype))
    weight = theirs.detach().clone()
    buffer = torch.zeros_like(weight) if options.get("momentum") else None
    captured, total = torch.zeros_like(weight), torch.zeros_like(weight)
    optimizer = torch.optim.SGD([theirs], lr=0.1, **options)
    for i, (delta, shared, gradient) in enumerate(batches(shape, dtype, per_branch, 4)):
        theirs.grad = gradient
        optimizer.step()
        total += gradient
        rule = options | ({"dampening": 0.0} if i == 0 else {})
        fused_sgd_step(delta, shared, weight, buffer, captured, lr=0.1, **rule)
    close(weight, theirs.detach(), dtype)
    close(captured, total, dtype)
    if buffer is not None:
        close(buffer, optimizer.state[theirs]["momentum_buffer"], dtype)


@DTYPES
@pytest.mark.parametrize("options", ADAM, ids=str)
def test_adam_is_torch_adam(backend: str, dtype: torch.dtype, options: dict[str, Any]) -> None:
    _check_adam(dtype, (3, 5, 7, 11), options)


@DTYPES
@pytest.mark.parametrize("shape", SHAPES)
def test_adam_on_any_shape(backend: str, dtype: torch.dtype, shape: tuple[int, int, int, int]) -> None:
    _check_adam(dtype, shape, {"weight_decay": 0.1})


def _check_adam(dtype: torch.dtype, shape: tuple[int, int, int, int], options: dict[str, Any]) -> None:
    G, _, N, H = shape
    theirs = torch.nn.Parameter(torch.randn(G, N, H, dtype=dtype))
    weight = theirs.detach().clone()
    first, second, captured = (torch.zeros_like(weight) for _ in range(3))
    total = torch.zeros_like(weight)
    plain = {name: value for name, value in options.items() if name != "decoupled"}
    optimizer = (torch.optim.AdamW if options.get("decoupled") else torch.optim.Adam)(
        [theirs], lr=0.01, **{"weight_decay": 0.0, **plain}
    )
    for i, (delta, shared, gradient) in enumerate(batches(shape, dtype, False, 4)):
        theirs.grad = gradient
        optimizer.step()
        total += gradient
        fused_adam_step(delta, shared, weight, first, second, captured, step=i + 1, lr=0.01, **options)
    state = optimizer.state[theirs]
    close(first, state["exp_avg"], dtype)
    close(second, state["exp_avg_sq"], dtype)
    close(captured, total, dtype)
    # Where a gradient nearly cancels, Adam's ratio of moments makes rounding of it large: compare where it is not.
    clear = total.abs() > 1e-3 * total.abs().max()
    close(weight[clear], theirs.detach()[clear], dtype)


@DTYPES
@pytest.mark.parametrize("decoupled", [False, True])
def test_adam_counts_in_a_tensor(backend: str, dtype: torch.dtype, decoupled: bool) -> None:
    delta, shared = torch.randn(3, 5, 7, dtype=dtype), torch.randn(5, 11, dtype=dtype)
    states = [[torch.ones(3, 7, 11, dtype=dtype) for _ in range(3)] for _ in range(2)]
    for step in (1, 2, 50):
        rule: dict[str, Any] = {"betas": (0.8, 0.95), "weight_decay": 0.1, "decoupled": decoupled}
        fused_adam_step(delta, shared, *states[0], None, step=step, lr=0.03, **rule)
        number, rate = torch.tensor(float(step)), torch.tensor(0.03, dtype=torch.float64)
        fused_adam_step(delta, shared, *states[1], None, step=number, lr=rate, **rule)
    for one, other in zip(*states, strict=True):
        close(other, one, dtype)
    with pytest.raises(ValueError, match="step must be at least 1; it is 0"):
        fused_adam_step(delta, shared, *states[0], None, step=torch.tensor(0.0), lr=0.1)


def test_without_accumulator_the_update_is_the_same(backend: str) -> None:
    ((delta, shared, _),) = batches((3, 5, 7, 11), torch.float64, False, 1)
    weights = [torch.ones(3, 7, 11, dtype=torch.float64) for _ in range(2)]
    fused_sgd_step(delta, shared, weights[0], None, torch.zeros_like(weights[0]), lr=0.1)
    fused_sgd_step(delta, shared, weights[1], None, None, lr=0.1)
    assert torch.equal(weights[0], weights[1])


def test_scale_is_a_factor_of_the_gradient(backend: str) -> None:
    ((delta, shared, gradient),) = batches((3, 5, 7, 11), torch.float64, True, 1)
    weight, captured = torch.zeros(3, 7, 11, dtype=torch.float64), torch.zeros(3, 7, 11, dtype=torch.float64)
    fused_sgd_step(delta, shared, weight, None, captured, lr=1.0, scale=0.25)
    close(captured, 0.25 * gradient, torch.float64)
    close(weight, -0.25 * gradient, torch.float64)


def test_rectify_is_the_relu_before_the_layer(backend: str) -> None:
    delta, shared = torch.randn(4, 6, 5), torch.randn(4, 6, 7)
    weights = [torch.zeros(4, 5, 7) for _ in range(4)]
    fused_sgd_step(delta, shared, weights[0], None, None, lr=1.0, rectify=True)
    fused_sgd_step(delta, shared.relu(), weights[1], None, None, lr=1.0)
    close(weights[0], weights[1], torch.float32)
    state = [torch.zeros(4, 5, 7) for _ in range(4)]
    fused_adam_step(delta, shared, weights[2], state[0], state[1], None, step=1, lr=1.0, rectify=True)
    fused_adam_step(delta, shared.relu(), weights[3], state[2], state[3], None, step=1, lr=1.0)
    close(state[0], state[2], torch.float32)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_inputs_update_float32_weights(backend: str, dtype: torch.dtype) -> None:
    delta, shared = torch.randn(3, 40, 7).to(dtype), torch.randn(3, 40, 11).to(dtype)
    gradient = torch.einsum("gbo,gbh->goh", delta.double(), shared.double()).float()
    weight, moments = torch.zeros(3, 7, 11), [torch.zeros(3, 7, 11) for _ in range(3)]
    fused_sgd_step(delta, shared, weight, None, moments[0], lr=0.5)
    close(moments[0], gradient, torch.float32)
    close(weight, -0.5 * gradient, torch.float32)
    fused_adam_step(delta, shared, weight, moments[1], moments[2], None, step=1, lr=0.1, betas=(0.5, 0.5))
    close(moments[1], 0.5 * gradient, torch.float32)
    close(moments[2], 0.5 * gradient.square(), torch.float32)


def test_autograd_notices_the_change(backend: str) -> None:
    weight = torch.ones(2, 3, 4, requires_grad=True)
    loss = (weight**2).sum()
    fused_sgd_step(torch.randn(2, 5, 3), torch.randn(5, 4), weight, None, None, lr=0.1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_strided_inputs(backend: str) -> None:
    delta, shared = torch.randn(8, 6, 5).transpose(0, 1), torch.randn(6, 7, 8).transpose(1, 2)
    weight = torch.zeros(6, 5, 7)
    fused_sgd_step(delta, shared, weight, None, None, lr=1.0)
    close(weight, -torch.einsum("gbo,gbh->goh", delta, shared), torch.float32)


def test_an_empty_batch_still_decays(backend: str) -> None:
    weight, buffer = torch.ones(2, 3, 4), torch.ones(2, 3, 4)
    fused_sgd_step(torch.zeros(2, 0, 3), torch.zeros(0, 4), weight, buffer, None, lr=0.5, momentum=0.5)
    assert (buffer == 0.5).all()
    assert (weight == 0.75).all()


def test_refusals() -> None:
    delta, shared, weight = torch.zeros(2, 4, 3), torch.zeros(4, 5), torch.zeros(2, 3, 5)
    with pytest.raises(ValueError, match=r"momentum is 0\.9 but momentum_buffer is None"):
        fused_sgd_step(delta, shared, weight, None, None, lr=0.1, momentum=0.9)
    with pytest.raises(ValueError, match="Nesterov"):
        fused_sgd_step(delta, shared, weight, None, None, lr=0.1, nesterov=True)
    with pytest.raises(ValueError, match="momentum_buffer must have shape"):
        fused_sgd_step(delta, shared, weight, weight[:1], None, lr=0.1, momentum=0.9)
    with pytest.raises(ValueError, match="step must be at least 1; it is 0"):
        fused_adam_step(delta, shared, weight, weight.clone(), weight.clone(), None, step=0, lr=0.1)
    delta[0, 0, 0] = float("inf")
    with pytest.raises(ValueError, match="delta holds NaN or Inf in branch 0"):
        fused_sgd_step(delta, shared, weight, None, None, lr=0.1)
    assert (weight == 0).all()
