"""The Trainer: epochs, sharing at the end of each, the best model kept."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader

from ..distributed import ShardedModel, current_ranks
from ..kernels import subnormals_as_zero
from ..model import MultiTaskModel
from ..objectives import NonFiniteLoss, Objective, check_finite_losses, pack_targets, weighted_sum
from ..optim import BankAdam
from ..sharing import SelectiveSharing
from .aggregation import Aggregator, aggregated_backward
from .average import WeightAverage
from .batches import Data, Targets, as_loader, steps_of
from .best import BestEpoch
from .evaluation import Evaluation
from .history import EpochRecord, History
from .metrics import higher_is_better
from .processes import Batch, DataParallelProcesses, Model, OneProcess, ShardedProcesses, to_model
from .progress import Progress
from .resume import CheckpointFolder
from .update import Update

MakeOptimizer = Callable[[Iterable[nn.Parameter]], Optimizer]


class Trainer:
    """Trains a model, lets its branches merge, and leaves it with the weights of its best epoch.

    Parameters
    ----------
    model
        The model; it is trained in place, on the device it is on.
    optimizer
        An optimizer built from ``model.parameters()``, or a function that builds one from them, such as
        ``partial(selshare.optim.BankSGD, lr=0.02, momentum=0.5)``. BankAdam with its default rate, 0.001, when
        ``None``. Any optimizer of torch's will do; those of :mod:`selshare.optim` never form a bank's gradients.
    sharing
        How branches merge; never, when ``None`` (the paper's MTL baseline).
    objectives
        Further terms of the loss, see :class:`selshare.objectives.Objective`: they are added to the tasks' losses.
    aggregator
        Puts the tasks' gradients of the trunk together in place of their sum, e.g. ``torchjd.aggregation.PCGrad()``;
        see :func:`selshare.training.aggregation.aggregated_backward`.
    scheduler
        A learning-rate scheduler of the optimizer.
    scheduler_every
        When it steps: after every ``"epoch"`` or every ``"step"``.
    precision
        ``None``: compute in the parameters' dtype (for float64 call ``model.double()`` first; inputs are converted).
        ``"bfloat16"`` or ``"float16"``: autocast, the latter with a gradient scaler, see :class:`Update`. Captures are
        of the unscaled gradients, in float32.
    accumulate
        Batches to a step.
    clip_norm
        Cut the gradients of a step down to this norm, all parameters together; not, when ``None``.
    average
        Decay of an exponential moving average of the weights, such as 0.999, which is then what is evaluated and kept;
        none, when ``None``. It starts anew at every merge, see :class:`WeightAverage`.
    flush_subnormals
        On the CPU, compute steps with numbers below the smallest of full precision counted as zero
        (:func:`selshare.kernels.subnormals_as_zero`): once tasks are learned, steps take several times as long without.
    compile
        Compile forward, losses and backward with ``torch.compile``, each as one graph; anew when branches merge.
    batch_size
        For data given as a data set or tensors.
    seed
        Orders the samples and drives dropout: two runs with one seed, model and machine agree to the bit.
    select_by
        What "best epoch" means: ``"loss"`` (lowest validation loss), ``"metric"`` (best mean metric, ties by loss) or
        ``"auto"``: the metric where all tasks' metrics point the same way, else the loss. Only epochs with the final
        set of branches compete, so that the model kept is the merged one.
    callbacks
        Called with each :class:`EpochRecord` after its epoch.
    on_nonfinite
        What to do where a task's loss is NaN or Inf: ``"raise"`` an error that names it, or ``"skip"`` the step, which
        then changes neither weights nor optimizer and is counted in the epoch's record. An epoch without any step left
        is an error either way. Looking at every step waits for the device on a GPU.
    checkpoints
        A folder to save the whole state of the run in after every epoch, so that it can be resumed; none is saved
        when ``None``. See :mod:`selshare.training.checkpoint` for the format.
    keep_checkpoints
        How many to keep.
    distributed
        ``"auto"``: with several processes (``torchrun``, :func:`selshare.distributed.processes`) train data parallel,
        with the result of one process, to rounding (:class:`selshare.distributed.DataParallel`); every rank builds the
        same Trainer and calls the same methods, and rank 0 writes checkpoints, shows progress and calls callbacks.
        ``None``: each process by itself. Where ``model`` is a :class:`selshare.distributed.ShardedModel`, its bank is
        sharded by branch.
    progress
        Show a progress bar and a line for each merge on the terminal.
    title
        What the progress bar calls the run.
    """

    def __init__(
        self,
        model: Model,
        optimizer: Optimizer | MakeOptimizer | None = None,
        sharing: SelectiveSharing | None = None,
        *,
        objectives: Sequence[Objective] = (),
        aggregator: Aggregator | None = None,
        scheduler: LRScheduler | None = None,
        scheduler_every: str = "epoch",
        precision: str | None = None,
        accumulate: int = 1,
        clip_norm: float | None = None,
        average: float | None = None,
        flush_subnormals: bool = True,
        compile: bool = False,
        batch_size: int = 64,
        seed: int = 0,
        select_by: str = "auto",
        callbacks: Sequence[Callable[[EpochRecord], None]] = (),
        on_nonfinite: str = "raise",
        checkpoints: str | Path | None = None,
        keep_checkpoints: int = 2,
        distributed: str | None = "auto",
        progress: bool = True,
        title: str = "",
    ) -> None:
        if select_by not in ("auto", "loss", "metric"):
            raise ValueError(f"select_by must be 'auto', 'loss' or 'metric'; it is {select_by!r}.")
        if on_nonfinite not in ("raise", "skip"):
            raise ValueError(f"on_nonfinite must be 'raise' or 'skip'; it is {on_nonfinite!r}.")
        if scheduler_every not in ("epoch", "step"):
            raise ValueError(f"scheduler_every must be 'epoch' or 'step'; it is {scheduler_every!r}.")
        if aggregator is not None and (precision == "float16" or accumulate != 1):
            raise ValueError(
                "an aggregator puts gradients together itself, so losses can be neither scaled nor accumulated for it; "
                "use precision=None or 'bfloat16' and accumulate=1."
            )
        if compile and (objectives or aggregator is not None or on_nonfinite == "skip"):
            raise ValueError(
                "compile=True takes the tasks' losses only, and does not look at values within a step; leave out "
                "objectives, aggregator and on_nonfinite='skip', or compile."
            )
        self.model = model
        self._processes = _processes(model, distributed)
        self._processes.check(
            {
                "objectives": objectives,
                "aggregator": aggregator,
                "compile": compile,
                "clip_norm": clip_norm,
                "average": average,
                "precision": precision,
                "sharing": sharing,
            }
        )
        self.optimizer = _built(optimizer, model)
        self.sharing = sharing
        self.objectives = tuple(objectives)
        self.aggregator = aggregator
        self.scheduler = scheduler
        self.scheduler_every = scheduler_every
        self._update = Update(
            self.optimizer, self._device.type, precision=precision, accumulate=accumulate, clip_norm=clip_norm
        )
        self._update.before_step = self._processes.before_step
        on_cpu = self._device.type == "cpu"
        self._arithmetic = subnormals_as_zero if flush_subnormals and on_cpu else nullcontext
        self._average = None if average is None else WeightAverage(self._processes.part(model), average)
        self._loss = torch.compile(_loss, fullgraph=True) if compile else _loss
        self.batch_size = batch_size
        self.seed = seed
        self.callbacks = tuple(callbacks)
        self.on_nonfinite = on_nonfinite
        self.checkpoints = None if checkpoints is None else CheckpointFolder(Path(checkpoints), keep_checkpoints)
        self.progress = progress
        self.title = title
        self._by_metric = select_by == "metric" or (select_by == "auto" and _one_direction(model))

    def fit(
        self, train: Data, validation: Data | None = None, epochs: int = 30, *, resume: str | None = None
    ) -> History:
        """Train for ``epochs`` epochs.

        Parameters
        ----------
        train, validation
            A ``DataLoader`` of ``(inputs, targets)`` batches, a ``Dataset`` of such samples, or a pair of tensors.
            Without validation data the last epoch's weights are kept.
        epochs
            At least 1; with ``resume``, those before it included.
        resume
            ``"auto"``: go on after the last epoch in ``checkpoints``, or start where there is none. Build model,
            optimizer, sharing and Trainer as for the run that was interrupted; its final weights are then those of a
            run that was not, to the bit on a CPU. ``None``: start; the folder must hold no checkpoint.

        Returns
        -------
        History
            Every epoch and sharing event. The model is left in evaluation mode with the best epoch's weights.

        Raises
        ------
        ValueError, TypeError
            If data, targets or losses are not usable (the sentence names the task), a checkpoint cannot be read or is
            of another set-up, or there is one and ``resume`` is ``None``.
        """
        if epochs < 1:
            raise ValueError(f"epochs must be at least 1; it is {epochs}.")
        if validation is None and self.sharing is not None and self.sharing.needs_validation:
            raise ValueError("validate_merges needs validation data: fit(train, validation); or set it to 0.")
        self._processes.start(self.model)
        try:
            return self._fit(train, validation, epochs, resume)
        finally:
            self._processes.stop()

    def _fit(self, train: Data, validation: Data | None, epochs: int, resume: str | None) -> History:
        """:meth:`fit`, together with all processes."""
        saved = self._saved(resume)
        history = History()
        best = BestEpoch(self._by_metric, _metric_sign(self.model))
        if saved is not None:
            history = self._load(saved, best)
        order = torch.Generator().manual_seed(self.seed)
        loader = as_loader(train, self.batch_size, shuffle=True, generator=order)
        if self.sharing is not None:
            self.sharing.attach(
                self._processes.part(self.model),
                self.optimizer,
                epochs=epochs,
                steps=steps_of(loader),
                scaler=self._update.scaler,
                epoch_end=self._processes.epoch_end,
            )
        try:
            self._run(loader, order, validation, epochs, history, best, None if saved is None else saved["random"])
        finally:
            if self.sharing is not None:
                self.sharing.detach()
        if validation is None and self._average is not None:
            self._average.keep()
        history.best_epoch = best.restore(self.model)
        self.model.eval()
        return history

    def evaluate(self, data: Data) -> Evaluation:
        """Loss and metrics on ``data``, see :func:`selshare.training.evaluation.evaluate`."""
        return self._processes.evaluate(self.model, data)

    @property
    def _device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    def _averaged(self) -> AbstractContextManager[None]:
        """The averaged weights are in the model, if there are any."""
        return nullcontext() if self._average is None else self._average.in_place()

    def _saved(self, resume: str | None) -> dict[str, Any] | None:
        """The state to go on from, checked against this Trainer's set-up."""
        if resume not in (None, "auto"):
            raise ValueError(f"resume must be 'auto' or None; it is {resume!r}.")
        if self.checkpoints is None:
            if resume is not None:
                raise ValueError("resume='auto' needs a folder: Trainer(checkpoints=…).")
            return None
        if resume is None:
            if self.checkpoints.files():
                raise ValueError(
                    f"{self.checkpoints.folder} holds checkpoints of an earlier run; pass resume='auto' to go on with "
                    "it, or choose another folder."
                )
            return None
        saved = self._processes.newest(self.checkpoints)
        if saved is not None:
            _check_same_setup(saved["setup"], self._setup())
        return saved

    def _setup(self) -> dict[str, Any]:
        """What must be the same when a run is resumed."""
        return {
            "tasks": list(self.model.layout.names),
            "optimizer": type(self.optimizer).__name__,
            "scheduler": None if self.scheduler is None else type(self.scheduler).__name__,
            "average": self._average is not None,
            "sharing": self.sharing is not None,
            "shards": self._processes.shards,
            "objectives": [type(objective).__name__ for objective in self.objectives],
            "batch_size": self.batch_size,
            "seed": self.seed,
        }

    def _state(self, history: History, best: BestEpoch, random: Mapping[str, Any]) -> dict[str, Any]:
        """Everything at the end of an epoch."""
        return {
            "setup": self._setup(),
            "model": dict(self.model.state_dict()),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": None if self.scheduler is None else self.scheduler.state_dict(),
            "scaler": self._update.state_dict(),
            "average": None if self._average is None else self._average.state_dict(),
            "sharing": None if self.sharing is None else self.sharing.state_dict(),
            "objectives": [_state_of(objective) for objective in self.objectives],
            "history": history.to_json(),
            "best": best.state_dict(),
            "random": random,
        }

    def _load(self, saved: Mapping[str, Any], best: BestEpoch) -> History:
        """Put a saved state in place; the history so far."""
        self.model.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        if self.scheduler is not None:
            self.scheduler.load_state_dict(saved["scheduler"])
        self._update.load_state_dict(saved["scaler"])
        if self._average is not None:
            self._average.load_state_dict(saved["average"])
        history = History.from_json(saved["history"])
        if self.sharing is not None:
            self.sharing.load_state_dict(saved["sharing"])
            self.sharing.events = list(history.events)
        for objective, state in zip(self.objectives, saved["objectives"], strict=True):
            if state is not None:
                objective.load_state_dict(state)  # type: ignore[attr-defined]  # it had a state_dict to save
        best.load_state_dict(saved["best"])
        return history

    def _run(
        self,
        loader: DataLoader[Any],
        order: torch.Generator,
        validation: Data | None,
        epochs: int,
        history: History,
        best: BestEpoch,
        random: Mapping[str, Any] | None,
    ) -> None:
        """All epochs that are left, with their own random state: torch's global one is as it was afterwards."""
        shown = self.progress and self._processes.first
        with torch.random.fork_rng(), Progress(self.model, epochs, shown, self.title) as progress:
            self._processes.seed(self.seed)
            if random is not None:
                self._processes.restore_random_states(random, loader, order)
            for epoch in range(len(history.epochs) + 1, epochs + 1):
                record = self._epoch(epoch, loader, validation, history, progress)
                if validation is not None:
                    with self._averaged():
                        best.offer(record, self.model)
                if self.checkpoints is not None:
                    state = self._state(history, best, self._processes.random_states(loader, order))
                    self._processes.write(self.checkpoints, epoch, state)
                for callback in self.callbacks if self._processes.first else ():
                    callback(record)

    def _epoch(
        self, epoch: int, loader: DataLoader[Any], validation: Data | None, history: History, progress: Progress
    ) -> EpochRecord:
        """Train one epoch, share, evaluate; add to ``history``."""
        started = time.perf_counter()
        skipped: Counter[str] = Counter()
        train_loss = self._train_epoch(loader, progress, skipped)
        trained = time.perf_counter()
        result = None
        if self.sharing is not None and not self.sharing.settled:
            if self.sharing.needs_validation and validation is not None:
                result = self._evaluated(validation)
            event = self.sharing.end_epoch(None if result is None else result.losses)
            if event.merged or event.undone:
                result = None  # of a model that is no more
                if self._average is not None:
                    self._average.restart()
            history.events.append(event)
            progress.event(event)
        self._processes.end_epoch()
        shared = time.perf_counter()
        if self.scheduler is not None and self.scheduler_every == "epoch":
            self.scheduler.step()
        if validation is not None and result is None:
            result = self._evaluated(validation)
        record = EpochRecord(
            epoch=epoch,
            train_loss=train_loss,
            validation_loss=None if result is None else result.loss,
            metrics={} if result is None else result.metrics,
            mean_metric=None if result is None else result.mean_metric,
            branches=self.model.branches,
            seconds=trained - started,
            sharing_seconds=shared - trained,
            skipped=dict(skipped),
        )
        history.epochs.append(record)
        progress.epoch(record)
        return record

    def _evaluated(self, validation: Data) -> Evaluation:
        """:meth:`evaluate`, of the averaged weights if there are any."""
        with self._averaged():
            return self.evaluate(validation)

    def _train_epoch(self, loader: DataLoader[Any], progress: Progress, skipped: Counter[str]) -> float:
        """All steps of one epoch; the weighted sum of the tasks' mean losses. Counts what is ``skipped``."""
        self.model.train()
        self.model.reset_loss_record()
        progress.start_epoch(loader)
        self._update.begin_epoch(steps_of(loader))
        steps = 0
        failure: NonFiniteLoss | None = None
        for batch in self._processes.batches(loader):
            with self._arithmetic():
                stepped, skipping = self._step(batch)
            steps += stepped
            if skipping is not None:
                skipped.update(skipping.tasks)
                failure = skipping
            progress.step()
        with self._arithmetic():
            steps += self._stepped(self._update.end_epoch())
        if failure is not None and steps == 0:
            raise failure
        return self._recorded_loss()

    def _step(self, batch: Batch) -> tuple[bool, NonFiniteLoss | None]:
        """A batch's gradients, and the step if it is due: whether one was taken, and why the batch was skipped."""
        self._update.begin_batch()
        skipping = None
        try:
            self._backward(batch)
        except NonFiniteLoss as error:
            if self.on_nonfinite == "raise":
                raise
            skipping = error
        return self._stepped(self._update.end_batch(usable=skipping is None)), skipping

    def _stepped(self, stepped: bool) -> bool:
        """What follows a step, if one was taken."""
        if stepped and self._average is not None:
            self._average.update()
        if stepped and self.scheduler is not None and self.scheduler_every == "step":
            self.scheduler.step()
        return stepped

    def _backward(self, batch: Batch) -> None:
        """Gradients of the tasks' losses and the further objectives."""
        check = True if self.on_nonfinite == "skip" else None
        if not self.objectives and self.aggregator is None:
            with self._update.autocast():
                loss = self._processes.loss(self._loss, self.model, batch, check)
            self._update.backward(loss)
            return
        model = self._processes.part(self.model)
        inputs, targets = to_model(batch, model)
        with self._update.autocast():
            shared = model.shared(inputs)
            outputs = model.outputs_from(shared)
            loss = model.loss(outputs, targets, check=check)
            packed = pack_targets(model.layout, targets, check=False)
            terms = [objective(model, shared, outputs, packed) for objective in self.objectives]
            further = torch.stack(terms).sum() if terms else None
        if self.aggregator is not None:
            aggregated_backward(model, shared, outputs, loss, further, self.aggregator)
        else:
            self._update.backward(loss if further is None else loss + further)

    def _recorded_loss(self) -> float:
        """The epoch's training loss from the model's record, checked: on a GPU, steps do not look at values."""
        losses = self._processes.recorded(self.model)
        check_finite_losses(self.model.layout, losses)
        return float(weighted_sum(self.model.layout, losses))


def _loss(model: MultiTaskModel, inputs: Tensor, targets: Targets, check: bool | None) -> Tensor:
    """Forward and losses of a batch; what is compiled."""
    return model.loss(model(inputs), targets, check=check)


def _built(optimizer: Optimizer | MakeOptimizer | None, model: Model) -> Optimizer:
    """The optimizer, built from the model's parameters where a function was given."""
    if isinstance(optimizer, Optimizer):
        return optimizer
    return (optimizer or BankAdam)(model.parameters())


def _processes(model: Model, distributed: str | None) -> OneProcess:
    """How to run, by what was asked for and whether there are several processes."""
    if distributed not in ("auto", None):
        raise ValueError(f"distributed must be 'auto' or None; it is {distributed!r}.")
    if isinstance(model, ShardedModel):
        return ShardedProcesses(model)
    ranks = current_ranks() if distributed == "auto" else None
    return OneProcess() if ranks is None else DataParallelProcesses(ranks)


def _state_of(objective: Objective) -> dict[str, Any] | None:
    """What an objective has learned, where it has a ``state_dict``."""
    state = getattr(objective, "state_dict", None)
    return None if state is None else dict(state())


def _check_same_setup(saved: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    """Raise unless a checkpoint is of a run that was set up like this one."""
    different = [name for name in own if saved.get(name) != own[name]]
    if different:
        name = different[0]
        raise ValueError(
            f"the checkpoint is of a run with {name}={saved.get(name)!r}, and this Trainer has {own[name]!r}; set it "
            "up as it was, or choose another folder."
        )


def _one_direction(model: Model) -> bool:
    """Whether all tasks' metrics are better when higher, or all when lower."""
    return len({higher_is_better(task) for task in model.tasks}) == 1


def _metric_sign(model: Model) -> float:
    """+1 where the mean metric is better when higher, else −1."""
    return 1.0 if any(higher_is_better(task) for task in model.tasks) else -1.0
