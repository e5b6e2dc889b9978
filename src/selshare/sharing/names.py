"""Tasks and arrays in the form that sharing events hold them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from .criteria import Clustering
from .embed import Embedding
from .epoch_end import Whole
from .events import Names
from .plan import MergePlan


def names_by_branch(model: Whole) -> Names:
    """Task names of each branch."""
    return tuple(tuple(model.layout.names[task] for task in tasks) for tasks in model.tasks_by_branch())


def shared_groups(model: Whole) -> Names:
    """Task names of each branch that has several."""
    return tuple(names for names in names_by_branch(model) if len(names) > 1)


def who(names: Sequence[str]) -> str:
    """Tasks in the words of an error."""
    return f"task{'s' if len(names) > 1 else ''} {', '.join(map(repr, names))}"


def merged_names(plan: MergePlan, owners: Names) -> Names:
    """Task names of each group of a plan."""
    return tuple(tuple(name for branch in group for name in owners[branch]) for group in plan.groups)


def event_arrays(embedding: Embedding, clustering: Clustering | None) -> dict[str, Any]:
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
