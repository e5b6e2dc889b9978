"""A table from disk as a problem: some columns are tasks, the others inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.model_selection import train_test_split
from torch import nn
from torch.utils.data import TensorDataset

from .problem import Problem, Recipe
from .table_columns import find_columns

READERS = {
    ".csv": pd.read_csv,
    ".tsv": partial(pd.read_csv, sep="\t"),
    ".parquet": pd.read_parquet,
}
TRUNK_WIDTH, HIDDEN = 128, (64, 32)
RECIPE = Recipe(optimizer="adamw", lr=1e-3, weight_decay=1e-4, epochs=30)


def table(
    source: str | Path | pd.DataFrame,
    *,
    targets: str | Sequence[str],
    ignore: str | Sequence[str] = (),
    kinds: Mapping[str, str] | None = None,
    validation: float = 0.15,
    test: float = 0.15,
    seed: int = 0,
) -> Problem:
    """Return a problem whose tasks are columns of a table.

    A target with two different values is binary, one of texts or of at most ten whole numbers multiclass, any other
    number a regression; an empty cell is a missing label. Every other column is an input: numbers and dates are
    scaled, texts become categories, columns that are constant or free text are left out. ``problem.columns``
    says what was found. Scales and categories come from the training rows.

    Parameters
    ----------
    source
        A ``.csv``, ``.tsv`` or ``.parquet`` file with a header, or a data frame.
    targets
        Names of the columns to learn, as a sequence or separated by commas; ``*`` stands for anything:
        ``"price,score *"``.
    ignore
        Columns to leave out, named in the same way: what identifies a row, or gives a target away.
    kinds
        Target → ``"binary"``, ``"multiclass"`` or ``"regression"``, where the guess would be wrong.
    validation, test
        Parts of the rows to hold out, drawn with ``seed``.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file cannot be read, rows are too few, or a column cannot be what it should be.
    """
    frame = source if isinstance(source, pd.DataFrame) else read_table(Path(source))
    names, ignored = find_names(frame, targets), find_names(frame, ignore)
    both = [name for name in names if name in ignored]
    if both:
        raise ValueError(f"the column {both[0]!r} is to be learned and to be left out; name it once.")
    rows = _split(len(frame), validation, test, seed)
    columns = find_columns(frame, names, rows[0], kinds or {}, ignored)
    parts = [
        TensorDataset(columns.read_inputs(part), columns.read_targets(part)) for part in (frame.iloc[r] for r in rows)
    ]
    title = "table" if isinstance(source, pd.DataFrame) else Path(source).stem
    return Problem(
        name=title,
        description=f"The table {title}: {len(names)} tasks, {len(rows[0])} training rows, {columns.width} inputs.",
        tasks=columns.tasks,
        train=parts[0],
        validation=parts[1],
        test=parts[2],
        make_trunk=partial(table_trunk, columns.width),
        shared_features=TRUNK_WIDTH,
        hidden=HIDDEN,
        recipe=RECIPE,
        columns=columns,
    )


def read_table(file: Path) -> pd.DataFrame:
    """Read a table by its ending.

    Raises
    ------
    ValueError
        If the ending is unknown or the file holds no table; says which.
    """
    reader = READERS.get(file.suffix.lower())
    if reader is None:
        raise ValueError(f"{file} must end in {', '.join(READERS)}.")
    try:
        frame: pd.DataFrame = reader(file)
    except (ValueError, ImportError) as error:
        why = " ".join(str(error).split()).rstrip(".")
        raise ValueError(f"cannot read {file} as a table: {why}.") from error
    return frame


def find_names(frame: pd.DataFrame, wanted: str | Sequence[str]) -> list[str]:
    """The columns that are meant: names, or patterns with ``*``, as a sequence or separated by commas.

    Raises
    ------
    ValueError
        If one fits no column; says which columns there are.
    """
    names = [name.strip() for name in wanted.split(",") if name.strip()] if isinstance(wanted, str) else list(wanted)
    found: list[str] = []
    for name in names:
        fitting = [name] if name in frame.columns else [c for c in frame.columns if fnmatchcase(str(c), name)]
        if not fitting:
            known = ", ".join(map(repr, frame.columns))
            raise ValueError(f"the table has no column {name!r}; its columns are {known}.")
        found += fitting
    return found


def table_trunk(inputs: int) -> nn.Sequential:
    """A trunk of two layers for table rows, ``(B, inputs)`` → ``(B, 128)``."""
    return nn.Sequential(nn.Linear(inputs, TRUNK_WIDTH), nn.ReLU(), nn.Linear(TRUNK_WIDTH, TRUNK_WIDTH), nn.ReLU())


def _split(count: int, validation: float, test: float, seed: int) -> list[np.ndarray[tuple[int], np.dtype[np.int64]]]:
    """Row numbers for training, validation and test."""
    if not (0 < validation < 1 and 0 < test < 1 and validation + test < 1):
        raise ValueError(
            f"validation={validation} and test={test} must be parts of the rows and leave some to train on."
        )
    if count < 10:
        raise ValueError(f"the table has {count} rows; at least 10 are needed to train, validate and test.")
    training, others = train_test_split(np.arange(count), test_size=validation + test, random_state=seed)
    held_out = train_test_split(others, test_size=test / (validation + test), random_state=seed)
    return [training, *held_out]
