"""Finished runs on disk: one JSON line each, appended whole, so that a study can be stopped and taken up again."""

from __future__ import annotations

import fcntl
import json
import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
Row = dict[str, Any]


def append(path: Path, row: Row) -> None:
    """Add a line to a file: one write under a lock, so that two processes may share the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    line = json.dumps(_rounded(row), allow_nan=False, separators=(",", ":")) + "\n"
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)


def read(path: Path) -> list[Row]:
    """All rows of a file; none where there is no file."""
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]


def finished(rows: Iterable[Row]) -> list[Row]:
    """Those whose training did not diverge; the others have no figures."""
    return [row for row in rows if "diverged" not in row]


def find(rows: Iterable[Row], **wanted: Any) -> Row | None:
    """The first row with these entries, or ``None``."""
    return next((row for row in rows if all(row[key] == value for key, value in wanted.items())), None)


def missing(rows: Iterable[Row], wanted: Iterable[tuple[Any, ...]], keys: tuple[str, ...]) -> Iterator[tuple[Any, ...]]:
    """The runs wanted that no row is of."""
    done = {tuple(row[key] for key in keys) for row in rows}
    return (run for run in wanted if run not in done)


def mean_and_error(values: Iterable[float]) -> tuple[float, float]:
    """Mean and its standard error; NaN for the error of a single value."""
    values = list(values)
    mean = math.fsum(values) / len(values)
    if len(values) == 1:
        return mean, math.nan
    variance = math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)
    return mean, math.sqrt(variance / len(values))


def plus_minus(values: Iterable[float], sign: str = "", digits: int = 4) -> str:
    """Mean ± standard error; the value alone where there is one."""
    values = list(values)
    mean, error = mean_and_error(values)
    return f"{mean:{sign}.{digits}f}" + (f" ± {error:.{digits}f}" if len(values) > 1 else "")


def markdown(header: list[str], lines: Iterable[list[str]]) -> str:
    """A Markdown table."""
    rows = [header, ["---"] * len(header), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _rounded(value: Any) -> Any:
    """Numbers to six digits, which is more than they are good for; ``None`` for NaN."""
    if isinstance(value, float):
        return None if math.isnan(value) else float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: _rounded(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(entry) for entry in value]
    return value
