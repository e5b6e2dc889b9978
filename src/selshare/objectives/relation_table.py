"""What is known of how the labels of one task go with the classes of another: ``p(label | class)``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..tasks import TaskLayout
from .linked_tasks import LinkedTasks, Target
from .targets import pack_targets


@dataclass(frozen=True, eq=False)
class RelationTable:
    """``p(label | class)`` for each class of a source task and each label of a target task.

    Attributes
    ----------
    probabilities
        ``(E, A)`` float64, between 0 and 1. Where the labels exclude each other (the target is a multiclass task) each
        row sums to 1; that is checked where the table is used.
    classes, labels
        The names of rows and columns.
    counts
        ``(E, A)``: on how many samples an estimated entry rests; ``None`` for a table that was given.

    Raises
    ------
    ValueError, TypeError
        Where shape, names or values do not fit; names the class and the label.
    """

    probabilities: Tensor
    classes: tuple[str, ...]
    labels: tuple[str, ...]
    counts: Tensor | None = None

    def __post_init__(self) -> None:
        """Check names and values."""
        if tuple(self.probabilities.shape) != (len(self.classes), len(self.labels)):
            raise ValueError(
                f"The relation table has shape {tuple(self.probabilities.shape)}, but there are names for "
                f"{len(self.classes)} classes and {len(self.labels)} labels; its rows are classes, its columns labels."
            )
        for what, names in (("class", self.classes), ("label", self.labels)):
            twice = next((name for name in names if names.count(name) > 1), None)
            if twice is not None:
                raise ValueError(f"The relation table names the {what} {twice!r} twice.")
        wrong = ~((self.probabilities >= 0) & (self.probabilities <= 1))
        if bool(wrong.any()):
            row, column = wrong.nonzero()[0].tolist()
            raise ValueError(
                f"The relation of class {self.classes[row]!r} to label {self.labels[column]!r} is "
                f"{float(self.probabilities[row, column]):g}; it must be a probability, between 0 and 1."
            )

    @classmethod
    def of(
        cls,
        table: RelationTable | Mapping[str, Mapping[str, float]] | Any,
        *,
        classes: Sequence[str] | None = None,
        labels: Sequence[str] | None = None,
    ) -> RelationTable:
        """A table from whatever holds it.

        Parameters
        ----------
        table
            A pandas ``DataFrame`` with classes as index and labels as columns; a mapping class → label → probability
            (what is left out is 0); an array, tensor or nested sequence ``(E, A)``; or a :class:`RelationTable`.
        classes, labels
            The names in the order of the source task's classes and of the target's labels. A table with names of its
            own is put in this order and must have exactly these; an array takes them as its names (else they are
            ``"0"``, ``"1"`` …).

        Raises
        ------
        ValueError, TypeError
            Where a name is unknown or missing, or the table is none.
        """
        if isinstance(table, RelationTable):
            found = table
        elif hasattr(table, "columns") and hasattr(table, "index") and hasattr(table, "to_numpy"):
            found = cls(_matrix(table.to_numpy()), _names(table.index), _names(table.columns))
        elif isinstance(table, Mapping):
            found = _from_mapping(table, labels)
        else:
            matrix = _matrix(table)
            rows, columns = map(range, matrix.shape)
            return cls(matrix, _names(classes or rows), _names(labels or columns))
        return found._ordered(
            found.classes if classes is None else _names(classes), found.labels if labels is None else _names(labels)
        )

    def require_exclusive(self) -> None:
        """Raise ``ValueError`` unless every row sums to 1 (to 1e-4)."""
        sums = self.probabilities.sum(1)
        wrong = (sums - 1).abs() > 1e-4
        if bool(wrong.any()):
            row = int(wrong.nonzero()[0, 0])
            raise ValueError(
                f"The relations of class {self.classes[row]!r} sum to {float(sums[row]):.4g}; the target is a "
                "multiclass task, of whose classes exactly one holds, so each row must sum to 1."
            )

    def to_json(self) -> dict[str, dict[str, float]]:
        """Class → label → probability, as data that ``json.dumps`` takes."""
        rows = self.probabilities.tolist()
        return {name: dict(zip(self.labels, row, strict=True)) for name, row in zip(self.classes, rows, strict=True)}

    def _ordered(self, classes: tuple[str, ...], labels: tuple[str, ...]) -> RelationTable:
        """Rows and columns in the order given, which must name all of them."""
        rows = _places("class", classes, self.classes)
        columns = _places("label", labels, self.labels)
        counts = None if self.counts is None else self.counts[rows][:, columns]
        return RelationTable(self.probabilities[rows][:, columns], classes, labels, counts)


def estimate_relation(
    tasks: Any,
    targets: Mapping[str, Tensor] | Tensor,
    source: str,
    target: Target,
    *,
    smoothing: float = 1.0,
    classes: Sequence[str] | None = None,
    labels: Sequence[str] | None = None,
) -> RelationTable:
    """``p(label | class)`` from samples that are labelled for both tasks.

    Each outcome of a label is counted ``smoothing`` times more than it was seen (Laplace's rule at 1): for labels of
    their own ``(n_ei + s) / (n_e + 2s)``, for classes that exclude each other ``(n_ec + s) / (n_e + C·s)``.

    Parameters
    ----------
    tasks
        The tasks, or their layout.
    targets
        Packed targets or a mapping, see :func:`~selshare.objectives.pack_targets`; samples that lack the class, or a
        label, do not count for it.
    source
        A multiclass task.
    target
        A multilabel, multiclass or binary task, or several binary tasks.
    smoothing
        0 or more.
    classes, labels
        Names of the source's classes and the target's labels; ``"0"``, ``"1"`` … by default, for several binary tasks
        their names.

    Returns
    -------
    RelationTable
        With the counts.

    Raises
    ------
    ValueError
        If a task is unknown or of another kind, has no labelled sample, no sample is labelled for both, or, without
        smoothing, a class has no such sample.
    """
    if not 0 <= smoothing < float("inf"):
        raise ValueError(f"The smoothing is {smoothing}; it must be finite, 0 or more.")
    layout = tasks if isinstance(tasks, TaskLayout) else TaskLayout(tasks)
    link = LinkedTasks(layout, source, target)
    packed = pack_targets(layout, targets)
    members = link.source_members(packed)  # (B, E): 1 at the sample's class, 0 elsewhere and where it is missing
    known, present = link.target_labels(packed)  # (B, A) each
    counts, hits = members.T @ present, members.T @ known
    outcomes = known.shape[1] if link.exclusive else 2
    row_names = _names(range(link.classes) if classes is None else classes)
    column_names = _names(link.label_names if labels is None else labels)
    _require_labels(link, source, members, present)
    if smoothing == 0 and bool((counts == 0).any()):
        row = int((counts == 0).any(1).nonzero()[0, 0])
        raise ValueError(
            f"Class {row_names[row]!r} of task {source!r} has no sample that is labelled for {link.described}; "
            "smooth the estimate, or give the relation as a table."
        )
    return RelationTable((hits + smoothing) / (counts + outcomes * smoothing), row_names, column_names, counts)


def _require_labels(link: LinkedTasks, source: str, members: Tensor, present: Tensor) -> None:
    """Raise unless there are samples labelled for the source, for the target, and for both."""
    for described, labelled in ((f"task {source!r}", members), (link.described, present)):
        if not bool(labelled.any()):
            raise ValueError(
                f"No sample is labelled for {described}, so its relation cannot be estimated; give it as a table."
            )
    if not bool((members.any(1) & present.any(1)).any()):
        raise ValueError(
            f"No sample is labelled for both task {source!r} and {link.described}, so their relation cannot be "
            "estimated; give it as a table."
        )


def _matrix(table: Any) -> Tensor:
    """Two dimensions of floats."""
    matrix = torch.as_tensor(table, dtype=torch.float64, device="cpu").detach()
    if matrix.ndim != 2 or matrix.numel() == 0:
        raise ValueError(
            f"A relation table has a row per class and a column per label, not shape {tuple(matrix.shape)}."
        )
    return matrix


def _names(names: Any) -> tuple[str, ...]:
    return tuple(str(name) for name in names)


def _from_mapping(table: Mapping[str, Any], labels: Sequence[str] | None) -> RelationTable:
    """Class → label → probability."""
    for name, row in table.items():
        if not isinstance(row, Mapping):
            raise TypeError(f"The relation of class {name!r} is a {type(row).__name__}; give a mapping from label.")
    seen = dict.fromkeys(str(label) for row in table.values() for label in row)
    columns = tuple(dict.fromkeys([*(labels or ()), *seen]))  # a label that no class has may be left out everywhere
    rows = [{str(label): float(value) for label, value in row.items()} for row in table.values()]
    return RelationTable(_matrix([[row.get(name, 0.0) for name in columns] for row in rows]), _names(table), columns)


def _places(what: str, wanted: tuple[str, ...], present: tuple[str, ...]) -> list[int]:
    """Where each wanted name stands; all must be there, and no others."""
    for name in wanted:
        if name not in present:
            raise ValueError(f"The relation table has no {what} {name!r}; it has {', '.join(map(repr, present))}.")
    for name in present:
        if name not in wanted:
            raise ValueError(
                f"The relation table has the unknown {what} {name!r}; the task has {', '.join(map(repr, wanted))}."
            )
    return [present.index(name) for name in wanted]
