"""What a Trainer does itself in one process, and together with others in several."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ..distributed import DataParallel, Ranks, ShardedEpochEnd, ShardedModel, Share
from ..distributed.alike import check_alike
from ..model import MultiTaskModel
from ..objectives import TaskLosses
from ..sharing import EpochEnd
from .batches import Data, Targets, as_loader, to_device
from .evaluation import Evaluation, evaluate, evaluate_sharded, evaluation_of, run_batches
from .resume import CheckpointFolder, random_states, restore_random_states
from .shares import ShareLoader, dealt, own_columns

Batch = Any
Model = MultiTaskModel | ShardedModel
Loss = Callable[[MultiTaskModel, Tensor, Targets, bool | None], Tensor]


class OneProcess:
    """All of it here.

    Attributes
    ----------
    first
        Whether this process writes files, shows progress and calls callbacks.
    shards
        Over how many ranks the bank is sharded.
    epoch_end
        What the sharing does together with other processes.
    """

    first = True
    shards: int | None = None
    epoch_end: EpochEnd | None = None

    def check(self, settings: Mapping[str, Any]) -> None:
        """Raise ``ValueError`` if there is a setting, by its name in the Trainer, that cannot be had in this way."""

    def start(self, model: Model) -> None:
        """Before the sharing is attached."""

    def stop(self) -> None:
        """After it is detached."""

    def part(self, model: Model) -> MultiTaskModel:
        """What the sharing is attached to."""
        assert isinstance(model, MultiTaskModel)
        return model

    def seed(self, seed: int) -> None:
        """Seed torch's global generator, at the start of a run."""
        torch.manual_seed(seed)

    def batches(self, loader: DataLoader[Any]) -> Iterator[Batch]:
        """What :meth:`loss` takes, for one epoch."""
        return iter(loader)

    def loss(self, loss: Loss, model: Model, batch: Batch, check: bool | None) -> Tensor:
        """The tasks' losses, to call backward on: ``loss(model, inputs, targets, check)``, which may be compiled."""
        inputs, targets = to_model(batch, model)
        return loss(self.part(model), inputs, targets, check)

    def before_step(self) -> None:
        """Between the last backward and a step."""

    def recorded(self, model: Model) -> TaskLosses:
        """The epoch's training losses."""
        part = self.part(model)
        return TaskLosses(part.loss_sum / part.loss_count.clamp(min=1), part.loss_count)

    def end_epoch(self) -> None:
        """After the last step and the sharing."""

    def evaluate(self, model: Model, data: Data) -> Evaluation:
        """Loss and metrics on ``data``."""
        return evaluate(self.part(model), data)

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


class _Several(OneProcess):
    """What several processes do alike, however the work is split."""

    def __init__(self, ranks: Ranks) -> None:
        self._ranks = ranks
        self._common = torch.get_rng_state()
        self.first = ranks.first

    def check(self, settings: Mapping[str, Any]) -> None:
        """No further terms of the loss, which see one rank's rows or tasks, and no compiled steps."""
        for name in ("objectives", "aggregator", "compile"):
            if settings[name]:
                raise ValueError(
                    f"{name} cannot be used with several processes: it would see one rank's part only; leave it out, "
                    "or train with one."
                )

    def seed(self, seed: int) -> None:
        """One stream that all ranks draw the order of samples from, and one of each rank's own for dropout."""
        torch.manual_seed(seed)
        self._common = torch.get_rng_state()
        torch.manual_seed(seed + 7919 * (self._ranks.rank + 1))

    def batches(self, loader: DataLoader[Any]) -> Iterator[Batch]:
        """The same order on every rank, whatever was drawn before."""
        self._ranks.broadcast(self._common, "order of samples")
        batches = self._batches(loader)
        while True:
            with self._common_stream():
                batch = next(batches, None)
            if batch is None:
                return
            yield batch

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

    def _batches(self, loader: DataLoader[Any]) -> Iterator[Batch]:
        """What this rank has of each batch."""
        return iter(loader)

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


