"""From a batch's loss to a change of the weights: precision, accumulation, clipping, the optimizer's step."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.amp import GradScaler
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer

_AUTOCAST = {"bfloat16": torch.bfloat16, "float16": torch.float16}
PRECISIONS = (None, *_AUTOCAST)


class Update:
    """Collects the gradients of one or several batches and takes a step.

    Parameters
    ----------
    optimizer
        Whose step it is.
    device_type
        Of the model: ``"cpu"``, ``"cuda"``.
    precision
        ``None``: in the parameters' own. ``"bfloat16"``, ``"float16"``: torch's autocast, with a gradient scaler for
        the latter; parameters, gradients and captures stay in float32.
    accumulate
        How many batches make a step; their mean gradient is stepped by. The last step of an epoch may have fewer.
    clip_norm
        The norm to which the gradients of a step, of all parameters together, are cut down; not, when ``None``.

    Attributes
    ----------
    scaler
        The gradient scaler, for float16.
    before_step
        Called when all gradients of a step are there, before they are clipped.

    Raises
    ------
    ValueError
        If a setting is out of range.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        device_type: str,
        *,
        precision: str | None = None,
        accumulate: int = 1,
        clip_norm: float | None = None,
    ) -> None:
        if precision not in PRECISIONS:
            raise ValueError(f"precision must be None, 'bfloat16' or 'float16'; it is {precision!r}.")
        if not isinstance(accumulate, int) or accumulate < 1:
            raise ValueError(f"accumulate must be a whole number of batches, at least 1; it is {accumulate!r}.")
        if clip_norm is not None and not clip_norm > 0.0:
            raise ValueError(f"clip_norm must be above 0; it is {clip_norm}.")
        self.scaler = GradScaler(device_type) if precision == "float16" else None
        self._optimizer, self._device_type = optimizer, device_type
        self._dtype = None if precision is None else _AUTOCAST[precision]
        self._accumulate, self._clip_norm = accumulate, clip_norm
        self._batches: int | None = None  # of the epoch, where known
        self._done, self._size, self._collected = 0, 1, 0
        self.before_step: Callable[[], None] = _nothing

    def autocast(self) -> AbstractContextManager[Any]:
        """What forward and loss run under."""
        return nullcontext() if self._dtype is None else torch.autocast(self._device_type, self._dtype)

    def begin_epoch(self, batches: int | None) -> None:
        """An epoch of so many batches begins; ``None`` where that is not known."""
        self._batches = batches
        self._done = 0

    def begin_batch(self) -> None:
        """The first batch of a step starts from no gradients."""
        if self._done % self._accumulate == 0:
            left = self._accumulate if self._batches is None else self._batches - self._done
            self._size, self._collected = max(1, min(self._accumulate, left)), 0
            self._optimizer.zero_grad(set_to_none=True)

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a batch's loss, as its part of the step's mean."""
        part = loss if self._size == 1 else loss / self._size
        (part if self.scaler is None else self.scaler.scale(part)).backward()

    def end_batch(self, *, usable: bool = True) -> bool:
        """Take the step if this was its last batch; whether one was taken. Not ``usable``: it gave no gradients."""
        self._done += 1
        self._collected += usable
        last = self._done % self._accumulate == 0 or self._done == self._batches
        if not last or self._collected == 0:
            return False
        self._step()
        return True

    def end_epoch(self) -> bool:
        """Take the step of batches left over by a loader of unknown length; whether one was taken."""
        left_over = self._done % self._accumulate != 0 and self._done != self._batches and self._collected > 0
        if left_over:
            self._step()
        return left_over

    def state_dict(self) -> dict[str, Any] | None:
        """The scaler's, to save."""
        return None if self.scaler is None else self.scaler.state_dict()

    def load_state_dict(self, state: dict[str, Any] | None) -> None:
        """The inverse of :meth:`state_dict`."""
        if self.scaler is not None and state:
            self.scaler.load_state_dict(state)

    def _step(self) -> None:
        """Clip, step, adapt the scale."""
        self.before_step()
        if self._clip_norm is not None:
            if self.scaler is not None:
                self.scaler.unscale_(self._optimizer)
            parameters = [p for group in self._optimizer.param_groups for p in group["params"]]
            clip_grad_norm_(parameters, self._clip_norm)
        if self.scaler is None:
            self._optimizer.step()
        else:
            self.scaler.step(self._optimizer)
            self.scaler.update()
        self._collected = 0


def _nothing() -> None:
    """One process has all gradients."""
