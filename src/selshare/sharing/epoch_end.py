"""The parts of an epoch's end that several processes take together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from ..model import MultiTaskModel
from ..tasks import TaskLayout
from .criteria import Clustering, ClusterSettings, Criterion, cluster_branches
from .embed import Embedding, embed
from .merge import apply
from .plan import MergePlan
from .recent import RecentShared


class Whole(Protocol):
    """What sharing asks of all tasks and branches, wherever they are."""

    assignment: Tensor

    @property
    def layout(self) -> TaskLayout:
        """The tasks."""

    @property
    def branches(self) -> int:
        """How many branches are live."""

    def tasks_by_branch(self) -> tuple[tuple[int, ...], ...]:
        """For each live branch, the indices of its tasks."""

    def recorded_losses(self) -> Tensor:
        """Mean training loss per labelled sample of each task, ``(T,)``."""


class EpochEnd:
    """One process has all branches and all samples. :mod:`selshare.distributed` has other answers."""

    def whole(self, model: MultiTaskModel) -> Whole:
        """All tasks and branches of which ``model`` has some, or all."""
        return model

    def capture_settings(self, settings: Mapping[str, Any], model: MultiTaskModel) -> Mapping[str, Any]:
        """The sharing's settings, from which the capture is made."""
        return settings

    def embed(self, gradients: Tensor, names: Sequence[str], **options: Any) -> Embedding:
        """Embed the branches by this process's captured gradients; see :func:`selshare.sharing.embed`."""
        return embed(gradients, names=names, **options)

    def cluster(
        self, criterion: Criterion, embedding: Embedding, branches: int, told: ClusterSettings
    ) -> tuple[Tensor, Clustering | None]:
        """Cluster the embedding; the same labels in every process."""
        return cluster_branches(criterion, embedding, branches, told)

    def recent(self, recent: RecentShared) -> Tensor:
        """The epoch's last shared representations."""
        return recent.gathered()

    def apply(
        self,
        plan: MergePlan,
        model: MultiTaskModel,
        optimizers: Sequence[torch.optim.Optimizer],
        shared: Tensor | None,
        *,
        compose_branches: bool,
    ) -> None:
        """Merge; see :func:`selshare.sharing.apply`."""
        apply(plan, model, optimizers, shared=shared, compose_branches=compose_branches)
