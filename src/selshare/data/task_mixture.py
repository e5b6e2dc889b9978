"""Tasks with data sets of their own as one data set: a sample is labelled for its own tasks, for others it is not."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, cast, get_args

import torch
from torch import Generator, Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    Sampler,
    SequentialSampler,
    TensorDataset,
    default_collate,
)

from ..objectives import pack_targets
from ..tasks import Task, TaskLayout

Sampling = Literal["proportional", "equal", "temperature"]
SAMPLINGS: tuple[Sampling, ...] = get_args(Sampling)
Names = str | tuple[str, ...]
"""The task, or the tasks, that a data set is labelled for."""
Source = Dataset[Any] | tuple[Tensor, Tensor]


class TaskMixture(Dataset[tuple[Tensor, Tensor]]):
    """One data set per task, read as one: what the Trainer and :meth:`loader` take batches from.

    A sample is ``(input, packed target row)``, NaN for every task that its data set is not labelled for. An epoch has
    every sample of each data set exactly once, unless ``oversample`` is asked for.

    Parameters
    ----------
    tasks
        All tasks, in the order of the packed targets.
    data
        Task name → its data set; a tuple of names for a data set that is labelled for several tasks. Data sets are
        ``Dataset`` of ``(input, target)`` samples, or pairs of tensors ``(inputs, targets)``; targets are what
        :func:`~selshare.objectives.pack_targets` takes for these tasks alone, so labels may be missing here too.
    sampling
        How the data sets share a batch: in proportion to their sizes ``n``; ``"equal"``, for as long as each lasts;
        or ``"temperature"``, in proportion to ``n^(1/temperature)``: 1 is proportional, ∞ is equal. Batches keep
        these shares to within about a sample, not only on average. Where sampling is not proportional, small data
        sets end early in an epoch, and the others go on in their proportion.
    temperature
        Above 0; see ``sampling``.
    oversample
        Repeat data sets that would end early, each time in a new order, so that the shares hold to the end of the
        epoch.

    Attributes
    ----------
    sizes
        Data set → how many samples it has, in order.

    Raises
    ------
    ValueError, TypeError
        Where a task has no data set or is unknown, a data set is empty or (tensors only, as others would have to be
        read through) has no label for a task of its own, or inputs differ in shape; names the task.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        data: Mapping[Names, Source],
        *,
        sampling: Sampling = "proportional",
        temperature: float = 2.0,
        oversample: bool = False,
    ) -> None:
        if sampling not in SAMPLINGS:
            raise ValueError(f"There is no sampling {sampling!r}; choose from {', '.join(SAMPLINGS)}.")
        if not temperature > 0:
            raise ValueError(f"The temperature is {temperature}; it must be above 0.")
        self.layout = TaskLayout(tasks)
        _check_names(self.layout, data)
        self._parts = [_Part(self.layout, names, source) for names, source in data.items()]
        _check_shapes(self._parts)
        self.sizes: dict[Names, int] = {part.names: len(part) for part in self._parts}
        self.oversample = oversample
        power = {"proportional": 1.0, "equal": 0.0, "temperature": 1 / temperature}[sampling]
        self._shares = [len(part) ** power for part in self._parts]
        self._starts = torch.tensor([0, *self.sizes.values()]).cumsum(0)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """One sample; data sets one after the other."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"There is no sample {index} among {len(self)}.")
        inputs, targets = self.batch([index % len(self)])
        return inputs[0], targets[0]

    def batch(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Inputs ``(B, …)`` and packed targets ``(B, target_width)`` float32 of some samples, in their order."""
        chosen = torch.as_tensor(indices)
        part_of = torch.searchsorted(self._starts, chosen, right=True) - 1
        inputs: Tensor | None = None
        targets = torch.full((len(chosen), self.layout.target_width), math.nan)
        for number in part_of.unique().tolist():
            rows = (part_of == number).nonzero().squeeze(1)
            part = self._parts[number]
            found, labels = part.take(chosen[rows] - self._starts[number])
            if inputs is None:
                inputs = found.new_empty(len(chosen), *found.shape[1:])
            inputs[rows] = found
            targets[rows[:, None], part.columns] = labels
        if inputs is None:
            raise ValueError("A batch of a task mixture needs at least one sample.")
        return inputs, targets

    def loader(
        self,
        batch_size: int = 64,
        *,
        shuffle: bool = True,
        seed: int = 0,
        generator: Generator | None = None,
        workers: int = 0,
    ) -> DataLoader[Any]:
        """A loader of batches; two with one seed give the same batches, whatever the number of workers.

        Parameters
        ----------
        batch_size
            A single sample that would be left for the last batch joins the one before.
        shuffle
            Draw by ``sampling``; otherwise data sets come one after the other, in order.
        seed, generator
            Of the order, which differs from epoch to epoch. A generator of your own takes the place of the seed.
        workers
            Processes that read samples.
        """
        batches: Sampler[list[int]] | BatchSampler = BatchSampler(SequentialSampler(self), batch_size, drop_last=False)
        if shuffle:
            chosen = torch.Generator().manual_seed(seed) if generator is None else generator
            batches = MixtureBatches(list(self.sizes.values()), self._shares, batch_size, self.oversample, chosen)
        return DataLoader(_Batches(self), sampler=batches, batch_size=None, num_workers=workers)


