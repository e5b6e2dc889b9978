"""The fused step: weight gradient, capture and optimizer update of a bank in one pass.

Ordinary training writes the gradient of a bank's weights to memory, reads it back to capture it and reads it again
to update. Here the gradient ``δ_gᵀ A`` of a piece of the bank is formed and consumed at once; the whole is never
stored. Rules and rounding are those of ``torch.optim.SGD``, ``Adam`` and ``AdamW``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import pairwise

from torch import Tensor

from ..backend import register, select
from ..capture.shapes import require_bank_shapes
from ..changes import mark_changed
from ..checks import require_finite, require_float, require_integer, require_number, require_tensor

__all__ = ["fused_adam_step", "fused_sgd_step"]


def fused_sgd_step(
    delta: Tensor,
    shared: Tensor,
    weight: Tensor,
    momentum_buffer: Tensor | None,
    accumulator: Tensor | None,
    *,
    lr: float,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    dampening: float = 0.0,
    nesterov: bool = False,
    maximize: bool = False,
    scale: float = 1.0,
    rectify: bool = False,
    check_finite: bool = True,
) -> None:
    """Capture and SGD update of a bank's weights from what makes their gradient; in place.

    With ``g = scale · δᵀA``, for each branch (``torch.optim.SGD``, same order of operations)::

        accumulator += g
        d = (−g if maximize else g) + weight_decay · weight
        m ← momentum · m + (1 − dampening) · d
        weight ← weight − lr · (d + momentum · m if nesterov else m)

    torch starts a momentum buffer as the first ``d``: pass zeros and ``dampening=0`` for the first step.

    Parameters
    ----------
    delta : (G, B, O), float32 or float64
        The derivative of the loss by the layer's output. Any strides. ``delta`` and ``shared`` may be float16 or
        bfloat16 beside float32 weights and state.
    shared : (B, H) or (G, B, H)
        The layer's input: one for all branches, or one for each.
    weight : (G, O, H), contiguous
        Changed in place.
    momentum_buffer : (G, O, H), contiguous, or None
        Changed in place; ``None`` where ``momentum`` is 0.
    accumulator : (G, O, H), contiguous, or None
        The capture's running sum, changed in place; ``None`` for no capture.
    lr, momentum, weight_decay, dampening, nesterov, maximize
        As in ``torch.optim.SGD``.
    scale : float
        Factor of the gradient, in capture and update.
    rectify : bool
        The layer read ``max(shared, 0)``: the gradient is ``scale · δᵀ max(A, 0)``.
    check_finite : bool
        Refuse NaN and Inf before anything is changed, at the price of one pass over ``delta`` and ``shared``.

    Raises
    ------
    TypeError, ValueError
        As :func:`~selshare.kernels.capture_gradients`; also for numbers that are not finite, momentum without a buffer,
        or Nesterov momentum with dampening or without momentum.

    Notes
    -----
    ``2·G·B·O·H`` flops. The fused implementations read and write each of weight, buffer and accumulator once.
    """
    numbers = {"scale": scale, "lr": lr, "momentum": momentum, "weight_decay": weight_decay, "dampening": dampening}
    scale, lr, momentum, weight_decay, dampening = _checked_numbers(weight, numbers)
    if momentum != 0.0 and momentum_buffer is None:
        raise ValueError(f"momentum is {momentum} but momentum_buffer is None; pass a zero tensor like weight.")
    if nesterov and (momentum <= 0.0 or dampening != 0.0):
        raise ValueError("Nesterov momentum needs momentum above 0 and dampening 0.")
    state = {"weight": weight, **_present(momentum_buffer=momentum_buffer, accumulator=accumulator)}
    if not _anything_to_do(delta, shared, state, check_finite):
        return
    select("fused_sgd_step", delta.device)(
        delta.detach(),
        shared.detach(),
        weight.detach(),
        momentum_buffer if momentum != 0.0 else None,
        accumulator,
        lr=lr,
        momentum=momentum,
        weight_decay=weight_decay,
        dampening=dampening,
        nesterov=nesterov,
        maximize=maximize,
        scale=scale,
        rectify=rectify,
    )
    mark_changed(weight, momentum_buffer, accumulator)


def fused_adam_step(
    delta: Tensor,
    shared: Tensor,
    weight: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    accumulator: Tensor | None,
    *,
    step: int | Tensor,
    lr: float | Tensor,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    decoupled: bool = False,
    maximize: bool = False,
    scale: float = 1.0,
    rectify: bool = False,
    check_finite: bool = True,
) -> None:
    """Capture and Adam (``decoupled``: AdamW) update of a bank's weights; in place.

    With ``g = scale · δᵀA`` and ``d = −g if maximize else g``, for each branch (``torch.optim.Adam``)::

        accumulator += g
        d += weight_decay · weight                    (Adam)
        weight ← (1 − lr · weight_decay) · weight     (AdamW)
        exp_avg ← exp_avg + (1 − β₁)(d − exp_avg)
        exp_avg_sq ← β₂ · exp_avg_sq + (1 − β₂) d²
        weight ← weight − lr/(1 − β₁^step) · exp_avg / (√exp_avg_sq / √(1 − β₂^step) + eps)

    Parameters
    ----------
    delta, shared, weight, accumulator, scale, rectify, check_finite
        As in :func:`fused_sgd_step`.
    exp_avg, exp_avg_sq : (G, O, H), contiguous
        The running moments, zeros before the first step; changed in place.
    step : int or Tensor
        The number of this step, from 1. A tensor of one number on the weights' device is read there: the host does not
        wait for it, and a CUDA graph that holds the call counts on where the tensor does. (Reference and C++ read it on
        the host.)
    lr, betas, eps, weight_decay, maximize
        As in ``torch.optim.Adam``; ``decoupled`` makes it ``torch.optim.AdamW``. ``lr`` may be a tensor where ``step``
        is one.

    Raises
    ------
    TypeError, ValueError
        As :func:`~selshare.kernels.capture_gradients`; also for a step below 1, numbers that are not finite, and betas
        outside [0, 1).
    """
    _require_scalar(step, "step", at_least=1)
    _require_scalar(lr, "lr")
    scale, eps, weight_decay = _checked_numbers(weight, {"scale": scale, "eps": eps, "weight_decay": weight_decay})
    betas = _checked_betas(betas)
    state = {"weight": weight, "exp_avg": exp_avg, "exp_avg_sq": exp_avg_sq, **_present(accumulator=accumulator)}
    if not _anything_to_do(delta, shared, state, check_finite):
        return
    select("fused_adam_step", delta.device)(
        delta.detach(),
        shared.detach(),
        weight.detach(),
        exp_avg,
        exp_avg_sq,
        accumulator,
        step=step,
        lr=lr,
        betas=betas,
        eps=eps,
        weight_decay=weight_decay,
        decoupled=decoupled,
        maximize=maximize,
        scale=scale,
        rectify=rectify,
    )
    mark_changed(weight, exp_avg, exp_avg_sq, accumulator)


def _check_apart(state: dict[str, Tensor]) -> None:
    """Raise ``ValueError`` if two of the tensors that are changed share memory."""
    placed = ((tensor.data_ptr(), tensor.nbytes, name) for name, tensor in state.items())
    spans = sorted(span for span in placed if span[0])  # what has no memory shares none
    for (start, size, name), (following, _, other) in pairwise(spans):
        if start + size > following:
            raise ValueError(f"{name} and {other} share memory and both are changed in place; give each its own.")


def _checked_numbers(weight: Tensor, numbers: Mapping[str, float]) -> Iterator[float]:
    """Each number, finite in the dtype of the weight."""
    require_float(weight, "weight")
    return (require_number(value, name, weight.dtype) for name, value in numbers.items())


def _require_scalar(value: float | Tensor, what: str, at_least: int | None = None) -> None:
    """A finite number, whole and ``at_least`` so large where that is given, or a tensor of one; a GPU's is not read."""
    if isinstance(value, Tensor):
        require_tensor(value, what)
        if value.numel() != 1 or value.is_complex():
            raise ValueError(f"{what} must be one real number; it is {value.dtype} of shape {tuple(value.shape)}.")
        if value.device.type != "cpu":
            return
        value = value.item()
        value = int(value) if at_least is not None and math.isfinite(value) and value == int(value) else value
    if at_least is None:
        require_number(value, what)
    else:
        require_integer(value, what, at_least)


