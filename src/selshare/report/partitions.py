"""How tasks came together: the partition of the tasks into branches after each epoch, read from sharing events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .run import Event

Branch = tuple[str, ...]


@dataclass(frozen=True)
class Stage:
    """The live branches after an epoch, as task names; epoch 0 is before training."""

    epoch: int
    branches: tuple[Branch, ...]


@dataclass(frozen=True)
class Formation:
    """The partitions from the start to the end, only those that changed something, each nested in the next.

    Attributes
    ----------
    stages
        At least the one at epoch 0.
    order
        Every task once, such that each branch of each stage is a run of neighbours: lines never cross.
    groups
        The final branches of several tasks, in ``order``.
    """

    stages: tuple[Stage, ...]
    order: tuple[str, ...]
    groups: tuple[Branch, ...]

    @property
    def group_of(self) -> dict[str, int]:
        """Position in ``groups`` of each task's final group; tasks left alone are not in it."""
        return {task: index for index, group in enumerate(self.groups) for task in group}


def formation(events: Sequence[Event]) -> Formation:
    """Return how the groups formed. Larger final groups come first, tasks left alone last.

    A group that was undone later is left out throughout: its branches go on as if they had not merged.

    Raises
    ------
    ValueError
        Where there are no events.
    """
    if not events:
        raise ValueError("there are no sharing events, so no groups have formed.")
    start = tuple(tuple(tasks) for tasks in events[0]["branch_tasks"])
    stages = [Stage(0, start)]
    undone = {frozenset(group) for event in events for group in event.get("undone", ())}
    for event in events:
        if any(frozenset(group) not in undone for group in event["merged"]):
            stages.append(Stage(event["epoch"], _apart(_after(event), undone, stages[-1].branches)))
    order = _order(stages)
    position = {task: index for index, task in enumerate(order)}
    final = [tuple(sorted(branch, key=position.__getitem__)) for branch in stages[-1].branches if len(branch) > 1]
    return Formation(tuple(stages), order, tuple(sorted(final, key=lambda branch: position[branch[0]])))


def _after(event: Event) -> tuple[Branch, ...]:
    """The branches after an event: the groups, and each task in none of them by itself."""
    groups = [tuple(group) for group in event["groups"]]
    grouped = {task for group in groups for task in group}
    every = [task for branch in event["branch_tasks"] for task in branch]
    return (*groups, *((task,) for task in every if task not in grouped))


def _apart(branches: Sequence[Branch], undone: set[frozenset[str]], before: Sequence[Branch]) -> tuple[Branch, ...]:
    """The branches, with those to be undone still as they were before they merged."""
    together = [tasks for branch in branches if (tasks := frozenset(branch)) in undone]
    parts = [branch for branch in before if any(tasks.issuperset(branch) for tasks in together)]
    return (*(branch for branch in branches if frozenset(branch) not in undone), *parts)


def _order(stages: Sequence[Stage]) -> tuple[str, ...]:
    """Sort by the last branch, within it by the branch before, and so on: partitions are nested."""
    first = {task: index for index, task in enumerate(t for branch in stages[0].branches for t in branch)}
    keys: dict[str, tuple[tuple[int, int], ...]] = dict.fromkeys(first, ())
    for stage in reversed(stages):
        rank = {task: (-len(branch), min(first[t] for t in branch)) for branch in stage.branches for task in branch}
        keys = {task: (*key, rank[task]) for task, key in keys.items()}
    return tuple(sorted(first, key=lambda task: (keys[task], first[task])))


def label(tasks: Sequence[str], longest: int = 28) -> str:
    """Return a short name of a branch: its task, or its first task and how many more."""
    name = tasks[0] if len(tasks[0]) <= longest else f"{tasks[0][: longest - 1]}…"
    return name if len(tasks) == 1 else f"{name} +{len(tasks) - 1}"


def count(tasks: Sequence[str]) -> str:
    """Return how many tasks there are, in words that fit one and many."""
    return f"{len(tasks)} task{'s' if len(tasks) != 1 else ''}"


def cluster_groups(event: Event, group_of: Mapping[str, int]) -> dict[int, int | None]:
    """Return, for each cluster label of an event, the final group most of its tasks ended in; ``None`` for alone."""
    members: dict[int, list[int]] = {}
    for branch in event["embedded"]:
        ended = [group_of[task] for task in event["branch_tasks"][branch] if task in group_of]
        members.setdefault(event["labels"][branch], []).extend(ended)
    members.pop(-1, None)  # noise
    return {
        cluster: max(set(ended), key=lambda group: (ended.count(group), -group)) if ended else None
        for cluster, ended in members.items()
    }
