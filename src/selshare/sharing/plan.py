"""Merge plans: which branches become one, which of them survives, and by which rule. Pure data.

A plan changes nothing; :func:`selshare.sharing.merge.apply` carries it out. Plans are logged, saved in checkpoints
and can be replayed on a fresh model.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from ..kernels.checks import is_one_of

RULES = ("best", "mean", "max", "min")
"""What a group's branch becomes: the one with the lowest loss, or all of them element by element."""

NOISE = -1
Number = TypeVar("Number", int, float)


@dataclass(frozen=True, slots=True)
class MergePlan:
    """How the branches of a bank merge.

    Parameters
    ----------
    branches
        The number of branches the plan is made for.
    groups
        Branches that become one, each group with at least two, ascending; no branch twice. Branches in no group
        stay as they are. Groups are ordered by their first branch.
    survivors
        One branch of each group: the row that stays. Under ``"best"`` it keeps its weights; under ``"mean"``,
        ``"max"`` and ``"min"`` it holds the element-wise result over the group.
    rule
        One of :data:`RULES`.

    Raises
    ------
    ValueError
        If any of this does not hold.
    """

    branches: int
    groups: tuple[tuple[int, ...], ...]
    survivors: tuple[int, ...]
    rule: str = "best"

    def __post_init__(self) -> None:
        """Refuse a plan that cannot be carried out."""
        check_rule(self.rule)
        if self.branches < 1:
            raise ValueError(f"a merge plan needs at least one branch; it has {self.branches}.")
        if len(self.survivors) != len(self.groups):
            raise ValueError(f"a merge plan has {len(self.groups)} groups but {len(self.survivors)} survivors.")
        seen: set[int] = set()
        for group, survivor in zip(self.groups, self.survivors, strict=True):
            if len(group) < 2 or list(group) != sorted(set(group)):
                raise ValueError(f"the group {group} of a merge plan must hold two or more branches, ascending.")
            if group[0] < 0 or group[-1] >= self.branches:
                raise ValueError(f"the group {group} names a branch that is not one of 0 … {self.branches - 1}.")
            if not seen.isdisjoint(group):
                raise ValueError(f"the group {group} holds a branch that is in another group of the merge plan too.")
            if survivor not in group:
                raise ValueError(f"the survivor {survivor} is not in its group {group}.")
            seen.update(group)
        if list(self.groups) != sorted(self.groups):
            raise ValueError("the groups of a merge plan must be ordered by their first branch.")

    @property
    def changes(self) -> bool:
        """Whether anything merges."""
        return bool(self.groups)

    def kept(self) -> tuple[int, ...]:
        """The old indices of the branches that remain, ascending: entry i becomes branch i."""
        gone = {branch for group in self.groups for branch in group} - set(self.survivors)
        return tuple(branch for branch in range(self.branches) if branch not in gone)

    def assignment_map(self) -> Tensor:
        """The new index of each old branch, ``(branches,)`` int64: a task on branch b moves to ``map[b]``."""
        owner = np.arange(self.branches)
        for group, survivor in zip(self.groups, self.survivors, strict=True):
            owner[list(group)] = survivor
        return torch.from_numpy(np.searchsorted(np.asarray(self.kept()), owner))

    def to_json(self) -> dict[str, Any]:
        """A dictionary of plain numbers, lists and strings."""
        return {
            "branches": self.branches,
            "groups": [list(group) for group in self.groups],
            "survivors": list(self.survivors),
            "rule": self.rule,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any] | str) -> MergePlan:
        """The plan of :meth:`to_json`, or of its text.

        Raises
        ------
        ValueError
            If a key is missing or unknown, an entry has the wrong type, or the plan is not a valid one.
        """
        entries = json.loads(data) if isinstance(data, str) else data
        expected = {"branches", "groups", "survivors", "rule"}
        if not isinstance(entries, Mapping) or set(entries) != expected:
            raise ValueError(f"a merge plan is an object with the keys {sorted(expected)}; got {entries!r}.")
        groups, survivors = entries["groups"], entries["survivors"]
        if not isinstance(groups, list) or not all(isinstance(group, list) for group in groups):
            raise ValueError(f"the groups of a merge plan must be a list of lists of branches; got {groups!r}.")
        if not isinstance(survivors, list):
            raise ValueError(f"the survivors of a merge plan must be a list of branches; got {survivors!r}.")
        numbers = [entries["branches"], *survivors, *(branch for group in groups for branch in group)]
        if any(type(number) is not int for number in numbers):
            raise ValueError("the branches of a merge plan must be whole numbers.")
        return cls(entries["branches"], tuple(tuple(group) for group in groups), tuple(survivors), entries["rule"])


