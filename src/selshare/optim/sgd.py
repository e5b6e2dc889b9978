"""SGD that consumes the gradients of stacked weights by their factors."""

from __future__ import annotations

import torch
from torch.optim.optimizer import ParamsT

from ..kernels import fused_sgd_step
from .consume import ConsumingOptimizer, Waiting, unhooked_step

_PLAIN_STEP = unhooked_step(torch.optim.SGD)


class BankSGD(ConsumingOptimizer, torch.optim.SGD):
    """``torch.optim.SGD`` for models with a bank: the gradient of a bank's weights is never stored.

    The backward leaves the factors of a stacked weight's gradient in ``.grad`` (a
    :class:`~selshare.model.lazy_gradient.LazyGradient`), and the step forms it a few rows at a time, adds it to a
    capture that waits for it, and updates momentum and weight from there (:func:`selshare.kernels.fused_sgd_step`).
    All other parameters, and gradients that something has formed (a second backward, clipping, a hook that looks
    inside), take torch's step.

    Parameters
    ----------
    params, lr, momentum, dampening, weight_decay, nesterov, maximize, foreach, fused
        As in ``torch.optim.SGD``; ``foreach`` and ``fused`` concern torch's step only.

    Notes
    -----
    Results equal ``torch.optim.SGD`` to rounding, and the state is the same: either loads the other's
    ``state_dict``, and learning-rate schedulers and step hooks work as ever.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | torch.Tensor = 1e-3,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float = 0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        fused: bool | None = None,
    ) -> None:
        super().__init__(
            params, lr, momentum, dampening, weight_decay, nesterov, maximize=maximize, foreach=foreach, fused=fused
        )

    def _plain_step(self) -> None:
        """Torch's."""
        _PLAIN_STEP(self)

    def _consume(self, waiting: Waiting) -> None:
        """Capture and update one stacked weight."""
        group, weight, factors = waiting
        momentum, dampening = float(group["momentum"]), float(group["dampening"])
        buffer = None
        if momentum != 0.0:
            buffer = self.state[weight].get("momentum_buffer")
            if buffer is None:  # torch starts it as the first gradient, undampened
                buffer, dampening = torch.zeros_like(weight), 0.0
                self.state[weight]["momentum_buffer"] = buffer
        fused_sgd_step(
            factors.delta,
            waiting.shared,
            weight,
            buffer,
            waiting.accumulator(),
            lr=float(group["lr"]),
            momentum=momentum,
            weight_decay=float(group["weight_decay"]),
            dampening=dampening,
            nesterov=group["nesterov"],
            maximize=group["maximize"],
            rectify=factors.rectify,
            check_finite=False,  # as torch's; the model's loss is looked at already
        )
