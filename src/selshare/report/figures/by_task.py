"""The metric of every task under every method, to see which tasks gain and which lose."""

from __future__ import annotations

from collections.abc import Sequence

from ..partitions import label
from ..summary import MethodSummary, numbers
from .svg import INK, MUTED, colour, names_width, new_axes, style, to_svg

NAMED_TASKS = 60
ROW = 20.0
MARKERS = "osD^vP"


def metric_by_task(summaries: Sequence[MethodSummary]) -> str | None:
    """Return a dot for each task and method, tasks sorted by the first method's metric.

    Up to 60 tasks are rows with their names; more are points along the horizontal axis. ``None`` where metrics are
    not all between 0 and 1: metrics of different kinds have no common scale.
    """
    tasks = list(dict.fromkeys(task for summary in summaries for task in summary.metrics))
    values = numbers(value for summary in summaries for value in summary.metrics.values())
    if not values or min(values) < 0 or max(values) > 1:
        return None
    first = summaries[0].metrics
    tasks.sort(key=lambda task: -(first.get(task) or 0.0))
    named = len(tasks) <= NAMED_TASKS
    row = max(ROW, 7.0 * len(summaries))
    left = names_width([label((task,)) for task in tasks]) if named else 52.0
    with style():
        figure, axes = new_axes(1000, 70 + (row * len(tasks) if named else 260.0), (left, 24, 30, 40))
        for number, summary in enumerate(summaries):
            metrics = [float("nan") if (v := summary.metrics.get(task)) is None else v for task in tasks]
            # Methods lie side by side within a row, so that equal metrics do not hide each other.
            aside = (number - (len(summaries) - 1) / 2) * 0.6 / len(summaries) if named else 0.0
            places = [place + aside for place in range(len(tasks))]
            x, y = (metrics, places) if named else (places, metrics)
            (dots,) = axes.plot(x, y, linestyle="none", color=colour(number), label=summary.method)
            dots.set_marker(MARKERS[number % len(MARKERS)])
            dots.set_markersize(6.0 if named else 3.5)
            dots.set_markeredgewidth(0.0)
        if named:
            axes.set_yticks(range(len(tasks)), [label((task,)) for task in tasks], color=INK)
            axes.set_ylim(len(tasks) - 0.4, -0.6)
        else:
            axes.set_xticks([])
            axes.set_xlabel(f"{len(tasks)} tasks, sorted by {summaries[0].method}")
            axes.margins(x=0.01)
        axes.grid(axis="x" if named else "y")
        axes.tick_params(length=0)
        axes.spines["left"].set_visible(False)
        axes.legend(
            loc="lower left", bbox_to_anchor=(0, 1), ncols=6, frameon=False, labelcolor=MUTED,
            handletextpad=0.2, borderaxespad=0.2, markerscale=1.0 if named else 1.8,
        )  # fmt: skip
        return to_svg(figure, f"Test metric of {len(tasks)} tasks under {len(summaries)} methods.")
