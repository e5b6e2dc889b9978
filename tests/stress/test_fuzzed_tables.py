"""Tables with whatever is in them: a problem that can be trained on, or the documented error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hostile import SEEDS, Case, fuzzed, run
from selshare.data.table import read_table, table
from selshare.objectives import check_targets
from selshare.tasks import TaskLayout

DATA = st.data()
CELLS = [
    "",
    "0",
    "1",
    "-1",
    "2.5",
    "1e308",
    "1e400",
    "-inf",
    "nan",
    "NA",
    "True",
    "yes",
    "no",
    "2024-01-31",
    "ä",
    " ",
    "€",
    "a,b",
    'say "so"',
    "line\nbreak",
    "0x10",
    "1_000",
    "007",
    "9" * 30,
    "x" * 300,
    "\u202e",
    "=1+1",
]
NAMES = ["a", "b", "target", "kind", "ä b", "", "a", "Unnamed: 0", "x/y", "0", "line\nbreak"]


def some_column(case: Case, rows: int) -> list[str]:
    """Cells of one kind, or of any."""
    rng = np.random.default_rng(case.draw(SEEDS))
    kind = case.draw(st.sampled_from(["number", "classes", "binary", "anything", "empty", "same", "dates", "texts"]))
    cells = {
        "number": lambda: [f"{value:.6g}" for value in rng.normal(size=rows)],
        "classes": lambda: [str(value) for value in rng.integers(0, 4, rows)],
        "binary": lambda: [("no", "yes")[value] for value in rng.integers(0, 2, rows)],
        "anything": lambda: [CELLS[value] for value in rng.integers(0, len(CELLS), rows)],
        "empty": lambda: [""] * rows,
        "same": lambda: ["7"] * rows,
        "dates": lambda: [f"2024-{value:02d}-01" for value in rng.integers(1, 13, rows)],
        "texts": lambda: [f"text {value}" for value in range(rows)],
    }[kind]()
    gaps = rng.random(rows) < case.draw(st.sampled_from([0.0, 0.1, 0.9]))
    return ["" if gap else cell for cell, gap in zip(cells, gaps, strict=True)]


def quoted(cell: str) -> str:
    """As a CSV file has it."""
    return '"' + cell.replace('"', '""') + '"' if any(mark in cell for mark in ',"\n') else cell


@fuzzed(60)
@given(DATA)
def test_tables(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    case = Case(data.draw, "whatever is in the file")
    rows = case.draw(st.sampled_from([0, 3, 12, 40]))
    names = case.draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=6))
    columns = [some_column(case, rows) for _ in names]
    lines = [names, *zip(*columns, strict=True)]
    content = "\n".join(",".join(map(quoted, line)) for line in lines).encode()
    broken = case.draw(st.sampled_from([None] * 6 + ["cut", "bytes", "nothing", "ragged", "binary", "mark"]))
    content = {
        None: content,
        "cut": content[: len(content) // 2],
        "bytes": content + b"\xff\xfe,\x00",
        "nothing": b"",
        "ragged": content + b"\n1,2,3,4,5,6,7,8,9",
        "binary": bytes(range(256)),
        "mark": b"\xef\xbb\xbf" + content,
    }[broken]
    file: Path = tmp_path_factory.mktemp("table") / "table.csv"
    file.write_bytes(content)
    targets: Any = case.draw(st.one_of(st.sampled_from(NAMES), st.lists(st.sampled_from(NAMES), max_size=3)))
    kinds = case.draw(
        st.dictionaries(
            st.sampled_from(NAMES), st.sampled_from(["binary", "multiclass", "regression", "odd"]), max_size=1
        )
    )
    problem, done = run(case, lambda: table(file, targets=targets, kinds=kinds))
    if not done:
        return
    layout = TaskLayout(problem.tasks)
    for part in (problem.train, problem.validation, problem.test):
        inputs, packed = part.tensors
        assert inputs.shape == (len(part), problem.columns.width)
        assert packed.shape == (len(part), layout.target_width)
        assert bool(torch.isfinite(inputs).all())
        check_targets(layout, packed)
    again, done = run(case, lambda: problem.columns.read_inputs(read_table(file)))
    if done:
        assert len(again) == rows or broken
