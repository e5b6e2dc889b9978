"""Splitting widths into modes."""

from __future__ import annotations

import pytest
import torch

from selshare.kernels import balanced_modes, fold_gradients


@pytest.mark.parametrize(
    ("width", "modes"),
    [
        (1, (1, 1)),
        (2, (1, 2)),
        (3, (2, 2)),
        (7, (2, 4)),
        (64, (8, 8)),
        (100, (10, 10)),
        (101, (8, 13)),
        (300, (15, 20)),
    ],
)
def test_known_widths(width: int, modes: tuple[int, int]) -> None:
    assert balanced_modes(width) == modes


def test_every_width_is_covered_evenly_with_little_padding() -> None:
    for width in range(1, 3000):
        small, large = balanced_modes(width)
        assert small <= large <= 2 * small
        assert width <= small * large <= width + 3 + width // 50


def test_a_width_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1; it is 0"):
        balanced_modes(0)


def test_folding_keeps_the_order_of_values_without_a_copy() -> None:
    gradients = torch.randn(3, 100, 300)
    folded = fold_gradients(gradients)
    assert folded.shape == (3, 10, 10, 15, 20)
    assert folded.data_ptr() == gradients.data_ptr()
    assert folded[1, 3, 4, 5, 6] == gradients[1, 34, 106]


def test_folding_pads_with_zeros_at_the_end() -> None:
    gradients = torch.randn(2, 7, 101)
    padded = fold_gradients(gradients).reshape(2, 8, 104)
    assert torch.equal(padded[:, :7, :101], gradients)
    assert padded[:, 7:].count_nonzero() == padded[:, :, 101:].count_nonzero() == 0
    with pytest.raises(ValueError, match=r"gradients must have shape \(G, O, H\)"):
        fold_gradients(gradients[0])
