"""Free capture: an epoch's sum of gradients from where SGD started and where it arrived.

With momentum μ and a constant learning rate, the steps of SGD are a linear recursion whose gradients add up to a
difference of its end points, ``Σg = (1−μ)(w₀ − w_K)/lr + μ(m_K − m₀)``: one buffer written once an epoch, nothing
per step. (The formula is METHOD.md's; dampening and Nesterov momentum are worked out here, *ours*.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.utils.hooks import RemovableHandle

from ..model import MultiTaskModel
from ..optim import BankSGD
from .capture import CAPTURES, GradientCapture


@dataclass(frozen=True)
class SGDRule:
    """The settings of SGD that the sum depends on, as in ``torch.optim.SGD``."""

    lr: float
    momentum: float = 0.0
    dampening: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0
    maximize: bool = False

    @classmethod
    def of(cls, group: dict[str, Any]) -> Self:
        """The rule of an optimizer's parameter group."""
        return cls(
            float(group["lr"]),
            float(group["momentum"]),
            float(group["dampening"]),
            bool(group["nesterov"]),
            float(group["weight_decay"]),
            bool(group["maximize"]),
        )

    def inexact(self, *, has_buffer: bool) -> str | None:
        """Why the end points do not tell the sum of gradients, or ``None`` when they do.

        ``has_buffer``: the momentum buffer exists at the start.
        """
        if self.weight_decay != 0.0:
            return "weight decay adds the weights of every step, which the end points do not tell"
        if self.lr <= 0.0:
            return "a learning rate of 0 moves nothing"
        if self.momentum >= 1.0:
            return "momentum of 1 or more forgets nothing"
        if self.momentum != 0.0 and self.dampening == 1.0:
            return "dampening of 1 lets no gradient in"
        if self.momentum != 0.0 and self.dampening != 0.0 and not has_buffer:
            return "the first momentum step is not dampened as the later ones are"
        return None

    @property
    def factors(self) -> tuple[float, float]:
        """α and β of ``Σg = ±[α(w₀ − w_K) + β(m_K − m₀)]``.

        With ``m_k = μ m_{k−1} + (1−τ) g_k`` and ``w_k = w_{k−1} − lr·m_k``, sum both over the steps:
        ``Σm = (w₀ − w_K)/lr`` and ``Σm = μ(Σm − m_K + m₀) + (1−τ)Σg``, so ``α = (1−μ)/(lr(1−τ))`` and
        ``β = μ/(1−τ)``. With Nesterov momentum (τ = 0), ``w_k = w_{k−1} − lr(g_k + μ m_k)``: the first sum becomes
        ``(w₀ − w_K)/lr = Σg + μΣm``, so ``α = (1−μ)/lr`` and ``β = μ²``. Without momentum torch ignores τ.
        """
        if self.momentum == 0.0:
            return 1.0 / self.lr, 0.0
        if self.nesterov:
            return (1.0 - self.momentum) / self.lr, self.momentum**2
        keep = 1.0 - self.dampening
        return (1.0 - self.momentum) / (self.lr * keep), self.momentum / keep


def gradient_sum_from_displacement(
    weight_before: Tensor,
    weight_after: Tensor,
    buffer_before: Tensor | None,
    buffer_after: Tensor | None,
    rule: SGDRule,
) -> Tensor:
    """The sum of the gradients that SGD consumed between two moments, all at one ``rule``.

    Parameters
    ----------
    weight_before, weight_after
        The weight at the two moments.
    buffer_before, buffer_after
        Its momentum buffer; ``None`` before the first step, or without momentum.
    rule
        SGD's settings, the same for every step between the moments.

    Returns
    -------
    Tensor
        Shaped like the weight. Exact but for rounding: every step rounds the weight to ``ε|w|``, so the relative
        error is about ``ε|w|√K / |w₀ − w_K|`` after K steps (float32, learning rate .02: below 1e-4).

    Raises
    ------
    ValueError
        Where the end points do not tell the sum (:meth:`SGDRule.inexact`); the sentence says why. Capture by
        accumulation is right there.
    """
    reason = rule.inexact(has_buffer=buffer_before is not None)
    if reason is not None:
        raise ValueError(f"the sum of gradients does not follow from the displacement: {reason}; accumulate it.")
    total = _anchor(weight_before, buffer_before, rule).sub_(_anchor(weight_after, buffer_after, rule))
    alpha, _ = rule.factors
    return total.mul_(-alpha if rule.maximize else alpha)


def _anchor(weight: Tensor, buffer: Tensor | None, rule: SGDRule) -> Tensor:
    """``w − (β/α)m``: its displacement, times α, is the sum of gradients."""
    alpha, beta = rule.factors
    anchor = weight.detach().clone()
    return anchor if buffer is None or beta == 0.0 else anchor.sub_(buffer, alpha=beta / alpha)


