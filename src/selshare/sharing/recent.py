"""The last shared representations of an epoch, kept for refitting heads when branches merge."""

from __future__ import annotations

from collections import deque
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ..model import MultiTaskModel


class RecentShared:
    """What the trunk returned last in training mode, up to ``rows`` samples, on its device.

    A forward hook on the trunk keeps references to the detached batches; nothing is copied unless a batch is larger
    than ``rows``. Every epoch starts empty, so that a resumed run sees what an uninterrupted one would.

    Attributes
    ----------
    rows
        How many samples are asked for.
    """

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self._batches: deque[Tensor] = deque()
        self._hook: RemovableHandle | None = None
        self._dtype = torch.float32

    def start(self, model: MultiTaskModel) -> None:
        """Begin to keep."""
        self._dtype = model.bank.first_weight.dtype
        self._hook = model.trunk.register_forward_hook(self._keep)

    @property
    def batches(self) -> tuple[Tensor, ...]:
        """What is kept, one tensor per call of the trunk, in the branches' dtype.

        Raises
        ------
        RuntimeError
            If the trunk has not been called in training mode since ``start`` or ``reset``.
        """
        if not self._batches:
            raise RuntimeError(
                "no shared representation was seen in this epoch, so heads cannot be refitted; train with the model "
                "that was attached, or use refit_heads=False."
            )
        return tuple(batch.to(self._dtype) for batch in self._batches)

    def gathered(self) -> Tensor:
        """The samples kept, the newest last: ``(n, H)``, ``n ≤ rows``; see :attr:`batches`."""
        return torch.cat(self.batches)[-self.rows :]

    def reset(self) -> None:
        """Begin the next epoch."""
        self._batches.clear()

    def stop(self) -> None:
        """Remove the hook and let go of the batches."""
        if self._hook is not None:
            self._hook.remove()
        self._hook = None
        self.reset()

    def _keep(self, trunk: nn.Module, inputs: Any, shared: Any) -> None:
        """The hook: one batch comes in, those no longer needed go."""
        if not trunk.training or not isinstance(shared, Tensor):
            return
        batch = shared.detach()
        self._batches.append(batch if len(batch) <= self.rows else batch[-self.rows :].clone())
        while sum(map(len, self._batches)) - len(self._batches[0]) >= self.rows:
            self._batches.popleft()
