"""What a training step reads and writes, with the gradient stored and without."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from .palette import BLUE, GREEN, GREY, ORANGE, PURPLE

ROWS, COLUMNS, TILE = 18, 24, (6, 8)
# Passes over an array of the weight's size: what is read or written once. (gradient, capture, momentum, weight)
PASSES = {
    "gradient stored": (3, 2, 2, 2),
    "fused": (0, 2, 2, 2),
    "fused, free capture": (0, 0, 2, 2),
}
ARRAYS = {"gradient": ORANGE, "capture": PURPLE, "momentum": GREEN, "weight": BLUE}


def passes() -> Figure:
    """Left: a tile of one branch's weight and what makes its gradient. Right: passes over memory."""
    figure = Figure(figsize=(8.4, 3.3))
    left, right = figure.subplots(1, 2, width_ratios=(1, 1))
    _tile(left)
    _bars(right)
    figure.tight_layout(w_pad=3)
    return figure


def _tile(axes: Axes) -> None:
    axes.set_axis_off()
    axes.set_xlim(-13, COLUMNS + 2)
    axes.set_ylim(ROWS + 3, -9)
    axes.set_aspect("equal")
    top, at = 6, 8
    axes.add_patch(Rectangle((0, 0), COLUMNS, ROWS, facecolor="#EEF3F7", edgecolor=BLUE))
    axes.add_patch(Rectangle((at, top), TILE[1], TILE[0], facecolor=ORANGE, alpha=0.75))
    axes.add_patch(Rectangle((-6, 0), 4, ROWS, facecolor="white", edgecolor="black"))
    axes.add_patch(Rectangle((-6, top), 4, TILE[0], facecolor=GREY))
    axes.add_patch(Rectangle((0, -6), COLUMNS, 4, facecolor="white", edgecolor="black"))
    axes.add_patch(Rectangle((at, -6), TILE[1], 4, facecolor=GREY))
    axes.text(-1.5, ROWS + 1.6, "δ of branch g\n(O × batch)", ha="right", va="top")
    axes.text(COLUMNS / 2, -6.5, "shared representation A (batch × H)", ha="center", va="bottom")
    axes.text(COLUMNS / 2, ROWS + 1.6, "weight of branch g\n(O × H)", ha="center", va="top")
    axes.text(at + TILE[1] / 2, top + TILE[0] / 2, "6 × 64\ntile", ha="center", va="center", color="white")
    axes.annotate("", (at, top + 3), (-2, top + 3), arrowprops={"arrowstyle": "->"})
    axes.annotate("", (at + 4, top), (at + 4, -2), arrowprops={"arrowstyle": "->"})


def _bars(axes: Axes) -> None:
    for place, counts in enumerate(PASSES.values()):
        start = 0
        for (array, colour), count in zip(ARRAYS.items(), counts, strict=True):
            axes.barh(place, count, left=start, color=colour, label=array if place == 0 else None, height=0.6)
            start += count
        axes.text(start + 0.15, place, str(start), va="center")
    axes.set_yticks(range(len(PASSES)), list(PASSES))
    axes.invert_yaxis()
    axes.set_xlim(0, 10)
    axes.set_xlabel("reads and writes of an array of the weight's size, a step")
    axes.legend(loc="lower right", frameon=False)
    axes.set_title("SGD with momentum, counted")
