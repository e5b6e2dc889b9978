"""Rows of several seeds summed up by method, and numbers as text: shared by the terminal's and the page's tables."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, median, stdev
from typing import Any

from .run import Row

MANY_TASKS = 12
"""Above this many tasks a table shows their range instead of a column each."""


@dataclass(frozen=True)
class MethodSummary:
    """One method over its seeds: means of what was measured, and every value of what was counted."""

    method: str
    rows: tuple[Row, ...]

    @property
    def metrics(self) -> dict[str, float | None]:
        """Mean metric of each task over the seeds; ``None`` where no seed has one."""
        return {task: mean(row["metrics"].get(task) for row in self.rows) for task in self.rows[0]["metrics"]}

    @property
    def mean_metric(self) -> float | None:
        """Mean of the tasks' mean metric over the seeds."""
        return mean(row["mean_metric"] for row in self.rows)

    @property
    def deviation(self) -> float | None:
        """Standard deviation of the mean metric over the seeds; ``None`` for a single one."""
        values = numbers(row["mean_metric"] for row in self.rows)
        return stdev(values) if len(values) > 1 else None

    def average(self, key: str) -> float | None:
        """Mean of one entry of the rows over the seeds."""
        return mean(row.get(key) for row in self.rows)

    def each(self, key: str) -> str:
        """The values of one entry over the seeds, as text: ``"3"``, or ``"3–5"`` where seeds differ."""
        values = [row.get(key) for row in self.rows]
        counted = sorted(value for value in values if value is not None)
        if not counted:
            return "–"
        text = f"{counted[0]:,}" if counted[0] == counted[-1] else f"{counted[0]:,}–{counted[-1]:,}"
        return text if len(counted) == len(values) else f"{text} ({len(counted)}/{len(values)})"


def by_method(rows: Sequence[Row]) -> list[MethodSummary]:
    """Return the rows method by method, in the order in which methods appear.

    Raises
    ------
    ValueError
        Where there are no rows.
    """
    if not rows:
        raise ValueError("there are no results to show; run at least one method.")
    methods = dict.fromkeys(row["method"] for row in rows)
    return [MethodSummary(method, tuple(row for row in rows if row["method"] == method)) for method in methods]


def alone(row: Row) -> list[str]:
    """Return the tasks that share their branch with no other."""
    grouped = {task for group in row["groups"] for task in group}
    return [task for task in row["metrics"] if task not in grouped]


def numbers(values: Iterable[Any]) -> list[float]:
    """Return the values that are there and finite."""
    return [float(value) for value in values if value is not None and math.isfinite(value)]


def mean(values: Iterable[Any]) -> float | None:
    """Return the mean of the values that are there and finite, or ``None`` where there is none."""
    kept = numbers(values)
    return fmean(kept) if kept else None


def best_of(values: Sequence[float | None], lower: bool = False) -> list[bool]:
    """Return which values are the best, to the digits that are shown; none of fewer than two, or if all are alike."""
    kept = numbers(values)
    if len(kept) < 2 or len({metric_text(value) for value in kept}) == 1:
        return [False] * len(values)
    best = metric_text(min(kept) if lower else max(kept))
    return [value is not None and metric_text(value) == best for value in values]


def metric_text(value: float | None) -> str:
    """Return a metric with as many decimals as its size allows: ``"0.9931"``, ``"128.1"``, ``"–"``."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:.4f}" if abs(value) < 10 else f"{value:,.1f}"


def seconds_text(value: float | None) -> str:
    """Return a duration in seconds with three significant digits: ``"0.0123"``, ``"4.56"``, ``"123"``."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def mean_text(summary: MethodSummary) -> str:
    """Return the mean metric, with ± its deviation where there are several seeds."""
    text = metric_text(summary.mean_metric)
    return text if summary.deviation is None else f"{text} ± {metric_text(summary.deviation)}"


def by_direction(tasks: Sequence[str], lower_is_better: Collection[str]) -> tuple[list[str], list[str]]:
    """Return the tasks whose metric is better when higher, and those whose is better when lower."""
    return [task for task in tasks if task not in lower_is_better], [task for task in tasks if task in lower_is_better]


def metric_range(summary: MethodSummary, tasks: Collection[str]) -> tuple[float | None, float | None, float | None]:
    """Return the lowest, the median and the highest metric of ``tasks``; ``None`` where no task has one."""
    values = numbers(summary.metrics.get(task) for task in tasks)
    return (min(values), median(values), max(values)) if values else (None, None, None)
