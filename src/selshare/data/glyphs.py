"""What is known of a rendered letter: seven mixed tasks in OmniArt's shape, ten rankings in CUB's."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from ..tasks import Task
from .alphabets import CITATION, LICENCE
from .letter_images import LetterImages, letter_images
from .letters import LetterSheet, letter_sheet
from .problem import Problem, Recipe
from .shapes import MEASURES, measure
from .trunks import letter_trunk
from .writing_systems import LETTER_CATEGORIES, WritingSystem, chosen_systems, letter_category, writing_systems

YEARS = 1000.0  # the year is learned in millennia, as a target of order 1


@dataclass(frozen=True)
class MeanAbsoluteYears:
    """Mean absolute error in years, of outputs and targets in millennia ``(n,)``."""

    higher_is_better: ClassVar[bool] = False

    def __call__(self, outputs: Tensor, targets: Tensor) -> float:
        """Return the error."""
        return YEARS * (outputs - targets).abs().mean().item()


def glyphs(
    *,
    root: str | os.PathLike[str] | None = None,
    systems: Sequence[str] | None = None,
    letters: int = 40,
    renderings: int = 20,
    train_size: int | None = None,
    held_out: str = "renderings",
    seed: int = 0,
) -> Problem:
    """Return seven tasks on the letters of :func:`.alphabets.alphabets`.

    - ``script``: its writing system, of 50;
    - ``descent``: the line the system comes from (Greek, Italic, Semitic, northern or southern Brahmic, Aegean, or
      independent);
    - ``type``: alphabet, abjad, abugida or syllabary;
    - ``category``: upper case, lower case or without case, by Unicode;
    - ``serif``: in a serif or a sans-serif face; only for systems that have both, else the label is missing;
    - ``weight``: bold or regular; likewise;
    - ``year``: the system's first attestation, in millennia; its metric is the mean absolute error in years.

    What is known of a system and who says so is in ``writing_systems.tsv``; dates are debated. Branch and recipe are
    those of Strezoski et al. (arXiv 1904.03011) for OmniArt; the trunk, three convolutions to 2,048 features in place
    of their VAE's, is *ours*.

    Parameters
    ----------
    root, systems, letters, renderings, train_size, held_out, seed
        As of :func:`.alphabets.alphabets`.

    Raises
    ------
    FileNotFoundError, ValueError
        As there.
    """
    chosen = chosen_systems(systems)
    sheet = letter_sheet(chosen, root=root, letters=letters)
    parts = letter_images(sheet, renderings=renderings, held_out=held_out, train_size=train_size, seed=seed)
    train, validation, test = (_with_targets(part, _labels(sheet, chosen)) for part in parts)
    types, descents = _classes()
    return Problem(
        name="glyphs",
        description=f"Letters of {len(chosen)} writing systems, 28×28 pixels, {len(train):,} training images: seven "
        "mixed tasks about letter, face and script.",
        tasks=(
            Task.multiclass("script", classes=len(chosen)),
            Task.multiclass("descent", classes=len(descents)),
            Task.multiclass("type", classes=len(types)),
            Task.multiclass("category", classes=len(LETTER_CATEGORIES)),
            Task.binary("serif"),
            Task.binary("weight"),
            Task.regression("year", metric=MeanAbsoluteYears()),
        ),
        train=train,
        validation=validation,
        test=test,
        make_trunk=letter_trunk,
        shared_features=2048,
        hidden=(300, 300),
        dropout=0.2,
        recipe=Recipe(optimizer="adam", lr=0.001, batch_size=100, epochs=50),
        citation=CITATION,
        licence=LICENCE,
    )


def glyph_attributes(
    *,
    root: str | os.PathLike[str] | None = None,
    systems: Sequence[str] | None = None,
    letters: int = 40,
    renderings: int = 20,
    train_size: int | None = None,
    held_out: str = "renderings",
    seed: int = 0,
) -> Problem:
    """Return ten pairwise ranking tasks on the letters of :func:`.alphabets.alphabets`: which has more of it?

    What is ranked (see :data:`.shapes.MEASURES`) is measured on each letter of each face before it is distorted.
    Branch and recipe are those of Strezoski et al. (arXiv 1904.03011) for CUB-200; the trunk is that of
    :func:`glyphs` (*ours*).

    Parameters
    ----------
    root, systems, letters, renderings, train_size, held_out, seed
        As of :func:`.alphabets.alphabets`.

    Raises
    ------
    FileNotFoundError, ValueError
        As there.
    """
    chosen = chosen_systems(systems)
    sheet = letter_sheet(chosen, root=root, letters=letters)
    parts = letter_images(sheet, renderings=renderings, held_out=held_out, train_size=train_size, seed=seed)
    measured = measure(sheet.masks)
    train, validation, test = (_with_targets(part, measured) for part in parts)
    return Problem(
        name="glyph-attributes",
        description=f"Letters of {len(chosen)} writing systems, 28×28 pixels, {len(train):,} training images: "
        f"{len(MEASURES)} rankings by measured attributes.",
        tasks=tuple(Task.ranking(name) for name in MEASURES),
        train=train,
        validation=validation,
        test=test,
        make_trunk=letter_trunk,
        shared_features=2048,
        hidden=(512, 256),
        recipe=Recipe(lr=0.01, batch_size=32),
        citation=CITATION,
        licence=LICENCE,
    )


def _with_targets(part: LetterImages, targets: Tensor) -> TensorDataset:
    """Return the images with the rows of their drawings."""
    return TensorDataset(part.images, targets[part.glyphs])


def _classes() -> tuple[list[str], list[str]]:
    """Return all types and lines of descent, in alphabetical order."""
    known = writing_systems()
    return sorted({system.type for system in known}), sorted({system.descent for system in known})


def _labels(sheet: LetterSheet, systems: Sequence[WritingSystem]) -> Tensor:
    """Return ``(G, 7)`` targets, one row per drawing."""
    types, descents = _classes()
    categories = list(LETTER_CATEGORIES.values())
    of_system = torch.tensor(
        [
            [number, descents.index(system.descent), types.index(system.type), math.nan, system.year / YEARS]
            for number, system in enumerate(systems)
        ]
    )[sheet.system]
    category = torch.tensor([float(categories.index(letter_category(letter))) for letter in sheet.characters])
    of_system[:, 3] = category[sheet.letter]
    return torch.stack([*of_system[:, :4].unbind(1), sheet.serif, sheet.bold, of_system[:, 4]], 1)
