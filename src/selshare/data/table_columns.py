"""What the columns of a table mean: which are inputs, which are tasks, and how each becomes numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

import numpy as np
import pandas as pd
import torch
from pandas.api import types
from torch import Tensor

from ..tasks import Task

TargetKind = Literal["binary", "multiclass", "regression"]
TARGET_KINDS: tuple[TargetKind, ...] = ("binary", "multiclass", "regression")
MOST_CATEGORIES = 50  # of an input; rarer ones are read as none of them
MOST_CLASSES = 1000
DATE = r"\d{4}-\d\d-\d\d"
NAMES_SHOWN = 12
FEW = 10  # whole numbers with at most that many values are classes, not quantities


@dataclass(frozen=True)
class InputColumn:
    """An input. ``values`` are the categories, empty for a number, which is read as ``(x − mean) / scale``.

    A number with gaps in the training rows has a second input that says where the gap was.
    """

    name: str
    values: tuple[str, ...] = ()
    mean: float = 0.0
    scale: float = 1.0
    gaps: bool = False

    @property
    def width(self) -> int:
        """How many inputs it makes."""
        return len(self.values) or 1 + self.gaps

    def read(self, column: pd.Series[Any]) -> np.ndarray[Any, Any]:
        """``(n, width)`` float32; an unknown category is none of the known, a missing number is the mean."""
        if self.values:
            known = np.array(self.values, object)
            return np.asarray(texts(column).to_numpy(object, na_value=None)[:, None] == known, np.float32)
        scaled = (numbers(column) - self.mean) / self.scale
        parts = [np.nan_to_num(scaled, nan=0.0)] + ([np.isnan(scaled)] if self.gaps else [])
        return np.stack(parts, axis=1).astype(np.float32)


@dataclass(frozen=True)
class TargetColumn:
    """A task. ``classes`` as texts, in order (the second of a binary task is the positive one); empty for a number.

    A number is learned as ``(x − mean) / scale`` and measured in its own units.
    """

    name: str
    kind: TargetKind
    classes: tuple[str, ...] = ()
    mean: float = 0.0
    scale: float = 1.0

    @property
    def task(self) -> Task:
        """The task that the column is."""
        if self.kind == "binary":
            return Task.binary(self.name)
        if self.kind == "multiclass":
            return Task.multiclass(self.name, classes=len(self.classes))
        return Task.regression(self.name, metric=ErrorInUnits(self.scale))

    def read(self, column: pd.Series[Any]) -> np.ndarray[Any, Any]:
        """``(n,)`` float32: class indices or scaled numbers, NaN where a label is missing."""
        if not self.classes:
            return ((numbers(column) - self.mean) / self.scale).astype(np.float32)
        read = texts(column).map({value: float(index) for index, value in enumerate(self.classes)})
        unknown = (read.isna() & column.notna()).to_numpy().nonzero()[0]
        if len(unknown):
            shown = ", ".join(self.classes[:5]) + (" …" if len(self.classes) > 5 else "")
            raise ValueError(f"{_at(column, unknown[0])}; the classes of this target are {shown}.")
        return np.asarray(read.astype("Float64").to_numpy(np.float32, na_value=np.nan))


@dataclass(frozen=True)
class ErrorInUnits:
    """Mean absolute error of scaled outputs and targets ``(n,)``, in the column's own units."""

    scale: float
    higher_is_better = False

    def __call__(self, outputs: Tensor, targets: Tensor) -> float:
        """The error."""
        return self.scale * float((outputs.flatten() - targets.flatten()).abs().mean())


