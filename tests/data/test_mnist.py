from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torchvision.datasets import MNIST

from selshare.data import load

SMALL = {"train_size": 100, "validation_size": 50}
Write = Callable[..., Path]


def test_images_and_labels_are_those_torchvision_reads(idx_files: Write, tmp_path: Path) -> None:
    idx_files(tmp_path / "MNIST/raw")
    theirs = MNIST(str(tmp_path), train=False)
    inputs, targets = load("mnist", root=tmp_path, **SMALL).test.tensors
    pixels = inputs.squeeze(1)
    ours = (pixels - pixels.min()) / (pixels.max() - pixels.min()) * theirs.data.max()
    torch.testing.assert_close(ours, theirs.data.float(), rtol=0, atol=1e-3)
    assert torch.equal(targets.argmax(dim=1), theirs.targets)


def test_the_papers_set_up(idx_files: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    idx_files(tmp_path / "mnist", ".gz")
    monkeypatch.setenv("SELSHARE_DATA", str(tmp_path))
    problem = load("mnist", **SMALL)
    inputs, targets = problem.train.tensors
    assert torch.equal(targets.sum(dim=0), torch.full((10,), 10.0))
    torch.testing.assert_close(inputs.mean(), torch.tensor(0.0), rtol=0, atol=1e-5)
    torch.testing.assert_close(inputs.std(unbiased=False), torch.tensor(1.0), rtol=1e-4, atol=0)
    assert problem.make_trunk()(inputs[:3]).shape == (3, 640) == (3, problem.shared_features)
    assert problem.hidden == (100, 50)
    assert [task.name for task in problem.tasks] == [f"digit {digit}" for digit in range(10)]
    assert (problem.recipe.lr, problem.recipe.momentum, problem.recipe.batch_size) == (0.02, 0.5, 64)


def test_missing_files_say_how_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"MNIST is not in .*datasets\.MNIST\('.*', download=True\)"):
        load("mnist", root=tmp_path)


def test_without_a_root_the_error_names_the_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SELSHARE_DATA", raising=False)
    with pytest.raises(FileNotFoundError, match=r"MNIST is not in data; .*'data'.*set SELSHARE_DATA to that folder"):
        load("mnist")


def test_sizes_that_do_not_fit(idx_files: Write, tmp_path: Path) -> None:
    idx_files(tmp_path)
    with pytest.raises(ValueError, match="mnist cannot draw train_size=55000 and validation_size=5000 from 200"):
        load("mnist", root=tmp_path)
