from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFont

from selshare.data.letters import CANVAS, LARGEST, letter_sheet
from selshare.data.writing_systems import WritingSystem, chosen_systems

DEJAVU = Path(matplotlib.get_data_path()) / "fonts" / "ttf"


def system(letters: str, *fonts: str) -> WritingSystem:
    return WritingSystem("test", tuple(letters), fonts, "alphabet", "greek", 0, "a test", "this file")


def extent(mask: torch.Tensor) -> tuple[int, int, int, int]:
    rows, columns = mask.any(1).nonzero()[:, 0], mask.any(0).nonzero()[:, 0]
    return int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1


def test_every_letter_in_every_face_with_labels(fonts: Path) -> None:
    sheet = letter_sheet(chosen_systems(["Latin", "Hebrew", "Tifinagh"]), root=fonts)
    faces = {"Latin": 4, "Hebrew": 2, "Tifinagh": 1}
    letters = {0: 40, 1: 27, 2: 40}  # of 52, 27 and 54
    assert sheet.masks.shape == (sum(letters[k] * n for k, n in enumerate(faces.values())), CANVAS, CANVAS)
    assert len(sheet.characters) == sum(letters.values()) == int(sheet.letter.max()) + 1
    for number, (name, count) in enumerate(faces.items()):
        assert int((sheet.system == number).sum()) == letters[number] * count, name
    latin, hebrew, tifinagh = (sheet.system == number for number in range(3))
    assert sheet.serif[latin].mean() == sheet.bold[latin].mean() == 0.5
    assert sheet.serif[hebrew].isnan().all()  # no serif face was there to compare with
    assert sheet.bold[hebrew].mean() == 0.5
    assert sheet.serif[tifinagh].isnan().all()
    assert sheet.bold[tifinagh].isnan().all()
    ink = sheet.masks.float().mean((1, 2))
    assert ink[latin & (sheet.bold == 1)].mean() > 1.2 * ink[latin & (sheet.bold == 0)].mean()


def test_drawings_are_whole_centred_and_of_one_scale(fonts: Path) -> None:
    sheet = letter_sheet(chosen_systems(["Latin", "Greek", "Canadian Aboriginal"]), root=fonts)
    extents = torch.tensor([extent(mask > 0) for mask in sheet.masks])
    top, bottom, left, right = extents.unbind(1)
    assert torch.maximum(bottom - top, right - left).max() <= LARGEST
    assert ((top + bottom) - CANVAS).abs().max() <= 3  # antialiased edges may be off by a pixel
    assert ((left + right) - CANVAS).abs().max() <= 3
    first_face = {sheet.characters[sheet.letter[g]]: extents[g] for g in reversed(range(80)) if sheet.system[g] == 0}
    heights = {letter: int(box[1] - box[0]) for letter, box in first_face.items()}
    assert 0.6 < heights["e"] / heights["E"] < 0.85  # an x-height, not blown up to the size of a capital


def test_a_drawing_is_what_the_font_draws(fonts: Path) -> None:
    sheet = letter_sheet([system("AB", "NotoSans"), system("AB", "NotoSerif")], root=fonts)
    mask = sheet.masks[(sheet.system == 0) & (sheet.letter == 0) & (sheet.bold == 0)][0]
    top, bottom, left, right = extent(mask > 0)
    font = ImageFont.truetype(DEJAVU / "DejaVuSans.ttf", 200)
    theirs = Image.new("L", (300, 300))
    ImageDraw.Draw(theirs).text((50, 20), "A", fill=255, font=font)
    theirs = theirs.crop(theirs.getbbox()).resize((right - left, bottom - top), Image.Resampling.BOX)
    correlation = np.corrcoef(np.asarray(theirs).ravel(), mask[top:bottom, left:right].numpy().ravel())[0, 1]
    assert correlation > 0.95


def test_letters_without_a_glyph_are_left_out_not_drawn_as_boxes(fonts: Path) -> None:
    # DejaVu has no Gothic letters (it would draw the same box for all) and draws nothing for a space.
    sheet = letter_sheet([system("A\U00010330\U00010331 B", "NotoSans")], root=fonts)
    assert sheet.characters == ("A", "B")


def test_evenly_spaced_letters_are_kept(fonts: Path) -> None:
    sheet = letter_sheet([system("ABCDEFGHI", "NotoSans")], root=fonts, letters=3)
    assert sheet.characters == ("A", "E", "I")


def test_missing_fonts_say_how_to_get_them(fonts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError, match=r"1 Noto fonts, among them NotoSansGothic-Regular\.ttf.*apt install"):
        letter_sheet(chosen_systems(["Latin", "Gothic"]), root=fonts)
    monkeypatch.setenv("SELSHARE_FONTS", str(fonts))
    assert letter_sheet(chosen_systems(["Latin", "Greek"])).masks.any()