@dataclass(frozen=True)
class TableColumns:
    """How a table is read: all that prediction on a new one needs.

    Attributes
    ----------
    inputs, targets
        The columns in use, in order.
    left_out
        Columns not in use, and why.
    """

    inputs: tuple[InputColumn, ...]
    targets: tuple[TargetColumn, ...]
    left_out: Mapping[str, str]

    @property
    def width(self) -> int:
        """How many inputs there are."""
        return sum(column.width for column in self.inputs)

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The tasks, one per target."""
        return tuple(target.task for target in self.targets)

    def read_inputs(self, frame: pd.DataFrame) -> Tensor:
        """``(n, width)`` float32.

        Raises
        ------
        ValueError
            If a column is missing, or a column of numbers holds something else or an infinite value.
        """
        _check_present([column.name for column in self.inputs], frame, "input")
        return torch.from_numpy(np.concatenate([column.read(frame[column.name]) for column in self.inputs], axis=1))

    def read_targets(self, frame: pd.DataFrame) -> Tensor:
        """``(n, tasks)`` float32, NaN where a label is missing.

        Raises
        ------
        ValueError
            If a column is missing or holds a class or text it did not hold when the table was read first.
        """
        _check_present([column.name for column in self.targets], frame, "target")
        return torch.from_numpy(np.stack([column.read(frame[column.name]) for column in self.targets], axis=1))

    def to_json(self) -> dict[str, Any]:
        """As data that ``json.dumps`` takes."""
        return {
            "inputs": [asdict(column) for column in self.inputs],
            "targets": [asdict(column) for column in self.targets],
            "left_out": dict(self.left_out),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of :meth:`to_json`."""
        inputs = [InputColumn(**{**column, "values": tuple(column["values"])}) for column in data["inputs"]]
        targets = [TargetColumn(**{**column, "classes": tuple(column["classes"])}) for column in data["targets"]]
        return cls(tuple(inputs), tuple(targets), data["left_out"])

    def describe(self) -> list[str]:
        """A line for each target, and one each for the inputs and what is left out."""
        lines = [f"target {target.name!r}: {_describe(target)}" for target in self.targets]
        for what, named in (
            ("numbers", [column.name for column in self.inputs if not column.values]),
            ("categories", [column.name for column in self.inputs if column.values]),
        ):
            if named:
                more = f", … {len(named) - NAMES_SHOWN} more" if len(named) > NAMES_SHOWN else ""
                lines.append(f"inputs, {len(named)} {what}: {', '.join(map(str, named[:NAMES_SHOWN]))}{more}")
        lines.append(f"{self.width} inputs in all")
        return lines + [f"left out: {name!r}, {why}" for name, why in self.left_out.items()]


def find_columns(
    frame: pd.DataFrame,
    targets: Sequence[str],
    training: np.ndarray[Any, Any],
    kinds: Mapping[str, str],
    ignored: Sequence[str] = (),
) -> TableColumns:
    """Decide what each column is; means, scales and categories come from the ``training`` rows alone.

    Raises
    ------
    ValueError
        If a target is not a column, has nothing to learn or too many classes, a kind is unknown, or no input is left.
    """
    _check_present(targets, frame, "target")
    for name, kind in kinds.items():
        if name not in targets or kind not in TARGET_KINDS:
            raise ValueError(f"kinds gives {name!r} as {kind!r}; give a target and one of {', '.join(TARGET_KINDS)}.")
    if len(set(targets)) < len(targets) or not targets:
        raise ValueError("targets must name at least one column, each once.")
    wanted = tuple(_target(name, frame[name], training, kinds.get(name)) for name in targets)
    found = {
        name: "ignored" if name in ignored else _input(name, frame[name].iloc[training])
        for name in frame.columns
        if name not in targets
    }
    inputs = tuple(column for column in found.values() if isinstance(column, InputColumn))
    if not inputs:
        raise ValueError("no input is left: every column is a target, constant or free text.")
    return TableColumns(inputs, wanted, {name: why for name, why in found.items() if isinstance(why, str)})


def texts(column: pd.Series[Any]) -> pd.Series[Any]:
    """The values as texts, whole numbers without a point; missing values stay missing."""
    if types.is_float_dtype(column.dtype) and (column.dropna() % 1 == 0).all():
        column = column.astype("Int64")
    return column.astype("string")


def numbers(column: pd.Series[Any]) -> np.ndarray[Any, Any]:
    """The values in float64, NaN where they are missing; dates are days.

    Raises
    ------
    ValueError
        If a value is no number, or infinite.
    """
    dates = _dates(column)
    if dates.notna().any():
        read = ((dates - pd.Timestamp(0, tz="UTC")) / pd.Timedelta(days=1)).to_numpy(np.float64)
    else:
        read = pd.to_numeric(column, errors="coerce").astype("Float64").to_numpy(np.float64, na_value=np.nan)
    wrong = ((np.isnan(read) & column.notna().to_numpy()) | np.isinf(read)).nonzero()[0]
    if len(wrong):
        raise ValueError(
            f"{_at(column, wrong[0])}, where a {'date' if dates.notna().any() else 'finite number'} is needed; "
            "repair it, or leave it empty if unknown."
        )
    return np.asarray(read)


