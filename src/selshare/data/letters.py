"""Letters drawn from fonts: find the fonts, check that they hold the letters, draw each once."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from fontTools.ttLib import TTFont
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from .writing_systems import WritingSystem

FOLDERS = (  # Debian and Ubuntu, Arch, Fedora, one's own
    "/usr/share/fonts/truetype/noto",
    "/usr/share/fonts/noto",
    "/usr/share/fonts/google-noto",
    "~/.local/share/fonts",
    "~/.fonts",
)
STYLES = ("Regular", "Bold")
CANVAS = 56  # pixels: twice the width of an image, so that distortions are drawn finer than they are seen
TYPICAL, LARGEST = 34, 40  # longer side of a font's median letter and of its largest: leaves room to move
DRAWN_SIZE = 96  # pixels an em when first drawn


@dataclass(frozen=True)
class LetterSheet:
    """Every letter in every face of its writing system, drawn once.

    Attributes
    ----------
    masks
        ``(G, 56, 56)`` uint8, 255 is ink.
    system, letter
        ``(G,)`` int64: index of the writing system, and of the letter among ``characters``.
    serif, bold
        ``(G,)`` float32: 1 or 0, NaN where the system has no face of the other kind to compare with.
    characters
        The letters, each once per system that has it.
    """

    masks: Tensor
    system: Tensor
    letter: Tensor
    serif: Tensor
    bold: Tensor
    characters: tuple[str, ...]


@dataclass(frozen=True)
class Face:
    """One font file of a family."""

    path: Path
    serif: bool
    bold: bool


def letter_sheet(
    systems: Sequence[WritingSystem], *, root: str | os.PathLike[str] | None = None, letters: int = 40
) -> LetterSheet:
    """Draw up to ``letters`` letters of each writing system in each of its faces.

    Letters for which a face has no glyph are left out; of more than ``letters`` others, evenly spaced ones are kept;
    letters that a face leaves blank are dropped. All letters of a face have the same scale, but for those too large
    for the canvas.

    Parameters
    ----------
    systems
        What to draw.
    root
        Folder that holds the fonts, at any depth. Without it: the folder named by the environment variable
        ``SELSHARE_FONTS``, then where Linux distributions put Noto fonts.
    letters
        At most so many letters of a system.

    Raises
    ------
    FileNotFoundError
        Where a system's fonts are in none of those folders; says how to get them.
    """
    folders = _folders(root)
    files = {path.name: path for folder in reversed(folders) for path in sorted(folder.rglob("*.[ot]tf"))}
    faces = [_faces(system, files) for system in systems]
    missing = [f"{system.fonts[0]}-Regular.ttf" for system, found in zip(systems, faces, strict=True) if not found]
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} Noto fonts, among them {missing[0]}, are not in {', '.join(map(str, folders))}; install "
            "Debian's package fonts-noto-core (apt install fonts-noto-core), or put the fonts of "
            "https://notofonts.github.io into a folder and name it in SELSHARE_FONTS or root."
        )
    drawn = [_draw_system(number, *pair, letters) for number, pair in enumerate(zip(systems, faces, strict=True))]
    characters = [sheet.characters for sheet in drawn]
    starts = np.cumsum([0, *map(len, characters[:-1])]).tolist()
    return LetterSheet(
        masks=torch.cat([sheet.masks for sheet in drawn]),
        system=torch.cat([sheet.system for sheet in drawn]),
        letter=torch.cat([sheet.letter + start for sheet, start in zip(drawn, starts, strict=True)]),
        serif=torch.cat([sheet.serif for sheet in drawn]),
        bold=torch.cat([sheet.bold for sheet in drawn]),
        characters=tuple(letter for group in characters for letter in group),
    )


def _folders(root: str | os.PathLike[str] | None) -> list[Path]:
    """Return the folders to search, most wanted first."""
    if root is not None:
        return [Path(root).expanduser()]
    named = os.environ.get("SELSHARE_FONTS")
    return [Path(folder).expanduser() for folder in ((named, *FOLDERS) if named else FOLDERS)]


def _faces(system: WritingSystem, files: dict[str, Path]) -> list[Face]:
    """Return the faces of a system that are there."""
    return [
        Face(files[name], "Serif" in family, style == "Bold")
        for family in system.fonts
        for style in STYLES
        if (name := f"{family}-{style}.ttf") in files
    ]


def _draw_system(number: int, system: WritingSystem, faces: Sequence[Face], most: int) -> LetterSheet:
    """Draw the letters that all faces hold."""
    points = frozenset.intersection(*(_points(face.path) for face in faces))
    held = [letter for letter in system.letters if ord(letter) in points]
    if len(held) > most:
        held = [held[index] for index in np.linspace(0, len(held) - 1, most).round().astype(int)]
    drawn = [_draw(face.path, held) for face in faces]
    visible = [index for index in range(len(held)) if all(masks[index].any() for masks in drawn)]
    count = len(visible)
    return LetterSheet(
        masks=torch.from_numpy(np.concatenate([masks[visible] for masks in drawn])),
        system=torch.full((count * len(faces),), number),
        letter=torch.arange(count).repeat(len(faces)),
        serif=_contrast([face.serif for face in faces], count),
        bold=_contrast([face.bold for face in faces], count),
        characters=tuple(held[index] for index in visible),
    )


def _contrast(values: Sequence[bool], count: int) -> Tensor:
    """Return each face's value ``count`` times, NaN where the faces do not differ."""
    differ = len(set(values)) > 1
    return torch.tensor([float(value) if differ else torch.nan for value in values]).repeat_interleave(count)


def _points(path: Path) -> frozenset[int]:
    """Return the code points for which a font has a glyph, so that none is drawn as an empty box."""
    with TTFont(path, lazy=True) as font:
        return frozenset(font.getBestCmap())


def _draw(path: Path, letters: Sequence[str]) -> NDArray[np.uint8]:
    """Return ``(n, 56, 56)`` drawings of isolated letters, centred, at one scale; blank glyphs stay blank."""
    # Basic layout: no shaping, so that a letter looks the same whether or not Pillow was built with libraqm.
    font = ImageFont.truetype(path, DRAWN_SIZE, layout_engine=ImageFont.Layout.BASIC)
    drawn = [_ink(font, letter) for letter in letters]
    scale = TYPICAL / float(np.median([max(ink.size) for ink in drawn if ink] or [1]))
    masks = np.zeros((len(letters), CANVAS, CANVAS), np.uint8)
    for mask, ink in zip(masks, drawn, strict=True):
        if ink:
            factor = min(scale, LARGEST / max(ink.size))
            width, height = (max(1, round(side * factor)) for side in ink.size)
            x, y = (CANVAS - width) // 2, (CANVAS - height) // 2
            mask[y : y + height, x : x + width] = np.asarray(ink.resize((width, height), Image.Resampling.BOX))
    return masks


def _ink(font: ImageFont.FreeTypeFont, letter: str) -> Image.Image | None:
    """Return a letter cut to its ink, or ``None`` where there is none."""
    left, top, right, bottom = font.getbbox(letter)  # more than the ink: it starts at the pen, ends where the next does
    drawn = Image.new("L", (max(1, int(right - left)), max(1, int(bottom - top))))
    ImageDraw.Draw(drawn).text((-left, -top), letter, fill=255, font=font)
    box = drawn.getbbox()
    return drawn.crop(box) if box else None
