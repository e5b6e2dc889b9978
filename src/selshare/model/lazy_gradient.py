"""Gradients of stacked weights that are formed only when something looks at them.

A weight's gradient is the product ``δᵀA``. The optimizers of :mod:`selshare.optim` consume its two factors directly
and never form it. For them, the backward of a stacked layer returns a :class:`LazyGradient`: a tensor of the right
shape that holds the factors. It sits in ``.grad`` like any gradient, and whatever else is done with it, clipping,
a hook, another optimizer, a second backward, ``torch.autograd.grad``, forms it and goes on as usual.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from ..kernels import weight_gradient

_ALLOWED = "_selshare_lazy_gradient"
_EXCHANGED = "_selshare_exchanged_gradient"


def allow_lazy_gradient(parameter: nn.Parameter) -> None:
    """Let the backward of stacked layers leave this weight's gradient unformed. Optimizers that consume it ask so."""
    setattr(parameter, _ALLOWED, True)


def exchange_lazy_gradient(parameter: nn.Parameter, exchanged: bool) -> None:
    """Say that what exchanges this weight's gradient between processes knows lazy ones, or is over."""
    setattr(parameter, _EXCHANGED, exchanged)


def lazy_gradient_allowed(weight: Tensor) -> bool:
    """Whether :func:`allow_lazy_gradient` was called for it, and nothing that counts on memory of its own is near.

    With several processes (``torch.distributed``) gradients are exchanged, so they are formed, unless
    :mod:`selshare.distributed` exchanges them, which knows their factors.
    """
    if not getattr(weight, _ALLOWED, False):
        return False
    if getattr(weight, _EXCHANGED, False):
        return True
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    return not (distributed and torch.distributed.get_world_size() > 1)


class Factors:
    """What makes one gradient: ``delta (G, B, O)`` and ``inputs (S, B, I)``, or the formed ``gradient (G, O, I)``."""

    def __init__(self, delta: Tensor, inputs: Tensor, source: Tensor | None, rectify: bool) -> None:
        self.delta, self.inputs, self.source, self.rectify = delta, inputs, source, rectify
        self.gradient: Tensor | None = None
        self.accumulators: list[Tensor] = []  # to which the gradient is added when it is formed or consumed
        self._versions = (delta._version, inputs._version)

    def check_unchanged(self) -> None:
        """Raise ``RuntimeError`` if a factor was changed in place since the backward."""
        if (self.delta._version, self.inputs._version) != self._versions:
            raise RuntimeError(
                "the input of a branch layer was changed in place between backward and step, so its weight gradient "
                "cannot be formed any more; work on a copy."
            )

    def form(self) -> Tensor:
        """The gradient in memory; the factors are let go."""
        if self.gradient is None:
            self.check_unchanged()
            self.gradient = weight_gradient(self.delta, self.inputs, source=self.source, rectify=self.rectify)
            for accumulator in self.take_accumulators():
                accumulator.add_(self.gradient)
            self.delta = self.inputs = self.gradient.new_empty(0)
        return self.gradient

    def take_accumulators(self) -> list[Tensor]:
        """The accumulators that still wait, each handed out once."""
        waiting, self.accumulators = self.accumulators, []
        return waiting


class LazyGradient(Tensor):
    """A gradient that is known by its factors. Any operation on it forms it first."""

    factors: Factors

    @staticmethod
    def __new__(cls, factors: Factors) -> LazyGradient:
        """A tensor without memory, shaped like the weight."""
        delta, inputs = factors.delta, factors.inputs
        shape = (
            (delta.shape[0], delta.shape[2], inputs.shape[2]) if factors.gradient is None else factors.gradient.shape
        )
        lazy: LazyGradient = Tensor._make_wrapper_subclass(cls, shape, dtype=delta.dtype, device=delta.device)
        lazy.factors = factors
        return lazy

    # Torch's stubs describe these methods as they are bound, so their signatures seem to differ.
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Callable[..., Any], types: Sequence[type], args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run ``func`` on the formed gradients; an alias stays lazy."""
        if func is torch.ops.aten.detach.default:
            return LazyGradient(args[0].factors)
        formed, named = tree_map_only(LazyGradient, lambda lazy: lazy.factors.form(), (args, dict(kwargs or {})))
        return func(*formed, **named)

    def __repr__(self, *, tensor_contents: Any = None) -> Any:  # type: ignore[override]
        """The formed gradient's."""
        return repr(self.factors.form())

    def tolist(self) -> Any:
        """The formed gradient's."""
        return self.factors.form().tolist()

    def numpy(self, *, force: bool = False) -> Any:
        """The formed gradient's."""
        return self.factors.form().numpy(force=force)

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        """A copy of the formed gradient."""
        return self.factors.form().clone()

    def __reduce_ex__(self, proto: Any) -> Any:
        """Pickled as the formed gradient."""
        return self.factors.form().__reduce_ex__(proto)


def factors_of(gradient: Tensor | None) -> Factors | None:
    """The factors of a gradient that is not formed yet, else ``None``."""
    if isinstance(gradient, LazyGradient) and gradient.factors.gradient is None:
        return gradient.factors
    return None


def add_gradient(accumulator: Tensor, gradient: Tensor) -> None:
    """``accumulator += gradient``, at the latest when the gradient is consumed or formed.

    For a lazy gradient on its way to a fused optimizer this costs no pass of its own: the step captures and updates
    at once. A gradient that is dropped before a step (``zero_grad``) is not added.
    """
    factors = factors_of(gradient)
    if factors is None:
        accumulator.add_(gradient.detach())
    elif accumulator.dtype == gradient.dtype and accumulator.is_contiguous():
        factors.accumulators.append(accumulator)
    else:
        accumulator.add_(factors.form())
