from __future__ import annotations

from pathlib import Path

import pytest
import torch

from selshare.data import load
from selshare.data.letters import FOLDERS

SYSTEMS = {"systems": ["Latin", "Hebrew", "Tifinagh"]}
INSTALLED = next((folder for folder in FOLDERS if Path(folder).expanduser().is_dir()), None)


def test_splits_tasks_and_labels(fonts: Path) -> None:
    problem = load("alphabets", root=fonts, **SYSTEMS)
    letters = 40 + 27 + 40
    assert [len(part) for part in (problem.train, problem.validation, problem.test)] == [
        letters * 14,
        letters * 2,
        letters * 4,
    ]
    assert [task.name for task in problem.tasks] == SYSTEMS["systems"]
    assert {task.metric for task in problem.tasks} == {"average_precision"}
    inputs, targets = problem.train.tensors
    assert inputs.shape == (letters * 14, 1, 28, 28)
    assert targets.sum(0).tolist() == [40 * 14, 27 * 14, 40 * 14]
    assert torch.equal(targets.sum(1), torch.ones(len(targets)))
    assert (inputs.amax((1, 2, 3)) > 0.4).all(), "every image shows something"


def test_the_papers_omniglot_set_up(fonts: Path) -> None:
    problem = load("alphabets", root=fonts, renderings=5, **SYSTEMS)
    assert problem.make_trunk()(problem.train.tensors[0][:2]).shape == (2, 300) == (2, problem.shared_features)
    assert (problem.hidden, problem.dropout) == ((100, 100), 0.2)
    recipe = problem.recipe
    assert (recipe.optimizer, recipe.lr, recipe.momentum, recipe.batch_size) == ("sgd", 0.02, 0.5, 64)


def test_the_nearest_training_image_is_mostly_of_the_same_system(fonts: Path) -> None:
    # Images and labels belong together, in training and in testing; chance is .34.
    problem = load("alphabets", root=fonts, **SYSTEMS)
    (inputs, targets), (test_inputs, test_targets) = problem.train.tensors, problem.test.tensors
    nearest = torch.cdist(test_inputs.flatten(1), inputs.flatten(1)).argmin(1)
    assert (targets[nearest].argmax(1) == test_targets.argmax(1)).float().mean() > 0.8


def test_letters_can_be_held_out(fonts: Path) -> None:
    problem = load("alphabets", root=fonts, held_out="letters", letters=20, renderings=5, **SYSTEMS)
    assert [len(part) for part in (problem.train, problem.validation, problem.test)] == [3 * 70, 3 * 10, 3 * 20]
    assert problem.test.tensors[1].sum(0).tolist() == [20, 20, 20]


def test_fewer_images_in_proportion_and_the_seed(fonts: Path) -> None:
    small = {"train_size": 30, "renderings": 5, "letters": 10, **SYSTEMS}
    first, again, other = (load("alphabets", root=fonts, seed=seed, **small) for seed in (0, 0, 1))
    assert first.train.tensors[1].sum(0).tolist() == [10, 10, 10]
    assert torch.equal(first.train.tensors[0], again.train.tensors[0])
    assert not torch.equal(first.train.tensors[0], other.train.tensors[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"renderings": 4}, "renderings=4 cannot be split"),
        ({"held_out": "fonts"}, "no held_out='fonts'; choose renderings or letters"),
        ({"train_size": 2}, "train_size=2 images cannot be drawn"),
        ({"train_size": 10_000}, "train_size=10000 images cannot be drawn from 1498"),
        ({"systems": ["Latin"]}, "two or more"),
        ({"metric": "mae"}, "metric"),
    ],
)
def test_values_out_of_range(fonts: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load("alphabets", root=fonts, **{**SYSTEMS, **options})


@pytest.mark.skipif(INSTALLED is None, reason="Noto fonts are not installed (fonts-noto-core)")
def test_all_fifty_systems_have_their_letters_in_the_installed_fonts() -> None:
    problem = load("alphabets", renderings=5, letters=30, train_size=500)
    assert len(problem.tasks) == 50
    letters = problem.test.tensors[1].sum(0)  # one test image a letter
    assert letters.min() >= 20
    assert letters.max() == 30
