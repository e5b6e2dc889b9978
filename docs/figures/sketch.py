"""Distances between sketches against the distances they stand for."""

from __future__ import annotations

import torch
from matplotlib.figure import Figure

from selshare.kernels import SketchProjection, sketch_gradients

from .palette import BLUE, GREY, ORANGE

BRANCHES, BATCH, OUTPUTS, INPUTS = 32, 32, 20, 60
SIZES = {60: ORANGE, 400: BLUE}


def distances() -> Figure:
    """A dot for each pair of 32 gradients, for two sizes of the sketch."""
    generator = torch.Generator().manual_seed(0)
    delta = torch.randn(8, BATCH, OUTPUTS, generator=generator).repeat_interleave(BRANCHES // 8, 0)
    strength = torch.linspace(0.1, 1.5, BRANCHES)[:, None, None]
    delta = delta + strength * torch.randn(delta.shape, generator=generator)
    shared = torch.randn(BATCH, INPUTS, generator=generator).relu()
    exact = torch.pdist(torch.einsum("gbo,bh->goh", delta, shared).reshape(BRANCHES, -1))
    figure = Figure(figsize=(8.4, 3.2))
    panels = figure.subplots(1, len(SIZES), sharex=True, sharey=True)
    for axes, (size, colour) in zip(panels, SIZES.items(), strict=True):
        sketches = torch.zeros(BRANCHES, size)
        sketch_gradients(delta, shared, sketches, SketchProjection(OUTPUTS, INPUTS, size))
        found = torch.pdist(sketches)
        error = float((found.square() / exact.square() - 1).square().mean().sqrt())
        longest = float(exact.max()) * 1.2
        axes.plot([0, longest], [0, longest], color=GREY, linewidth=1)
        axes.scatter(exact, found, s=6, color=colour, alpha=0.6, linewidths=0)
        axes.set_title(f"{size} numbers for {OUTPUTS * INPUTS:,}: squares err by {error:.0%}")
        axes.set_xlabel("distance of two gradients")
    panels[0].set_ylabel("distance of their sketches")
    figure.tight_layout()
    return figure
