from __future__ import annotations

import torch

from selshare.data.distortions import distort
from selshare.data.letters import LARGEST


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def bars() -> torch.Tensor:
    """A horizontal and a vertical bar in the middle of 56×56 pixels."""
    drawings = torch.zeros(2, 56, 56, dtype=torch.uint8)
    drawings[0, 25:31, 8:48] = 255
    drawings[1, 8:48, 25:31] = 255
    return drawings


def test_small_changes_each_its_own_half_the_size() -> None:
    images = distort(bars(), torch.tensor([0, 1] * 50), generator())
    assert images.shape == (100, 1, 28, 28)
    assert images.min() >= 0
    assert images.max() <= 1
    assert len({image.numpy().tobytes() for image in images}) == 100
    # Small: as much ink as before give or take, in the same place, and still the same bar.
    ink = images.sum((1, 2, 3)) / (40 * 6 / 4)
    assert 0.6 < ink.min() < ink.max() < 1.6
    assert 0.95 < ink.mean() < 1.05
    places = torch.arange(28) - 13.5
    rows = (images.sum((1, 3)) * places).sum(1) / images.sum((1, 2, 3))
    columns = (images.sum((1, 2)) * places).sum(1) / images.sum((1, 2, 3))
    assert max(rows.abs().max(), columns.abs().max()) < 3
    spread = [(images.sum(axes) * places**2).sum(1) / images.sum((1, 2, 3)) for axes in ((1, 2), (1, 3))]
    assert torch.equal(spread[0] > spread[1], torch.tensor([True, False] * 50))


def test_ink_that_keeps_the_margin_is_not_cut_off() -> None:
    places = torch.arange(56) - 27.5
    disc = ((places**2 + places[:, None] ** 2 < (LARGEST / 2) ** 2) * 255).to(torch.uint8).unsqueeze(0)
    images = distort(disc, torch.zeros(500, dtype=torch.int64), generator())
    edge = torch.cat([images[..., 0, :], images[..., -1, :], images[..., 0], images[..., -1]], -1)
    assert (edge.amax((1, 2)) > 0.5).float().mean() < 0.01


def test_the_generator_decides() -> None:
    chosen = torch.tensor([0, 1, 1])
    first, again = distort(bars(), chosen, generator()), distort(bars(), chosen, generator())
    assert torch.equal(first, again)
    assert not torch.equal(first, distort(bars(), chosen, torch.Generator().manual_seed(1)))
