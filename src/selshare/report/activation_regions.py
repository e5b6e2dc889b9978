"""Activation regions: which part of an image each task responds to, and how much the regions of a group overlap.

Strezoski et al. (arXiv 1904.03011) show such regions per task and per group; how they find them is not said. *Ours*:
Grad-CAM (Selvaraju et al., arXiv 1610.02391; captum's ``LayerGradCam``) of a task's output at the last maps of the
trunk that still have a place, and the overlap as the mean intersection over union of the fifth of each image that two
tasks respond to most.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from captum.attr import LayerGradCam
from torch import Tensor, nn
from torch.nn.functional import interpolate

from ..data import Problem
from ..model import MultiTaskModel
from ..training.history import write_json
from ..training.methods import Run

IMAGES, TASKS = 200, 60
SHARE = 0.2
SMALLEST = 7


@dataclass(frozen=True, eq=False)
class ActivationRegions:
    """What tasks respond to.

    Attributes
    ----------
    tasks
        Names, T of them.
    maps
        ``(T, H, W)``, 0 to 1: the mean over the task's images (those labelled 1, of a binary task) of where its
        output comes from; 1 is the strongest place.
    images
        ``(T, H, W)``, 0 to 1: the mean of these images.
    overlap
        ``(T, T)``: how much of an image's region two tasks share, intersection over union, mean over images.
    """

    tasks: tuple[str, ...]
    maps: Tensor
    images: Tensor
    overlap: Tensor

    def to_json(self) -> dict[str, Any]:
        """As data that ``json.dumps`` takes; pictures as whole numbers up to 255."""
        pictures = {"maps": self.maps, "images": self.images}
        return {
            "tasks": list(self.tasks),
            **{name: (255 * picture).round().int().tolist() for name, picture in pictures.items()},
            "overlap": [[round(value, 4) for value in row] for row in self.overlap.tolist()],
        }


@dataclass(frozen=True)
class GroupOverlap:
    """Overlap of the pairs of tasks that share a group, of all pairs, and how often chance does as well.

    Attributes
    ----------
    within
        Mean overlap of pairs in one group.
    random
        Mean overlap of all pairs: what a random pair has.
    as_high
        Share of random groups of the same sizes whose pairs overlap at least as much.
    """

    within: float
    random: float
    as_high: float


def activation_regions(
    model: MultiTaskModel, inputs: Tensor, targets: Tensor, *, layer: nn.Module | None = None, share: float = SHARE
) -> ActivationRegions:
    """Find the regions of every task.

    Parameters
    ----------
    model
        A trained model; its mode is put back after.
    inputs
        Images ``(N, C, H, W)``: all tasks are asked about the same.
    targets
        Packed targets ``(N, target_width)``.
    layer
        A layer of the trunk that returns maps; by default :func:`last_maps`.
    share
        The part of an image that counts as its region.

    Raises
    ------
    ValueError
        If inputs are not images, no layer of the trunk returns maps, or ``share`` is not between 0 and 1.

    Notes
    -----
    A forward and a backward pass of the trunk per task.
    """
    if not 0 < share < 1:
        raise ValueError(f"share is a part of an image, between 0 and 1; it is {share}.")
    chosen = layer or last_maps(model.trunk, inputs)
    if chosen is None:
        raise ValueError("activation regions need images and a trunk with layers that return maps (B, C, H, W).")
    was_training = model.training
    model.eval()
    try:
        raw = _attributions(model, inputs, chosen)
    finally:
        model.train(was_training)
    picture = inputs.detach().float().mean(1)
    maps: list[Tensor] = []
    images: list[Tensor] = []
    for found, task, columns in zip(raw, model.tasks, model.layout.target_slices, strict=True):
        asked = targets[:, columns.start] > 0.5 if task.kind == "binary" else ~targets[:, columns.start].isnan()
        rows = asked if bool(asked.any()) else torch.ones_like(asked)
        maps.append(_scaled(found[rows].relu().mean(0), lowest=0.0))
        images.append(_scaled(picture[rows].mean(0)))
    return ActivationRegions(model.layout.names, torch.stack(maps), torch.stack(images), _overlap(raw, share))


def group_overlap(
    regions: ActivationRegions, groups: Sequence[Sequence[str]], *, draws: int = 1000, seed: int = 0
) -> GroupOverlap | None:
    """Compare the overlap within groups (of task names) with that of random groups; ``None`` without a group of two."""
    index = {name: place for place, name in enumerate(regions.tasks)}
    members = [[index[name] for name in group] for group in groups if len(group) > 1]
    if not members:
        return None
    overlap = regions.overlap.double().numpy()
    first, second = np.array([(a, b) for group in members for a in group for b in group if a < b]).T
    within = float(overlap[first, second].mean())
    generator = np.random.default_rng(seed)
    orders = (generator.permutation(len(overlap)) for _ in range(draws))
    drawn = [overlap[order[first], order[second]].mean() for order in orders]
    every = overlap[np.triu_indices(len(overlap), 1)]
    return GroupOverlap(within, float(every.mean()), float(np.mean([value >= within - 1e-12 for value in drawn])))


def last_maps(trunk: nn.Module, inputs: Tensor) -> nn.Module | None:
    """Return the last layer of a trunk whose maps are still at least 7 wide (half the image, where that is less).

    ``None`` where there is none, or inputs are not images.
    """
    if inputs.ndim != 4:
        return None
    smallest = min(SMALLEST, *(side // 2 for side in inputs.shape[2:]))
    found: list[nn.Module] = []

    def look(module: nn.Module, _: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.ndim == 4 and min(output.shape[2:]) >= smallest:
            found.append(module)

    leaves = [module for module in trunk.modules() if not any(module.children())]
    hooks = [module.register_forward_hook(look) for module in leaves]
    was_training = trunk.training
    trunk.eval()
    try:
        with torch.no_grad():
            trunk(inputs[:1])
    finally:
        trunk.train(was_training)
        for hook in hooks:
            hook.remove()
    return found[-1] if found else None


def write_regions(folder: Path, problem: Problem, run: Run) -> Path | None:
    """Write ``<method>-seed<k>-regions.json`` about a run, for the report; ``None`` where there is nothing to draw.

    That is where there is no one model (STL), more than 60 tasks, or no trunk with maps; and all seeds but the first
    of a method. 200 images of the test data are looked at.
    """
    model, result = run.model, run.result
    if model is None or len(model.tasks) > TASKS or any(folder.glob(f"{result.method}-seed*-regions.json")):
        return None
    count = min(IMAGES, len(problem.test))  # type: ignore[arg-type]  # the Trainer needs its length too
    places = torch.linspace(0, len(problem.test) - 1, count).long().tolist()  # type: ignore[arg-type]
    inputs, targets = (torch.stack(parts) for parts in zip(*(problem.test[place] for place in places), strict=True))
    layer = last_maps(model.trunk, inputs)
    if layer is None:
        return None
    regions = activation_regions(model, inputs, targets, layer=layer)
    path = folder / f"{result.method}-seed{result.seed}-regions.json"
    write_json(path, regions.to_json())
    return path


def read_regions(data: dict[str, Any]) -> ActivationRegions:
    """The inverse of :meth:`ActivationRegions.to_json`, up to rounding."""
    maps, images = (torch.tensor(data[name], dtype=torch.float32) / 255 for name in ("maps", "images"))
    return ActivationRegions(tuple(data["tasks"]), maps, images, torch.tensor(data["overlap"]))


def _attributions(model: MultiTaskModel, inputs: Tensor, layer: nn.Module) -> Tensor:
    """Grad-CAM of every task on every image, at the images' size ``(T, N, H, W)``; signed.

    A multiclass task is asked for the class it decides on, any other for its first output.
    """
    cam = LayerGradCam(model, layer)
    with torch.no_grad():
        outputs = model(inputs)
    maps = []
    for task, columns in zip(model.tasks, model.layout.output_slices, strict=True):
        first = torch.full((len(inputs),), columns.start, device=inputs.device)
        wanted = first + outputs[:, columns].argmax(1) if task.kind == "multiclass" else first
        found = cam.attribute(inputs, target=wanted).detach()
        maps.append(interpolate(found, inputs.shape[2:], mode="bilinear", align_corners=False)[:, 0])
    return torch.stack(maps)


def _overlap(raw: Tensor, share: float) -> Tensor:
    """Mean intersection over union of the strongest ``share`` of each image, ``(T, T)``.

    Images on which a task responds nowhere or everywhere alike have no region, and are left out of its pairs.
    """
    flat = raw.flatten(2)
    count = max(1, math.floor(share * flat.shape[2]))
    threshold = flat.topk(count, dim=2).values[..., -1:]
    somewhere = (flat.amax(2) > flat.amin(2)).double()  # (T, N)
    masks = (flat >= threshold).double() * somewhere[..., None]
    both = torch.einsum("tnp,snp->nts", masks, masks)
    sizes = masks.sum(2).T
    union = sizes[:, :, None] + sizes[:, None, :] - both
    counted = torch.einsum("tn,sn->nts", somewhere, somewhere)
    ratio = torch.where(union > 0, both / union.clamp(min=1), 0.0) * counted
    return ratio.sum(0) / counted.sum(0).clamp(min=1)


def _scaled(picture: Tensor, lowest: float | None = None) -> Tensor:
    """A picture from 0 to 1; all 0 where it is flat."""
    low = float(picture.min()) if lowest is None else lowest
    return (picture - low) / max(float(picture.max()) - low, 1e-12)
