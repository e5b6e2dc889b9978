"""Callbacks that write each epoch's figures where other tools look: a CSV file, TensorBoard.

A log that cannot be written (a full or read-only disk) warns once and stops logging: a training run is worth more.
"""

from __future__ import annotations

import csv
import io
import warnings
from pathlib import Path
from typing import Any

from ..files import write_whole
from .history import EpochRecord

COLUMNS = ("epoch", "train_loss", "validation_loss", "mean_metric", "branches", "seconds", "sharing_seconds")


class CSVLog:
    """One row per epoch: loss, mean metric, branches, seconds, and every task's metric.

    Use it as ``Trainer(callbacks=[CSVLog("log.csv")])``. A resumed run goes on in the same file.

    Parameters
    ----------
    file
        Rows of later epochs than the one being written, left by an interrupted run, are dropped.
    """

    def __init__(self, file: str | Path) -> None:
        self.file = Path(file)
        self._failed = False

    def __call__(self, record: EpochRecord) -> None:
        """Add a row."""
        if self._failed:
            return
        try:
            self._write(record)
        except (OSError, ValueError) as error:
            self._failed = True
            warnings.warn(f"{self.file} cannot be written ({error}); training goes on without it.", stacklevel=2)

    def _write(self, record: EpochRecord) -> None:
        """Write the whole file anew: it is never half a file."""
        names = [*COLUMNS, *record.metrics]
        rows = []
        if self.file.exists() and record.epoch > 1:
            rows = _rows_before(record.epoch, self.file)
        values: dict[str, Any] = {name: getattr(record, name) for name in COLUMNS}
        text = io.StringIO()
        writer = csv.DictWriter(text, names, restval="", extrasaction="ignore")
        writer.writeheader()
        writer.writerows([*rows, {**values, **record.metrics}])
        write_whole(self.file, text.getvalue())


def _rows_before(epoch: int, file: Path) -> list[dict[str, str]]:
    """The rows of earlier epochs; ``ValueError`` if the file is no such log."""
    try:
        with file.open(newline="", encoding="utf-8") as stream:
            return [row for row in csv.DictReader(stream) if int(row["epoch"]) < epoch]
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise ValueError("it is there, but no log of this kind: name another file") from error


class TensorBoardLog:
    """Scalars for TensorBoard: losses, mean metric, branches, seconds, and ``metric/<task>``.

    Parameters
    ----------
    folder
        The run's log directory.

    Raises
    ------
    ModuleNotFoundError
        If the package ``tensorboard`` is not installed.
    """

    def __init__(self, folder: str | Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ModuleNotFoundError("TensorBoardLog needs one more package: pip install tensorboard.") from error
        self._writer: Any = SummaryWriter(str(folder))
        self._folder = folder
        self._failed = False

    def __call__(self, record: EpochRecord) -> None:
        """Write the epoch's scalars."""
        if self._failed:
            return
        try:
            self._write(record)
        except OSError as error:
            self._failed = True
            warnings.warn(f"{self._folder} cannot be written ({error}); training goes on without it.", stacklevel=2)

    def _write(self, record: EpochRecord) -> None:
        """One number of each kind, and all of them on the disk."""
        scalars = {name: getattr(record, name) for name in COLUMNS[1:]}
        scalars |= {f"metric/{name}": value for name, value in record.metrics.items()}
        for name, value in scalars.items():
            if value is not None:
                self._writer.add_scalar(name, value, record.epoch)
        self._writer.flush()