class DataParallelProcesses(_Several):
    """The whole model on every rank, each with its rows of every batch."""

    def __init__(self, ranks: Ranks) -> None:
        super().__init__(ranks)
        self._parallel: DataParallel | None = None
        self._shares: tuple[DataLoader[Any], ShareLoader] | None = None

    def start(self, model: Model) -> None:
        """Rank 0's weights everywhere."""
        self._parallel = DataParallel(self.part(model), self._ranks).start()
        self.epoch_end = self._parallel.epoch_end

    def stop(self) -> None:
        """Leave the model to one process."""
        if self._parallel is not None:
            self._parallel.stop()
        self._parallel = self._shares = self.epoch_end = None

    def loss(self, loss: Loss, model: Model, batch: Batch, check: bool | None) -> Tensor:
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

    def evaluate(self, model: Model, data: Data) -> Evaluation:
        """Batches in turns; rank 0 scores."""
        part, was_training = self.part(model), model.training
        model.eval()
        try:
            loader = as_loader(data, 512, shuffle=False)
            lengths: list[int] = []
            with self._common_stream():  # a loader draws from it even where it does not shuffle
                batches = _measured(dealt(loader, self._ranks), lengths)
                outputs, targets, total, count = run_batches(part, batches)
        finally:
            model.train(was_training)
        both = self._ranks.all_reduce(torch.stack([total, count]), "validation losses")
        outputs, targets = (_gathered(rows, lengths, self._ranks) for rows in (outputs, targets))
        return self._ranks.decide(lambda: evaluation_of(part.layout, outputs, targets, *both), "evaluation")

    def newest(self, folder: CheckpointFolder) -> dict[str, Any] | None:
        """What rank 0 finds."""
        return self._ranks.decide(folder.newest, "checkpoint")

    def write(self, folder: CheckpointFolder, epoch: int, state: Mapping[str, Any]) -> None:
        """By rank 0."""
        if self.first:
            folder.write(epoch, state)

    def _batches(self, loader: DataLoader[Any]) -> Iterator[Batch]:
        """This rank's rows, and how many each rank has."""
        if self._shares is None or self._shares[0] is not loader:
            self._shares = loader, ShareLoader(loader, self._ranks)
        return iter(self._shares[1])


class ShardedProcesses(_Several):
    """Some branches on every rank, each with all rows of every batch at its branches and some in the trunk."""

    def __init__(self, model: ShardedModel) -> None:
        super().__init__(model.ranks)
        self._model = model
        self.shards = model.ranks.size

    def check(self, settings: Mapping[str, Any]) -> None:
        """Nothing that looks at all gradients or weights at once, and no merges on trial."""
        super().check(settings)
        sharing = settings["sharing"]
        wrong = next((name for name in ("clip_norm", "average") if settings[name] is not None), None)
        if settings["precision"] == "float16":
            wrong = "precision='float16'"
        if sharing is not None and sharing.settings["validate_merges"]:
            wrong = "validate_merges"
        if wrong is not None:
            raise ValueError(f"{wrong} is not there for a sharded bank; leave it out, or train data parallel.")

    def start(self, model: Model) -> None:
        """Gradients of branches stay where they are."""
        self._model.start()
        self.epoch_end = ShardedEpochEnd(self._model)

    def stop(self) -> None:
        """The model is as it was, trained."""
        self._model.stop()
        self.epoch_end = None

    def part(self, model: Model) -> MultiTaskModel:
        """This rank's branches."""
        return self._model.part

    def loss(self, loss: Loss, model: Model, batch: Batch, check: bool | None) -> Tensor:
        """The losses of this rank's tasks."""
        (inputs, targets), own = batch
        inputs, targets = to_model((inputs, targets), model)
        return self._model.loss(inputs, targets, check=check, own=own)

    def before_step(self) -> None:
        """The trunk's gradients become those of all rows and tasks."""
        self._model.finish()

    def recorded(self, model: Model) -> TaskLosses:
        """Of all ranks' tasks."""
        return self._model.recorded()

    def end_epoch(self) -> None:
        """The trunks may not have come apart."""
        check_alike(self._model.part.trunk, self._ranks)

    def evaluate(self, model: Model, data: Data) -> Evaluation:
        """Every rank its tasks."""
        was_training = model.training
        model.eval()
        try:
            with self._common_stream():
                return evaluate_sharded(self._model, as_loader(data, 512, shuffle=False))
        finally:
            model.train(was_training)

    def _batches(self, loader: DataLoader[Any]) -> Iterator[Batch]:
        """Whole batches, and whether their targets are those of this rank's tasks only."""
        narrow = own_columns(loader, self._model)
        return ((batch, narrow is not None) for batch in (loader if narrow is None else narrow))

    def newest(self, folder: CheckpointFolder) -> dict[str, Any] | None:
        """This rank's part of the newest that is complete."""
        epoch = self._ranks.decide(folder.newest_epoch, "checkpoint")
        return None if epoch is None else folder.read(epoch, self._ranks.rank)

    def write(self, folder: CheckpointFolder, epoch: int, state: Mapping[str, Any]) -> None:
        """A file for each rank. Rank 0's, which makes the checkpoint valid, comes last."""
        if not self.first:
            folder.write_part(epoch, self._ranks.rank, state)
        self._ranks.meet("checkpoints")
        if self.first:
            folder.write(epoch, state)
        self._ranks.meet("checkpoints")
        if not self.first:
            folder.prune_parts(self._ranks.rank)


def to_model(batch: Batch, model: Model) -> tuple[Tensor, Targets]:
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
