"""Operations that change tensors in place say so to autograd, which sees none of them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from selshare.kernels import (
    SketchProjection,
    capture_gradients,
    fused_adam_step,
    fused_sgd_step,
    sketch_gradients,
    use,
)

G, B, N, H = 2, 3, 4, 5
OPERATIONS: dict[str, tuple[tuple[int, ...], Callable[[Tensor, Tensor, Tensor], None]]] = {
    "capture_gradients": ((G, N, H), capture_gradients),
    "sketch_gradients": (
        (G, 8),
        lambda delta, shared, t: sketch_gradients(delta, shared, t, SketchProjection(N, H, 8)),
    ),
    "weight by SGD": ((G, N, H), lambda delta, shared, t: fused_sgd_step(delta, shared, t, None, None, lr=0.1)),
    "momentum": (
        (G, N, H),
        lambda delta, shared, t: fused_sgd_step(delta, shared, zeros(), t, None, lr=0.1, momentum=0.9),
    ),
    "accumulator of SGD": (
        (G, N, H),
        lambda delta, shared, t: fused_sgd_step(delta, shared, zeros(), None, t, lr=0.1),
    ),
    "weight by Adam": (
        (G, N, H),
        lambda delta, shared, t: fused_adam_step(delta, shared, t, zeros(), zeros(), None, step=1, lr=0.1),
    ),
    "first moment": (
        (G, N, H),
        lambda delta, shared, t: fused_adam_step(delta, shared, zeros(), t, zeros(), None, step=1, lr=0.1),
    ),
    "second moment": (
        (G, N, H),
        lambda delta, shared, t: fused_adam_step(delta, shared, zeros(), zeros(), t, None, step=1, lr=0.1),
    ),
    "accumulator of Adam": (
        (G, N, H),
        lambda delta, shared, t: fused_adam_step(delta, shared, zeros(), zeros(), zeros(), t, step=1, lr=0.1),
    ),
}


def zeros() -> Tensor:
    return torch.zeros(G, N, H)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_graph_that_saved_what_is_changed_refuses_to_use_it(operation: str) -> None:
    shape, change = OPERATIONS[operation]
    tensor, factor = torch.ones(shape), torch.ones(shape, requires_grad=True)
    product = (factor * tensor).sum()
    with use("native", "reference"):
        change(torch.randn(G, B, N), torch.randn(B, H), tensor)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        product.backward()
