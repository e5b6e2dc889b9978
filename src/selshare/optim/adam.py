"""Adam and AdamW that consume the gradients of stacked weights by their factors."""

from __future__ import annotations

import torch
from torch.optim.optimizer import ParamsT

from ..kernels import fused_adam_step
from .consume import ConsumingOptimizer, Waiting, unhooked_step

_PLAIN_STEP = unhooked_step(torch.optim.Adam)


class BankAdam(ConsumingOptimizer, torch.optim.Adam):
    """``torch.optim.Adam`` for models with a bank: the gradient of a bank's weights is never stored.

    How it works and what else takes torch's step: :class:`selshare.optim.BankSGD`. Groups with ``amsgrad`` take
    torch's step throughout.

    Parameters
    ----------
    params, lr, betas, eps, weight_decay, amsgrad, maximize, foreach, capturable, fused
        As in ``torch.optim.Adam``; ``foreach`` and ``fused`` concern torch's step only. ``capturable`` counts steps on
        the device, so that steps can be captured in a CUDA graph; the learning rate may be a tensor there, too.
    decoupled_weight_decay
        Weight decay as in AdamW.

    Notes
    -----
    Results equal ``torch.optim.Adam`` to rounding, and the state is the same: either loads the other's
    ``state_dict``.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | torch.Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        capturable: bool = False,
        fused: bool | None = None,
        decoupled_weight_decay: bool = False,
    ) -> None:
        super().__init__(
            params,
            lr,
            betas,
            eps,
            weight_decay,
            amsgrad,
            maximize=maximize,
            foreach=foreach,
            capturable=capturable,
            fused=fused,
            decoupled_weight_decay=decoupled_weight_decay,
        )

    def _plain_step(self) -> None:
        """Torch's."""
        _PLAIN_STEP(self)

    def _consume(self, waiting: Waiting) -> None:
        """Capture and update one stacked weight."""
        group, weight, factors = waiting
        state = self.state[weight]
        if not state:
            on_device = group["capturable"] or group["fused"]  # as torch keeps it
            state["step"] = torch.zeros((), device=weight.device if on_device else "cpu")
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(weight), torch.zeros_like(weight)
        state["step"] += 1
        fused_adam_step(
            factors.delta,
            waiting.shared,
            weight,
            state["exp_avg"],
            state["exp_avg_sq"],
            waiting.accumulator(),
            step=state["step"],
            lr=group["lr"] if group["capturable"] else float(group["lr"]),
            betas=(float(group["betas"][0]), float(group["betas"][1])),
            eps=float(group["eps"]),
            weight_decay=float(group["weight_decay"]),
            decoupled=group["decoupled_weight_decay"],
            maximize=group["maximize"],
            rectify=factors.rectify,
            check_finite=False,  # as torch's; the model's loss is looked at already
        )


class BankAdamW(BankAdam):
    """``torch.optim.AdamW`` for models with a bank; see :class:`BankAdam`."""

    def __init__(
        self,
        params: ParamsT,
        lr: float | torch.Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        capturable: bool = False,
        fused: bool | None = None,
    ) -> None:
        super().__init__(
            params,
            lr,
            betas,
            eps,
            weight_decay,
            amsgrad,
            maximize=maximize,
            foreach=foreach,
            capturable=capturable,
            fused=fused,
            decoupled_weight_decay=True,
        )
