"""Who merged when: a line per branch from left to right, which join where branches merge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import log2

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from ..partitions import Branch, Formation, count, label
from .svg import INK, MUTED, colour, names_width, new_axes, style, to_svg

NAMED_TASKS = 80
"""Above this many tasks only groups are named."""
ROW, LINE, TALLEST, GAP = 17.0, 13.0, 900.0, 0.9
BEND = 0.6
"""Epochs before a merge at which its lines begin to bend."""


def timeline(formed: Formation, last_epoch: int, lock_epoch: int | None, best_epoch: int | None) -> str:
    """Return the timeline of a formation, tasks from top to bottom in its order, groups coloured.

    Parameters
    ----------
    formed
        See :func:`selshare.report.partitions.formation`.
    last_epoch
        The last epoch of training; the figure ends a little after the last change.
    lock_epoch, best_epoch
        When sharing locked, and the epoch whose weights were tested: marked by upright lines; ``None`` for none.
    """
    rows, total = _rows(formed)
    named = len(formed.order) <= NAMED_TASKS
    height = min(total * ROW, TALLEST) if named else min(max(total * 3.0, 320.0), TALLEST)
    end = min(last_epoch, max(formed.stages[-1].epoch, lock_epoch or 0) + 2)
    end = max(end, 1)
    left = names_width([label((task,)) for task in formed.order]) if named else 24.0
    with style():
        figure, axes = new_axes(1000, height + 56, (left, 190, 36, 20))
        axes.set_xlim(0, end)
        axes.set_ylim(total - 0.5, -0.5)
        _draw_lines(axes, formed, rows, end)
        _draw_labels(axes, formed, rows, named, pixels=height / total)
        _mark(axes, {"locked": lock_epoch, "tested": best_epoch}, end)
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="x", length=3)
        axes.tick_params(axis="y", length=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=12, min_n_ticks=1))
        axes.set_xlabel("epoch")
        groups = "; ".join(", ".join(group) for group in formed.groups) or "none"
        return to_svg(figure, f"How the groups formed. Groups in the end: {groups}.")


def _mark(axes: Axes, marks: Mapping[str, int | None], end: int) -> None:
    """Upright dotted lines, named above; those after the end of the figure are left out."""
    named: dict[int, list[str]] = {}
    for name, epoch in marks.items():
        if epoch is not None and epoch <= end:
            named.setdefault(epoch, []).append(name)
    for epoch, names in named.items():
        axes.axvline(epoch, color=MUTED, linewidth=1, linestyle=(0, (2, 3)), zorder=0)
        axes.annotate(
            ", ".join(names), (epoch, 1), xycoords=("data", "axes fraction"), xytext=(0, 3),
            textcoords="offset points", ha="center", color=MUTED, fontsize=11,
        )  # fmt: skip


def _rows(formed: Formation) -> tuple[dict[str, float], float]:
    """The height of each task's line, with a gap between final groups, and the total."""
    group_of, rows, height = formed.group_of, {}, 0.0
    gap = GAP if len(formed.order) <= NAMED_TASKS else GAP * len(formed.order) / NAMED_TASKS
    before: int | None = group_of.get(formed.order[0])
    for task in formed.order:
        if group_of.get(task) != before:
            height, before = height + gap, group_of.get(task)
        rows[task] = height
        height += 1.0
    return rows, height


def _draw_lines(axes: Axes, formed: Formation, rows: Mapping[str, float], end: int) -> None:
    """A bend for each branch at each change, and a straight line until the next."""
    group_of = formed.group_of
    stages = formed.stages
    for index, stage in enumerate(stages):
        until = stages[index + 1].epoch - BEND if index + 1 < len(stages) else end
        came_from = {task: branch for branch in stages[index - 1].branches for task in branch} if index else {}
        for branch in stage.branches:
            tint, y = colour(group_of.get(branch[0])), _centre(branch, rows)
            axes.plot([stage.epoch, until], [y, y], color=tint, linewidth=_width(branch))
            for old in dict.fromkeys(came_from[task] for task in branch if task in came_from):
                x, bend = _bend(stage.epoch - BEND, stage.epoch, _centre(old, rows), y)
                axes.plot(x, bend, color=tint, linewidth=_width(old))


def _draw_labels(axes: Axes, formed: Formation, rows: Mapping[str, float], named: bool, pixels: float) -> None:
    """Task names on the left, groups by number and size on the right; ``pixels`` is the height of a row."""
    ticks = list(formed.order) if named else []
    axes.set_yticks([rows[task] for task in ticks], [label((task,)) for task in ticks], color=INK)
    written = -LINE  # names closer than a line of text to the one above are left out
    single = [task for task in formed.order if task not in formed.group_of]
    entries = [(f"group {number + 1}: {count(group)}", group, number) for number, group in enumerate(formed.groups)]
    alone = [(f"alone: {count(single)}", single, None)] if single else []
    for text, tasks, number in (*entries, *alone):
        y = _centre(tasks, rows)
        if (y - written) * pixels >= LINE:
            written = y
            axes.annotate(
                text, (1.0, y), xycoords=("axes fraction", "data"), xytext=(10, 0), textcoords="offset points",
                va="center", color=colour(number), annotation_clip=False,
                fontweight="normal" if number is None else "bold",
            )  # fmt: skip


def _centre(branch: Sequence[str], rows: Mapping[str, float]) -> float:
    return float(np.mean([rows[task] for task in branch]))


def _width(branch: Branch) -> float:
    return 1.2 + 0.9 * log2(len(branch))


def _bend(x0: float, x1: float, y0: float, y1: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A smooth step from ``(x0, y0)`` to ``(x1, y1)``."""
    t = np.linspace(0, 1, 24)
    return x0 + (x1 - x0) * t, y0 + (y1 - y0) * t * t * (3 - 2 * t)
