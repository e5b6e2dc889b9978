"""The end of an epoch in data parallel training: one plan everywhere."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..model import MultiTaskModel
from ..sharing.criteria import Clustering, ClusterSettings, Criterion
from ..sharing.embed import Embedding
from ..sharing.epoch_end import EpochEnd
from ..sharing.plan import MergePlan
from ..sharing.recent import RecentShared
from .ranks import Ranks


class DataParallelEpochEnd(EpochEnd):
    """Every rank has the same captured gradients and losses, and does what one process would.

    Machines may still differ in how they round, so rank 0's labels are everybody's, and so are the heads that rank 0
    has refitted.
    """

    def __init__(self, ranks: Ranks) -> None:
        self._ranks = ranks

    def cluster(
        self, criterion: Criterion, embedding: Embedding, branches: int, told: ClusterSettings
    ) -> tuple[Tensor, Clustering | None]:
        """Rank 0's labels."""
        labels, clustering = super().cluster(criterion, embedding, branches, told)
        return self._ranks.broadcast(labels, "labels of branches"), clustering

    def recent(self, recent: RecentShared) -> Tensor:
        """The epoch's last shared representations, of all ranks' rows."""
        return recent_of_all(recent, self._ranks)

    @torch.no_grad()
    def apply(
        self,
        plan: MergePlan,
        model: MultiTaskModel,
        optimizers: Sequence[torch.optim.Optimizer],
        shared: Tensor | None,
        *,
        compose_branches: bool,
    ) -> None:
        """Merge everywhere; refitted heads, and branches aligned or composed before that, as rank 0 has them."""
        super().apply(plan, model, optimizers, shared, compose_branches=compose_branches)
        if shared is None or not plan.changes:
            return
        for parameter in (*model.heads.parameters(), *model.bank.parameters()):
            self._ranks.broadcast(parameter.data, "merged branches and refitted heads")


def recent_of_all(recent: RecentShared, ranks: Ranks) -> Tensor:
    """The epoch's last shared representations in the order of one process: ``(n, H)``.

    Each rank has kept its rows of the last batches, at least so many rows as are asked for or all of the epoch's.
    """
    own = recent.batches
    kept = ranks.hear([len(batch) for batch in own], "how many rows are kept")
    batches = min(map(len, kept))
    sizes = [counts[len(counts) - batches :] for counts in kept]
    whole = [
        ranks.gather_rows(batch.flatten(1), [of_rank[place] for of_rank in sizes], "recent shared representations")
        for place, batch in enumerate(own[len(own) - batches :])
    ]
    rows: Tensor = torch.cat(whole)[-recent.rows :].unflatten(1, own[0].shape[1:])
    return rows
