"""The end of an epoch in several processes: one plan everywhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..model import MultiTaskModel
from ..sharing.criteria import Clustering, ClusterSettings, Criterion, cluster_branches
from ..sharing.embed import Embedding, embed
from ..sharing.epoch_end import EpochEnd, Whole
from ..sharing.plan import MergePlan
from ..sharing.recent import RecentShared
from ..sharing.sketched_capture import keeps_whole
from .ranks import Ranks
from .sharded import ShardedModel

MOST_GATHERED = 2**34
"""Bytes of captured gradients that rank 0 takes to cluster them: 16 GiB."""


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


class ShardedEpochEnd(EpochEnd):
    """Captured gradients meet on rank 0, which embeds and clusters as one process would; branches merge where they are.

    Exact where a rank holds the gradients of all branches, once an epoch; with ``capture="sketch"`` those are
    ``sketch_size`` numbers a branch.
    """

    def __init__(self, model: ShardedModel) -> None:
        self._model, self._ranks = model, model.ranks

    def whole(self, model: MultiTaskModel) -> Whole:
        """All tasks and branches."""
        return self._model

    def capture_settings(self, settings: Mapping[str, Any], model: MultiTaskModel) -> Mapping[str, Any]:
        """Whether to sketch depends on the branches of all ranks together."""
        if settings["capture"] != "sketch":
            return settings
        branches = self._model.branches
        numbers = model.bank.first_weight[0].numel() * branches
        whole = keeps_whole(numbers, branches, settings["sketch_size"], settings["sketch_above"])
        return {**settings, "capture": "exact"} if whole else {**settings, "sketch_above": 0}

    def embed(self, gradients: Tensor, names: Sequence[str], **options: Any) -> Embedding:
        """On rank 0; the others know which branches have a row."""
        own = gradients[: len(self._model.own_branches)]
        size = own[0].numel() if len(own) else gradients[0].numel()
        needed = size * self._model.branches * gradients.element_size()
        if needed > MOST_GATHERED:
            raise ValueError(
                f"the gradients of {self._model.branches} branches are {needed / 2**30:.0f} GiB, too much to cluster "
                'on one rank; use SelectiveSharing(capture="sketch").'
            )
        counts = self._model.owner.bincount(minlength=self._ranks.size).tolist()
        none = [0] * self._ranks.size
        send, receive = [len(own), *none[1:]], counts if self._ranks.first else none
        gathered = self._ranks.exchange(own.flatten(1), send, receive, "captured gradients")
        found: list[Embedding] = []

        def on_first() -> Tensor:
            found.append(embed(gathered.unflatten(1, gradients.shape[1:]), names=names, **options))
            return found[0].branches

        branches = self._ranks.decide(on_first, "embedding")
        return found[0] if found else Embedding(gradients.new_empty(0, 1), branches)

    def cluster(
        self, criterion: Criterion, embedding: Embedding, branches: int, told: ClusterSettings
    ) -> tuple[Tensor, Clustering | None]:
        """On rank 0; the others get the labels."""
        found: list[Clustering | None] = []

        def on_first() -> Tensor:
            labels, clustering = cluster_branches(criterion, embedding, branches, told)
            found.append(clustering)
            return labels

        labels = self._ranks.decide(on_first, "labels of branches")
        return labels, found[0] if found else None

    def recent(self, recent: RecentShared) -> Tensor:
        """The epoch's last shared representations, of all ranks' rows."""
        return recent_of_all(recent, self._ranks)

    def apply(
        self,
        plan: MergePlan,
        model: MultiTaskModel,
        optimizers: Sequence[torch.optim.Optimizer],
        shared: Tensor | None,
        *,
        compose_branches: bool,
    ) -> None:
        """Merge, and spread the branches evenly."""
        self._model.merge(plan, optimizers, shared, compose_branches=compose_branches)
