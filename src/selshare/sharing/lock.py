"""The lock: when sharing is over. After it there is no capture, no factorisation and no clustering."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Lock:
    """Locks when every task shares its branch with another, or when ``patience`` epochs in a row changed nothing.

    Known (Strezoski et al. 2019): both conditions, with three epochs. Without a lock all tasks end in one group.
    *Ours*: a single task, which has nothing to share with, locks at once; warm-up epochs do not count.
    """

    patience: int = 3
    unchanged: int = 0
    reason: str | None = None

    @property
    def locked(self) -> bool:
        """Whether sharing is over."""
        return self.reason is not None

    def check(self, assignment: Tensor) -> None:
        """Lock if no task is left alone on its branch. ``assignment`` is ``(T,)``: task → branch."""
        if self.locked:
            return
        if assignment.numel() < 2:
            self.reason = "a single task has nothing to share with"
        elif bool((torch.bincount(assignment)[assignment] > 1).all()):
            self.reason = "every task shares its branch with another"

    def count(self, changed: bool) -> None:
        """Count an epoch in which branches were free to merge, and lock when patience is over."""
        self.unchanged = 0 if changed else self.unchanged + 1
        if not self.locked and self.unchanged >= self.patience:
            self.reason = f"epochs in a row without a change: {self.unchanged}"
