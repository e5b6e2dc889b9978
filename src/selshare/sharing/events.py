"""What happened at the end of an epoch, by task name, with all a report needs to draw it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import torch
from torch import Tensor

from .plan import MergePlan

Names = tuple[tuple[str, ...], ...]
ARRAYS = ("embedding", "distances", "linkage", "condensed_tree")
JSON_ELEMENTS = 250_000


@dataclass(frozen=True, eq=False, kw_only=True)
class SharingEvent:
    """The end of one epoch.

    Attributes
    ----------
    epoch
        How many epochs have ended, this one included.
    criterion
        The name of the sharing criterion.
    groups
        What shares a branch now: the task names of each branch that has several, in the order of branches.
    merged
        Task names that came together at this epoch, one entry per branch that merged.
    clusters
        Task names of each cluster the criterion found; in warm-up epochs these are not merged.
    branches_before, branches_after
        Live branches before and after merging.
    locked, lock_reason
        Whether sharing is over after this epoch, and why.
    branch_tasks
        Task names of each branch before merging.
    labels
        Cluster of each branch before merging, −1 for noise; empty after the lock.
    embedded
        The branches that were clustered: those with a gradient. Row ``i`` of the arrays below is branch
        ``embedded[i]``.
    embedding
        ``(n, r)`` unit-norm rows, or ``None`` where nothing was clustered.
    distances
        ``(n, n)`` distances of the criterion, or ``None`` (random criterion, very many branches).
    linkage
        ``(n − 1, 4)`` single linkage tree in scipy's form, or ``None``.
    condensed_tree
        ``(m, 4)`` rows parent, child, λ, size, as in hdbscan, or ``None``.
    plan
        What was merged; ``None`` where merging was not on the table (warm-up, after the lock).
    accepted, undone
        Task names of each group whose trial ended at this epoch, well or not (``validate_merges``).
    seconds
        Wall-clock seconds per stage: capture, embed, cluster, plan, merge.
    """

    epoch: int
    criterion: str
    groups: Names
    merged: Names
    clusters: Names
    branches_before: int
    branches_after: int
    locked: bool
    lock_reason: str | None
    branch_tasks: Names
    labels: tuple[int, ...] = ()
    embedded: tuple[int, ...] = ()
    embedding: Tensor | None = None
    distances: Tensor | None = None
    linkage: Tensor | None = None
    condensed_tree: Tensor | None = None
    plan: MergePlan | None = None
    accepted: Names = ()
    undone: Names = ()
    seconds: dict[str, float] = field(default_factory=dict)

    def to_json(self, max_elements: int = JSON_ELEMENTS) -> dict[str, Any]:
        """A dictionary of plain values.

        Arrays become nested lists; those with more than ``max_elements`` elements (by default a distance matrix of
        more than 500 branches) are left out, ``None``. λ is infinite between duplicates; JSON has no infinity, so
        entries that are not finite become ``None``.
        """
        entries: dict[str, Any] = {
            "epoch": self.epoch,
            "criterion": self.criterion,
            "groups": _lists(self.groups),
            "merged": _lists(self.merged),
            "clusters": _lists(self.clusters),
            "branches_before": self.branches_before,
            "branches_after": self.branches_after,
            "locked": self.locked,
            "lock_reason": self.lock_reason,
            "branch_tasks": _lists(self.branch_tasks),
            "labels": list(self.labels),
            "embedded": list(self.embedded),
            "plan": None if self.plan is None else self.plan.to_json(),
            "accepted": _lists(self.accepted),
            "undone": _lists(self.undone),
            "seconds": dict(self.seconds),
        }
        return entries | {name: _rows(getattr(self, name), max_elements) for name in ARRAYS}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The event of :meth:`to_json`; arrays come back as float64, ``None`` entries in them as infinity.

        Raises
        ------
        ValueError
            If a key is missing or unknown, or the plan is not a valid one.
        """
        data = {"accepted": [], "undone": []} | dict(data)  # files from before there were trials lack these
        unknown = set(data) ^ set(cls.__dataclass_fields__)
        if unknown:
            raise ValueError(f"a sharing event has the wrong keys: {sorted(unknown)} are missing or not known.")
        entries = dict(data)
        for name in ("groups", "merged", "clusters", "branch_tasks", "accepted", "undone"):
            entries[name] = tuple(tuple(names) for names in data[name])
        for name in ("labels", "embedded"):
            entries[name] = tuple(data[name])
        entries |= {name: _array(data[name]) for name in ARRAYS}
        entries["plan"] = None if data["plan"] is None else MergePlan.from_json(data["plan"])
        return cls(**entries)


def _lists(names: Names) -> list[list[str]]:
    """Nested lists of nested tuples."""
    return [list(members) for members in names]


def _rows(array: Tensor | None, max_elements: int) -> list[list[float | None]] | None:
    """Nested lists of a matrix that is not too large."""
    if array is None or array.numel() > max_elements:
        return None
    rows: list[list[float | None]] = array.tolist()
    if not bool(torch.isfinite(array).all()):
        rows = [[value if value is not None and abs(value) < float("inf") else None for value in row] for row in rows]
    return rows


def _array(rows: list[list[float | None]] | None) -> Tensor | None:
    """The matrix of nested lists."""
    if rows is None:
        return None
    return torch.tensor(
        [[float("inf") if value is None else value for value in row] for row in rows], dtype=torch.float64
    )
