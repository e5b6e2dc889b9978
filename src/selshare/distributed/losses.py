"""Losses of a batch whose rows are split over ranks, such that gradients add up to those of the whole batch."""

from __future__ import annotations

import torch
from torch import Tensor

from ..objectives import TaskLosses, task_losses
from ..tasks import TaskLayout
from .ranks import Ranks
from .rows import gathered_alike


class SplitLosses:
    """The tasks' losses of a split batch.

    A task's loss is a mean over its labels in the whole batch, and labels may be missing: a rank's part is its own sum
    divided by the number of labels all ranks have. Ranking compares rows with each other, so that outputs and targets
    of ranking tasks go to every rank, and each takes the gradient of its own rows.

    Parameters
    ----------
    layout
        Of the tasks.
    ranks
        Who takes part.
    """

    def __init__(self, layout: TaskLayout, ranks: Ranks) -> None:
        self._layout, self._ranks = layout, ranks
        pairwise = [index for index, task in enumerate(layout.tasks) if task.kind == "ranking"]
        single = [index for index, task in enumerate(layout.tasks) if task.kind != "ranking"]
        self._single = _Part(layout, single) if single else None
        self._pairwise = _Part(layout, pairwise) if pairwise else None

    def __call__(self, outputs: Tensor, packed: Tensor, sizes: tuple[int, ...]) -> tuple[Tensor, TaskLosses]:
        """This rank's term of the weighted loss, and the losses of the whole batch.

        ``outputs`` and ``packed`` targets hold this rank's rows; ``sizes`` says how many each rank has. The terms'
        gradients, summed over ranks, are the gradient of the whole batch's loss.
        """
        tasks = len(self._layout)
        told = outputs.new_zeros(2, tasks, dtype=torch.promote_types(outputs.dtype, torch.float32))
        own: list[tuple[_Part, TaskLosses]] = []
        if self._single is not None:
            losses = self._single.losses(outputs, packed)
            self._single.tell(told, losses)
            own.append((self._single, losses))
        if self._pairwise is not None:
            both = (self._pairwise.outputs(outputs), self._pairwise.targets(packed))
            everyone = [gathered_alike(part, self._ranks, sizes, "rows of ranking tasks") for part in both]
            losses = task_losses(self._pairwise.layout, *everyone)
            if self._ranks.first:
                self._pairwise.tell(told, losses)
            own.append((self._pairwise, losses))
        sums, labelled = self._ranks.all_reduce(told, "losses")
        terms = [
            (part.weights(losses.values) * losses.values * losses.labelled / part.of(labelled).clamp(min=1)).sum()
            for part, losses in own
        ]
        whole = TaskLosses((sums / labelled.clamp(min=1)).to(outputs.dtype), labelled.long())
        return torch.stack(terms).sum(), whole


class _Part:
    """Some of the tasks, as a layout of their own."""

    def __init__(self, layout: TaskLayout, members: list[int]) -> None:
        self.layout = layout if len(members) == len(layout) else TaskLayout([layout.tasks[index] for index in members])
        self._all = len(members) == len(layout)
        self._members = torch.tensor(members)
        self._columns = torch.tensor([c for i in members for c in _columns(layout.output_slices[i])])
        self._targets = torch.tensor([c for i in members for c in _columns(layout.target_slices[i])])

    def outputs(self, outputs: Tensor) -> Tensor:
        """Their columns of packed outputs."""
        return outputs if self._all else outputs.index_select(1, self._columns.to(outputs.device))

    def targets(self, packed: Tensor) -> Tensor:
        """Their columns of packed targets."""
        return packed if self._all else packed.index_select(1, self._targets.to(packed.device))

    def losses(self, outputs: Tensor, packed: Tensor) -> TaskLosses:
        """Their losses of some rows."""
        return task_losses(self.layout, self.outputs(outputs), self.targets(packed))

    def tell(self, told: Tensor, losses: TaskLosses) -> None:
        """Put their sums and counts among those of all tasks, ``(2, T)``."""
        both = torch.stack([losses.values.detach() * losses.labelled, losses.labelled.to(losses.values.dtype)])
        told[:, self._members.to(told.device)] = both.to(told.dtype)

    def of(self, values: Tensor) -> Tensor:
        """Their entries of ``(T,)``."""
        return values.index_select(0, self._members.to(values.device))

    def weights(self, like: Tensor) -> Tensor:
        """Their weights in the loss."""
        return self.layout.constant("weights", like.device, like.dtype)


def _columns(part: slice) -> range:
    """The columns of a slice."""
    return range(part.start, part.stop)
