from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torchvision.datasets import FashionMNIST

from selshare.data import load

SMALL = {"train_size": 100, "validation_size": 50}
Write = Callable[..., Path]


@pytest.mark.parametrize(
    ("layout", "suffix"), [("FashionMNIST/raw", ""), ("FashionMNIST/raw", ".gz"), ("fashion-mnist", ".gz"), (".", "")]
)
def test_reads_every_layout(idx_files: Write, tmp_path: Path, layout: str, suffix: str) -> None:
    idx_files(tmp_path / layout, suffix)
    problem = load("fashion-mnist", root=tmp_path, **SMALL)
    assert [len(part) for part in (problem.train, problem.validation, problem.test)] == [100, 50, 50]
    inputs, targets = problem.test.tensors
    assert inputs.shape == (50, 1, 28, 28)
    assert torch.equal(targets.argmax(dim=1), torch.arange(50) % 10)


def test_images_and_labels_are_those_torchvision_reads(idx_files: Write, tmp_path: Path) -> None:
    idx_files(tmp_path / "FashionMNIST/raw")
    theirs = FashionMNIST(str(tmp_path), train=False)
    inputs, targets = load("fashion-mnist", root=tmp_path, **SMALL).test.tensors
    pixels = inputs.squeeze(1)
    ours = (pixels - pixels.min()) / (pixels.max() - pixels.min()) * theirs.data.max()
    torch.testing.assert_close(ours, theirs.data.float(), rtol=0, atol=1e-3)
    assert torch.equal(targets.argmax(dim=1), theirs.targets)
    names = [task.name for task in load("fashion-mnist", root=tmp_path, **SMALL).tasks]
    assert names == [name.lower().removesuffix("/top") for name in FashionMNIST.classes]


def test_draw_is_stratified_disjoint_standardised_and_seeded(idx_files: Write, tmp_path: Path) -> None:
    idx_files(tmp_path)
    problem = load("fashion-mnist", root=tmp_path, **SMALL)
    inputs, targets = problem.train.tensors
    assert torch.equal(targets.sum(dim=0), torch.full((10,), 10.0))
    assert torch.equal(problem.validation.tensors[1].sum(dim=0), torch.full((10,), 5.0))
    assert abs(inputs.mean()) < 1e-4
    numbers = {round(v, 3) for v in inputs[:, 0, 0, 0].tolist()}
    assert len(numbers) == 100
    assert numbers.isdisjoint(round(v, 3) for v in problem.validation.tensors[0][:, 0, 0, 0].tolist())
    again, other = (load("fashion-mnist", root=tmp_path, seed=seed, **SMALL) for seed in (0, 1))
    assert torch.equal(again.train.tensors[0], inputs)
    assert not torch.equal(other.train.tensors[0], inputs)


def test_every_image_can_be_drawn(idx_files: Write, tmp_path: Path) -> None:
    idx_files(tmp_path)
    problem = load("fashion-mnist", root=tmp_path, train_size=150, validation_size=50)
    assert (len(problem.train), len(problem.validation)) == (150, 50)


@pytest.mark.parametrize(("trunk", "width"), [("mlp", 256), ("cnn", 640)])
def test_trunks(idx_files: Write, tmp_path: Path, trunk: str, width: int) -> None:
    idx_files(tmp_path)
    problem = load("fashion-mnist", root=tmp_path, trunk=trunk, **SMALL)
    assert problem.shared_features == width
    assert problem.make_trunk()(problem.train.tensors[0][:4]).shape == (4, width)


def test_environment_variable_names_the_folder(
    idx_files: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    idx_files(tmp_path / "fashion-mnist", ".gz")
    monkeypatch.setenv("SELSHARE_DATA", str(tmp_path))
    assert len(load("fashion-mnist", **SMALL).train) == 100


def test_missing_files_say_how_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"dataset-fashion-mnist.*download=True"):
        load("fashion-mnist", root=tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"trunk": "vgg"}, "no trunk 'vgg'; choose one of mlp, cnn"),
        ({"train_size": 180, "validation_size": 50}, "both together at most 200"),
        ({"train_size": 5, "validation_size": 50}, "at least 10"),
    ],
)
def test_options_that_do_not_fit(idx_files: Write, tmp_path: Path, options: dict[str, object], message: str) -> None:
    idx_files(tmp_path)
    with pytest.raises(ValueError, match=message):
        load("fashion-mnist", root=tmp_path, **options)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<html>", "not an idx file"),
        (b"\x00\x00\x08\x01\x00\x00\x00\xc8" + bytes(10), r"holds 10 values where its header says \(200,\)"),
        (b"\x00\x00\x08\x01\x00\x00\x00\xc8" + bytes([11] * 200), "largest label 11"),
    ],
)
def test_damaged_files_are_named(idx_files: Write, tmp_path: Path, content: bytes, message: str) -> None:
    idx_files(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        load("fashion-mnist", root=tmp_path, **SMALL)


def test_a_cut_off_download_is_named(idx_files: Write, tmp_path: Path) -> None:
    idx_files(tmp_path, ".gz")
    path = tmp_path / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"t10k-images-idx3-ubyte\.gz cannot be decompressed"):
        load("fashion-mnist", root=tmp_path, **SMALL)
