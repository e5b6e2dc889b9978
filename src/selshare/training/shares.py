"""Each rank's part of a loader's batches, loaded by that rank alone where the loader goes by indices."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Dataset, DistributedSampler, IterableDataset, TensorDataset

from ..distributed import Ranks, ShardedModel
from ..distributed.rows import own_rows, split_evenly, take_targets


class ShareLoader:
    """A rank's rows of every batch of a loader that is the same on every rank.

    Iterating gives ``((inputs, targets), sizes)``: rows, perhaps none, and how many of them each rank has.

    Parameters
    ----------
    loader
        As one process would use it.
    ranks
        Who takes part.

    Raises
    ------
    ValueError
        If the loader has a ``DistributedSampler``, and so gives other batches to every rank.
    """

    def __init__(self, loader: DataLoader[Any], ranks: Ranks) -> None:
        for sampler in (loader.sampler, getattr(loader.batch_sampler, "sampler", None)):
            if isinstance(sampler, DistributedSampler):
                raise ValueError(
                    "the loader has a DistributedSampler, which gives every rank batches of its own; give the loader "
                    "that one process would use, and each rank takes its rows of every batch."
                )
        self._ranks = ranks
        self._sizes: deque[tuple[int, ...] | None] = deque()
        self._loader = by_indices(loader, self._own)

    def __iter__(self) -> Iterator[tuple[Any, tuple[int, ...]]]:
        """One epoch."""
        self._sizes.clear()
        for batch in self._loader:
            sizes = self._sizes.popleft() if self._sizes else None
            if sizes is None:  # the whole batch came
                sizes = split_evenly(_length(batch), self._ranks.size)
                rows = own_rows(sizes, self._ranks.rank)
            else:
                rows = slice(0, sizes[self._ranks.rank])
            yield _taken(batch, rows), sizes

    def _own(self, number: int, indices: Any) -> Any:
        """The indices of this rank's rows; one where there is none, as an empty batch cannot be collated."""
        if not isinstance(indices, Sequence):
            self._sizes.append(None)
            return indices
        sizes = split_evenly(len(indices), self._ranks.size)
        self._sizes.append(sizes)
        own = indices[own_rows(sizes, self._ranks.rank)]
        return own or indices[:1]


def dealt(loader: DataLoader[Any], ranks: Ranks) -> Iterator[Any]:
    """Whole batches in turns: rank r has those of number r, r + W, …"""

    def own(number: int, indices: Any) -> Any:
        return indices if number % ranks.size == ranks.rank else None

    picked = by_indices(loader, own)
    if picked is loader:
        yield from (batch for number, batch in enumerate(loader) if number % ranks.size == ranks.rank)
    else:
        yield from picked


def own_columns(loader: DataLoader[Any], model: ShardedModel) -> DataLoader[Any] | None:
    """The loader, with the targets of this rank's tasks only; ``None`` where they cannot be had without the others.

    They can from the tensors of a data set that are indexed once a batch, as the Trainer's own loaders do.
    """
    data = loader.dataset
    if type(data) is not TensorDataset or len(data.tensors) != 2 or data.tensors[1].ndim != 2:
        return None
    if type(loader.sampler) is not BatchSampler or data.tensors[1].shape[1] != model.layout.target_width:
        return None
    slices = [model.layout.target_slices[task] for task in model.own_tasks]
    columns = torch.tensor([column for part in slices for column in range(part.start, part.stop)], dtype=torch.int64)
    own = _Columns(*data.tensors, columns)
    return DataLoader(own, batch_size=None, sampler=loader.sampler, generator=loader.generator)


class _Columns(Dataset[tuple[Tensor, Tensor]]):
    """Rows of inputs and some columns of targets; an index is a batch."""

    def __init__(self, inputs: Tensor, targets: Tensor, columns: Tensor) -> None:
        self._inputs, self._targets, self._columns = inputs, targets, columns

    def __getitem__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        rows = torch.as_tensor(indices)
        return self._inputs[rows], self._targets[rows.unsqueeze(1), self._columns]


def by_indices(loader: DataLoader[Any], pick: Any) -> DataLoader[Any]:
    """The same loader of other indices: ``pick(number, indices)`` of every batch, left out where that is ``None``.

    ``loader`` itself where its data set has no indices.
    """
    if isinstance(loader.dataset, IterableDataset):
        return loader
    common = {
        "num_workers": loader.num_workers,
        "collate_fn": loader.collate_fn,
        "pin_memory": loader.pin_memory,
        "timeout": loader.timeout,
        "worker_init_fn": loader.worker_init_fn,
        "multiprocessing_context": loader.multiprocessing_context,
        "generator": loader.generator,
        "prefetch_factor": loader.prefetch_factor,
        "persistent_workers": loader.persistent_workers,
    }
    if loader.batch_sampler is None:
        return DataLoader(loader.dataset, batch_size=None, sampler=_Picked(loader.sampler, pick), **common)
    return DataLoader(loader.dataset, batch_sampler=_Picked(loader.batch_sampler, pick), **common)


class _Picked:
    """A sampler of what ``pick`` makes of another's."""

    def __init__(self, sampler: Any, pick: Any) -> None:
        self._sampler, self._pick = sampler, pick

    def __iter__(self) -> Iterator[Any]:
        for number, indices in enumerate(self._sampler):
            picked = self._pick(number, indices)
            if picked is not None:
                yield picked


def _length(batch: Any) -> int:
    """Rows of a batch."""
    return len(batch[0])


def _taken(batch: Any, rows: slice) -> Any:
    """Some rows of a batch ``(inputs, targets)``."""
    if not isinstance(batch, list | tuple) or len(batch) != 2:
        return batch  # to_device says what is wrong with it
    return batch[0][rows], take_targets(batch[1], rows)
