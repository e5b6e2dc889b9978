from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn.functional import max_pool2d

from selshare.data import load
from selshare.data.trunks import VGG_WEIGHTS, pretrained_vgg_trunk

NAMES = ("has_bill_shape::dagger", "has_wing_pattern::striped", "has_size::small_(5_-_9_in)")
OPTIONS = {"attributes": [NAMES[1], NAMES[2]]}
COUNT = 12


@pytest.fixture
def birds(tmp_path: Path) -> Path:
    """Twelve photographs, four of them for testing, in the archive's layout."""
    folder = tmp_path / "CUB_200_2011"
    (folder / "attributes").mkdir(parents=True)
    (tmp_path / "attributes.txt").write_text("".join(f"{n} {name}\n" for n, name in enumerate(NAMES, 1)))
    images, split, labels = [], [], []
    for number in range(1, COUNT + 1):
        name = f"00{number % 3 + 1}.Some_Bird/bird_{number}.jpg"
        path = folder / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.full((40, 60, 3), 20 * number, np.uint8)
        (Image.fromarray(pixels[..., 0]) if number == 2 else Image.fromarray(pixels)).save(path)  # some are grey
        images.append(f"{number} {name}\n")
        split.append(f"{number} {int(number % 3 != 0)}\n")
        certainty = number % 4 + 1
        time = "1.5 0" if number == 5 else "1.5"  # a few lines of theirs have a field too many
        labels += [f"{number} {attribute} {number % 2} {certainty} {time}\n" for attribute in (1, 2)]
        labels.append(f"{number} 3 1 4 2.0\n")
    (folder / "images.txt").write_text("".join(images))
    (folder / "train_test_split.txt").write_text("".join(split))
    (folder / "attributes" / "image_attribute_labels.txt").write_text("".join(labels))
    return tmp_path


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A file where VGG-16's weights should be; nothing reads it before a trunk is made."""
    file = tmp_path / VGG_WEIGHTS
    file.touch()
    return file


def test_the_data_sets_own_split_and_grades(birds: Path, weights: Path) -> None:
    problem = load("cub-200", root=birds, weights=weights, **OPTIONS)
    assert [task.name for task in problem.tasks] == ["wing pattern: striped", "size: small (5 - 9 in)"]
    assert {task.kind for task in problem.tasks} == {"ranking"}
    assert (len(problem.train), len(problem.validation), len(problem.test)) == (7, 1, 4)
    numbers = [int(file.stem.removeprefix("bird_")) for file in problem.test.files]
    assert numbers == [3, 6, 9, 12]
    seen = {int(f.stem.removeprefix("bird_")) for part in (problem.train, problem.validation) for f in part.files}
    assert seen == set(range(1, COUNT + 1)) - set(numbers)
    # 3: definitely present; 6: probably absent; 9: present, a guess; 12: not visible
    expected = torch.tensor([[3.0, 3.0], [-2.0, 3.0], [1.0, 3.0], [math.nan, 3.0]])
    torch.testing.assert_close(problem.test.targets, expected, equal_nan=True)


def test_photographs_are_read_as_vgg_wants_them(birds: Path, weights: Path) -> None:
    problem = load("cub-200", root=birds, weights=weights, **OPTIONS)
    image, target = problem.test[0]
    assert image.shape == (3, 224, 224)
    assert target.shape == (2,)
    grey = 60 / 255
    expected = torch.tensor([(grey - m) / s for m, s in zip((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), strict=True)])
    torch.testing.assert_close(image.mean((1, 2)), expected, rtol=0, atol=0.02)  # jpeg is not exact
    everything = {file.stem: part[index][0].shape for part in (problem.train,) for index, file in enumerate(part.files)}
    assert set(everything.values()) == {(3, 224, 224)}


def test_the_papers_recipe(birds: Path, weights: Path) -> None:
    problem = load("cub-200", root=birds / "CUB_200_2011", weights=weights, **OPTIONS)
    assert (problem.shared_features, problem.hidden) == (2048, (512, 256))
    assert (problem.recipe.optimizer, problem.recipe.lr, problem.recipe.batch_size) == ("sgd", 0.01, 32)


def test_what_is_missing_is_said(birds: Path, weights: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"CUB-200-2011 is not in .*download CUB_200_2011\.tgz from https"):
        load("cub-200", root=tmp_path / "elsewhere", weights=weights)
    with pytest.raises(FileNotFoundError, match=r"weights are not at .*nowhere\.pth; download https://.*vgg16"):
        load("cub-200", root=birds, weights=tmp_path / "nowhere.pth", **OPTIONS)
    with pytest.raises(ValueError, match="no attribute 'has_wing_pattern::solid'"):
        load("cub-200", root=birds, weights=weights)
    with pytest.raises(ValueError, match="an attribute twice"):
        load("cub-200", root=birds, weights=weights, attributes=[NAMES[0], NAMES[0]])
    (birds / "attributes.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"attributes\.txt is not in"):
        load("cub-200", root=birds, weights=weights, **OPTIONS)


def test_weights_are_looked_for_where_torch_hub_keeps_them(
    birds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    with pytest.raises(FileNotFoundError, match=str(tmp_path / "hub" / "checkpoints")):
        load("cub-200", root=birds, **OPTIONS)


def test_pretrained_trunk_computes_vggs_features_from_the_file(tmp_path: Path) -> None:
    # VGG-16 written down anew: what its weights file holds, by name, and what its convolutions compute.
    widths = [64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0]
    layers, state, inputs, number = [], {"classifier.0.weight": torch.zeros(2, 2)}, 3, 0
    for width in widths:
        if not width:
            layers.append(None)
            number += 1
            continue
        layer = nn.Conv2d(inputs, width, 3, padding=1)
        layers.append(layer)
        state[f"features.{number}.weight"] = layer.weight.data
        state[f"features.{number}.bias"] = layer.bias.data
        inputs, number = width, number + 2
    torch.save(state, tmp_path / VGG_WEIGHTS)
    trunk = pretrained_vgg_trunk(tmp_path / VGG_WEIGHTS)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        x = images
        for layer in layers:
            x = max_pool2d(x, 2) if layer is None else layer(x).relu()
        assert x.shape == (2, 512, 2, 2)
        torch.testing.assert_close(trunk(images), x.flatten(1))


def test_a_file_of_other_weights_is_refused(tmp_path: Path) -> None:
    torch.save({"features.0.weight": torch.zeros(3, 3)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"other\.pth does not hold torchvision's VGG-16 weights"):
        pretrained_vgg_trunk(tmp_path / "other.pth")