def _checked_betas(betas: tuple[float, float]) -> tuple[float, float]:
    """Adam's two decay rates, each in [0, 1)."""
    if not isinstance(betas, tuple | list) or len(betas) != 2:
        raise TypeError(f"betas must be two numbers; they are {betas!r}.")
    first, second = require_number(betas[0], "betas[0]"), require_number(betas[1], "betas[1]")
    if not (0.0 <= first < 1.0 and 0.0 <= second < 1.0):
        raise ValueError(f"betas must lie in [0, 1); they are {first} and {second}.")
    return first, second


def _present(**state: Tensor | None) -> dict[str, Tensor]:
    """Those that are there."""
    return {name: tensor for name, tensor in state.items() if tensor is not None}


def _anything_to_do(delta: Tensor, shared: Tensor, state: dict[str, Tensor], check_finite: bool) -> bool:
    """Check all inputs; whether there is a weight to change."""
    require_bank_shapes(delta, shared, state)
    _check_apart(state)
    if check_finite:
        require_finite(delta, "delta")
        require_finite(shared, "shared", row="branch" if shared.ndim == 3 else "sample")
    return delta.shape[0] * delta.shape[2] * shared.shape[-1] > 0


register("fused_sgd_step", __name__, ("triton", "native", "reference"))
register("fused_adam_step", __name__, ("triton", "native", "reference"))
