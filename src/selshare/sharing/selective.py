"""Selective sharing: at the end of each epoch capture → embed → cluster → plan → merge, until the lock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Self

import torch
from torch import Tensor
from torch.amp import GradScaler

from ..model import MultiTaskModel
from .align import check_alignable
from .capture import Capture, make_capture
from .clock import Clock
from .criteria import Clustering, ClusterSettings, Criterion, find_criterion
from .embed import Embedding
from .epoch_end import EpochEnd, Whole
from .events import Names, SharingEvent
from .grouping import Grouping, one_holds_most
from .lock import Lock
from .merge import Optimizers, as_optimizers
from .names import event_arrays, merged_names, names_by_branch, shared_groups, who
from .plan import MergePlan, branch_losses, origins_of, plan_merges, plans_to
from .recent import RecentShared
from .settings import AUTO, check_settings, group_epochs_of, resolve, warmup_epochs
from .step_size import MergedGradient
from .trial import Trial, barred, begin_trials, undo


class SelectiveSharing:
    """Finds out while a model trains which tasks belong together, and merges their branches.

    Selective Sharing (Strezoski, van Noord, Worring, ICMR 2019, arXiv 1904.03011). Use it with the Trainer, or in a
    loop of your own::

        sharing = SelectiveSharing(criterion="similarity").attach(model, optimizer)
        for epoch in range(30):
            ...                               # forward, backward, optimizer.step(), as ever
            event = sharing.end_epoch()       # groups formed, branches left, locked or not

    Parameters
    ----------
    criterion
        ``"similarity"``, ``"dissimilarity"``, ``"variance"``, ``"random"``, or a function of your own
        (:class:`selshare.sharing.Criterion`).
    merge
        What a group's branch becomes: ``"best"`` (the one with the lowest loss), ``"mean"``, ``"max"``, ``"min"``.
    embedding
        ``"joint"`` or ``"per_branch"``, see :func:`selshare.sharing.embed`.
    relative_error
        The part of the norm the embedding's tensor trains may lose.
    max_rank
        A limit on the width of the embedding (joint) or on every rank (per branch); ``None`` for none. With more
        branches than this, what is cut off is mostly each task's own noise, and the factorisation is many times
        faster: a fixed number of random probes in place of all inner products.
    min_cluster_size, min_samples, cluster_selection_method
        Of HDBSCAN.
    patience
        Lock after that many epochs in a row that changed nothing.
    capture
        How gradients are come by: ``"exact"`` adds them up over the epoch; ``"free"`` reads them off the displacement
        of SGD, at no cost per step, where that is exact, and adds them up where it is not (:class:`FreeCapture`);
        ``"sketch"`` adds up their random projections, ``sketch_size`` numbers a branch (:class:`SketchedCapture`),
        where there are more than ``sketch_above`` numbers in the gradients of all branches.
        One of ``selshare.sharing.capture.CAPTURES``.
    sketch_size
        Numbers per branch of the sketched capture; at least the outputs of a branch's first layer.
    sketch_above
        With ``capture="sketch"``, gradients that are together at most so many numbers (branches × outputs × inputs;
        8.4 million, 32 MB, by default) are kept whole: nothing much to save, and the groups are exact. 0: always
        sketch.
    seed
        Of the random criterion and of the sketch's directions.
    preset
        What the settings below are where they are ``None``: ``"paper"``, the published method to the letter, or
        ``"default"``, the repairs (*ours*) that did best, see ``docs/results.md``;
        ``selshare.sharing.settings.PRESETS`` has both.
    warmup
        Epochs before the first merge. In these, branches are captured, embedded and clustered as ever and the event
        shows the clusters, but nothing merges and the lock's patience does not run. ``"auto"``: ten epochs, or as
        many as make 300 steps, but no more than a third of the training. The Trainer tells how many epochs there will
        be and how many steps they have; in a loop of your own ``attach(…, epochs=…, steps=…)`` does. (Paper: 0.)
    refit_heads
        Refit the head of every task that changes its branch, in closed form, so that its outputs survive; for
        ``merge`` other than ``"best"`` hidden units are aligned first. (Paper: ``False``.) See
        :func:`selshare.sharing.apply`.
    compose_branches
        Make a merged branch anew of the hidden units of all its group, where ``merge`` is ``"best"`` and heads are
        refitted: see :func:`selshare.sharing.compose`. Branches that are not stacks of Linear, activation and dropout
        layers have no such units; of them the best stays as it is. (Paper: ``False``.)
    refit_rows
        On how many of the epoch's last training samples; their shared representations are held until the lock.
    merged_gradient
        What a branch of n tasks learns from: the ``"sum"`` of its tasks' gradients, that by ``√n`` (``"root"``), or
        their ``"mean"``: see :class:`MergedGradient`. In force as long as the sharing is attached. (Paper: ``"sum"``.)
    group_epochs
        0: cluster every epoch's gradients by themselves, and merge each time. Otherwise cluster the gradients of the
        first so many epochs together, once, and merge these groups when ``warmup`` is over, once: group early,
        merge late. Between the two nothing is captured. ``"auto"``: 5, but no more than the warm-up. (Paper: 0.)
    stable_epochs
        Merge only groups that have stayed the same, up to an adjusted Rand index of .9, in that many clusterings
        after their first. With ``group_epochs`` grouping ends as soon as they have. (Paper: 0.)
    validate_merges
        0: merges are for good. Otherwise a merged group is on trial for so many epochs: as soon as its tasks'
        validation losses are back to what they were before (a mean ratio of at most 1.01) it is accepted; else its
        branches, heads and optimizer state are put back as they were, and its parts never merge again. The Trainer
        gives ``end_epoch`` the losses; so must a loop of your own. (Paper: 0.)
    centre
        Take out what the branches' gradients have in common before they are clustered: one-vs-rest tasks share most
        of their labels. ``"auto"``: under the similarity criterion, only where without it a single group would hold
        more than half of the branches, so that what they have in common has drowned what tells them apart.
        (Paper: ``False``.)

    Attributes
    ----------
    events
        One :class:`SharingEvent` for each ``end_epoch()``.
    plans
        The merge plans carried out so far, in order; :func:`selshare.sharing.replay` repeats them on a fresh model.

    Raises
    ------
    ValueError, TypeError
        If a setting is unknown or out of range.
    """

    def __init__(
        self,
        criterion: str | Criterion = "similarity",
        *,
        merge: str = "best",
        embedding: str = "joint",
        relative_error: float = 1e-2,
        max_rank: int | None = 256,
        min_cluster_size: int = 2,
        min_samples: int = 1,
        cluster_selection_method: str = "eom",
        patience: int = 3,
        capture: str = "exact",
        sketch_size: int = 1000,
        sketch_above: int = 2**23,
        seed: int = 0,
        preset: str = "default",
        warmup: int | str | None = None,
        refit_heads: bool | None = None,
        compose_branches: bool | None = None,
        refit_rows: int = 1024,
        merged_gradient: str | None = None,
        group_epochs: int | str | None = None,
        stable_epochs: int | None = None,
        validate_merges: int | None = None,
        centre: bool | str | None = None,
    ) -> None:
        name, self._criterion = find_criterion(criterion)
        chosen = {
            "criterion": name,
            "merge": merge,
            "embedding": embedding,
            "relative_error": relative_error,
            "max_rank": max_rank,
            "min_cluster_size": min_cluster_size,
            "min_samples": min_samples,
            "cluster_selection_method": cluster_selection_method,
            "patience": patience,
            "capture": capture,
            "sketch_size": sketch_size,
            "sketch_above": sketch_above,
            "seed": seed,
            "warmup": warmup,
            "refit_heads": refit_heads,
            "compose_branches": compose_branches,
            "refit_rows": refit_rows,
            "merged_gradient": merged_gradient,
            "group_epochs": group_epochs,
            "stable_epochs": stable_epochs,
            "validate_merges": validate_merges,
            "centre": centre,
        }
        self.settings: dict[str, Any] = resolve(preset, chosen)
        check_settings(self.settings)
        self.epoch = 0
        self.events: list[SharingEvent] = []
        self.plans: list[MergePlan] = []
        self._lock = Lock(patience)
        self._model: MultiTaskModel | None = None
        self._optimizers: tuple[torch.optim.Optimizer, ...] = ()
        self._capture: Capture | None = None
        self._epoch_end = EpochEnd()
        self._warmup = 0  # known at attach()
        self._trials: list[Trial] = []
        self._apart: list[tuple[tuple[int, ...], ...]] = []
        self._grouping = Grouping(0, self.settings["stable_epochs"])  # how many epochs is known at attach()
        self._recent = RecentShared(refit_rows) if self.settings["refit_heads"] else None
        self._merged_gradient = MergedGradient(self.settings["merged_gradient"])

    @property
    def locked(self) -> bool:
        """Whether sharing is over: no capture, no factorisation, no clustering any more."""
        return self._lock.locked

    @property
    def settled(self) -> bool:
        """Whether nothing will change any more: locked, and no merged group is on trial."""
        return self.locked and not self._trials

    @property
    def needs_validation(self) -> bool:
        """Whether ``end_epoch`` must be given validation losses."""
        return self.settings["validate_merges"] > 0 and not self.settled

    def attach(
        self,
        model: MultiTaskModel,
        optimizer: Optimizers = None,
        *,
        epochs: int | None = None,
        scaler: GradScaler | None = None,
        steps: int | None = None,
        epoch_end: EpochEnd | None = None,
    ) -> Self:
        """Begin to watch a model; returns ``self``.

        Parameters
        ----------
        model
            The model whose branches may merge.
        optimizer
            One or several that train it: their state moves with the branches. ``None`` is right only for optimizers
            without state.
        epochs
            How many epochs there will be in all, those before a resume included; for ``warmup="auto"``.
        scaler
            The gradient scaler, where one multiplies the losses (float16): what is captured is divided by it.
        steps
            How many steps an epoch has; for ``warmup="auto"``.
        epoch_end
            With several processes, what they do together at the end of an epoch; :mod:`selshare.distributed` has it.

        Raises
        ------
        RuntimeError
            If it is attached already.
        ValueError
            If the model's branches are not those the merges so far have left, are frozen, or are from the start too
            few for ``min_samples`` or ``min_cluster_size``; or if ``refit_heads`` meets a merge rule other than
            ``"best"`` and branches whose units cannot be aligned.
        TypeError
            If an argument is of the wrong kind, or an optimizer's state cannot follow a merge.
        """
        if self._model is not None:
            which = "this model" if self._model is model else "another model"
            raise RuntimeError(f"this SelectiveSharing is attached to {which} already; call detach() first.")
        if not isinstance(model, MultiTaskModel):
            raise TypeError(f"attach() takes a MultiTaskModel, not {type(model).__name__}.")
        optimizers = as_optimizers(optimizer)
        self._epoch_end = epoch_end or EpochEnd()
        whole = self._epoch_end.whole(model)
        _check_left(self.plans, whole)
        self._warmup = warmup_epochs(self.settings["warmup"], epochs, steps)
        self._grouping.group_epochs = group_epochs_of(
            self.settings["group_epochs"], self._warmup, self.settings["stable_epochs"]
        )
        self._lock.check(whole.assignment)
        if not self.locked:
            self._check_enough(whole.branches)
            self._start_watching(model, optimizers, scaler)
        self._merged_gradient.start(model)
        self._model, self._optimizers = model, optimizers
        return self

    def detach(self) -> None:
        """Stop watching: the model keeps its branches and nothing of the sharing. Does nothing if not attached."""
        self._stop_watching()
        self._merged_gradient.stop()
        self._model, self._optimizers = None, ()

    def end_epoch(self, validation_losses: Mapping[str, float] | Tensor | None = None) -> SharingEvent:
        """Cluster the epoch's gradients, merge, and say what happened.

        Starts the next epoch's capture and the model's loss record anew. After the lock it only reports.

        Parameters
        ----------
        validation_losses
            With ``validate_merges``, each task's validation loss as the model is now, before this epoch's merges: by
            task name, or ``(T,)``. NaN for a task without a validation label.

        Raises
        ------
        RuntimeError
            If it is not attached, or no gradient reached any branch in the epoch.
        ValueError
            If the gradients hold NaN or Inf (the message names the tasks), or validation losses are needed and
            missing, or there is not one for each task.
        """
        model = self._model
        if model is None:
            raise RuntimeError("end_epoch() needs a model; call attach(model, optimizer) before training.")
        whole = self._epoch_end.whole(model)
        losses = self._validation(whole, validation_losses)
        owners = names_by_branch(whole)
        accepted, undone = self._judge(model, losses)
        if self.locked or undone:  # what was captured no longer fits the branches
            self._next_epoch()
            event = self._report_only(whole, owners)
        else:
            event = self._share(model, losses)
        event = replace(event, accepted=accepted, undone=undone)
        self.epoch = event.epoch
        self.events.append(event)
        model.reset_loss_record()
        return event

    def state_dict(self) -> dict[str, Any]:
        """What to save at the end of an epoch: settings, epoch, lock, merge plans and groups that wait.

        Plain JSON values, but for tensors, which want ``torch.save``: the gradients of earlier epochs where
        ``group_epochs`` is above 1 and not over, and what is set aside while a group is on trial.
        """
        return {
            "settings": dict(self.settings),
            "epoch": self.epoch,
            "unchanged": self._lock.unchanged,
            "lock_reason": self._lock.reason,
            "plans": [plan.to_json() for plan in self.plans],
            "grouping": self._grouping.state_dict(),
            "trials": [trial.state_dict() for trial in self._trials],
            "apart": [[list(part) for part in parts] for parts in self._apart],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken. Load the model's state first, or replay the plans on it.

        Raises
        ------
        ValueError
            If the state was saved with other settings, is not complete, or an attached model's branches are not
            those the saved merges have left. Nothing is changed then.
        """
        expected = {"settings", "epoch", "unchanged", "lock_reason", "plans", "grouping", "trials", "apart"}
        if set(state) != expected:
            raise ValueError(f"a sharing state has the keys {sorted(expected)}; got {sorted(state)}.")
        saved, own = state["settings"], self.settings
        different = sorted(key for key in saved.keys() | own.keys() if saved.get(key) != own.get(key))
        if different:
            said = ", ".join(f"{key}={saved.get(key)!r} (here {own.get(key)!r})" for key in different)
            raise ValueError(f"the sharing state was saved with {said}; build SelectiveSharing with the same settings.")
        plans = [MergePlan.from_json(plan) for plan in state["plans"]]
        if self._model is not None:
            _check_left(plans, self._epoch_end.whole(self._model))
        self.plans, self.epoch, self.events = plans, state["epoch"], []
        self._lock = Lock(self.settings["patience"], state["unchanged"], state["lock_reason"])
        self._grouping.load_state_dict(state["grouping"])
        self._trials = [Trial(**trial) for trial in state["trials"]]
        self._apart = [tuple(tuple(part) for part in parts) for parts in state["apart"]]
        if self._model is not None:
            self._next_epoch()

    def _validation(self, model: Whole, given: Mapping[str, float] | Tensor | None) -> Tensor | None:
        """The validation losses as ``(T,)`` in float64, checked; ``None`` where they are not needed."""
        if not self.needs_validation:
            return None
        names = model.layout.names
        if isinstance(given, Mapping) and set(given) == set(names):
            return torch.tensor([float(given[name]) for name in names], dtype=torch.float64)
        if isinstance(given, Tensor) and given.shape == (len(names),):
            return given.detach().to("cpu", torch.float64)
        raise ValueError(
            f"validate_merges={self.settings['validate_merges']} needs end_epoch(validation_losses): one loss for each "
            f"of the {len(names)} tasks, by name or as a tensor ({len(names)},)."
        )

    def _judge(self, model: MultiTaskModel, losses: Tensor | None) -> tuple[Names, Names]:
        """End the trials that are over; the task names of the groups accepted and undone."""
        accepted, undone, going = [], [], []
        for trial in self._trials if losses is not None else ():
            assert losses is not None
            trial.epochs_left -= 1
            if trial.recovered(losses):
                accepted.append(trial)
            elif trial.epochs_left > 0:
                going.append(trial)
            else:
                undone.append(trial)
                origins = undo(trial, model, self._optimizers, origins_of(self.plans, model.bank.branches))
                self.plans = plans_to(origins, self.settings["merge"])
                self._apart.append(trial.parts)
                self._grouping.restart()
        if losses is not None:
            self._trials = going
        names = model.layout.names
        return (
            tuple(tuple(names[task] for task in trial.tasks) for trial in accepted),
            tuple(tuple(names[task] for task in trial.tasks) for trial in undone),
        )

    def _share(self, model: MultiTaskModel, validation: Tensor | None) -> SharingEvent:
        """One end of epoch before the lock."""
        clock = Clock()
        whole = self._epoch_end.whole(model)
        epoch, before, owners = self.epoch + 1, whole.branches, names_by_branch(whole)
        arrays: dict[str, Any] = {}
        if not self._grouping.final:
            arrays = self._group(model, epoch, clock)
        with clock.stage("plan"):
            losses = branch_losses(whole.assignment, whole.recorded_losses(), before)
            labels = self._grouping.labels
            assert labels is not None
            busy = [task for trial in self._trials for task in trial.tasks]
            allowed = barred(labels, whole.tasks_by_branch(), self._apart, busy)
            plan = plan_merges(allowed, losses, self.settings["merge"])
        due = self._due(epoch)
        with clock.stage("merge"):
            if due:
                self._carry_out(plan, model, validation)
            elif self._grouping.final and not self._grouping.stable:
                self._lock.reason = f"the groups were not stable in {epoch} epochs"
            elif not self._grouping.stable and self._grouping.could_be_stable and epoch > self._warmup:
                self._lock.count(changed=False)
            self._next_epoch()
        clusters = merged_names(plan, owners)
        return SharingEvent(
            epoch=epoch,
            criterion=self.settings["criterion"],
            groups=shared_groups(whole),
            merged=clusters if due else (),
            clusters=clusters,
            branches_before=before,
            branches_after=whole.branches,
            locked=self.locked,
            lock_reason=self._lock.reason,
            branch_tasks=owners,
            labels=labels,
            **arrays,
            plan=plan if due else None,
            seconds=clock.seconds,
        )

    def _group(self, model: MultiTaskModel, epoch: int, clock: Clock) -> dict[str, Any]:
        """Cluster what was captured, and remember it; the event's arrays."""
        centre = self.settings["centre"]
        assert self._capture is not None
        with clock.stage("capture"):
            gradients = self._grouping.summed(self._capture.gradients())
        embedding, labels, clustering = self._clustered(gradients, model, epoch, centre is True, clock)
        if centre == AUTO and self.settings["criterion"] == "similarity" and one_holds_most(labels):
            embedding, labels, clustering = self._clustered(gradients, model, epoch, True, clock)
        self._grouping.observe(labels, gradients, epoch)
        return event_arrays(embedding, clustering)

    def _clustered(
        self, gradients: Tensor, model: MultiTaskModel, epoch: int, centre: bool, clock: Clock
    ) -> tuple[Embedding, Tensor, Clustering | None]:
        """Embed and cluster, with or without what the gradients have in common."""
        settings, whole = self.settings, self._epoch_end.whole(model)
        with clock.stage("embed"):
            embedding = self._epoch_end.embed(
                gradients,
                [who(names) for names in names_by_branch(whole)],
                method=settings["embedding"],
                relative_error=settings["relative_error"],
                max_rank=settings["max_rank"],
                centre=centre,
            )
            _check_any(embedding)
        with clock.stage("cluster"):
            told = self._cluster_settings(epoch)
            labels, clustering = self._epoch_end.cluster(self._criterion, embedding, whole.branches, told)
        return embedding, labels, clustering

    def _due(self, epoch: int) -> bool:
        """Whether the groups found are to be merged at the end of this epoch."""
        ready = self._grouping.final if self.settings["group_epochs"] else True
        return ready and self._grouping.stable and epoch > self._warmup

    def _carry_out(self, plan: MergePlan, model: MultiTaskModel, validation: Tensor | None) -> None:
        """Merge, and see whether that was the last time."""
        if validation is not None:
            origins = origins_of(self.plans, model.bank.branches)
            epochs = self.settings["validate_merges"]
            self._trials += begin_trials(plan, model, self._optimizers, validation, epochs, origins)
        shared = self._epoch_end.recent(self._recent) if self._recent is not None and plan.changes else None
        composing = self.settings["compose_branches"]
        self._epoch_end.apply(plan, model, self._optimizers, shared, compose_branches=composing)
        if plan.changes:
            self.plans.append(plan)
            self._grouping.restart()
        self._lock.check(self._epoch_end.whole(model).assignment)
        if self._grouping.final and not self.locked:
            self._lock.reason = "the groups of the first epochs have merged"
        self._lock.count(plan.changes)

    def _report_only(self, model: Whole, owners: Names) -> SharingEvent:
        """The end of an epoch without clustering: after the lock, or when a group was taken apart."""
        return SharingEvent(
            epoch=self.epoch + 1,
            criterion=self.settings["criterion"],
            groups=shared_groups(model),
            merged=(),
            clusters=(),
            branches_before=len(owners),
            branches_after=model.branches,
            locked=self.locked,
            lock_reason=self._lock.reason,
            branch_tasks=owners,
        )

    def _cluster_settings(self, epoch: int) -> ClusterSettings:
        """What the criterion is told."""
        names = ("min_cluster_size", "min_samples", "cluster_selection_method", "seed")
        return ClusterSettings(**{name: self.settings[name] for name in names}, epoch=epoch)

    def _check_enough(self, branches: int) -> None:
        """Raise if nothing could ever be clustered. Later, when branches have merged, too few is no mistake."""
        needed = max(self.settings["min_samples"] + 1, self.settings["min_cluster_size"])
        if self.epoch == 0 and branches < needed:
            raise ValueError(
                f"the model has {branches} branches, but min_samples={self.settings['min_samples']} and "
                f"min_cluster_size={self.settings['min_cluster_size']} need at least {needed}; lower them."
            )

    def _start_watching(
        self, model: MultiTaskModel, optimizers: tuple[torch.optim.Optimizer, ...], scaler: GradScaler | None
    ) -> None:
        """Start what is needed until the lock."""
        if self._recent is not None and self.settings["merge"] != "best":
            check_alignable(model.bank)
        if not self._grouping.final:
            capture = make_capture(self._epoch_end.capture_settings(self.settings, model))
            capture.start(model, optimizers, scaler)
            self._capture = capture
        if self._recent is not None:
            self._recent.start(model)

    def _next_epoch(self) -> None:
        """Start the next epoch's capture anew, or let go of what is no longer needed."""
        if self._recent is not None:
            self._recent.reset()
        self._merged_gradient.refresh()
        if self.locked:
            self._stop_watching()
        elif self._grouping.final:
            self._stop_capture()
        elif self._capture is not None:
            self._capture.reset()

    def _stop_watching(self) -> None:
        """Let go of the capture and of the shared representations."""
        self._stop_capture()
        if self._recent is not None:
            self._recent.stop()

    def _stop_capture(self) -> None:
        """Let go of the capture, if there is one."""
        if self._capture is not None:
            self._capture.stop()
            self._capture = None


def _check_left(plans: Sequence[MergePlan], model: Whole) -> None:
    """Raise unless the model has as many branches as the last plan left."""
    if plans and len(plans[-1].kept()) != model.branches:
        raise ValueError(
            f"the merges so far left {len(plans[-1].kept())} branches, but the model has {model.branches}; load "
            "the model's saved state first, or replay(plans, model) on a fresh one."
        )


def _check_any(embedding: Embedding) -> None:
    """Raise if no branch has a gradient."""
    if len(embedding.branches) == 0:
        raise RuntimeError(
            "no gradient reached any branch since the last end_epoch(); call loss.backward() with the model in "
            "training mode, after attach()."
        )
