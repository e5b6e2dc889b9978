"""From matplotlib to inline SVG whose colours are the page's CSS variables.

Figures are drawn in placeholder colours; each becomes ``var(--name)`` in the SVG. One unit of a figure is one CSS
pixel. Text stays text, in the page's own font.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterable
from contextlib import AbstractContextManager
from html import escape
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.cells import cell_len

GROUP_COLOURS = 8
INK, MUTED, GRID, SURFACE = "#a0b001", "#a0b002", "#a0b003", "#a0b004"
VARIABLES = {INK: "ink", MUTED: "muted", GRID: "grid", SURFACE: "surface"} | {
    f"#a0b1{index:02d}": f"c{index}" for index in range(GROUP_COLOURS)
}
STYLE: Any = {  # matplotlib's own type for it differs between versions
    "svg.fonttype": "none",
    "svg.hashsalt": "selshare",  # the same figure gives the same bytes
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 12,
    "text.parse_math": False,  # a task may have $ in its name
    "text.color": INK,
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "lines.solid_capstyle": "round",
    "lines.linewidth": 1.8,
}


def colour(index: int | None) -> str:
    """Return the placeholder of a group's or a method's colour; ``None`` is muted. Colours repeat after eight."""
    return MUTED if index is None else f"#a0b1{index % GROUP_COLOURS:02d}"


def new_axes(width: float, height: float, margins: tuple[float, float, float, float]) -> tuple[Figure, Axes]:
    """Return a figure of so many CSS pixels and its only axes, inside margins left, right, bottom, top in pixels.

    Call it, and draw, within :func:`style`.
    """
    left, right, bottom, top = margins
    figure = Figure(figsize=(width / 72, height / 72))
    box = (left / width, bottom / height, (width - left - right) / width, (height - bottom - top) / height)
    return figure, figure.add_axes(box)


def names_width(names: Iterable[str]) -> float:
    """Return the margin in pixels that the longest of the names needs; wide letters count twice."""
    return 24.0 + 6.6 * max(map(cell_len, names))


def style() -> AbstractContextManager[None]:
    """Return the context in which figures are drawn."""
    return mpl.rc_context(STYLE)


def to_svg(figure: Figure, description: str) -> str:
    """Return the figure as an ``<svg>`` element; ``description`` is read to those who do not see it."""
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with warnings.catch_warnings():
        # Names in any script: text stays text, so it is the reader's fonts that matter, not matplotlib's.
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from font")
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<style.*?</style>", "", svg, flags=re.DOTALL)  # would apply to the whole page
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)  # ids must be unique in a page; those referred to are not on <g>
    svg = re.sub(r"font-family: [^;\"]*;? ?", "", svg)
    svg = re.sub(r'width="([\d.]+)pt" height="([\d.]+)pt"', r'width="\1" height="\2"', svg, count=1)
    svg = re.sub("#a0b[0-9a-f]{3}", lambda found: f"var(--{VARIABLES[found[0]]})", svg)
    svg = re.sub(r"\n\s*", " ", svg)
    return svg.replace("<svg ", f'<svg role="img" aria-label="{escape(description, quote=True)}" ', 1)
