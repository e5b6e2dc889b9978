"""Disks that are full or read-only: a clear error or a warning, nothing half-written, what was there still there."""

from __future__ import annotations

import os
import resource
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from selshare import MultiTaskModel, Task, Trainer
from selshare.data import load
from selshare.files import write_whole
from selshare.report import write_report
from selshare.training import CSVLog
from selshare.training.checkpoint import read_checkpoint, write_checkpoint
from selshare.training.compare import compare
from selshare.training.history import EpochRecord

ROOM = 1024
NOBODY = 65534


@contextmanager
def full_disk(room: int = ROOM) -> Iterator[None]:
    """No file can be longer than ``room`` bytes: to a program, a disk that fills up while it writes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user can reach."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Nothing can be written in ``folder``, nor by root, who may write anywhere and is somebody else meanwhile."""
    user = os.geteuid()
    folder.chmod(0o555)
    if user == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if user == 0:
            os.seteuid(0)
        folder.chmod(0o755)


def small_trainer(**settings: Any) -> tuple[Trainer, tuple[torch.Tensor, torch.Tensor]]:
    """A model whose checkpoint is larger than there is room, and data."""
    torch.manual_seed(0)
    tasks = [Task.binary(f"task {index}") for index in range(4)]
    model = MultiTaskModel(nn.Linear(6, 16), 16, (8,), tasks)
    data = torch.randn(40, 6), torch.randint(0, 2, (40, 4)).float()
    return Trainer(model, progress=False, **settings), data


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("failing", ["full", "read-only"])
def test_a_file_is_there_whole_or_not_at_all(open_folder: Path, failing: str) -> None:
    file = open_folder / "file.txt"
    write_whole(file, "before")
    with full_disk() if failing == "full" else read_only(open_folder), pytest.raises(OSError, match=r"file\.txt"):
        write_whole(file, "x" * 10 * ROOM)
    assert file.read_text() == "before"
    assert names(open_folder) == ["file.txt"]


@pytest.mark.parametrize("failing", ["full", "read-only"])
def test_a_checkpoint_is_there_whole_or_not_at_all(open_folder: Path, failing: str) -> None:
    file = open_folder / "epoch-0001.safetensors"
    write_checkpoint(file, {"weights": torch.ones(3)})
    with full_disk() if failing == "full" else read_only(open_folder), pytest.raises(OSError, match=file.name):
        write_checkpoint(file, {"weights": torch.zeros(10 * ROOM)})
    assert read_checkpoint(file)["weights"].tolist() == [1.0, 1.0, 1.0]
    assert names(open_folder) == [file.name]


def test_a_run_that_meets_a_full_disk_can_be_resumed(open_folder: Path) -> None:
    limit = full_disk()

    def fill(record: EpochRecord) -> None:
        if record.epoch == 1:
            limit.__enter__()

    whole, data = small_trainer()
    whole.fit(data, epochs=3)
    trainer, _ = small_trainer(checkpoints=open_folder, callbacks=[fill])
    with pytest.raises(OSError, match=r"epoch-0002\.safetensors"):
        trainer.fit(data, epochs=3)
    limit.__exit__(None, None, None)
    assert names(open_folder) == ["epoch-0001.safetensors"]
    resumed, _ = small_trainer(checkpoints=open_folder)
    resumed.fit(data, epochs=3, resume="auto")
    for name, tensor in whole.model.state_dict().items():
        torch.testing.assert_close(resumed.model.state_dict()[name], tensor, rtol=0, atol=0)


@pytest.mark.parametrize("failing", ["full", "read-only"])
def test_training_outlives_its_log(open_folder: Path, failing: str) -> None:
    limit = full_disk(300) if failing == "full" else read_only(open_folder)

    def fail(record: EpochRecord) -> None:
        if record.epoch == 2:
            limit.__enter__()

    log = open_folder / "log.csv"
    trainer, data = small_trainer(callbacks=[CSVLog(log), fail])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        history = trainer.fit(data, data, epochs=8)
    limit.__exit__(None, None, None)
    assert len(history.epochs) == 8
    assert [f"{log} cannot be written" in str(one.message) for one in caught] == [True]
    lines = log.read_text().splitlines()
    assert lines[0].startswith("epoch,train_loss")
    assert [line.split(",")[0] for line in lines[1:3]] == ["1", "2"]
    assert names(open_folder) == ["log.csv"]


def test_a_log_is_not_written_over_a_file_of_another_kind(tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    log.write_text("name,age\nme,3\n")
    record = EpochRecord(2, 1.0, None, {}, None, 3, 0.1, 0.0)
    with pytest.warns(UserWarning, match="no log of this kind: name another file"):
        CSVLog(log)(record)
    assert log.read_text() == "name,age\nme,3\n"


def test_a_run_folder_that_cannot_be_written_is_known_before_training(open_folder: Path) -> None:
    finished: list[object] = []
    with read_only(open_folder), pytest.raises(PermissionError, match=r"problem\.json"):
        compare(
            lambda seed: load("synthetic", tasks=4, groups=2, seed=seed),
            ["mtl"], epochs=1, folder=open_folder / "run", progress=False, finished=finished.append,
        )  # fmt: skip
    assert finished == []


def test_an_earlier_report_outlives_a_full_disk(tmp_path: Path) -> None:
    compare(
        lambda seed: load("synthetic", tasks=4, groups=2, seed=seed),
        ["mtl"], epochs=1, folder=tmp_path, progress=False,
    )  # fmt: skip
    page = tmp_path / "report.html"
    page.write_text("before")
    with full_disk(), pytest.raises(OSError, match=r"report\.html"):
        write_report(tmp_path)
    assert page.read_text() == "before"
    assert not [name for name in names(tmp_path) if name.endswith(".partial")]
