"""Trained models back from a run folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ..data import Problem, TableColumns, load
from ..data.table import HIDDEN, TRUNK_WIDTH, table_trunk
from ..model import MultiTaskModel
from .method_names import BASELINES
from .methods import build_model
from .metrics import higher_is_better


def describe_problem(problem: Problem, source: Mapping[str, Any]) -> dict[str, Any]:
    """What ``problem.json`` of a run folder says: enough to build the model again."""
    described: dict[str, Any] = {"name": problem.name, "description": problem.description, **source}
    described["lower_is_better"] = [task.name for task in problem.tasks if not higher_is_better(task)]
    described["input_shape"] = list(problem.train[0][0].shape)
    if problem.columns is not None:
        described["columns"] = problem.columns.to_json()
    return described


def load_trained(folder: Path, method: str | None = None, seed: int | None = None) -> tuple[MultiTaskModel, Path]:
    """The model of one run, in evaluation mode, and the file its weights came from.

    Parameters
    ----------
    folder
        What ``selshare train`` or ``compare`` wrote.
    method, seed
        Which run. By default the first that is no baseline, else the first of all that kept its weights.

    Raises
    ------
    FileNotFoundError
        If the folder holds no such run; says which there are.
    ValueError
        If a file is damaged, or the folder does not say how its problem was built.
    """
    weights = _choose(folder, method, seed)
    described = _read_json(folder / "problem.json")
    model = _build(folder, described)
    try:
        model.load_state_dict(load_file(weights))
    except (SafetensorError, RuntimeError) as error:
        raise ValueError(f"{weights} does not hold weights of this run's model: {error}") from error
    return model.eval(), weights


def table_columns(folder: Path) -> TableColumns:
    """What the columns of the run's table meant.

    Raises
    ------
    FileNotFoundError
        If the folder has no ``problem.json``.
    ValueError
        If the run was not on a table.
    """
    described = _read_json(folder / "problem.json")
    if "columns" not in described:
        raise ValueError(f"{folder} is a run on {described['name']}, not on a table, so it cannot read one.")
    return TableColumns.from_json(described["columns"])


def example_inputs(folder: Path) -> Tensor:
    """Two inputs of the run's shape, all zeros."""
    return torch.zeros(2, *_read_json(folder / "problem.json")["input_shape"])


def predict_table(
    model: MultiTaskModel, columns: TableColumns, frame: pd.DataFrame, batch_size: int = 4096
) -> pd.DataFrame:
    """Predictions for the rows of a table, with its index.

    One column per task: the class, in the words of the training table, or the number in its units. Beside each class,
    ``"<task> probability"`` of that class. The targets need not be in ``frame``.

    Raises
    ------
    ValueError
        If an input column is missing or holds what it cannot.
    """
    predictions = model.predict(columns.read_inputs(frame), batch_size)
    filled: dict[str, Any] = {}
    for target in columns.targets:
        prediction = predictions[target.name]
        if prediction.classes is None or prediction.probabilities is None:
            assert prediction.values is not None
            filled[target.name] = target.mean + target.scale * prediction.values.double().numpy()
            continue
        chosen = prediction.classes
        filled[target.name] = [target.classes[index] for index in chosen.tolist()]
        of_class = prediction.probabilities
        if target.kind == "binary":
            of_class = of_class.where(chosen == 1, 1 - of_class)
        else:
            of_class = of_class.gather(1, chosen.unsqueeze(1)).squeeze(1)
        filled[f"{target.name} probability"] = of_class.numpy()
    return pd.DataFrame(filled, index=frame.index)


def _choose(folder: Path, method: str | None, seed: int | None) -> Path:
    """The weights file of the run asked for."""
    if not (folder / "results.json").exists():
        raise FileNotFoundError(f"{folder} is no run folder: it has no results.json. Give what selshare train wrote.")
    rows = _read_json(folder / "results.json")
    kept = [(row["method"], row["seed"]) for row in rows if weights_file(folder, row["method"], row["seed"]).exists()]
    fitting = [run for run in kept if method in (None, run[0]) and seed in (None, run[1])]
    if not fitting:
        there = ", ".join(f"{name} with seed {number}" for name, number in kept) or "none"
        raise FileNotFoundError(
            f"{folder} has no weights of {method or 'any method'}{'' if seed is None else f' with seed {seed}'}; it "
            f"has those of {there}."
        )
    return weights_file(folder, *min(fitting, key=lambda run: run[0] in BASELINES))


def weights_file(folder: Path, method: str, seed: int) -> Path:
    """Where a run folder keeps the weights of one run."""
    return folder / f"{method}-seed{seed}.safetensors"


def _build(folder: Path, described: Mapping[str, Any]) -> MultiTaskModel:
    """The run's model, untrained."""
    if "columns" in described:
        columns = TableColumns.from_json(described["columns"])
        return MultiTaskModel(table_trunk(columns.width), TRUNK_WIDTH, HIDDEN, columns.tasks)
    if "data" not in described:
        raise ValueError(f"{folder / 'problem.json'} does not say how the problem was loaded; train again.")
    problem = load(described["data"], **described["options"])
    return build_model(problem, seed=0)


def _read_json(file: Path) -> Any:
    """A JSON file's content."""
    if not file.exists():
        raise FileNotFoundError(f"{file} is missing; give a folder that selshare train or compare wrote.")
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{file} is damaged: {error}.") from error
