"""The command line as a user types it, on a problem of the user's own that trains in a moment."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from selshare import cli

MODULE = """
import torch
from torch import nn
from torch.utils.data import TensorDataset
from selshare import Task
from selshare.data import Problem, Recipe


def planted(samples, seed):
    generator = torch.Generator().manual_seed(7)
    weights = torch.randn(2, 12, generator=generator).repeat_interleave(3, 0)
    weights = weights + 0.2 * torch.randn(6, 12, generator=generator)
    inputs = torch.randn(samples, 12, generator=torch.Generator().manual_seed(seed))
    return TensorDataset(inputs, (inputs @ weights.T > 0).float())


def build(samples=300):
    return Problem(
        name="planted",
        description="six tasks in two groups",
        tasks=tuple(Task.binary(f"task {i}") for i in range(6)),
        train=planted(samples, 0),
        validation=planted(100, 1),
        test=planted(100, 2),
        make_trunk=lambda: nn.Sequential(nn.Linear(12, 16), nn.ReLU()),
        shared_features=16,
        hidden=(8, 4),
        recipe=Recipe(lr=0.2, epochs=3),
        groups=(("task 0", "task 1", "task 2"), ("task 3", "task 4", "task 5")),
    )
"""

ROW = {
    "method", "seed", "metrics", "mean_metric", "parameters", "branch_parameters", "branches", "lock_epoch", "groups",
    "seconds_per_epoch", "adjusted_rand",
}  # fmt: skip


@pytest.fixture(autouse=True)
def _module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "planted_problem.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Type ``selshare ...``; the exit status."""
    monkeypatch.setattr("sys.argv", ["selshare", *arguments])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    return int(stopped.value.code or 0)


def test_train_prints_the_table_and_writes_the_run_folder(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run(monkeypatch, "train", "planted_problem:build", "--quiet", "--output", "run") == 0
    printed = capsys.readouterr().out
    for word in ("stl", "mtl", "similarity", "task 0", "task 5", "report.html"):
        assert word in printed.lower()
    folder = tmp_path / "run"
    rows = json.loads((folder / "results.json").read_text())
    assert [row["method"] for row in rows] == ["stl", "mtl", "similarity"]
    assert all(set(row) == ROW for row in rows)
    stl, mtl, shared = rows
    assert sorted(map(sorted, shared["groups"])) == [
        [f"task {i}" for i in range(3)],
        [f"task {i}" for i in range(3, 6)],
    ]
    assert (mtl["branches"], shared["branches"], shared["adjusted_rand"]) == (6, 2, 1.0)
    assert shared["branch_parameters"] * 3 == mtl["branch_parameters"]
    assert mtl["parameters"] - shared["parameters"] == 4 * (16 * 8 + 8 + 8 * 4 + 4)
    assert stl["parameters"] > mtl["parameters"] > shared["parameters"]
    assert {path.name for path in folder.iterdir()} == {
        "results.json", "problem.json", "report.html", "mtl-seed0.json", "mtl-seed0.safetensors",
        "similarity-seed0.json", "similarity-seed0.safetensors",
    }  # fmt: skip


def test_compare_writes_one_row_per_method_and_seed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    arguments = ["--methods", "mtl,random", "--seeds", "2", "--epochs", "1", "--json", "rows.json", "--quiet"]
    assert run(monkeypatch, "compare", "planted_problem:build", *arguments, "--set", "samples=100") == 0
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [(row["method"], row["seed"]) for row in rows] == [("mtl", 0), ("random", 0), ("mtl", 1), ("random", 1)]


def test_a_table_with_gaps_from_file_to_predictions(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    rows = [f"r{i},{i % 7},{(3 * i) % 11},{'' if i % 5 == 0 else 'ny'[i % 2]},{i / 7}" for i in range(80)]
    (tmp_path / "mine.csv").write_text("\n".join(["id,one,two,score a,score b", *rows]))
    (tmp_path / "new.csv").write_text("id,one,two\nx,1,2\ny,3,4\n")
    arguments = [
        "--targets",
        "score *",
        "--ignore",
        "id",
        "--methods",
        "mtl",
        "--epochs",
        "1",
        "--output",
        "run",
        "--quiet",
    ]
    assert run(monkeypatch, "compare", "mine.csv", "--quiet", *arguments) == 0
    printed = capsys.readouterr().out
    assert "left out: 'id', ignored" in printed
    assert "↑" in printed
    assert run(monkeypatch, "predict", "run", "new.csv", "--keep", "id") == 0
    head, first, *_ = (tmp_path / "predictions.csv").read_text().splitlines()
    assert head == "id,score a,score a probability,score b"
    assert first.startswith("x,")
    assert run(monkeypatch, "train", "mine.csv") == 2
    assert "name the columns to learn: --targets" in capsys.readouterr().err


def test_report_redraws_a_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    run(monkeypatch, "compare", "planted_problem:build", "--methods", "similarity", "--epochs", "2", "--quiet")
    folder = tmp_path / "runs" / "compare-planted_problem-build"
    assert run(monkeypatch, "report", str(folder)) == 0
    assert "similarity" in (folder / "report.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["train", "nowhere"], "no data set 'nowhere'"),
        (["train", "planted_problem:absent"], "no function 'absent'"),
        (["train", "planted_problem:build", "--tasks", "5"], "no option 'tasks'"),
        (["train", "planted_problem:build", "--set", "samples"], "--set takes name=value"),
        (["train", "planted_problem:build", "--criterion", "likeness"], "unknown method likeness"),
        (["compare", "planted_problem:build", "--methods", "mtl,stk"], "unknown method stk"),
        (["compare", "planted_problem:build", "--methods", ","], "(none given)"),
        (["report", "absent"], "absent"),
    ],
)
def test_a_mistake_gets_one_sentence(
    arguments: list[str], sentence: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, *arguments) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert "Traceback" not in error
    assert len(error.strip().splitlines()) == 1


def test_the_paper_s_method_merges_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for preset in ("default", "paper"):
        arguments = [
            "planted_problem:build",
            "--methods",
            "similarity",
            "--preset",
            preset,
            "--quiet",
            "--json",
            "rows.json",
        ]
        assert run(monkeypatch, "compare", *arguments) == 0
        (row,) = json.loads((tmp_path / "rows.json").read_text())
        assert row["lock_epoch"] == {"default": 2, "paper": 1}[preset]
