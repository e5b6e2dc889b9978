"""Where tasks look: a mean image per task under its activation region, a row per group."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from numpy.typing import NDArray
from torch import Tensor

from ..activation_regions import ActivationRegions
from ..partitions import label
from .svg import INK, MUTED, new_axes, style, to_svg

CELL, GAP, NAME, PER_ROW = 92.0, 10.0, 18.0, 9
HOT = to_rgb("#d55e00")


def regions_figure(regions: ActivationRegions, groups: Sequence[Sequence[str]]) -> str:
    """Return the figure: a row for each group, its mean region first, then its tasks'; tasks alone come last.

    Parameters
    ----------
    regions
        See :func:`selshare.report.activation_regions.activation_regions`.
    groups
        Task names of each group.
    """
    grouped = {name for group in groups for name in group}
    alone = [name for name in regions.tasks if name not in grouped]
    rows = [row for group in groups for row in _broken(list(group), True)] + _broken(alone, False)
    width = max(len(row) for row in rows) * (CELL + GAP) + GAP
    height = len(rows) * (CELL + NAME + GAP) + GAP
    with style():
        figure, axes = new_axes(width, height, (0, 0, 0, 0))
        axes.set_xlim(0, width)
        axes.set_ylim(height, 0)
        axes.axis("off")
        place = {name: index for index, name in enumerate(regions.tasks)}
        for line, row in enumerate(rows):
            for column, names in enumerate(row):
                tasks = [place[name] for name in names]
                at = GAP + column * (CELL + GAP), GAP + line * (CELL + NAME + GAP)
                text = label((names[0],)) if len(names) == 1 else f"all {len(names)}"
                _cell(axes, regions.maps[tasks].mean(0), regions.images[tasks].mean(0), at, text)
        return to_svg(figure, f"Activation regions of {len(regions.tasks)} tasks, in {len(groups)} groups.")


def _broken(names: list[str], is_group: bool) -> list[list[list[str]]]:
    """Rows of cells, each the names it shows: all of a group first, then each."""
    cells = ([names] if is_group and len(names) > 1 else []) + [[name] for name in names]
    return [cells[start : start + PER_ROW] for start in range(0, len(cells), PER_ROW)]


def _cell(axes: Axes, region: Tensor, image: Tensor, at: tuple[float, float], text: str) -> None:
    x, y = at
    extent = (x, x + CELL, y + CELL, y)
    axes.imshow(_blend(region, image), extent=extent, interpolation="nearest", aspect="auto")
    short = text if len(text) <= 15 else text[:14] + "…"
    axes.text(x, y + CELL + 13, short, color=MUTED if text.startswith("all ") else INK, fontsize=11)


def _blend(region: Tensor, image: Tensor) -> NDArray[np.float32]:
    """Dark image on white, the region in orange over it."""
    paper = 1 - 0.8 * image[..., None].expand(-1, -1, 3)
    strength = 0.85 * region.clamp(0, 1)[..., None] ** 1.5
    blended: NDArray[np.float32] = (paper * (1 - strength) + strength * torch.tensor(HOT)).float().clamp(0, 1).numpy()
    return blended
