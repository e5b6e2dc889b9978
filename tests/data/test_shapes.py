from __future__ import annotations

import numpy as np
import pytest
import torch

from selshare.data.shapes import MEASURES, measure


def drawing(*boxes: tuple[int, int, int, int], hole: tuple[int, int, int, int] | None = None) -> torch.Tensor:
    """Black boxes (top, bottom, left, right) on 56×56 pixels, and perhaps a white one."""
    pixels = np.zeros((56, 56), np.uint8)
    for top, bottom, left, right in boxes:
        pixels[top:bottom, left:right] = 255
    if hole:
        top, bottom, left, right = hole
        pixels[top:bottom, left:right] = 0
    return torch.from_numpy(pixels)


def of(pixels: torch.Tensor) -> dict[str, float]:
    return dict(zip(MEASURES, measure(pixels.unsqueeze(0))[0].tolist(), strict=True))


def test_a_bar() -> None:
    values = of(drawing((20, 24, 8, 48)))  # 4 high, 40 wide
    assert values["ink density"] == 1
    assert values["aspect ratio"] == 10
    assert values["stroke width"] == pytest.approx(4, abs=0.2)
    assert values["left-right symmetry"] == values["top-bottom symmetry"] == 1
    assert (values["components"], values["holes"]) == (1, 0)
    assert values["outline"] == pytest.approx(2 * (4 + 40) / np.sqrt(160))
    assert values["top-heaviness"] == pytest.approx(0.5)
    assert values["horizontality"] == pytest.approx(40 / 44)  # its edges: 2·40 along, 2·4 across


def test_a_ring_an_i_and_two_rings() -> None:
    ring = of(drawing((10, 40, 10, 40), hole=(14, 36, 14, 36)))
    assert (ring["components"], ring["holes"]) == (1, 1)
    assert ring["ink density"] == pytest.approx(1 - 22**2 / 30**2)
    assert ring["horizontality"] == pytest.approx(0.5)
    dotted = of(drawing((10, 14, 20, 24), (20, 50, 20, 24)))
    assert (dotted["components"], dotted["holes"]) == (2, 0)
    assert dotted["top-heaviness"] == pytest.approx(1 - (4 * 2 + 30 * 25) / 34 / 40)
    eight = drawing((5, 50, 10, 30), hole=(9, 25, 14, 26))
    eight[30:46, 14:26] = 0
    assert of(eight)["holes"] == 2


def test_diagonal_neighbours_are_one_piece_and_leave_no_gap() -> None:
    pixels = drawing((10, 20, 10, 20), (20, 30, 20, 30))
    assert of(pixels)["components"] == 1
    diamond = torch.zeros(56, 56, dtype=torch.uint8)
    for step in range(10):
        for row, column in (
            (20 - step, 20 + step),
            (20 + step, 20 + step),
            (11 + step, 30 + step),
            (29 - step, 30 + step),
        ):
            diamond[row, column] = 255
    assert of(diamond)["holes"] == 1


def test_symmetry_of_an_l() -> None:
    values = of(drawing((10, 40, 10, 14), (36, 40, 10, 30)))
    ink = 30 * 4 + 4 * 16
    assert values["left-right symmetry"] == pytest.approx(4 * 20 / ink)  # only the foot lies on its mirror image
    assert values["top-bottom symmetry"] == pytest.approx(30 * 4 / ink)  # only the stem does
    assert values["top-heaviness"] < 0.5


def test_grey_counts_as_ink_from_half_of_the_darkest() -> None:
    pixels = drawing((20, 24, 8, 48))
    pixels[24] = 120  # a grey row, 47 %
    assert of(pixels)["aspect ratio"] == 10
    assert of(pixels // 3)["stroke width"] == of(pixels)["stroke width"]
