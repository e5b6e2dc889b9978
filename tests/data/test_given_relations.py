"""Relation tables from a file: in the order of the tasks' classes, and checked against them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from selshare.data import Problem, table
from selshare.data.given_relations import read_relations

ENTRY = {"source": "fruit", "target": "sweet", "table": {"plum": {}, "pear": {"sweet": 0.5}, "apple": {"sweet": 1.0}}}


@pytest.fixture
def fruit(tmp_path: Path) -> Problem:
    rows = 60
    columns = {
        "weight": [float(k % 7) for k in range(rows)],
        "fruit": [("apple", "pear", "plum")[k % 3] for k in range(rows)],
        "sweet": [("no", "yes")[k % 2] for k in range(rows)],
        "sour": [k // 3 % 2 for k in range(rows)],
        "colour": [("green", "red", "blue", "pink")[k % 4] for k in range(rows)],
    }
    pd.DataFrame(columns).to_csv(tmp_path / "fruit.csv", index=False)
    return table(tmp_path / "fruit.csv", targets="fruit,sweet,sour,colour")


def written(folder: Path, entries: Any) -> Path:
    path = folder / "relations.json"
    path.write_text(json.dumps(entries), encoding="utf-8")
    return path


def test_rows_and_columns_come_in_the_order_of_the_classes(fruit: Problem, tmp_path: Path) -> None:
    several = {
        "source": "fruit",
        "target": ["sour", "sweet"],
        "table": {"apple": {"sweet": 1.0}, "pear": {}, "plum": {"sour": 1}},
    }
    colours = {
        "source": "fruit",
        "target": "colour",
        "table": {name: {"red": 1.0} for name in ("plum", "apple", "pear")},
    }
    found = read_relations(written(tmp_path, [ENTRY, several, colours]), fruit)
    assert list(found) == [("fruit", "sweet"), ("fruit", ("sour", "sweet")), ("fruit", "colour")]
    assert found["fruit", "sweet"].classes == ("apple", "pear", "plum")
    assert found["fruit", "sweet"].probabilities.tolist() == [[1.0], [0.5], [0.0]]
    assert found["fruit", ("sour", "sweet")].probabilities.tolist() == [[0.0, 1.0], [0.0, 0.0], [1.0, 0.0]]
    assert found["fruit", "colour"].labels == ("blue", "green", "pink", "red")
    assert found["fruit", "colour"].probabilities.tolist() == [[0.0, 0.0, 0.0, 1.0]] * 3


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"source": "fruit"}, "must hold a list of"),
        ([{"source": "fruit"}], "must hold a list of"),
        ([ENTRY | {"target": "sweat"}], "relates the unknown task 'sweat'; the tasks are 'fruit', 'sweet'"),
        ([ENTRY | {"table": {"aple": {"sweet": 1.0}}}], "no class 'apple'; it has 'aple'"),
        ([ENTRY | {"table": ENTRY["table"] | {"plum": {"swete": 1.0}}}], "unknown label 'swete'; the task has 'sweet'"),  # type: ignore[operator]
    ],
)
def test_errors(fruit: Problem, tmp_path: Path, entries: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_relations(written(tmp_path, entries), fruit)
