"""Tables for the terminal, shaped like the paper's: a row per method, its metric on every task, size and speed."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from rich import box, get_console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from .run import Row
from .summary import (
    MANY_TASKS,
    MethodSummary,
    alone,
    by_direction,
    by_method,
    mean_text,
    metric_range,
    metric_text,
    seconds_text,
)

NAMES_SHOWN = 12


def comparison_table(rows: Sequence[Row], *, width: int | None = None, lower_is_better: Collection[str] = ()) -> Table:
    """Return the paper's table: metric per task, mean, parameters, branches, lock epoch, seconds per epoch.

    Several seeds of a method become one row of means. Above 12 tasks their lowest, median and highest metric stand for
    them, accuracies and errors apart, as they have no common scale. Where a column per task would be wider than the
    terminal, methods become the columns and tasks the rows.

    Parameters
    ----------
    rows
        Rows of ``results.json``.
    width
        Columns of the terminal; read from the terminal when ``None``.
    lower_is_better
        Tasks whose metric is an error.

    Raises
    ------
    ValueError
        Where there are no rows.
    """
    summaries = by_method(rows)
    seeds = max(len(summary.rows) for summary in summaries)
    tasks = list(dict.fromkeys(task for summary in summaries for task in summary.metrics))
    higher, lower = by_direction(tasks, lower_is_better)
    lines = _lines(summaries, higher, lower)
    notes = [f"mean of {seeds} seeds"] if seeds > 1 else []
    if higher and lower:
        notes.append(f"↑ {len(higher)} tasks, higher is better; ↓ {len(lower)}, lower is better; the mean is of ↑")
    title = "; ".join(notes) or None
    table = _wide(title, summaries, lines)
    console = get_console()
    needed = Measurement.get(console, console.options.update(width=10_000), table).maximum
    return table if needed <= (console.width if width is None else width) else _tall(title, summaries, lines)


def groups_summary(rows: Sequence[Row]) -> Text:
    """Return the groups by task name, by method and seed.

    With many tasks, groups are cut after 12 names, and seeds after the first show the sizes of their groups alone.

    Raises
    ------
    ValueError
        Where there are no rows.
    """
    text = Text()
    for summary in by_method(rows):
        shared = [row for row in summary.rows if row["groups"]]
        for row in shared:
            seed = f", seed {row['seed']}" if len(summary.rows) > 1 else ""
            text.append(f"{row['method']}{seed}: ", style="bold")
            many = len(row["metrics"]) > MANY_TASKS
            text.append(f"{_sizes(row) if many and row is not shared[0] else _members(row, many)}\n")
    if not text:
        text.append("No tasks share a branch.")
    text.rstrip()
    return text


def _members(row: Row, many: bool) -> str:
    """The names in each group, largest first; each group on its own line where there are many tasks."""
    between = "\n  " if many else "  "
    parts = [f"{{{_names(group)}}}" for group in sorted(row["groups"], key=len, reverse=True)]
    parts += [f"alone: {_names(alone(row))}"] if alone(row) else []
    return between.join([f"{len(row['groups'])} groups", *parts] if many else parts)


def _sizes(row: Row) -> str:
    """How many groups of which sizes."""
    sizes = sorted(map(len, row["groups"]))
    span = f"{sizes[0]}" if sizes[0] == sizes[-1] else f"{sizes[0]}–{sizes[-1]}"
    return f"{len(sizes)} groups of {span} tasks" + (f", {len(alone(row))} alone" if alone(row) else "")


def _names(names: Sequence[str]) -> str:
    shown = ", ".join(names[:NAMES_SHOWN])
    return shown if len(names) <= NAMES_SHOWN else f"{shown}, … {len(names) - NAMES_SHOWN} more"


def _lines(
    summaries: Sequence[MethodSummary], higher: Sequence[str], lower: Sequence[str]
) -> list[tuple[str, list[str]]]:
    """Everything a table shows: a name, and a value per method. Arrows where tasks of both directions are there."""
    mixed = bool(higher and lower)
    lines = []
    for tasks, arrow in ((higher, " ↑" * mixed), (lower, " ↓" * mixed)):
        if len(higher) + len(lower) <= MANY_TASKS:
            lines += [(task + arrow, [metric_text(s.metrics.get(task)) for s in summaries]) for task in tasks]
        elif tasks:
            ranges = [metric_range(s, tasks) for s in summaries]
            lines += [
                (name + arrow, [metric_text(r[i]) for r in ranges])
                for i, name in enumerate(("lowest", "median", "highest"))
            ]
    lines += [
        ("mean" + " ↑" * mixed, [mean_text(s) for s in summaries]),
        ("parameters", [s.each("parameters") for s in summaries]),
        ("branches", [s.each("branches") if any(r["branches"] for r in s.rows) else "–" for s in summaries]),
        ("lock epoch", [s.each("lock_epoch") for s in summaries]),
        ("s/epoch", [seconds_text(s.average("seconds_per_epoch")) for s in summaries]),
    ]
    if any(s.average("adjusted_rand") is not None for s in summaries):
        lines.append(("adj. Rand", [metric_text(s.average("adjusted_rand")) for s in summaries]))
    return lines


def _empty(title: str | None) -> Table:
    return Table(box=box.SIMPLE_HEAD, caption=title, caption_justify="left", pad_edge=False)


def _wide(title: str | None, summaries: Sequence[MethodSummary], lines: list[tuple[str, list[str]]]) -> Table:
    """A row per method, as in the paper."""
    table = _empty(title)
    table.add_column("method", style="bold", no_wrap=True)
    for name, _ in lines:
        # Headers break between words, nothing else breaks: the table either fits or is not used.
        table.add_column(name.replace(" ", "\n"), justify="right", no_wrap=True, vertical="bottom")
    for column, summary in enumerate(summaries):
        table.add_row(summary.method, *(values[column] for _, values in lines))
    return table


def _tall(title: str | None, summaries: Sequence[MethodSummary], lines: list[tuple[str, list[str]]]) -> Table:
    """A column per method, for narrow terminals."""
    table = _empty(title)
    table.add_column("")
    for summary in summaries:
        # Long names break after their parts rather than lose their ends, in which they may differ.
        table.add_column(summary.method.replace("+", "+\n").replace("-", "-\n"), justify="right", vertical="bottom")
    for name, values in lines:
        is_mean = name.split()[0] == "mean" and name not in summaries[0].metrics
        if is_mean:
            table.add_section()
        table.add_row(name, *values, style="bold" if is_mean else "")
    return table
