"""A train for each tensor, one train for all, and the embedding that comes of it."""

from __future__ import annotations

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from selshare.kernels import joint_tt_svd

from .palette import COLOURS, GREY

GROUPS, PER_GROUP, MODES = 4, 12, (6, 6, 8, 8)


def trains() -> Figure:
    """Left: tensor networks of both factorisations. Right: rows of a joint embedding of planted groups."""
    figure = Figure(figsize=(8.4, 3.4))
    left, right = figure.subplots(1, 2, width_ratios=(1.35, 1))
    _networks(left)
    _embedding(right)
    figure.tight_layout(w_pad=2)
    return figure


def _networks(axes: Axes) -> None:
    axes.set_axis_off()
    axes.set_xlim(-0.4, 6.2)
    axes.set_ylim(-3.9, 3.1)
    axes.text(-0.3, 2.8, "tt_svd: a train for each branch", weight="bold")
    for branch, height in enumerate((1.75, 1.25, 0.75)):
        _chain(axes, 1.3, height, COLOURS[branch], legs=branch == 2, ranks=branch == 2)
        axes.text(0.9, height, f"branch {branch + 1}", ha="right", va="center")
    axes.text(-0.3, -1.0, "joint_tt_svd: one basis for all, a row each", weight="bold")
    axes.plot([0.4, 1.3], [-2.1, -2.1], color="black", zorder=0)
    axes.text(0.85, -2.0, "r", ha="center", va="bottom", style="italic")
    for branch in range(3):
        axes.scatter(0.4, -1.85 - 0.25 * branch, s=75, marker="s", color=COLOURS[branch])
    axes.text(0.4, -2.75, "embedding\n(G × r)", ha="center", va="top")
    _chain(axes, 1.3, -2.1, GREY, legs=True, ranks=True)


def _chain(axes: Axes, x: float, y: float, colour: str, *, legs: bool, ranks: bool) -> None:
    places = [x + 1.3 * mode for mode in range(4)]
    axes.plot([places[0], places[-1]], [y, y], color="black", zorder=0)
    axes.scatter(places, [y] * 4, s=160, color=colour, edgecolor="black", zorder=2)
    if legs:
        for mode, place in enumerate(places):
            axes.plot([place, place], [y, y - 0.65], color="black", zorder=0)
            axes.text(place, y - 0.72, ("o₁", "o₂", "h₁", "h₂")[mode], ha="center", va="top", style="italic")
    if ranks:
        for mode in range(3):
            axes.text(places[mode] + 0.65, y + 0.06, f"r{'₁₂₃'[mode]}", ha="center", va="bottom", style="italic")


def _embedding(axes: Axes) -> None:
    generator = torch.Generator().manual_seed(3)
    size = MODES[0] * MODES[1] * MODES[2] * MODES[3]
    centres = torch.randn(GROUPS, size, generator=generator, dtype=torch.float64)
    gradients = centres.repeat_interleave(PER_GROUP, 0)
    gradients = gradients + 0.6 * torch.randn(gradients.shape, generator=generator, dtype=torch.float64)
    gradients /= gradients.norm(dim=1, keepdim=True)
    embedding = joint_tt_svd(gradients, MODES, max_rank=GROUPS).embedding
    for group in range(GROUPS):
        rows = embedding[group * PER_GROUP : (group + 1) * PER_GROUP]
        axes.scatter(rows[:, 0], rows[:, 1], s=18, color=COLOURS[group])
    axes.axhline(0, color=GREY, linewidth=0.6, zorder=0)
    axes.axvline(0, color=GREY, linewidth=0.6, zorder=0)
    axes.set_title(f"{GROUPS * PER_GROUP} gradients of {GROUPS} planted groups", color="black")
    axes.set_xlabel("first column of the embedding")
    axes.set_ylabel("second column")
