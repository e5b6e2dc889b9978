"""The Python examples of README and user guide run, in order, as a reader would run them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]


def run_examples(page: str) -> dict[str, Any]:
    """Execute all Python blocks of a page in one namespace."""
    examples = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(examples) >= 2
    names: dict[str, Any] = {}
    for example in examples:
        exec(compile(example, page, "exec"), names)
    return names


def test_the_readmes_examples_run(capsys: pytest.CaptureFixture[str]) -> None:
    names = run_examples("README.md")
    assert "'century'" in capsys.readouterr().out, "the drop-in example prints a figure per task"
    assert names["event"].branches_after >= 1


def test_the_guides_examples_run(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names = run_examples("docs/guide.md")
    assert (tmp_path / "history.json").exists()
    assert (tmp_path / "model.onnx").exists()
    assert [event.epoch for event in names["sharing"].events] == [1, 2], "the groups of the first epoch merge"
    assert names["sharing"].events[0].merged == (), "the first epoch is warm-up"


def test_the_examples_of_clustering_run() -> None:
    names = run_examples("docs/clustering.md")
    points = len(names["images"])
    assert names["clusterer"].labels_.shape == names["cores"].shape == (points,)
    assert names["edges"].shape == (points - 1, 3)
    assert len(set(names["few_large"].tolist())) >= 2


def test_the_objectives_examples_run(capsys: pytest.CaptureFixture[str]) -> None:
    names = run_examples("docs/objectives.md")
    assert "again" in capsys.readouterr().out
    assert len(names["apart"]) == 60


def test_it_shows_both_commands() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "make train" in readme
    assert "make test" in readme
