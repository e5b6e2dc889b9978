"""Capture: the gradient each branch's first layer sees over an epoch.

For the layer at the fork the gradient of branch t is ``G_t = δ_tᵀ A``, with ``A (batch × shared)`` the shared
representation and ``δ_t (batch × out)`` the error of branch t (Strezoski et al. 2019; the bias is left out). Its sum
over the epoch is what the branches are compared by.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.amp import GradScaler
from torch.utils.hooks import RemovableHandle

from ..kernels.checks import is_one_of
from ..model import MultiTaskModel
from ..model.lazy_gradient import add_gradient


@runtime_checkable
class Capture(Protocol):
    """A way to come by the gradients. ``start`` once, then ``gradients`` and ``reset`` each epoch, then ``stop``."""

    def start(
        self, model: MultiTaskModel, optimizers: Sequence[torch.optim.Optimizer], scaler: GradScaler | None = None
    ) -> None:
        """Begin; ``optimizers`` are those that train the bank's parameters, ``scaler`` what scales losses."""

    def gradients(self) -> Tensor:
        """Gradients since ``start`` or ``reset``, a row per live branch: ``(G, O, H)``.

        Or ``(G, a, b)`` for a projection that keeps the distances between branches. The result may be a view that
        ``reset`` overwrites.
        """

    def reset(self) -> None:
        """Begin the next epoch; the bank may have fewer branches now."""

    def stop(self) -> None:
        """End for good: no cost per step and no memory from now on."""


class GradientCapture:
    """The exact sum of the gradients of the bank's first weight over an epoch.

    A hook on the parameter adds up the gradient of every backward in training mode, before it reaches ``.grad``: the
    optimizer, clipping, ``zero_grad`` and gradient accumulation do not matter. One pass over the gradient per
    backward, and none with the optimizers of :mod:`selshare.optim`, whose step captures as it goes (a gradient that
    is dropped before a step is then not captured); one buffer of the weight's size, float32 (float64 for a float64
    weight), allocated once. What a gradient scaler multiplied a loss by is divided out again, and gradients that
    overflowed are left out, as in the optimizer's steps.
    """

    def __init__(self) -> None:
        self._model: MultiTaskModel | None = None
        self._buffer: Tensor | None = None
        self._hook: RemovableHandle | None = None
        self._scaler: GradScaler | None = None

    def start(
        self, model: MultiTaskModel, optimizers: Sequence[torch.optim.Optimizer] = (), scaler: GradScaler | None = None
    ) -> None:
        """Begin to accumulate. The optimizers do not matter here.

        Raises
        ------
        ValueError
            If the bank's first weight takes no gradient.
        """
        weight = model.bank.first_weight
        require_gradient(weight)
        dtype = torch.promote_types(weight.dtype, torch.float32)
        self._model, self._scaler = model, scaler
        self._buffer = torch.zeros(weight.shape, dtype=dtype, device=weight.device)
        self._hook = weight.register_hook(self._accumulate)

    def gradients(self) -> Tensor:
        """The sum so far, ``(G, O, H)``; a view."""
        return self._accumulator().flatten(2)

    def reset(self) -> None:
        """Zero the sum and take on the bank's number of branches."""
        model = self._started()
        buffer = self._accumulator()
        weight = model.bank.first_weight
        if weight.shape[0] > buffer.shape[0]:
            buffer = torch.empty(weight.shape, dtype=buffer.dtype, device=buffer.device)
        self._buffer = buffer[: weight.shape[0]].zero_()

    def stop(self) -> None:
        """Remove the hook and free the buffer."""
        if self._hook is not None:
            self._hook.remove()
        self._model = self._buffer = self._hook = self._scaler = None

    def _accumulate(self, gradient: Tensor) -> None:
        """The hook: one backward's gradient, added up in place."""
        model = self._started()
        if not model.training:
            return
        accumulator = self._accumulator()
        require_branches(gradient, accumulator)
        if gradient.device != accumulator.device:  # the model was moved after attach()
            self._buffer = accumulator = accumulator.to(gradient.device)
        add_gradient(accumulator, unscaled(gradient, self._scaler))

    def _started(self) -> MultiTaskModel:
        """The model, once started."""
        if self._model is None:
            raise RuntimeError("the capture has not been started; call start(model, optimizers) first.")
        return self._model

    def _accumulator(self) -> Tensor:
        """The running sum, once started."""
        self._started()
        assert self._buffer is not None
        return self._buffer


def unscaled(gradient: Tensor, scaler: GradScaler | None) -> Tensor:
    """The gradient of the loss itself where ``scaler`` multiplied it, zero where that overflowed.

    In float32 at least. The host does not wait for the device.
    """
    if scaler is None or not scaler.is_enabled():
        return gradient
    scale: Tensor = scaler.scale(torch.ones((), device=gradient.device))
    true = gradient.detach().to(torch.promote_types(gradient.dtype, torch.float32)) / scale
    return torch.where(torch.isfinite(true).all(), true, 0)


CAPTURES: dict[str, Callable[[Mapping[str, Any]], Capture]] = {"exact": lambda settings: GradientCapture()}


def require_gradient(weight: Tensor) -> None:
    """Raise ``ValueError`` unless the bank's first weight takes a gradient."""
    if not weight.requires_grad:
        raise ValueError(
            "the first weight of the branches is frozen (requires_grad is False), so no gradient can be captured; "
            "unfreeze it before attach()."
        )


def require_branches(gradient: Tensor, captured: Tensor) -> None:
    """Raise ``RuntimeError`` unless there is a row of what is captured for each branch of the bank."""
    if len(gradient) != len(captured):
        raise RuntimeError(
            f"the bank has {len(gradient)} branches but the capture was started for {len(captured)}; "
            "after loading another state into the model, detach() the sharing and attach() it again."
        )


def make_capture(settings: Mapping[str, Any]) -> Capture:
    """The capture that the settings of a :class:`SelectiveSharing` ask for, not started.

    ``settings["capture"]`` is its name; its entry in :data:`CAPTURES` is given all the settings.
    """
    return CAPTURES[settings["capture"]](settings)


def check_capture(name: str) -> None:
    """Raise ``ValueError`` unless there is a capture of that name."""
    if not is_one_of(name, CAPTURES):
        raise ValueError(f"unknown capture {name!r}; choose from {', '.join(CAPTURES)}.")
