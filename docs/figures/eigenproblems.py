"""How many small matrices share a vector register."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from .palette import COLOURS

SIZE, LANES = 3, 4
NAMES = "ABCD"


def lanes() -> Figure:
    """Left: matrix after matrix, as LAPACK wants them. Right: each lane holds another matrix."""
    figure = Figure(figsize=(8.4, 2.9))
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.1))
    left.set_title("one matrix at a time: a register is not filled")
    for matrix in range(LANES):
        for row in range(SIZE):
            for column in range(SIZE):
                _cell(left, column + (matrix % 2) * 5, row + (matrix // 2) * 4.5, matrix, row, column)
    left.add_patch(Rectangle((-0.15, -0.15), 4.3, 1.3, fill=False, linewidth=2))
    right.set_title("interleaved: one operation works on four matrices")
    shown = [(row, column) for row in range(SIZE) for column in range(row + 1)]
    for place, (row, column) in enumerate(shown):
        for matrix in range(LANES):
            _cell(right, matrix, place * 1.25, matrix, row, column)
        right.add_patch(Rectangle((-0.08, place * 1.25 - 0.08), LANES + 0.16, 1.16, fill=False, linewidth=1.5))
    right.text(LANES + 0.6, 0.5, "register of the entries (1, 1)", va="center")
    right.text(LANES + 0.6, 1.75, "register of the entries (2, 1)", va="center")
    right.text(LANES + 0.6, 3.0, "…", va="center")
    right.text(LANES + 0.6, 5.2, "16 lanes in float32, 8 in float64\n(AVX-512)", va="center")
    for axes, width in ((left, 9.5), (right, 13)):
        axes.set_axis_off()
        axes.set_aspect("equal")
        axes.set_xlim(-0.4, width)
        axes.set_ylim(8, -0.5)
    figure.tight_layout()
    return figure


def _cell(axes: Axes, x: float, y: float, matrix: int, row: int, column: int) -> None:
    axes.add_patch(Rectangle((x, y), 1, 1, facecolor=COLOURS[matrix], edgecolor="white", alpha=0.8))
    axes.text(
        x + 0.5, y + 0.5, f"{NAMES[matrix]}{row + 1}{column + 1}", ha="center", va="center", color="white", size=7
    )
