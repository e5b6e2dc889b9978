"""What a Trainer does itself in one process, and together with others in several."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ..distributed import DataParallel, Ranks, Share
from ..model import MultiTaskModel
from ..sharing import EpochEnd
from .batches import Data, Targets, as_loader, to_device
from .evaluation import Evaluation, evaluate, evaluation_of, run_batches
from .resume import CheckpointFolder, random_states, restore_random_states
from .shares import ShareLoader, dealt

Batch = Any
Loss = Callable[[MultiTaskModel, Tensor, Targets, bool | None], Tensor]


class OneProcess:
    """All of it here.

    Attributes
    ----------
    first
        Whether this process writes files, shows progress and calls callbacks.
    epoch_end
        What the sharing does together with other processes.
    """

    first = True
    epoch_end: EpochEnd | None = None

    def start(self, model: MultiTaskModel) -> None:
        """Before the sharing is attached."""

    def stop(self) -> None:
        """After it is detached."""

    def seed(self, seed: int) -> None:
        """Seed torch's global generator, at the start of a run."""
        torch.manual_seed(seed)

    def batches(self, loader: DataLoader[Any]) -> Iterator[Batch]:
        """What :meth:`loss` takes, for one epoch."""
        return iter(loader)

    def loss(self, loss: Loss, model: MultiTaskModel, batch: Batch, check: bool | None) -> Tensor:
        """The tasks' losses, to call backward on: ``loss(model, inputs, targets, check)``, which may be compiled."""
        inputs, targets = to_model(batch, model)
        return loss(model, inputs, targets, check)

    def before_step(self) -> None:
        """Between the last backward and a step."""

    def end_epoch(self) -> None:
        """After the last step and the sharing."""

    def evaluate(self, model: MultiTaskModel, data: Data) -> Evaluation:
        """Loss and metrics on ``data``."""
        return evaluate(model, data)

    def newest(self, folder: CheckpointFolder) -> dict[str, Any] | None:
        """The state to go on from."""
        return folder.newest()

    def write(self, folder: CheckpointFolder, epoch: int, state: Mapping[str, Any]) -> None:
        """Save the state of an epoch."""
        folder.write(epoch, state)

    def random_states(self, loader: DataLoader[Any], order: torch.Generator) -> dict[str, Any]:
        """Of every source of chance."""
        return random_states(loader, order)

    def restore_random_states(self, states: Mapping[str, Any], loader: DataLoader[Any], order: torch.Generator) -> None:
        """Put back what :meth:`random_states` read."""
        restore_random_states(states, loader, order)


