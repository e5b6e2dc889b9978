"""Tables: what columns are found to be, what they become as numbers, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from selshare.data import TableColumns, load, table

ROWS = 60


def frame() -> pd.DataFrame:
    """A little of everything."""
    random = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "size": random.normal(50, 9, ROWS),
            "rooms": [None if i % 7 == 0 else i % 5 for i in range(ROWS)],
            "city": [["Rome", "Oslo", None][i % 3] for i in range(ROWS)],
            "built": pd.to_datetime("1990-01-01") + pd.to_timedelta(np.arange(ROWS), unit="D"),
            "id": [f"house {i}" for i in range(ROWS)],
            "planet": "Earth",
            "sold": [None if i % 4 == 0 else i % 2 for i in range(ROWS)],
            "garden": [True, False, False] * (ROWS // 3),
            "grade": [["low", "middle", "high", None][i % 4] for i in range(ROWS)],
            "stars": [float(i % 5) for i in range(ROWS)],
            "price": random.normal(1e6, 1e5, ROWS),
        }
    )


TARGETS = ["sold", "garden", "grade", "stars", "price"]


def test_kinds_are_inferred() -> None:
    columns = table(frame(), targets=TARGETS).columns
    assert columns is not None
    assert [target.kind for target in columns.targets] == ["binary", "binary", "multiclass", "multiclass", "regression"]
    assert [target.classes for target in columns.targets[:4]] == [
        ("0", "1"), ("False", "True"), ("high", "low", "middle"), ("0", "1", "2", "3", "4"),
    ]  # fmt: skip
    assert [column.name for column in columns.inputs] == ["size", "rooms", "city", "built"]
    assert set(columns.left_out) == {"id", "planet"}
    assert "target 'grade': multiclass, 3 classes: high, low, middle" in columns.describe()


def test_a_kind_can_be_given() -> None:
    problem = table(frame(), targets="stars, sold", kinds={"stars": "regression"})
    assert [task.kind for task in problem.tasks] == ["regression", "binary"]


def test_labels_and_gaps() -> None:
    data = frame()
    columns = table(data, targets=TARGETS).columns
    assert columns is not None
    labels = columns.read_targets(data)
    assert labels.shape == (ROWS, 5)
    assert torch.equal(labels[:, 0].isnan(), torch.arange(ROWS) % 4 == 0)
    assert labels[1, 2] == 2.0  # "middle" is the third class
    price = columns.targets[4]
    np.testing.assert_allclose(labels[:, 4].double() * price.scale + price.mean, data["price"], rtol=1e-6)


def test_inputs_are_scaled_by_the_training_rows() -> None:
    data = frame()
    problem = table(data, targets=TARGETS)
    columns = problem.columns
    assert columns is not None
    training = problem.train.tensors[0]  # type: ignore[attr-defined]
    assert training.shape == (42, columns.width)
    assert columns.width == 1 + 2 + 2 + 1  # size; rooms and where it is missing; two cities; a date
    torch.testing.assert_close(training[:, 0].mean(), torch.tensor(0.0), atol=1e-5, rtol=0)
    torch.testing.assert_close(training[:, 0].std(correction=0), torch.tensor(1.0), atol=1e-5, rtol=0)
    every = columns.read_inputs(data)
    assert torch.equal(every[:, 2].bool(), torch.arange(ROWS) % 7 == 0)
    assert torch.equal(every[::7, 1], torch.zeros(len(every[::7])))
    assert torch.equal(every[:, 3:5].sum(1), (torch.arange(ROWS) % 3 != 2).float())
    assert every.isfinite().all()


def test_columns_survive_json_and_read_new_tables() -> None:
    data = frame()
    columns = table(data, targets=TARGETS).columns
    assert columns is not None
    again = TableColumns.from_json(json.loads(json.dumps(columns.to_json())))
    assert again == columns
    new = data[["built", "city", "rooms", "size"]].iloc[:3].assign(city="Paris")  # unknown: none of the known
    assert torch.equal(again.read_inputs(new)[:, 3:5], torch.zeros(3, 2))


def test_parts_do_not_overlap() -> None:
    problem = table(frame(), targets="price", validation=0.2, test=0.3)
    sizes = [len(part) for part in (problem.train, problem.validation, problem.test)]  # type: ignore[arg-type]
    assert sizes == [30, 12, 18]
    rows = torch.cat([part.tensors[0] for part in (problem.train, problem.validation, problem.test)])  # type: ignore[attr-defined]
    assert len(rows.unique(dim=0)) == ROWS


@pytest.mark.parametrize("ending", [".csv", ".tsv"])
def test_files_are_loaded_by_name(tmp_path: Path, ending: str) -> None:
    file = tmp_path / f"houses{ending}"
    frame().to_csv(file, index=False, sep="\t" if ending == ".tsv" else ",")
    problem = load(str(file), targets="sold,grade")
    assert problem.name == "houses"
    assert [task.name for task in problem.tasks] == ["sold", "grade"]


def test_dates_in_a_file_are_dates(tmp_path: Path) -> None:
    file = tmp_path / "houses.csv"
    frame().assign(seen=[f"{1990 + i % 30}-05-01 12:00:00" for i in range(ROWS)]).to_csv(file, index=False)
    problem = load(str(file), targets="sold,built")
    assert problem.columns is not None
    assert problem.columns.targets[1].kind == "regression"
    new = pd.read_csv(file).head(3)
    (seen,) = (column for column in problem.columns.inputs if column.name == "seen")
    days = (pd.to_datetime(new["seen"]) - pd.Timestamp(0)) / pd.Timedelta(days=1)
    np.testing.assert_allclose(seen.read(new["seen"])[:, 0] * seen.scale + seen.mean, days, rtol=1e-6)
    new.loc[1, "seen"] = "some day"
    with pytest.raises(ValueError, match="column 'seen' has 'some day' in row 1, where a date is needed"):
        problem.columns.read_inputs(new)


def test_targets_by_pattern_and_columns_to_ignore() -> None:
    data = frame().assign(**{f"score {i}": np.arange(ROWS) % 2 for i in range(3)})
    problem = table(data, targets="sold,score *", ignore="id,s?ze")
    assert [task.name for task in problem.tasks] == ["sold", "score 0", "score 1", "score 2"]
    assert problem.columns is not None
    assert problem.columns.left_out["size"] == "ignored"
    assert "inputs, 4 numbers: rooms, built, stars, price" in problem.columns.describe()


def broken(**columns: object) -> pd.DataFrame:
    return frame().assign(**columns)


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        (frame(), {"targets": "sold,ground"}, "no column 'ground'; its columns are 'size', 'rooms'"),
        (frame(), {"targets": ["sold", "sold"]}, "each once"),
        (frame(), {"targets": "score *"}, r"no column 'score \*'; its columns are 'size', 'rooms'"),
        (frame(), {"targets": "sold", "ignore": "sizes"}, "no column 'sizes'"),
        (frame(), {"targets": "sold", "ignore": "so*"}, "'sold' is to be learned and to be left out"),
        (frame(), {"targets": "id"}, "'id' has 60 different values in 60 rows, too many for classes"),
        (frame(), {"targets": "planet"}, "'planet' has 1 distinct value, .* nothing to learn"),
        (broken(sold=None), {"targets": "sold"}, "'sold' has 0 distinct values"),
        (frame(), {"targets": "stars", "kinds": {"stars": "binary"}}, "'stars' has 5 different values; a binary"),
        (frame(), {"targets": "stars", "kinds": {"stars": "counts"}}, "gives 'stars' as 'counts'"),
        (broken(size=[np.inf, *range(ROWS - 1)]), {"targets": "sold"}, "column 'size' has inf in row 0"),
        (frame()[["planet", "sold"]], {"targets": "sold"}, "no input is left"),
        (frame().iloc[:8], {"targets": "sold"}, "has 8 rows; at least 10"),
        (frame(), {"targets": "sold", "test": 0.9}, "leave some to train on"),
        (pd.concat([frame(), frame()[["size"]]], axis=1), {"targets": "size"}, "the column 'size' twice"),
    ],
)
def test_what_is_refused(data: pd.DataFrame, options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        table(data, **options)  # type: ignore[arg-type]


def test_new_tables_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    columns = table(frame(), targets=TARGETS).columns
    assert columns is not None
    with pytest.raises(ValueError, match="no input column 'city'"):
        columns.read_inputs(frame().drop(columns="city"))
    with pytest.raises(ValueError, match="column 'size' has 'big' in row 0, where a finite number is needed"):
        columns.read_inputs(frame().assign(size="big"))
    with pytest.raises(
        ValueError, match="column 'grade' has 'top' in row 0; the classes of this target are high, low, middle"
    ):
        columns.read_targets(frame().assign(grade="top"))
    with pytest.raises(ValueError, match=r"must end in \.csv, \.tsv, \.parquet"):
        table(tmp_path / "houses.xls", targets="sold")
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(ValueError, match=r"cannot read .*empty\.csv as a table"):
        table(tmp_path / "empty.csv", targets="sold")
    with pytest.raises(FileNotFoundError):
        table(tmp_path / "absent.csv", targets="sold")
