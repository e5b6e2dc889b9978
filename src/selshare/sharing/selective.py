"""Selective sharing: at the end of each epoch capture → embed → cluster → plan → merge, until the lock."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Self

import torch
from torch import Tensor

from ..model import MultiTaskModel
from .capture import Capture, check_capture, make_capture
from .criteria import Clustering, ClusterSettings, Criterion, cluster_branches, find_criterion
from .embed import Embedding, check_method, embed
from .events import Names, SharingEvent
from .lock import Lock
from .merge import Optimizers, apply, as_optimizers
from .plan import MergePlan, branch_losses, check_rule, plan_merges


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
    warmup
        Epochs before the first merge. In these, branches are captured, embedded and clustered as ever and the event
        shows the clusters, but nothing merges and the lock's patience does not run.
    capture
        How gradients are come by: ``"exact"`` adds them up over the epoch; ``"free"`` reads them off the displacement
        of SGD, at no cost per step, where that is exact, and adds them up where it is not (:class:`FreeCapture`);
        ``"sketch"`` adds up their random projections, ``sketch_size`` numbers a branch (:class:`SketchedCapture`).
        One of ``selshare.sharing.capture.CAPTURES``.
    sketch_size
        Numbers per branch of the sketched capture; at least the outputs of a branch's first layer.
    seed
        Of the random criterion and of the sketch's directions.

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
        warmup: int = 0,
        capture: str = "exact",
        sketch_size: int = 1000,
        seed: int = 0,
    ) -> None:
        name, self._criterion = find_criterion(criterion)
        self.settings: dict[str, Any] = {
            "criterion": name,
            "merge": merge,
            "embedding": embedding,
            "relative_error": relative_error,
            "max_rank": max_rank,
            "min_cluster_size": min_cluster_size,
            "min_samples": min_samples,
            "cluster_selection_method": cluster_selection_method,
            "patience": patience,
            "warmup": warmup,
            "capture": capture,
            "sketch_size": sketch_size,
            "seed": seed,
        }
        _check_settings(self.settings)
        self.epoch = 0
        self.events: list[SharingEvent] = []
        self.plans: list[MergePlan] = []
        self._lock = Lock(patience)
        self._model: MultiTaskModel | None = None
        self._optimizers: tuple[torch.optim.Optimizer, ...] = ()
        self._capture: Capture | None = None

    @property
    def locked(self) -> bool:
        """Whether sharing is over: no capture, no factorisation, no clustering any more."""
        return self._lock.locked

    def attach(self, model: MultiTaskModel, optimizer: Optimizers = None) -> Self:
        """Begin to watch a model; returns ``self``.

        Parameters
        ----------
        model
            The model whose branches may merge.
        optimizer
            One or several that train it: their state moves with the branches. ``None`` is right only for optimizers
            without state.

        Raises
        ------
        RuntimeError
            If it is attached already.
        ValueError
            If the model's branches are not those the merges so far have left, are frozen, or are from the start too
            few for ``min_samples`` or ``min_cluster_size``.
        TypeError
            If an argument is of the wrong kind, or an optimizer's state cannot follow a merge.
        """
        if self._model is not None:
            which = "this model" if self._model is model else "another model"
            raise RuntimeError(f"this SelectiveSharing is attached to {which} already; call detach() first.")
        if not isinstance(model, MultiTaskModel):
            raise TypeError(f"attach() takes a MultiTaskModel, not {type(model).__name__}.")
        optimizers = as_optimizers(optimizer)
        _check_left(self.plans, model)
        self._lock.check(model.assignment)
        if not self.locked:
            self._check_enough(model.bank.branches)
            capture = make_capture(self.settings)
            capture.start(model, optimizers)
            self._capture = capture
        self._model, self._optimizers = model, optimizers
        return self

    def detach(self) -> None:
        """Stop watching: the model keeps its branches and nothing of the sharing. Does nothing if not attached."""
        self._stop_capture()
        self._model, self._optimizers = None, ()

    def end_epoch(self) -> SharingEvent:
        """Cluster the epoch's gradients, merge, and say what happened.

        Starts the next epoch's capture and the model's loss record anew. After the lock it only reports.

        Raises
        ------
        RuntimeError
            If it is not attached, or no gradient reached any branch in the epoch.
        ValueError
            If the gradients hold NaN or Inf; the message names the tasks.
        """
        model = self._model
        if model is None:
            raise RuntimeError("end_epoch() needs a model; call attach(model, optimizer) before training.")
        event = self._report_only(model) if self._capture is None else self._share(model, self._capture)
        self.epoch = event.epoch
        self.events.append(event)
        model.reset_loss_record()
        return event

    def state_dict(self) -> dict[str, Any]:
        """What to save at the end of an epoch, as plain JSON values: settings, epoch, lock and merge plans."""
        return {
            "settings": dict(self.settings),
            "epoch": self.epoch,
            "unchanged": self._lock.unchanged,
            "lock_reason": self._lock.reason,
            "plans": [plan.to_json() for plan in self.plans],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken. Load the model's state first, or replay the plans on it.

        Raises
        ------
        ValueError
            If the state was saved with other settings, is not complete, or an attached model's branches are not
            those the saved merges have left. Nothing is changed then.
        """
        expected = {"settings", "epoch", "unchanged", "lock_reason", "plans"}
        if set(state) != expected:
            raise ValueError(f"a sharing state has the keys {sorted(expected)}; got {sorted(state)}.")
        saved, own = state["settings"], self.settings
        different = sorted(key for key in saved.keys() | own.keys() if saved.get(key) != own.get(key))
        if different:
            said = ", ".join(f"{key}={saved.get(key)!r} (here {own.get(key)!r})" for key in different)
            raise ValueError(f"the sharing state was saved with {said}; build SelectiveSharing with the same settings.")
        plans = [MergePlan.from_json(plan) for plan in state["plans"]]
        if self._model is not None:
            _check_left(plans, self._model)
        self.plans, self.epoch, self.events = plans, state["epoch"], []
        self._lock = Lock(self.settings["patience"], state["unchanged"], state["lock_reason"])
        if self.locked:
            self._stop_capture()
        elif self._capture is not None:
            self._capture.reset()

    def _share(self, model: MultiTaskModel, capture: Capture) -> SharingEvent:
        """One end of epoch before the lock."""
        settings, clock = self.settings, _Clock()
        epoch, before, owners = self.epoch + 1, model.bank.branches, _names_by_branch(model)
        with clock.stage("capture"):
            gradients = capture.gradients()
        with clock.stage("embed"):
            embedding = embed(
                gradients,
                settings["embedding"],
                relative_error=settings["relative_error"],
                max_rank=settings["max_rank"],
                names=[_who(names) for names in owners],
            )
            _check_any(embedding)
        with clock.stage("cluster"):
            labels, clustering = cluster_branches(self._criterion, embedding, before, self._cluster_settings(epoch))
        with clock.stage("plan"):
            losses = branch_losses(model.assignment, model.recorded_losses(), before)
            plan = plan_merges(labels, losses, settings["merge"])
        warming = epoch <= settings["warmup"]
        with clock.stage("merge"):
            if not warming:
                self._carry_out(plan, model)
            if self.locked:
                self._stop_capture()
            else:
                capture.reset()
        clusters = _merged_names(plan, owners)
        return SharingEvent(
            epoch=epoch,
            criterion=settings["criterion"],
            groups=_groups(model),
            merged=() if warming else clusters,
            clusters=clusters,
            branches_before=before,
            branches_after=model.bank.branches,
            locked=self.locked,
            lock_reason=self._lock.reason,
            branch_tasks=owners,
            labels=tuple(labels.tolist()),
            **_arrays(embedding, clustering),
            plan=None if warming else plan,
            seconds=clock.seconds,
        )

    def _carry_out(self, plan: MergePlan, model: MultiTaskModel) -> None:
        """Merge, and see whether that was the last time."""
        apply(plan, model, self._optimizers)
        if plan.changes:
            self.plans.append(plan)
        self._lock.check(model.assignment)
        self._lock.count(plan.changes)

    def _report_only(self, model: MultiTaskModel) -> SharingEvent:
        """The end of an epoch after the lock."""
        return SharingEvent(
            epoch=self.epoch + 1,
            criterion=self.settings["criterion"],
            groups=_groups(model),
            merged=(),
            clusters=(),
            branches_before=model.bank.branches,
            branches_after=model.bank.branches,
            locked=True,
            lock_reason=self._lock.reason,
            branch_tasks=_names_by_branch(model),
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

    def _stop_capture(self) -> None:
        """Let go of the capture, if there is one."""
        if self._capture is not None:
            self._capture.stop()
            self._capture = None


class _Clock:
    """Wall-clock seconds by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time what is inside."""
        start = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - start


def _check_settings(settings: Mapping[str, Any]) -> None:
    """Raise on a setting that is unknown or out of range."""
    check_rule(settings["merge"])
    check_method(settings["embedding"])
    check_capture(settings["capture"])
    if settings["cluster_selection_method"] not in ("eom", "leaf"):
        raise ValueError(f"cluster_selection_method is 'eom' or 'leaf', not {settings['cluster_selection_method']!r}.")
    if not 0.0 <= settings["relative_error"] < 1.0:
        raise ValueError(f"relative_error must be at least 0 and below 1; it is {settings['relative_error']}.")
    least = {
        "min_cluster_size": 2,
        "min_samples": 1,
        "patience": 1,
        "warmup": 0,
        "seed": 0,
        "max_rank": 1,
        "sketch_size": 1,
    }
    for name, lowest in least.items():
        value = settings[name]
        if name == "max_rank" and value is None:
            continue
        if not isinstance(value, int) or value < lowest:
            raise ValueError(f"{name} must be a whole number, at least {lowest}; it is {value!r}.")


def _check_left(plans: Sequence[MergePlan], model: MultiTaskModel) -> None:
    """Raise unless the model has as many branches as the last plan left."""
    if plans and len(plans[-1].kept()) != model.bank.branches:
        raise ValueError(
            f"the merges so far left {len(plans[-1].kept())} branches, but the model has {model.bank.branches}; load "
            "the model's saved state first, or replay(plans, model) on a fresh one."
        )


def _check_any(embedding: Embedding) -> None:
    """Raise if no branch has a gradient."""
    if len(embedding.branches) == 0:
        raise RuntimeError(
            "no gradient reached any branch since the last end_epoch(); call loss.backward() with the model in "
            "training mode, after attach()."
        )


def _names_by_branch(model: MultiTaskModel) -> Names:
    """Task names of each branch."""
    return tuple(tuple(model.layout.names[task] for task in tasks) for tasks in model.tasks_by_branch())


def _groups(model: MultiTaskModel) -> Names:
    """Task names of each branch that has several."""
    return tuple(names for names in _names_by_branch(model) if len(names) > 1)


def _who(names: Sequence[str]) -> str:
    """Tasks in the words of an error."""
    return f"task{'s' if len(names) > 1 else ''} {', '.join(map(repr, names))}"


def _merged_names(plan: MergePlan, owners: Names) -> Names:
    """Task names of each group of a plan."""
    return tuple(tuple(name for branch in group for name in owners[branch]) for group in plan.groups)


def _arrays(embedding: Embedding, clustering: Clustering | None) -> dict[str, Any]:
    """The event's arrays, on the CPU."""
    arrays: dict[str, Any] = {
        "embedded": tuple(embedding.branches.tolist()),
        "embedding": _on_cpu(embedding.rows) if clustering else None,
    }
    for name in ("distances", "linkage", "condensed_tree"):
        arrays[name] = _on_cpu(getattr(clustering, name)) if clustering else None
    return arrays


def _on_cpu(array: Tensor | None) -> Tensor | None:
    """A tensor that no later step changes, or ``None``."""
    return None if array is None else array.detach().to("cpu", copy=True)