class DataParallelProcesses(OneProcess):
    """The whole model on every rank, each with its rows of every batch."""

    def __init__(self, ranks: Ranks) -> None:
        self._ranks = ranks
        self._parallel: DataParallel | None = None
        self._shares: tuple[DataLoader[Any], ShareLoader] | None = None
        self._common = torch.get_rng_state()
        self.first = ranks.first

    def start(self, model: MultiTaskModel) -> None:
        """Rank 0's weights everywhere."""
        self._parallel = DataParallel(model, self._ranks).start()
        self.epoch_end = self._parallel.epoch_end

    def stop(self) -> None:
        """Leave the model to one process."""
        if self._parallel is not None:
            self._parallel.stop()
        self._parallel = self._shares = self.epoch_end = None

    def seed(self, seed: int) -> None:
        """One stream that all ranks draw the order of samples from, and one of each rank's own for dropout."""
        torch.manual_seed(seed)
        self._common = torch.get_rng_state()
        torch.manual_seed(seed + 7919 * (self._ranks.rank + 1))

    def batches(self, loader: DataLoader[Any]) -> Iterator[Batch]:
        """This rank's rows of each batch; the same batches on every rank, whatever was drawn before."""
        if self._shares is None or self._shares[0] is not loader:
            self._shares = loader, ShareLoader(loader, self._ranks)
        self._ranks.broadcast(self._common, "order of samples")
        shares = iter(self._shares[1])
        while True:
            with self._common_stream():
                share = next(shares, None)
            if share is None:
                return
            yield share

    def loss(self, loss: Loss, model: MultiTaskModel, batch: Batch, check: bool | None) -> Tensor:
        """This rank's term of the loss of the whole batch."""
        assert self._parallel is not None
        inputs, targets = to_model(batch[0], model)
        return self._parallel.loss(Share(inputs, targets, batch[1]), check=check)

    def before_step(self) -> None:
        """Gradients become those of the whole batch."""
        assert self._parallel is not None
        self._parallel.finish()

    def end_epoch(self) -> None:
        """Nothing may have come between the ranks."""
        assert self._parallel is not None
        self._parallel.check()

    def evaluate(self, model: MultiTaskModel, data: Data) -> Evaluation:
        """Batches in turns; rank 0 scores."""
        was_training = model.training
        model.eval()
        try:
            loader = as_loader(data, 512, shuffle=False)
            lengths: list[int] = []
            with self._common_stream():  # a loader draws from it even where it does not shuffle
                batches = _measured(dealt(loader, self._ranks), lengths)
                outputs, targets, total, count = run_batches(model, batches)
        finally:
            model.train(was_training)
        both = self._ranks.all_reduce(torch.stack([total, count]), "validation losses")
        outputs, targets = (_gathered(rows, lengths, self._ranks) for rows in (outputs, targets))
        return self._ranks.decide(lambda: evaluation_of(model.layout, outputs, targets, *both), "evaluation")

    def newest(self, folder: CheckpointFolder) -> dict[str, Any] | None:
        """What rank 0 finds."""
        return self._ranks.decide(folder.newest, "checkpoint")

    def write(self, folder: CheckpointFolder, epoch: int, state: Mapping[str, Any]) -> None:
        """By rank 0."""
        if self.first:
            folder.write(epoch, state)

    def random_states(self, loader: DataLoader[Any], order: torch.Generator) -> dict[str, Any]:
        """Rank 0's, as in one process, and the others'."""
        own = random_states(loader, order)
        kept = {name: own[name] for name in ("torch", "cuda", "numpy", "python")}
        return {**own, "common": self._common, "ranks": self._ranks.hear(kept, "random states")}

    def restore_random_states(self, states: Mapping[str, Any], loader: DataLoader[Any], order: torch.Generator) -> None:
        """Every rank its own. Where there were other ranks, they draw anew from what rank 0's state seeds."""
        kept = states.get("ranks", [])
        own = kept[self._ranks.rank] if len(kept) == self._ranks.size else {}
        restore_random_states({**states, **own}, loader, order)
        self._common = states.get("common", states["torch"])
        if not own:
            torch.manual_seed(int(torch.randint(2**40, ())) + self._ranks.rank)

    @contextmanager
    def _common_stream(self) -> Iterator[None]:
        """Draw from the stream of all ranks."""
        own = torch.get_rng_state()
        torch.set_rng_state(self._common)
        try:
            yield
        finally:
            self._common = torch.get_rng_state()
            torch.set_rng_state(own)


def to_model(batch: Batch, model: MultiTaskModel) -> tuple[Tensor, Targets]:
    """A batch on the model's device, its inputs in the model's dtype."""
    first = next(model.parameters())
    return to_device(batch, first.device, first.dtype)


def _measured(batches: Iterator[Batch], lengths: list[int]) -> Iterator[Batch]:
    """The batches, whose lengths are noted."""
    for batch in batches:
        lengths.append(len(batch[0]))
        yield batch


def _gathered(rows: Tensor, lengths: Sequence[int], ranks: Ranks) -> Tensor:
    """On rank 0, the rows of all batches in their order; nothing of use elsewhere."""
    told = ranks.hear((list(lengths), rows.dtype), "lengths of batches")
    dtype = next((dtype for held, dtype in told if held), rows.dtype)
    counts = [sum(held) for held, _ in told]
    none = [0] * ranks.size
    everything = ranks.exchange(
        rows.to(dtype), [len(rows), *none[1:]], counts if ranks.first else none, "validation outputs"
    )
    if not ranks.first:
        return everything
    by_rank = [iter(part.split(held)) for part, (held, _) in zip(everything.split(counts), told, strict=True)]
    batches = sum(len(held) for held, _ in told)
    return torch.cat([next(by_rank[number % ranks.size]) for number in range(batches)])
