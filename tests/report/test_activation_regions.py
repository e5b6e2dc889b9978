from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import selshare
from selshare import Task
from selshare.data import Problem, Recipe
from selshare.report import activation_regions, group_overlap, write_regions, write_report
from selshare.report.activation_regions import ActivationRegions, last_maps, read_regions
from selshare.training.compare import compare


class Quadrants(nn.Module):
    """Four maps, each the image's own quadrant: task t can only look at quadrant t % 4."""

    def __init__(self) -> None:
        super().__init__()
        masks = torch.zeros(4, 8, 8)
        for number in range(4):
            row, column = divmod(number, 2)
            masks[number, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] = 1
        self.register_buffer("masks", masks)
        self.maps, self.pool = nn.Conv2d(4, 4, 1, bias=False), nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        with torch.no_grad():
            self.maps.weight.copy_(torch.eye(4)[:, :, None, None])

    def forward(self, inputs: Tensor) -> Tensor:
        return self.pool(self.maps(inputs * self.masks))


def looking_at_quadrants(tasks: int = 6) -> selshare.MultiTaskModel:
    """Task t's output is four times the mean of quadrant t % 4."""
    model = selshare.MultiTaskModel(Quadrants(), 4, (4,), [Task.binary(f"task {t}") for t in range(tasks)])
    with torch.no_grad():
        for name, parameter in model.bank.stacked.named_parameters():
            parameter.copy_(torch.eye(4).expand_as(parameter) if name.endswith("weight") else torch.zeros(()))
        for heads in model.heads.weights.values():
            heads.zero_()
            for task in range(tasks):
                heads[task, 0, task % 4] = 1.0
    return model


def test_regions_are_where_the_outputs_come_from() -> None:
    model = looking_at_quadrants()
    inputs, targets = torch.rand(5, 1, 8, 8) + 0.5, torch.ones(5, 6)
    regions = activation_regions(model, inputs, targets, share=0.25)
    for task in range(6):
        row, column = divmod(task % 4, 2)
        inside = regions.maps[task, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
        assert inside.sum() == pytest.approx(regions.maps[task].sum().item(), rel=1e-5)
        assert regions.maps[task].max() == 1
    expected = torch.tensor([[float(a % 4 == b % 4) for b in range(6)] for a in range(6)], dtype=torch.float64)
    torch.testing.assert_close(regions.overlap, expected)


def test_mode_and_parameters_stay_as_they_were() -> None:
    model = looking_at_quadrants()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.train()
    activation_regions(model, torch.rand(3, 1, 8, 8), torch.ones(3, 6))
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_pictures_are_means_over_the_positives_of_a_binary_task() -> None:
    inputs = torch.stack([torch.zeros(1, 8, 8), torch.arange(64.0).reshape(1, 8, 8)])
    targets = torch.zeros(2, 6)
    targets[1, 2] = 1
    images = activation_regions(looking_at_quadrants(), inputs, targets).images
    torch.testing.assert_close(images[2], torch.arange(64.0).reshape(8, 8) / 63)
    torch.testing.assert_close(images[0], images[2])  # no positive: the mean of all, which is half of it, scaled


def test_overlap_of_groups_against_chance() -> None:
    overlap = torch.full((6, 6), 0.1)
    for a, b in ((0, 1), (2, 3), (4, 5)):
        overlap[a, b] = overlap[b, a] = 0.7
    nothing = torch.zeros(6, 2, 2)
    regions = ActivationRegions(tuple("abcdef"), nothing, nothing, overlap)
    found = group_overlap(regions, [["a", "b"], ["c", "d"], ["e", "f"]])
    assert found is not None
    assert found.within == pytest.approx(0.7)
    assert found.random == pytest.approx((3 * 0.7 + 12 * 0.1) / 15)
    assert found.as_high == pytest.approx(1 / 15, abs=0.03)  # one of the fifteen ways to pair six
    assert group_overlap(regions, [["a"], []]) is None


def test_last_maps_are_fine_enough() -> None:
    trunk = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.MaxPool2d(4), nn.Conv2d(2, 3, 1), nn.AdaptiveAvgPool2d(1))
    assert last_maps(trunk, torch.rand(2, 1, 28, 28)) is trunk[2]
    assert last_maps(trunk, torch.rand(2, 1, 26, 26)) is trunk[0]
    assert last_maps(nn.Linear(3, 4), torch.rand(2, 3)) is None


def test_errors_say_what_is_wrong() -> None:
    with pytest.raises(ValueError, match="trunk with layers that return maps"):
        activation_regions(
            selshare.MultiTaskModel(nn.Identity(), 3, (4,), [Task.binary("a")]), torch.rand(2, 3), torch.ones(2, 1)
        )
    with pytest.raises(ValueError, match=r"between 0 and 1; it is 1\.5"):
        activation_regions(looking_at_quadrants(), torch.rand(2, 1, 8, 8), torch.ones(2, 6), share=1.5)


def test_a_comparison_writes_them_and_the_report_shows_them(tmp_path: Path) -> None:
    tasks = (Task.binary("left"), Task.multiclass("corner", classes=4), Task.regression("size"))
    images = torch.rand(24, 1, 8, 8)
    targets = torch.stack([torch.arange(24) % 2, torch.arange(24) % 4, torch.rand(24)], dim=1).float()
    data = TensorDataset(images, targets)
    problem = Problem("corners", "", tasks, data, data, data, Quadrants, 4, (16,), recipe=Recipe(batch_size=8))
    compare(
        lambda seed: problem, ["mtl", "random"], seeds=(0, 1), epochs=1, folder=tmp_path, progress=False,
        also_write=write_regions,
    )  # fmt: skip
    assert {path.name for path in tmp_path.glob("*-regions.json")} == {
        "mtl-seed0-regions.json",
        "random-seed0-regions.json",
    }
    saved = json.loads((tmp_path / "mtl-seed0-regions.json").read_text())
    assert read_regions(saved).to_json() == saved
    assert json.loads((tmp_path / "problem.json").read_text())["lower_is_better"] == ["size"]
    html = write_report(tmp_path).read_text()
    assert "Where tasks look" in html
    assert html.count("Activation regions of 3 tasks") == 2


def test_pages_without_regions_do_not_mention_them(write_run: Callable[..., Path]) -> None:
    assert "Where tasks look" not in write_report(write_run()).read_text()
