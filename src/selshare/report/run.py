"""Reading a run folder: the rows of the comparison and the histories behind them, as plain data.

The folder is written by :func:`selshare.training.compare.compare`: ``results.json`` (one row per method and seed),
``problem.json`` (name, description, tasks whose metric is better when lower) and ``<method>-seed<k>.json`` (epochs and
sharing events; not for STL), beside which ``<method>-seed<k>-regions.json`` may hold where tasks look. The report
reads the JSON as it stands, so that it can draw a run without the data or the model.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .activation_regions import ActivationRegions, read_regions

Row = Mapping[str, Any]
Event = Mapping[str, Any]


@dataclass(frozen=True)
class Record:
    """One method with one seed, epoch by epoch: ``epochs`` and ``events`` as ``History.to_json`` writes them.

    ``relations`` are the names and weights that srdml has learned, as ``TaskRelations.to_json`` writes them.
    """

    method: str
    seed: int
    epochs: tuple[Mapping[str, Any], ...]
    events: tuple[Event, ...]
    best_epoch: int | None = None
    lock_epoch: int | None = None
    relations: Mapping[str, Any] | None = None
    regions: ActivationRegions | None = field(default=None, repr=False)

    def series(self, name: str) -> list[float | None]:
        """Return one value of every epoch; ``None`` where there is none."""
        return [epoch.get(name) for epoch in self.epochs]


@dataclass(frozen=True)
class RunFolder:
    """What a run folder holds.

    ``rows`` and ``records`` are in the order of the results; ``lower_is_better`` names the tasks whose metric is.
    """

    folder: Path
    name: str
    description: str
    rows: tuple[Row, ...]
    records: tuple[Record, ...] = field(default=(), repr=False)
    lower_is_better: frozenset[str] = frozenset()


def read_run(folder: str | Path) -> RunFolder:
    """Read a run folder.

    Raises
    ------
    FileNotFoundError
        Where there is no ``results.json``.
    ValueError
        Where a file is not valid JSON, or lacks what a row or a history must hold; names the file.
    """
    folder = Path(folder)
    results = folder / "results.json"
    if not results.is_file():
        raise FileNotFoundError(f"{folder} holds no results.json; give a run folder that train or compare has written.")
    rows = _read(results)
    if not isinstance(rows, list) or not rows:
        raise ValueError(f"{results} holds no rows; run train or compare again.")
    for row in rows:
        _require(results, row, ("method", "seed", "metrics", "mean_metric", "groups", "branches", "parameters"))
    problem = _read(folder / "problem.json") if (folder / "problem.json").is_file() else {}
    name = str(problem.get("name", folder.resolve().name))
    found = (_record(folder, row) for row in rows)
    return RunFolder(
        folder,
        name,
        str(problem.get("description", "")),
        tuple(rows),
        tuple(record for record in found if record),
        frozenset(problem.get("lower_is_better", ())),
    )


def _record(folder: Path, row: Row) -> Record | None:
    """The history of a row, if it has one: STL has none."""
    path = folder / f"{row['method']}-seed{row['seed']}.json"
    if not path.is_file():
        return None
    history = _read(path)
    _require(path, history, ("epochs", "events"))
    return Record(
        row["method"],
        row["seed"],
        tuple(history["epochs"]),
        tuple(history["events"]),
        history.get("best_epoch"),
        history.get("lock_epoch", row.get("lock_epoch")),
        history.get("relations"),
        _regions(folder / f"{row['method']}-seed{row['seed']}-regions.json"),
    )


def _regions(path: Path) -> ActivationRegions | None:
    """Where tasks look, if that was written."""
    if not path.is_file():
        return None
    data = _read(path)
    _require(path, data, ("tasks", "maps", "images", "overlap"))
    return read_regions(data)


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not valid JSON ({error}); run train or compare again.") from error


def _require(path: Path, entry: Any, keys: tuple[str, ...]) -> None:
    missing = [key for key in keys if key not in entry] if isinstance(entry, dict) else list(keys)
    if missing:
        raise ValueError(f"{path} lacks {', '.join(missing)}; run train or compare again.")
