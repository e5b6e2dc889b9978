"""Distorted drawings of letters, split into training, validation and test images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from sklearn.model_selection import train_test_split
from torch import Generator, Tensor

from .distortions import distort
from .letters import LetterSheet

HELD_OUT = ("renderings", "letters")


@dataclass(frozen=True)
class LetterImages:
    """Images ``(N, 1, 28, 28)``, and which drawing of the sheet each was made from ``(N,)``."""

    images: Tensor
    glyphs: Tensor


def letter_images(
    sheet: LetterSheet, *, renderings: int, held_out: str, train_size: int | None, seed: int
) -> tuple[LetterImages, LetterImages, LetterImages]:
    """Draw ``renderings`` images of each letter, each in a random face and with its own distortion, and split them.

    Parameters
    ----------
    sheet
        The letters.
    renderings
        Images per letter, 5 or more.
    held_out
        ``"renderings"``: 70 % of each letter's images are for training, 10 % for validation, 20 % for testing.
        ``"letters"``: so are 70, 10 and 20 % of each writing system's letters, which makes testing harder: what is
        asked of letters never seen is the system's style.
    train_size
        Of the training images, so many are drawn, each system in proportion; all where ``None``.
    seed
        Draws faces, distortions and splits.

    Returns
    -------
    tuple
        Training, validation and test images.

    Raises
    ------
    ValueError
        Where a value is out of its range.
    """
    if renderings < 5:
        raise ValueError(f"renderings={renderings} cannot be split three ways; it must be at least 5.")
    if held_out not in HELD_OUT:
        raise ValueError(f"There is no held_out={held_out!r}; choose {' or '.join(HELD_OUT)}.")
    generator = torch.Generator().manual_seed(seed)
    glyphs = _random_faces(sheet, renderings, generator)
    parts = _parts(sheet, renderings, held_out, generator)
    train, validation, test = (glyphs[parts == number] for number in range(3))
    train = train[torch.from_numpy(_drawn(sheet.system[train].numpy(), train_size, seed))]
    return _images(sheet, train, generator), _images(sheet, validation, generator), _images(sheet, test, generator)


def _images(sheet: LetterSheet, glyphs: Tensor, generator: Generator) -> LetterImages:
    return LetterImages(distort(sheet.masks, glyphs, generator), glyphs)


def _random_faces(sheet: LetterSheet, renderings: int, generator: Generator) -> Tensor:
    """Return ``(letters, renderings)``: a drawing of each letter, each time in any of its faces."""
    by_letter = sheet.letter.argsort(stable=True)
    faces = sheet.letter.bincount(minlength=len(sheet.characters))
    first = faces.cumsum(0) - faces
    chosen = torch.rand(len(faces), renderings, generator=generator) * faces.unsqueeze(1)
    return by_letter[first.unsqueeze(1) + chosen.long()]


def _parts(sheet: LetterSheet, renderings: int, held_out: str, generator: Generator) -> Tensor:
    """Return ``(letters, renderings)``: 0 for training, 1 for validation, 2 for testing."""
    if held_out == "renderings":
        return _split(renderings).expand(len(sheet.characters), -1)
    system_of_letter = torch.zeros(len(sheet.characters), dtype=torch.int64)
    system_of_letter[sheet.letter] = sheet.system
    parts = torch.empty_like(system_of_letter)
    for system in system_of_letter.unique():
        members = (system_of_letter == system).nonzero()[:, 0]
        parts[members[torch.randperm(len(members), generator=generator)]] = _split(len(members))
    return parts.unsqueeze(1).expand(-1, renderings)


def _split(count: int) -> Tensor:
    """Return ``count`` part numbers: about 10 % and 20 %, but at least one each, for validation and testing."""
    validation, test = max(1, count // 10), max(1, count // 5)
    return torch.tensor([0] * (count - validation - test) + [1] * validation + [2] * test)


def _drawn(systems: np.ndarray, train_size: int | None, seed: int) -> np.ndarray:
    """Return the indices of ``train_size`` images, each system in proportion."""
    everything = np.arange(len(systems))
    if train_size is None or train_size == len(systems):
        return everything
    fewest = len(np.unique(systems))
    if not fewest <= train_size <= len(systems) - fewest:
        raise ValueError(
            f"train_size={train_size} images cannot be drawn from {len(systems)} of {fewest} writing systems; give "
            f"{fewest} to {len(systems) - fewest}, or leave it out for all."
        )
    drawn, _ = train_test_split(everything, train_size=train_size, stratify=systems, random_state=seed)
    return np.sort(drawn)
