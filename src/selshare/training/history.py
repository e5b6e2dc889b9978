"""What happened during a training run, epoch by epoch."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..files import write_whole
from ..sharing import SharingEvent


@dataclass(frozen=True)
class EpochRecord:
    """One epoch.

    Attributes
    ----------
    epoch
        Counted from 1.
    train_loss
        Weighted sum of the tasks' mean training losses over the epoch.
    validation_loss, metrics, mean_metric
        The same sum on the validation data, the metric of each task there, and their mean (see
        :func:`selshare.training.metrics.mean_metric`); ``None`` and empty without validation data.
    branches
        Live branches at the end of the epoch, after merges.
    seconds
        Of training: the steps alone.
    sharing_seconds
        Of clustering and merging at the end of the epoch.
    skipped
        Task → steps that were skipped because its loss was NaN or Inf, with ``on_nonfinite="skip"``.
    """

    epoch: int
    train_loss: float
    validation_loss: float | None
    metrics: dict[str, float]
    mean_metric: float | None
    branches: int
    seconds: float
    sharing_seconds: float
    skipped: dict[str, int] = field(default_factory=dict)


@dataclass
class History:
    """All epochs of a run and the sharing events among them.

    Attributes
    ----------
    best_epoch
        The epoch whose weights the model holds after ``fit``; ``None`` when these are the last epoch's for want of
        validation data.
    """

    epochs: list[EpochRecord] = field(default_factory=list)
    events: list[SharingEvent] = field(default_factory=list)
    best_epoch: int | None = None

    @property
    def lock_epoch(self) -> int | None:
        """The epoch at whose end the sharing locked, or ``None``."""
        return next((event.epoch for event in self.events if event.locked), None)

    @property
    def seconds_per_epoch(self) -> float:
        """Mean duration of an epoch, its sharing included."""
        return sum(record.seconds + record.sharing_seconds for record in self.epochs) / max(len(self.epochs), 1)

    def to_json(self) -> dict[str, Any]:
        """As data that ``json.dumps`` takes."""
        return {
            "epochs": [asdict(record) for record in self.epochs],
            "events": [event.to_json() for event in self.events],
            "best_epoch": self.best_epoch,
            "lock_epoch": self.lock_epoch,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> History:
        """The inverse of :meth:`to_json`."""
        return cls(
            epochs=[EpochRecord(**record) for record in data["epochs"]],
            events=[SharingEvent.from_json(event) for event in data["events"]],
            best_epoch=data["best_epoch"],
        )

    def save(self, path: str | Path) -> None:
        """Write it as JSON; the file appears whole or not at all."""
        write_json(Path(path), self.to_json())


def write_json(path: Path, data: Any) -> None:
    """Write ``data`` by :func:`selshare.files.write_whole`; NaN, which JSON does not have, is written as ``null``."""
    write_whole(path, json.dumps(_without_nan(data), indent=1, allow_nan=False))


def _without_nan(data: Any) -> Any:
    """``data`` with ``None`` for NaN."""
    if isinstance(data, dict):
        return {key: _without_nan(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_without_nan(value) for value in data]
    return None if isinstance(data, float) and data != data else data
