"""When to group and when to merge: gradients of several epochs, groups that must stay the same, groups kept for later.

*Ours* (the paper clusters every epoch by itself and merges at once): the structure is in the first epochs' gradients,
the merge does less harm later.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import adjusted_rand_score
from torch import Tensor

from .plan import NOISE

AGREEMENT = 0.9
LARGEST = 0.5


@dataclass
class Grouping:
    """The last clustering, how long it has stayed the same, and whether it is final.

    Parameters
    ----------
    group_epochs
        0: every epoch's gradients are clustered by themselves, as in the paper. Otherwise the sum of the gradients of
        the first epochs is, up to that many, and the groups are then final: they are merged once, when that is due.
    stable_epochs
        Clusterings in a row that must agree with the one before, by an adjusted Rand index of at least .9.
    labels
        ``(G,)`` the last clustering.
    agreed
        Clusterings in a row that agreed with the one before.
    seen
        Clusterings since the last merge.
    final
        No more clustering: ``labels`` are what will be merged.
    earlier
        ``(G, O, H)`` gradients of earlier epochs, where they are summed.
    """

    group_epochs: int
    stable_epochs: int
    labels: tuple[int, ...] | None = None
    agreed: int = 0
    seen: int = 0
    final: bool = False
    earlier: Tensor | None = None

    @property
    def stable(self) -> bool:
        """Whether the groups have stayed the same for long enough."""
        return self.agreed >= self.stable_epochs

    @property
    def could_be_stable(self) -> bool:
        """Whether there were clusterings enough to be stable."""
        return self.seen > self.stable_epochs

    def summed(self, gradients: Tensor) -> Tensor:
        """The gradients to cluster: this epoch's, and with ``group_epochs`` those before."""
        return gradients if self.earlier is None else gradients + self.earlier

    def observe(self, labels: Tensor, gradients: Tensor, epoch: int) -> None:
        """Take in a clustering ``(G,)`` of ``gradients``, at the end of ``epoch``, counted from 1."""
        new = tuple(labels.tolist())
        same = self.labels is not None and _agreement(self.labels, new) >= AGREEMENT
        self.labels, self.agreed, self.seen = new, self.agreed + 1 if same else 0, self.seen + 1
        if self.group_epochs:
            self.final = epoch >= self.group_epochs or (self.stable_epochs > 0 and self.stable)
            self.earlier = None if self.final else gradients.clone()

    def restart(self) -> None:
        """Branches have merged: what was seen of them no longer counts."""
        self.labels, self.agreed, self.seen = None, 0, 0

    def state_dict(self) -> dict[str, Any]:
        """What to save; ``earlier`` is a tensor or ``None``, the rest plain."""
        return {
            "labels": None if self.labels is None else list(self.labels),
            "agreed": self.agreed,
            "seen": self.seen,
            "final": self.final,
            "earlier": self.earlier,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of :meth:`state_dict`."""
        self.labels = None if state["labels"] is None else tuple(state["labels"])
        self.agreed, self.seen = state["agreed"], state["seen"]
        self.final, self.earlier = state["final"], state["earlier"]


def one_holds_most(labels: Tensor) -> bool:
    """Whether one cluster of ``labels (G,)`` holds more than half of all branches."""
    sizes = labels[labels != NOISE].bincount()
    return bool(len(sizes)) and int(sizes.max()) > LARGEST * len(labels)


def noise_apart(labels: ArrayLike) -> NDArray[np.int64]:
    """Cluster labels ``(G,)`` in which every noise point (-1) has one of its own, as it has a branch of its own."""
    result = np.array(labels)
    noise = result == NOISE
    result[noise] = result.max(initial=NOISE) + 1 + np.arange(noise.sum())
    return result


def _agreement(one: ArrayLike, other: ArrayLike) -> float:
    """The adjusted Rand index of two clusterings; each noise point is a cluster by itself."""
    return float(adjusted_rand_score(noise_apart(one), noise_apart(other)))
