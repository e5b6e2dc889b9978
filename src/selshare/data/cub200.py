"""CUB-200-2011 (Wah, Branson, Welinder, Perona, Belongie, 2011): 11,788 photographs of birds, ranked by attributes."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms import v2

from ..tasks import Task
from .places import find_data
from .problem import Problem, Recipe
from .trunks import pretrained_vgg_trunk, vgg_weights

ATTRIBUTES = (
    "has_wing_pattern::striped",
    "has_wing_pattern::solid",
    "has_breast_pattern::striped",
    "has_breast_pattern::solid",
    "has_head_pattern::plain",
    "has_bill_shape::cone",
    "has_bill_length::shorter_than_head",
    "has_primary_color::black",
    "has_belly_color::white",
    "has_size::small_(5_-_9_in)",
)
VALIDATION_SHARE = 0.1
SCALED, CROPPED = 256, 224
# Certainty 1 is "not visible"; 2 to 4 are "guessing", "probably" and "definitely".
GRADES = {1: math.nan, 2: 1.0, 3: 2.0, 4: 3.0}


class Photographs(Dataset[tuple[Tensor, ...]]):
    """Photographs read when asked for, ``(3, 224, 224)`` as VGG-16 was trained on, with rows of targets.

    The shorter side is scaled to 256 pixels and the middle 224×224 kept. 11,788 of them would take 7 GB in memory.
    """

    def __init__(self, files: Sequence[Path], targets: Tensor) -> None:
        self.files, self.targets = tuple(files), targets
        self._prepare = v2.Compose(
            [
                v2.PILToTensor(),
                v2.Resize(SCALED, antialias=True),
                v2.CenterCrop(CROPPED),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),  # ImageNet's
            ]
        )

    def __len__(self) -> int:
        """The number of photographs."""
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        """One photograph and its targets."""
        with Image.open(self.files[index]) as image:
            prepared: Tensor = self._prepare(image.convert("RGB"))
        return prepared, self.targets[index]


def cub200(
    *,
    root: str | os.PathLike[str] | None = None,
    attributes: Sequence[str] = ATTRIBUTES,
    weights: str | os.PathLike[str] | None = None,
    seed: int = 0,
) -> Problem:
    """Return ten pairwise ranking tasks on CUB-200-2011, with the set-up of Strezoski et al. (arXiv 1904.03011).

    Which bird shows an attribute more surely? Targets grade what one annotator said of one photograph, from −3
    (definitely absent) to 3 (definitely present); where the part was not visible the label is missing. Training and
    testing use the data set's own split (5,994 and 5,788 photographs), a tenth of the training photographs is kept
    for validation. The paper's ten attributes and its ranking formula are lost; the ten here and the grades are
    *ours*.

    Parameters
    ----------
    root
        Folder that holds ``CUB_200_2011``, unpacked, or that folder itself. Without it: the folder named by the
        environment variable ``SELSHARE_DATA``, then ``./data``.
    attributes
        Names from the data set's ``attributes.txt``.
    weights
        File of VGG-16's ImageNet weights, see :func:`.trunks.pretrained_vgg_trunk`.
    seed
        Draws the validation photographs.

    Raises
    ------
    FileNotFoundError
        Where photographs or weights are missing; says how to get them.
    ValueError
        Where an attribute is unknown or there twice.
    """
    folder = find_data(
        "CUB-200-2011",
        root,
        ["CUB_200_2011", "."],
        lambda place: (place / "images.txt").is_file() and (place / "attributes").is_dir(),
        "download CUB_200_2011.tgz from https://data.caltech.edu/records/65de6-vp158 and unpack it in {root}",
    )
    weights = vgg_weights(weights)  # missing weights are told now, not when training starts
    files = {int(number): folder / "images" / name for number, name in _rows(folder / "images.txt")}
    training = {int(number) for number, is_train in _rows(folder / "train_test_split.txt") if is_train == "1"}
    targets = _grades(folder, files, attributes)

    def photographs(numbers: Sequence[int]) -> Photographs:
        return Photographs([files[n] for n in numbers], torch.stack([targets[n] for n in numbers]))

    drawn = np.random.default_rng(seed).permutation(sorted(training)).tolist()
    kept = max(1, round(len(drawn) * VALIDATION_SHARE))
    return Problem(
        name="cub-200",
        description=f"CUB-200-2011, {len(drawn) - kept:,} training photographs: {len(attributes)} attribute rankings.",
        tasks=tuple(Task.ranking(_readable(name)) for name in attributes),
        train=photographs(drawn[kept:]),
        validation=photographs(drawn[:kept]),
        test=photographs([number for number in sorted(files) if number not in training]),
        make_trunk=partial(pretrained_vgg_trunk, weights),
        shared_features=2048,
        hidden=(512, 256),
        recipe=Recipe(lr=0.01, batch_size=32),
        citation="C. Wah, S. Branson, P. Welinder, P. Perona, S. Belongie: The Caltech-UCSD Birds-200-2011 dataset, "
        "CNS-TR-2011-001, California Institute of Technology, 2011",
        licence="For non-commercial research and education only; the photographs belong to their photographers.",
    )


def _readable(attribute: str) -> str:
    """Return ``"wing pattern: striped"`` for ``"has_wing_pattern::striped"``."""
    return attribute.removeprefix("has_").replace("::", ": ").replace("_", " ")


def _rows(file: Path) -> list[list[str]]:
    """Return number and value of each line."""
    return [line.split(maxsplit=1) for line in file.read_text().splitlines() if line.strip()]


def _grades(folder: Path, files: dict[int, Path], attributes: Sequence[str]) -> dict[int, Tensor]:
    """Return a row of targets per photograph."""
    if len(set(attributes)) < len(attributes):
        raise ValueError("cub-200 was given an attribute twice; name each once.")
    # The archive has attributes.txt beside CUB_200_2011; many people move it.
    places = [folder.parent / "attributes.txt", folder / "attributes" / "attributes.txt", folder / "attributes.txt"]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise FileNotFoundError(f"attributes.txt is not in {folder.parent} or {folder}; unpack CUB_200_2011.tgz anew.")
    numbers = {name: int(number) for number, name in _rows(found)}
    unknown = [name for name in attributes if name not in numbers]
    if unknown:
        raise ValueError(f"CUB-200 has no attribute {unknown[0]!r}; choose from {found}.")
    columns = {numbers[name]: column for column, name in enumerate(attributes)}
    grades: dict[int, NDArray[np.float32]] = {n: np.full(len(attributes), np.nan, np.float32) for n in files}
    with (folder / "attributes" / "image_attribute_labels.txt").open() as lines:
        for line in lines:
            # Photograph, attribute, present, certainty, and the time taken, which some lines have in two fields.
            photograph, attribute, present, certainty = map(int, line.split()[:4])
            if attribute in columns:
                grade = GRADES[certainty]
                grades[photograph][columns[attribute]] = grade if present else -grade
    return {number: torch.from_numpy(row) for number, row in grades.items()}
