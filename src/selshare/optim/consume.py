"""What the optimizers have in common: which gradients are consumed by their factors, and torch's step for the rest."""

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..model.lazy_gradient import Factors, allow_lazy_gradient, factors_of


class Waiting(NamedTuple):
    """A weight whose gradient is known by its factors, and the parameter group it is in."""

    group: dict[str, Any]
    weight: nn.Parameter
    factors: Factors

    @property
    def shared(self) -> Tensor:
        """What the layers read: ``(B, H)`` where all read the same, else ``(G, B, H)``."""
        inputs = self.factors.inputs
        return inputs[0] if inputs.shape[0] == 1 else inputs

    def accumulator(self) -> Tensor | None:
        """The capture the gradient is to be added to, once."""
        waiting = self.factors.take_accumulators()
        return waiting[0] if waiting else None


class ConsumingOptimizer(Optimizer):
    """The step of an optimizer that consumes gradients by their factors.

    A subclass names it before one of torch's optimizers, whose arguments and state it has.
    """

    @abstractmethod
    def _plain_step(self) -> None:
        """Torch's step, of the parameters that have a gradient in memory."""

    @abstractmethod
    def _consume(self, waiting: Waiting) -> None:
        """Capture and update one stacked weight."""

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As in torch; stacked weights in it may keep their gradients unformed from now on."""
        super().add_param_group(param_group)
        _allow_lazy(self.param_groups[-1])

    def __setstate__(self, state: dict[str, Any]) -> None:
        """As in torch; copies of parameters are told anew."""
        super().__setstate__(state)
        for group in self.param_groups:
            _allow_lazy(group)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step; ``closure`` re-evaluates the model and returns the loss, as in torch."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        with torch.no_grad():
            with _set_aside(self) as waiting:
                self._plain_step()
            for one in waiting:
                self._consume(one)
        return loss


def unhooked_step(optimizer: type[Optimizer]) -> Callable[[Optimizer], Any]:
    """Torch's ``step`` without the wrapper that calls step hooks: the subclass's own step has that already."""
    step: Callable[[Optimizer], Any] = inspect.unwrap(optimizer.step)
    return step


def _allow_lazy(group: dict[str, Any]) -> None:
    """Let the stacked weights ``(G, O, I)`` of a group keep their gradients unformed."""
    for parameter in group["params"]:
        if parameter.ndim == 3:
            allow_lazy_gradient(parameter)


@contextmanager
def _set_aside(optimizer: Optimizer) -> Iterator[list[Waiting]]:
    """Hide the gradients that are to be consumed by their factors from torch's step; they are back afterwards."""
    waiting, gradients = [], []
    # A gradient scaler that leaves the unscaling to the step: torch's step knows how.
    scaled = getattr(optimizer, "grad_scale", None) is not None or getattr(optimizer, "found_inf", None) is not None
    for group in optimizer.param_groups if not scaled else []:
        for weight in group["params"]:
            factors = factors_of(weight.grad)
            if factors is not None and _consumable(group, weight, factors):
                factors.check_unchanged()
                waiting.append(Waiting(group, weight, factors))
                gradients.append(weight.grad)
                weight.grad = None
    try:
        yield waiting
    finally:
        for one, gradient in zip(waiting, gradients, strict=True):
            one.weight.grad = gradient


def _consumable(group: dict[str, Any], weight: nn.Parameter, factors: Factors) -> bool:
    """Whether a fused step takes these factors; if not, the gradient is formed and torch's step takes it."""
    special = group.get("amsgrad") or group.get("differentiable")
    return not special and factors.source is None and len(factors.accumulators) <= 1 and weight.is_contiguous()
