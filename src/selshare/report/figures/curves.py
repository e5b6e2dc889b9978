"""One value per epoch: losses, the metric, live branches, durations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from ..run import Record
from .svg import SURFACE, colour, new_axes, style, to_svg

Dash = str | tuple[int, tuple[float, ...]]
DASHES: tuple[Dash, ...] = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)))


def dash_array(place: int) -> str:
    """Return the same pattern as SVG's ``stroke-dasharray``."""
    pattern = dashes(place)
    return "none" if isinstance(pattern, str) else " ".join(f"{1.8 * length:g}" for length in pattern[1])


def dashes(place: int) -> Dash:
    """Return the dash pattern of the method at a place, so that colour is not all that tells methods apart."""
    return DASHES[place % len(DASHES)]


def curve(
    records: Sequence[Record], methods: Mapping[str, int], key: str, title: str, *, steps: bool = False
) -> str | None:
    """Return a line per method; ``None`` where no epoch has the value.

    Several seeds of a method are drawn thin, with their mean over them. A ring marks the epoch of the lock.

    Parameters
    ----------
    records
        Any methods and seeds.
    methods
        Colour number of each method. Its place tells its dash pattern: see :func:`dashes`.
    key
        The entry of an epoch record to draw.
    title
        What is drawn, for those who do not see it.
    steps
        Draw stairs, for counts.
    """
    drawn = {m: [r for r in records if r.method == m and any(v is not None for v in r.series(key))] for m in methods}
    if not any(drawn.values()):
        return None
    with style():
        figure, axes = new_axes(470, 230, (52, 12, 34, 10))
        for place, (method, runs) in enumerate(drawn.items()):
            if runs:
                _draw_method(axes, runs, methods[method], dashes(place), key, steps)
        axes.grid(axis="y")
        axes.tick_params(length=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8, min_n_ticks=1))
        axes.yaxis.set_major_locator(MaxNLocator(nbins=5, integer=steps))
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("epoch")
        if steps or key.endswith("seconds"):
            axes.set_ylim(bottom=0)
        axes.margins(x=0.02)
        return to_svg(figure, title)


def _draw_method(axes: Axes, runs: Sequence[Record], number: int, dash: Dash, key: str, steps: bool) -> None:
    drawstyle = "steps-mid" if steps else "default"
    several = len(runs) > 1
    for run in runs:
        x = [epoch["epoch"] for epoch in run.epochs]
        y = [float("nan") if value is None else value for value in run.series(key)]
        look = {"alpha": 0.35, "linewidth": 1.0} if several else {"linestyle": dash}
        axes.plot(x, y, color=colour(number), drawstyle=drawstyle, marker=_marker(x), **look)
        if run.lock_epoch in x:
            at = x.index(run.lock_epoch)
            axes.plot(x[at], y[at], "o", color=colour(number), markerfacecolor=SURFACE, markersize=6, zorder=5)
    if several:
        x = sorted(set.intersection(*(({epoch["epoch"] for epoch in run.epochs}) for run in runs)))
        by_epoch = [{e["epoch"]: e.get(key) for e in run.epochs} for run in runs]
        means = [[v for values in by_epoch if (v := values[epoch]) is not None] for epoch in x]
        y = [fmean(values) if values else float("nan") for values in means]
        axes.plot(x, y, color=colour(number), drawstyle=drawstyle, linestyle=dash, marker=_marker(x))


def _marker(x: Sequence[int]) -> str:
    """A dot where there is one epoch only, which makes no line."""
    return "o" if len(x) == 1 else ""
