"""Triton: the gradient is added from registers, never stored (see :mod:`selshare.kernels.gradient_tile`)."""

from __future__ import annotations

from torch import Tensor

from ..gradient_tile import gradient_launch


def capture_gradients(delta: Tensor, shared: Tensor, accumulator: Tensor, *, scale: float) -> None:
    """See :func:`selshare.kernels.capture_gradients`."""
    gradient_launch(delta, shared, accumulator, scale=scale).run()
