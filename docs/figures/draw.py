"""All figures, drawn alike and to the same bytes each time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from .clustering import mutual_reachability
from .eigenproblems import lanes
from .fused_step import passes
from .gram import singular_values
from .sketch import distances
from .tensor_trains import trains

FIGURES: dict[str, Callable[[], Figure]] = {
    "fused-step": passes,
    "eigenproblems": lanes,
    "tensor-trains": trains,
    "sketch": distances,
    "clustering": mutual_reachability,
    "gram": singular_values,
}
STYLE = {
    "svg.hashsalt": "selshare",  # names within a file do not depend on chance
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": "white",
}


def draw_all(folder: Path, ending: str = "svg") -> list[Path]:
    """Write each figure into ``folder``; their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    with matplotlib.rc_context(STYLE):
        for name, draw in FIGURES.items():
            path = folder / f"{name}.{ending}"
            draw().savefig(path, metadata={"Date": None} if ending == "svg" else None, bbox_inches="tight")
            paths.append(path)
    return paths