def check_rule(rule: str) -> None:
    """Raise ``ValueError`` unless ``rule`` is one of :data:`RULES`."""
    if not is_one_of(rule, RULES):
        raise ValueError(f"unknown merge rule {rule!r}; choose from {', '.join(RULES)}.")


def branch_losses(assignment: Tensor, task_losses: Tensor, branches: int) -> Tensor:
    """The aggregated loss of each branch: the mean over its tasks, ``(branches,)`` float64.

    ``task_losses`` is ``(T,)``, NaN for a task without a label, which does not count; a branch none of whose tasks
    has a loss gets NaN. Known: the branch with the lowest aggregated loss survives. *Ours*: the aggregate is the
    mean, so that a branch of many tasks is not at a disadvantage.
    """
    losses, owner = task_losses.detach().to("cpu", torch.float64), assignment.detach().to("cpu")
    counted = ~losses.isnan()
    total = torch.zeros(branches, dtype=torch.float64).index_add_(0, owner[counted], losses[counted])
    return total / torch.bincount(owner[counted], minlength=branches)


def plan_merges(
    labels: Sequence[int] | Tensor, branch_losses: Sequence[float] | Tensor, rule: str = "best"
) -> MergePlan:
    """Turn cluster labels into a merge plan.

    Parameters
    ----------
    labels
        One per branch, ``(G,)`` integers; :data:`NOISE` (−1) and labels that occur once leave a branch as it is.
    branch_losses
        The aggregated loss of each branch, ``(G,)``. In each group the branch with the lowest survives; ties go to
        the lowest index, and NaN never wins over a number.
    rule
        One of :data:`RULES`. The survivor is the same for each: under ``"mean"``, ``"max"`` and ``"min"`` its row
        receives the element-wise result.

    Raises
    ------
    ValueError
        If the lengths differ, there is no branch, a label is below −1, or the rule is unknown.
    """
    of_branch, losses = _numbers(labels, int), _numbers(branch_losses, float)
    if len(of_branch) != len(losses):
        raise ValueError(f"there are {len(of_branch)} cluster labels but {len(losses)} branch losses.")
    if min(of_branch, default=NOISE) < NOISE:
        raise ValueError(f"a cluster label must be −1 (noise) or above; the lowest is {min(of_branch)}.")
    members: dict[int, list[int]] = {}
    for branch, label in enumerate(of_branch):
        if label != NOISE:
            members.setdefault(label, []).append(branch)
    # Filled in ascending order of branches, so the groups are already ordered by their first branch.
    groups = tuple(tuple(group) for group in members.values() if len(group) > 1)
    survivors = tuple(min(group, key=lambda b: (math.isnan(losses[b]), losses[b], b)) for group in groups)
    return MergePlan(len(of_branch), groups, survivors, rule)


def origins_of(plans: Sequence[MergePlan], branches: int) -> tuple[tuple[int, ...], ...]:
    """For each branch that ``plans`` have left, the branches of the start it came from.

    ``branches`` is their number where there are no plans.
    """
    origins: tuple[tuple[int, ...], ...] = tuple((b,) for b in range(plans[0].branches if plans else branches))
    for plan in plans:
        joined: list[list[int]] = [[] for _ in plan.kept()]
        for branch, new in enumerate(plan.assignment_map().tolist()):
            joined[new] += origins[branch]
        origins = tuple(tuple(sorted(of)) for of in joined)
    return origins


def plans_to(origins: Sequence[tuple[int, ...]], rule: str) -> list[MergePlan]:
    """One plan, or none, that leads from the start to branches with these ``origins``, ordered by the first."""
    groups = tuple(of for of in origins if len(of) > 1)
    plan = MergePlan(sum(map(len, origins)), groups, tuple(group[0] for group in groups), rule)
    return [plan] if plan.changes else []


def _numbers(values: Sequence[Number] | Tensor, kind: Callable[[Any], Number]) -> list[Number]:
    """A tensor or sequence as a list; a tensor at once, which is a hundred times faster than element by element."""
    return [kind(value) for value in (values.tolist() if isinstance(values, Tensor) else values)]
