"""From whatever holds samples to batches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    TensorDataset,
)

from ..data.task_mixture import TaskMixture

Targets = Mapping[str, Tensor] | Tensor
Data = DataLoader[Any] | Dataset[Any] | tuple[Tensor, Tensor]
"""Batches of ``(inputs, targets)``, a data set of such samples, or the two tensors."""


def as_loader(
    data: Data, batch_size: int, *, shuffle: bool, generator: torch.Generator | None = None
) -> DataLoader[Any]:
    """A loader of ``(inputs, targets)`` batches.

    Parameters
    ----------
    data
        A ``DataLoader``, used as it is; a ``Dataset`` of ``(input, targets)`` samples; or a pair of tensors
        ``(inputs, targets)``.
    batch_size, shuffle, generator
        For data that is not a loader already. When shuffling, a last batch of a single sample is left out, as batch
        normalisation cannot use it.

    Raises
    ------
    TypeError, ValueError
        If ``data`` is none of these, is empty, or the two tensors differ in length.
    """
    if isinstance(data, DataLoader):
        return data
    if isinstance(data, TaskMixture):
        return data.loader(batch_size, shuffle=shuffle, generator=generator)
    if isinstance(data, tuple):
        data = _paired(data)
    if not isinstance(data, Dataset) or not hasattr(data, "__len__"):
        raise TypeError(
            f"data must be a DataLoader, a Dataset or (inputs, targets) tensors; it is {type(data).__name__}."
        )
    if len(data) == 0:
        raise ValueError("the data set is empty; give at least one sample.")
    order = RandomSampler(data, generator=generator) if shuffle else SequentialSampler(data)
    lone_last = shuffle and len(data) > batch_size and len(data) % batch_size == 1
    if isinstance(data, TensorDataset):
        # Indexing the tensors once a batch is many times faster than collating single samples.
        batches = BatchSampler(order, batch_size, drop_last=lone_last)
        return DataLoader(data, sampler=batches, batch_size=None)
    return DataLoader(data, batch_size, sampler=order, drop_last=lone_last)


def steps_of(loader: DataLoader[Any]) -> int | None:
    """How many batches a loader gives in an epoch; ``None`` where that is not known."""
    return None if isinstance(loader.dataset, IterableDataset) else len(loader)


def to_device(batch: Any, device: torch.device, dtype: torch.dtype | None = None) -> tuple[Tensor, Targets]:
    """The inputs and targets of a loader's batch on ``device``; the host does not wait for a GPU.

    Inputs that are floating numbers are converted to ``dtype``, where one is given.

    Raises
    ------
    TypeError
        If the batch is not a pair.
    """
    if not isinstance(batch, list | tuple) or len(batch) != 2:
        raise TypeError(f"a batch must be a pair (inputs, targets); the loader gave {type(batch).__name__}.")
    inputs, targets = batch
    inputs = _moved(inputs, device)
    if dtype is not None and inputs.is_floating_point():
        inputs = inputs.to(dtype)
    if isinstance(targets, Mapping):
        return inputs, {name: _moved(tensor, device) for name, tensor in targets.items()}
    return inputs, _moved(targets, device)


def _moved(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor on ``device``. Ordinary memory is copied to a GPU by way of pinned memory, as only that is copied later
    on, while the host goes on; torch keeps it until then."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def _paired(data: tuple[Tensor, Tensor]) -> TensorDataset:
    """A data set of two tensors, if they fit together."""
    if len(data) != 2 or not all(isinstance(part, Tensor) for part in data):
        raise TypeError("a tuple given as data must be (inputs, targets), two tensors.")
    inputs, targets = data
    if len(inputs) != len(targets):
        raise ValueError(f"there are {len(inputs)} inputs but {len(targets)} rows of targets.")
    return TensorDataset(inputs, targets)
