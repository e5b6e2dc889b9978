from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from selshare.report.run import read_run


def test_reads_rows_and_histories(write_run: Callable[..., Path]) -> None:
    run = read_run(write_run(tasks=4, groups=2, seeds=2))
    assert (run.name, run.description) == ("planted", "Made up & planted.")
    one_seed = [("stl", 0), ("mtl", 0), ("similarity", 0)]
    assert [(row["method"], row["seed"]) for row in run.rows][:4] == [*one_seed, ("stl", 1)]
    assert [(record.method, record.seed) for record in run.records][:2] == one_seed[1:]
    assert run.records[1].lock_epoch == 5
    assert run.records[1].series("branches")[:3] == [4, 4, 3]


def test_a_folder_without_problem_has_its_own_name(write_run: Callable[..., Path]) -> None:
    folder = write_run()
    (folder / "problem.json").unlink()
    assert read_run(folder).name == folder.name


def test_no_results(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"holds no results\.json; give a run folder"):
        read_run(tmp_path)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("results.json", "[", r"results\.json is not valid JSON"),
        ("results.json", "[]", "holds no rows"),
        ("results.json", json.dumps([{"method": "mtl", "seed": 0}]), "lacks metrics, mean_metric, groups"),
        ("mtl-seed0.json", "{}", r"mtl-seed0\.json lacks epochs, events"),
        ("mtl-seed0.json", "3", r"mtl-seed0\.json lacks epochs, events"),
    ],
)
def test_damaged_files_are_named(write_run: Callable[..., Path], file: str, content: str, message: str) -> None:
    folder = write_run()
    (folder / file).write_text(content)
    with pytest.raises(ValueError, match=message):
        read_run(folder)
