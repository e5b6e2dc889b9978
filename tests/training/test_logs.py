"""What callbacks write can be read by others, and a disk that fails does not end the training."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from selshare.training.history import EpochRecord
from selshare.training.logs import CSVLog, TensorBoardLog


def record(epoch: int, **changed: Any) -> EpochRecord:
    values: dict[str, Any] = {
        "train_loss": 1.0 / epoch, "validation_loss": 0.5, "metrics": {"a, quoted": 0.25, "b": 0.75},
        "mean_metric": 0.5, "branches": 3, "seconds": 1.5, "sharing_seconds": 0.1,
    }  # fmt: skip
    return EpochRecord(epoch=epoch, **(values | changed))


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_a_row_for_each_epoch_and_task(tmp_path: Path) -> None:
    log = CSVLog(tmp_path / "runs" / "log.csv")
    for epoch in (1, 2, 3):
        log(record(epoch))
    found = rows(log.file)
    assert [row["epoch"] for row in found] == ["1", "2", "3"]
    assert float(found[2]["train_loss"]) == 1.0 / 3
    assert float(found[0]["a, quoted"]) == 0.25
    assert [path.name for path in log.file.parent.iterdir()] == ["log.csv"]


def test_a_resumed_run_replaces_what_was_lost(tmp_path: Path) -> None:
    for epoch in (1, 2, 3):
        CSVLog(tmp_path / "log.csv")(record(epoch))
    CSVLog(tmp_path / "log.csv")(record(2, branches=2))
    assert [(row["epoch"], row["branches"]) for row in rows(tmp_path / "log.csv")] == [("1", "3"), ("2", "2")]
    CSVLog(tmp_path / "log.csv")(record(1, validation_loss=None, mean_metric=None, metrics={}))
    assert rows(tmp_path / "log.csv")[0]["validation_loss"] == ""


def test_a_full_disk_warns_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = CSVLog(tmp_path / "log.csv")
    log(record(1))

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.warns(UserWarning, match="log.csv cannot be written .*No space left.*; training goes on without it"):
        log(record(2))
    log(record(3))  # no second warning: those are errors here
    assert len(rows(log.file)) == 1


def test_tensorboard_gets_scalars(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[tuple[str, float, int]] = []

    class Writer:
        def __init__(self, folder: str) -> None:
            assert folder == str(tmp_path)

        def add_scalar(self, name: str, value: float, step: int) -> None:
            written.append((name, value, step))

        def flush(self) -> None:
            written.append(("flushed", 0.0, 0))

    module = ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = Writer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    TensorBoardLog(tmp_path)(record(2, mean_metric=None))
    assert ("metric/b", 0.75, 2) in written
    assert ("branches", 3, 2) in written
    assert not any(name == "mean_metric" for name, _, _ in written)
    assert written[-1][0] == "flushed"


def test_tensorboard_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ModuleNotFoundError, match="pip install tensorboard"):
        TensorBoardLog(tmp_path)


def test_tensorboard_on_a_full_disk_warns_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Writer:
        def __init__(self, folder: str) -> None:
            pass

        def add_scalar(self, name: str, value: float, step: int) -> None:
            raise OSError(28, "No space left on device")

    module = ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = Writer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    log = TensorBoardLog(tmp_path / "events")
    with pytest.warns(UserWarning, match=r"events cannot be written .*No space left.*; training goes on without it"):
        log(record(1))
    log(record(2))  # no second warning: those are errors here