def _dates(column: pd.Series[Any]) -> pd.Series[Any]:
    """The values that are dates, or texts like ``2024-05-01``, with a time or without; missing where they are not."""
    if types.is_numeric_dtype(column.dtype):
        return pd.Series(pd.NaT, column.index, dtype="datetime64[ns, UTC]")
    written = column if types.is_datetime64_any_dtype(column.dtype) else column.astype("string").str.strip()
    if written is not column:
        written = written.where(written.str.match(DATE))
    return pd.to_datetime(written, format="ISO8601", errors="coerce", utc=True)


def _are_dates(column: pd.Series[Any]) -> bool:
    """Whether there are values and all are dates."""
    return bool(column.notna().any() and _dates(column).notna().equals(column.notna()))


def _at(column: pd.Series[Any], place: int) -> str:
    """A value and where it is, for an error."""
    value = column.iloc[place]
    shown = repr(value) if isinstance(value, str) else str(value)
    return f"column {column.name!r} has {shown} in row {column.index[place]}"


def _target(name: str, column: pd.Series[Any], training: np.ndarray[Any, Any], kind: str | None) -> TargetColumn:
    """What a target column is, by its values unless its kind is given."""
    distinct = column.dropna().nunique()
    if distinct < 2 or column.iloc[training].dropna().nunique() < 2:
        raise ValueError(
            f"target {name!r} has {distinct} distinct value{'s' * (distinct != 1)}, of which the training rows must "
            "hold at least two; there is nothing to learn. Leave it out, or give more rows."
        )
    if kind is None:
        kind = "binary" if distinct == 2 else "multiclass" if _are_classes(column, distinct) else "regression"
    if kind == "regression":
        values = numbers(column)[training]
        return TargetColumn(name, "regression", mean=float(np.nanmean(values)), scale=float(np.nanstd(values)))
    if distinct > MOST_CLASSES or (distinct > FEW and 2 * distinct > column.count()):
        raise ValueError(
            f"target {name!r} has {distinct} different values in {column.count()} rows, too many for classes; leave it "
            "out, or give its kind as regression if it is a number."
        )
    if kind == "binary" and distinct != 2:
        raise ValueError(f"target {name!r} has {distinct} different values; a binary task has two.")
    classes = tuple(texts(pd.Series(sorted(column.dropna().unique()))))
    return TargetColumn(name, "binary" if kind == "binary" else "multiclass", classes=classes)


def _are_classes(column: pd.Series[Any], distinct: int) -> bool:
    """Whether values are names of classes: no numbers, or a few whole ones."""
    if not types.is_numeric_dtype(column.dtype):
        return not _are_dates(column)
    return distinct <= FEW and bool((column.dropna() % 1 == 0).all())


def _input(name: str, column: pd.Series[Any]) -> InputColumn | str:
    """What an input column is, or why it is left out."""
    distinct = column.nunique()
    if distinct == 0 or (distinct == 1 and not column.isna().any()):
        return "the same in all training rows"
    is_number = types.is_numeric_dtype(column.dtype) and not types.is_bool_dtype(column.dtype)
    if is_number or _are_dates(column):
        values = numbers(column)
        return InputColumn(
            name,
            mean=float(np.nanmean(values)),
            scale=float(np.nanstd(values)) or 1.0,
            gaps=bool(np.isnan(values).any()),
        )
    counts = texts(column).value_counts()
    if distinct > FEW and 2 * distinct > column.count():
        return f"free text: {distinct} different values in {column.count()} training rows"
    return InputColumn(name, values=tuple(sorted(counts.index[:MOST_CATEGORIES])))


def _check_present(names: Sequence[str], frame: pd.DataFrame, what: str) -> None:
    """Raise for columns the table has not, or has twice."""
    absent = [name for name in names if name not in frame.columns]
    if absent:
        raise ValueError(
            f"the table has no {what} column {', '.join(map(repr, absent))}; its columns are "
            f"{', '.join(map(repr, frame.columns))}."
        )
    twice = [name for name in names if list(frame.columns).count(name) > 1]
    if twice:
        raise ValueError(f"the table has the column {twice[0]!r} twice; rename one.")


def _describe(target: TargetColumn) -> str:
    """A target in words."""
    if target.kind == "binary":
        return f"binary, {target.classes[1]!r} against {target.classes[0]!r}"
    if target.kind == "multiclass":
        shown = ", ".join(target.classes[:5]) + (" …" if len(target.classes) > 5 else "")
        return f"multiclass, {len(target.classes)} classes: {shown}"
    return f"regression, mean {target.mean:.4g}, standard deviation {target.scale:.4g}"
