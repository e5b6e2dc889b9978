from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from selshare.data import load

PARTS = {"images_background": ("Latin", "Greek"), "images_evaluation": ("Old_Church_Slavonic_(Cyrillic)",)}
HANDS = 10


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Drawings of two letters of three alphabets by ten people: white, but for a black bar that tells the person."""
    number = 0
    for part, alphabets in PARTS.items():
        for alphabet in alphabets:
            for character in (1, 2):
                number += 1
                folder = tmp_path / "omniglot-py" / part / alphabet / f"character{character:02d}"
                folder.mkdir(parents=True)
                for hand in range(1, HANDS + 1):
                    pixels = np.ones((105, 105), bool)
                    pixels[:, : 105 * hand // HANDS] = False
                    Image.fromarray(pixels).save(folder / f"{number:04d}_{hand:02d}.png")  # one bit a pixel, as theirs
    return tmp_path


def test_alphabets_and_ink(files: Path) -> None:
    problem = load("omniglot", root=files)
    assert [task.name for task in problem.tasks] == ["Greek", "Latin", "Old Church Slavonic (Cyrillic)"]
    inputs, targets = problem.train.tensors
    assert inputs.shape == (3 * 2 * (HANDS - 6), 1, 28, 28)
    assert torch.equal(targets.sum(0), torch.full((3,), 2.0 * (HANDS - 6)))
    assert torch.equal(targets.sum(1), torch.ones(len(inputs)))
    everything = torch.cat([part.tensors[0] for part in (problem.train, problem.validation, problem.test)])
    share = everything.mean((1, 2, 3)).sort().values.view(HANDS, -1)  # ink is 1, so the mean tells the person
    torch.testing.assert_close(share.mean(1), torch.arange(1, HANDS + 1) / HANDS, rtol=0, atol=0.01)


def test_the_split_is_by_hand_and_seeded(files: Path) -> None:
    def people(part: object) -> set[float]:
        return {round(share, 1) for share in part.tensors[0].mean((1, 2, 3)).tolist()}

    first, again, other = (load("omniglot", root=files, seed=seed) for seed in (0, 0, 1))
    hands = [people(part) for part in (first.train, first.validation, first.test)]
    assert [len(group) for group in hands] == [HANDS - 6, 2, 4]
    assert len(set.union(*hands)) == HANDS
    assert torch.equal(first.train.tensors[0], again.train.tensors[0])
    assert people(other.test) != hands[2]


def test_the_papers_set_up(files: Path) -> None:
    problem = load("omniglot", root=files)
    trunk = problem.make_trunk()
    assert sum(isinstance(layer, torch.nn.Conv2d) for layer in trunk.modules()) == 3
    assert trunk(problem.train.tensors[0][:2]).shape == (2, 300) == (2, problem.shared_features)
    assert (problem.hidden, problem.dropout) == ((100, 100), 0.2)
    assert {task.metric for task in problem.tasks} == {"average_precision"}
    assert {task.metric for task in load("omniglot", root=files, metric="accuracy").tasks} == {"accuracy"}


def test_missing_and_strange_files(files: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"OmniGlot is not in .*background=True and once with background=False"):
        load("omniglot", root=tmp_path / "elsewhere")
    strange = next(files.rglob("*.png"))
    strange.rename(strange.with_name("thumbnail.png"))
    with pytest.raises(ValueError, match=r"thumbnail\.png is not called as OmniGlot's drawings are"):
        load("omniglot", root=files)


def test_empty_folders(tmp_path: Path) -> None:
    for part in PARTS:
        (tmp_path / part).mkdir()
    with pytest.raises(ValueError, match="holds no drawings"):
        load("omniglot", root=tmp_path)
