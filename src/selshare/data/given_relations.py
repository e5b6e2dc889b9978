"""Relations between tasks from a file, for data sets that do not come with them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..objectives import RelationTable
from ..tasks import TaskLayout
from .problem import Problem


def read_relations(path: Path, problem: Problem) -> dict[tuple[str, str | tuple[str, ...]], RelationTable]:
    """What :attr:`Problem.relations` holds, from JSON.

    The file is a list of ``{"source": "fruit", "target": "sweet", "table": {"apple": {"sweet": 1.0}, …}}``; the target
    may be a list of binary tasks. A table goes from class to label to probability; what is left out is 0. Classes have
    the names that the columns of a table give them, else ``"0"``, ``"1"`` …; the label of a binary task has its name.

    Raises
    ------
    ValueError
        If the file is not of that form, or names a task, class or label that there is not.
    """
    entries = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(entries, list) or not all(_is_entry(entry) for entry in entries):
        raise ValueError(f'{path} must hold a list of {{"source": …, "target": …, "table": {{class: {{label: …}}}}}}.')
    layout = TaskLayout(problem.tasks)
    found: dict[tuple[str, str | tuple[str, ...]], RelationTable] = {}
    for entry in entries:
        source, target = entry["source"], entry["target"]
        targets = (target,) if isinstance(target, str) else tuple(target)
        for name in (source, *targets):
            if name not in layout.names:
                known = ", ".join(map(repr, layout.names[:10]))
                raise ValueError(f"{path} relates the unknown task {name!r}; the tasks are {known}.")
        labels = [label for name in targets for label in _labels(problem, layout, name)]
        classes = _labels(problem, layout, source)
        key = target if isinstance(target, str) else targets
        found[source, key] = RelationTable.of(entry["table"], classes=classes, labels=labels)
    return found


def _is_entry(entry: Any) -> bool:
    return (
        isinstance(entry, Mapping)
        and {"source", "target", "table"} == set(entry)
        and isinstance(entry["source"], str)
        and isinstance(entry["target"], str | list)
        and isinstance(entry["table"], Mapping)
    )


def _labels(problem: Problem, layout: TaskLayout, name: str) -> list[str]:
    """The names of a task's classes or labels, in order."""
    index = layout.index(name)
    task = layout.tasks[index]
    if task.kind == "binary":
        return [name]
    if problem.columns is not None and task.kind == "multiclass":
        return list(problem.columns.targets[index].classes)
    return list(map(str, range(task.outputs)))