class FreeCapture:
    """The epoch's gradients from the displacement of SGD where that is exact, accumulated where it is not.

    One buffer of the weight's size, written once an epoch, and no work per step. What it sums is what the optimizer
    consumed: clipped gradients if they are clipped, unscaled ones if the loss was scaled. Where the rate or another
    setting changes within an epoch, the sum so far is closed before the step that uses the new one: exact, but a
    schedule that changes every step pays for it every step, and a second buffer. Optimizers other than
    ``torch.optim.SGD`` and ``BankSGD``, weight decay, and dampened momentum before its first step are accumulated by
    :class:`~selshare.sharing.capture.GradientCapture`.
    """

    def __init__(self) -> None:
        self._fallback: GradientCapture | None = None
        self._model: MultiTaskModel | None = None
        self._optimizers: Sequence[torch.optim.Optimizer] = ()
        self._scaler: GradScaler | None = None
        self._optimizer: torch.optim.Optimizer | None = None
        self._hooks: list[RemovableHandle] = []
        self._rule: SGDRule | None = None
        self._anchor: Tensor | None = None
        self._closed: Tensor | None = None  # the sum of earlier parts of the epoch
        self._version = 0

    def start(
        self, model: MultiTaskModel, optimizers: Sequence[torch.optim.Optimizer], scaler: GradScaler | None = None
    ) -> None:
        """Begin, by displacement or by accumulation, as the optimizer of the bank's first weight asks for.

        Raises
        ------
        ValueError
            If the bank's first weight takes no gradient.
        """
        self._model, self._optimizers, self._scaler = model, optimizers, scaler
        found = _optimizer_of(model.bank.first_weight, optimizers)
        if found is None or not model.bank.first_weight.requires_grad or not self._open(found):
            self._accumulate()
            return
        self._optimizer = found
        self._hooks = [
            found.register_step_pre_hook(lambda *_: self._before_step()),
            found.register_step_post_hook(lambda *_: self._after_step()),
        ]

    def gradients(self) -> Tensor:
        """The sum so far, ``(G, O, H)``."""
        if self._fallback is not None:
            return self._fallback.gradients()
        return self._sum().flatten(2)

    def reset(self) -> None:
        """Begin the next epoch; the bank may have fewer branches now."""
        if self._fallback is not None:
            self._fallback.reset()
            return
        self._closed = None
        assert self._optimizer is not None
        if not self._open(self._optimizer):
            self._accumulate()

    def stop(self) -> None:
        """Remove the hooks and free the buffers."""
        if self._fallback is not None:
            self._fallback.stop()
        for hook in self._hooks:
            hook.remove()
        self.__dict__.update(FreeCapture().__dict__)

    def _open(self, optimizer: torch.optim.Optimizer) -> bool:
        """Remember where a part of the epoch starts; whether its sum will follow from where it ends."""
        weight = self._weight()
        rule = SGDRule.of(_group_of(weight, optimizer))
        buffer = optimizer.state[weight].get("momentum_buffer")
        if rule.inexact(has_buffer=buffer is not None) is not None:
            return False
        self._rule, self._version = rule, weight._version
        self._anchor = _anchor(weight, buffer, rule)
        return True

    def _sum(self) -> Tensor:
        """The sum of the epoch so far."""
        weight = self._weight()
        self._check_unchanged()
        assert self._rule is not None
        assert self._anchor is not None
        assert self._optimizer is not None
        total = _anchor(weight, self._optimizer.state[weight].get("momentum_buffer"), self._rule)
        alpha, _ = self._rule.factors
        total.sub_(self._anchor).mul_(alpha if self._rule.maximize else -alpha)
        return total if self._closed is None else total.add_(self._closed)

    def _before_step(self) -> None:
        """Close the part of the epoch if this step goes by another rule."""
        assert self._optimizer is not None
        self._check_unchanged()
        if SGDRule.of(_group_of(self._weight(), self._optimizer)) != self._rule:
            self._closed = self._sum()
            if not self._open(self._optimizer):
                raise RuntimeError(
                    "the optimizer's settings changed within an epoch so that its gradients no longer follow from the "
                    "displacement of the weights; change them between epochs, or use capture='exact'."
                )

    def _after_step(self) -> None:
        """The optimizer's own change of the weight is the one that counts."""
        self._version = self._weight()._version

    def _check_unchanged(self) -> None:
        """Raise if something other than the optimizer has changed the weight."""
        if (
            self._anchor is None
            or self._anchor.shape != self._weight().shape
            or self._weight()._version != self._version
        ):
            raise RuntimeError(
                "the first weight of the branches was changed by something other than its optimizer, so its gradients "
                "no longer follow from its displacement; after loading a state, detach() the sharing and attach() it "
                "again, or use capture='exact'."
            )

    def _accumulate(self) -> None:
        """Fall back on accumulation."""
        assert self._model is not None
        for hook in self._hooks:
            hook.remove()
        self._hooks, self._anchor, self._closed = [], None, None
        self._fallback = GradientCapture()
        self._fallback.start(self._model, self._optimizers, self._scaler)

    def _weight(self) -> nn.Parameter:
        if self._model is None:
            raise RuntimeError("the capture has not been started; call start(model, optimizers) first.")
        return self._model.bank.first_weight


def _optimizer_of(weight: Tensor, optimizers: Sequence[torch.optim.Optimizer]) -> torch.optim.Optimizer | None:
    """The SGD that trains the weight, if it is one and the only one."""
    found = [o for o in optimizers if any(weight is p for group in o.param_groups for p in group["params"])]
    return found[0] if len(found) == 1 and type(found[0]) in (torch.optim.SGD, BankSGD) else None


def _group_of(weight: Tensor, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """The parameter group the weight is in."""
    return next(group for group in optimizer.param_groups if any(weight is p for p in group["params"]))


CAPTURES["free"] = lambda settings: FreeCapture()