class MixtureBatches(Sampler[list[int]]):
    """Indices of each batch of an epoch: data sets side by side, each in a new order, in their shares."""

    def __init__(
        self, sizes: Sequence[int], shares: Sequence[float], batch_size: int, oversample: bool, generator: Generator
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"The batch size is {batch_size}; it must be at least 1.")
        self._sizes, self._shares, self._batch_size = sizes, shares, batch_size
        self._draws = _draws(sizes, shares) if oversample else list(sizes)
        self._generator = generator

    def __len__(self) -> int:
        return max(1, (sum(self._draws) + self._batch_size - (2 if self._batch_size > 1 else 1)) // self._batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        order = mixed_order(self._sizes, self._shares, self._draws, self._generator).tolist()
        for number in range(len(self)):
            last = number == len(self) - 1
            yield order[number * self._batch_size : None if last else (number + 1) * self._batch_size]


def mixed_order(sizes: Sequence[int], shares: Sequence[float], draws: Sequence[int], generator: Generator) -> Tensor:
    """Indices into the data sets one after the other, so mixed that every stretch has them in their shares.

    The k-th draw from a data set of share p is due at the time ``(k + u)/p``, u uniform in [0, 1): an ordering in
    strata, O(N log N). Where a data set ends, the others go on in their proportion.
    """
    indices, times, start = [], [], 0
    for size, share, count in zip(sizes, shares, draws, strict=True):
        passes = [torch.randperm(size, generator=generator) for _ in range(math.ceil(count / size))]
        indices.append(start + torch.cat(passes)[:count])
        jitter = torch.rand(count, generator=generator, dtype=torch.float64)
        times.append((torch.arange(count) + jitter) / share)
        start += size
    return torch.cat(indices)[torch.cat(times).argsort(stable=True)]


def _draws(sizes: Sequence[int], shares: Sequence[float]) -> list[int]:
    """How often each data set is drawn from until the one that lasts longest ends."""
    longest = max(size / share for size, share in zip(sizes, shares, strict=True))
    return [max(size, round(longest * share)) for size, share in zip(sizes, shares, strict=True)]


class _Batches(Dataset[tuple[Tensor, Tensor]]):
    """A mixture whose index is a whole batch."""

    def __init__(self, mixture: TaskMixture) -> None:
        self._mixture = mixture

    def __getitem__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        return self._mixture.batch(indices)


class _Part:
    """One data set, and which columns of the packed targets it fills."""

    def __init__(self, layout: TaskLayout, names: Names, source: Source) -> None:
        self.names = names
        own = [layout.index(name) for name in _tuple(names)]
        self.described = f"task {names!r}" if isinstance(names, str) else f"tasks {', '.join(map(repr, names))}"
        self._layout = TaskLayout([layout.tasks[index] for index in own])
        slices = [layout.target_slices[index] for index in own]
        self.columns = torch.tensor([column for part in slices for column in range(part.start, part.stop)])
        tensors = source.tensors if isinstance(source, TensorDataset) else source
        self._tensors: tuple[Tensor, Tensor] | None = None
        if isinstance(tensors, tuple):
            self._tensors = self._checked(tensors)
        elif not (isinstance(source, Dataset) and hasattr(source, "__len__")):
            raise TypeError(
                f"The data of {self.described} is a {type(source).__name__}; give a Dataset with a length, or a pair "
                "of tensors (inputs, targets)."
            )
        self._source = source
        if len(self) == 0:
            raise ValueError(f"The data set of {self.described} is empty; give at least one sample.")

    def __len__(self) -> int:
        return len(self._tensors[0] if self._tensors is not None else cast(Any, self._source))

    def take(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs and packed targets of these samples."""
        if self._tensors is not None:
            return self._tensors[0][indices], self._tensors[1][indices]
        samples = [cast(Any, self._source)[index] for index in indices.tolist()]
        if not isinstance(samples[0], tuple | list) or len(samples[0]) != 2:
            raise TypeError(f"A sample of {self.described} must be a pair (input, target).")
        inputs, targets = default_collate(samples)
        return inputs, self._pack(targets)

    def _pack(self, targets: Any) -> Tensor:
        """``(B, width)`` float32, values checked."""
        if isinstance(targets, Tensor) and targets.ndim == 1:
            targets = targets[:, None]
        return pack_targets(self._layout, targets).float()

    def _checked(self, tensors: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        """Two tensors of one length, with a label for every task."""
        if len(tensors) != 2 or len(tensors[0]) != len(tensors[1]):
            lengths = " and ".join(str(len(tensor)) for tensor in tensors)
            raise ValueError(
                f"The data of {self.described} has tensors of {lengths} rows; give (inputs, targets) of one length."
            )
        packed = self._pack(tensors[1])
        for name, columns in zip(self._layout.names, self._layout.target_slices, strict=True):
            if len(packed) and bool(packed[:, columns].isnan().all()):
                raise ValueError(f"The data set of task {name!r} has no labelled sample; give one that has.")
        return tensors[0], packed


def _tuple(names: Names) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names)


def _check_names(layout: TaskLayout, data: Mapping[Names, Source]) -> None:
    """Every name is a task, and every task has a data set."""
    given = {name for names in data for name in _tuple(names)}
    unknown = next((name for names in data for name in _tuple(names) if name not in layout.names), None)
    if unknown is not None:
        raise ValueError(f"The data name the unknown task {unknown!r}; the tasks are {', '.join(layout.names[:10])}.")
    missing = next((name for name in layout.names if name not in given), None)
    if missing is not None:
        raise ValueError(f"Task {missing!r} has no data set, and so no labelled sample; give it one.")


def _check_shapes(parts: Sequence[_Part]) -> None:
    """All inputs have the shape of the first's."""
    first, wanted = parts[0], parts[0].take(torch.tensor([0]))[0].shape[1:]
    for part in parts[1:]:
        shape = part.take(torch.tensor([0]))[0].shape[1:]
        if shape != wanted:
            raise ValueError(
                f"Inputs of {part.described} have shape {tuple(shape)}, those of {first.described} {tuple(wanted)}; "
                "bring them to one shape."
            )
