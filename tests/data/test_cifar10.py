from __future__ import annotations

import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.datasets import CIFAR10

from selshare.data import load

NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
SMALL = {"train_size": 60, "validation_size": 20}


def write(path: Path, content: dict[str, object]) -> str:
    """Write a pickle as CIFAR-10's are, and return its checksum."""
    path.write_bytes(pickle.dumps(content))
    return hashlib.md5(path.read_bytes()).hexdigest()


@pytest.fixture
def cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Five training files and a test file of 20 images each, and torchvision told of their checksums."""
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    random = np.random.default_rng(0)

    def batch(name: str) -> list[str]:
        pixels = random.integers(0, 256, (20, 3072), dtype=np.uint8)
        pixels[:, :1024] //= 2  # red is darker
        return [name, write(folder / name, {"data": pixels, "labels": [i % 10 for i in range(20)]})]

    monkeypatch.setattr(CIFAR10, "train_list", [batch(f"data_batch_{number}") for number in range(1, 6)])
    monkeypatch.setattr(CIFAR10, "test_list", [batch("test_batch")])
    checksum = write(folder / "batches.meta", {"label_names": NAMES})
    monkeypatch.setattr(CIFAR10, "meta", {"filename": "batches.meta", "key": "label_names", "md5": checksum})
    return tmp_path


def test_images_channels_and_labels(cifar: Path) -> None:
    problem = load("cifar-10", root=cifar, **SMALL)
    assert [len(part) for part in (problem.train, problem.validation, problem.test)] == [60, 20, 20]
    assert [task.name for task in problem.tasks] == NAMES
    inputs, targets = problem.train.tensors
    assert inputs.shape == (60, 3, 32, 32)
    assert torch.equal(targets.sum(0), torch.full((10,), 6.0))
    torch.testing.assert_close(inputs.mean((0, 2, 3)), torch.zeros(3), rtol=0, atol=1e-4)
    torch.testing.assert_close(inputs.std((0, 2, 3)), torch.ones(3), rtol=1e-3, atol=0)
    # The test images are the file's, plane by plane, up to one scale and shift per channel.
    raw = pickle.loads((cifar / "cifar-10-batches-py" / "test_batch").read_bytes())["data"].reshape(20, 3, -1)
    ours = problem.test.tensors[0].flatten(2).numpy()
    for channel in range(3):
        assert np.corrcoef(raw[:, channel].ravel(), ours[:, channel].ravel())[0, 1] > 1 - 1e-6
    assert problem.test.tensors[1].argmax(1).tolist() == [i % 10 for i in range(20)]


def test_the_papers_set_up(cifar: Path) -> None:
    problem = load("cifar-10", root=cifar, **SMALL)
    trunk = problem.make_trunk()
    assert sum(isinstance(layer, torch.nn.Conv2d) for layer in trunk.modules()) == 13
    assert trunk(problem.train.tensors[0][:2]).shape == (2, 1024) == (2, problem.shared_features)
    assert problem.hidden == (100, 100)
    assert (problem.recipe.lr, problem.recipe.momentum, problem.recipe.batch_size) == (0.02, 0.5, 64)


def test_missing_and_damaged_files(cifar: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"CIFAR-10 is not in .*datasets\.CIFAR10\('.*', download=True\)"):
        load("cifar-10", root=tmp_path / "elsewhere")
    (cifar / "cifar-10-batches-py" / "data_batch_3").write_bytes(b"cut off")
    with pytest.raises(ValueError, match="are not CIFAR-10's, or damaged"):
        load("cifar-10", root=cifar, **SMALL)
