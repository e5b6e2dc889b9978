"""The study's own machinery: results that survive an interruption, controls that control, tables that add up."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from benchmarks.study import ablation, accuracy, planted
from benchmarks.study import methods as study_methods
from benchmarks.study.results import append, mean_and_error, missing, read
from benchmarks.study.settings import SETTINGS, Setting
from benchmarks.study.standalone import standalone
from selshare.data import Recipe, load


def problem():
    small = load("synthetic", tasks=12, groups=3, samples=300, features=12, relatedness=0.95)
    return replace(small, hidden=(8,), recipe=Recipe(epochs=3))


def test_finished_runs_are_read_back_and_not_wanted_again(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "rows.jsonl"
    assert read(path) == []
    append(path, {"method": "mtl", "seed": 0, "value": math.nan, "list": (1.23456789, 2)})
    append(path, {"method": "mtl", "seed": 1})
    assert read(path)[0] == {"method": "mtl", "seed": 0, "value": None, "list": [1.23457, 2]}
    assert [len(line) > 0 for line in path.read_text().split("\n")] == [True, True, False]
    wanted = [("mtl", 0), ("paper", 0), ("mtl", 1), ("paper", 1)]
    assert list(missing(read(path), wanted, ("method", "seed"))) == [("paper", 0), ("paper", 1)]


def test_mean_and_standard_error() -> None:
    values = [0.1, 0.5, 0.2, 0.9]
    assert mean_and_error(values) == pytest.approx((np.mean(values), stats.sem(values)))
    assert math.isnan(mean_and_error([1.0])[1])


def test_methods_differ_in_their_branches_as_they_should() -> None:
    rows = []
    for method in ("mtl", "hard", "oracle", "paper", "paper-chance"):
        rows.append(study_methods.run(problem(), method, 0, rows))  # each sees those before
    mtl, hard, oracle, paper, chance = rows
    assert [mtl["branches"], hard["branches"], oracle["branches"]] == [12, 1, 3]
    assert sorted(map(len, hard["groups"])) == [12]
    assert {frozenset(group) for group in oracle["groups"]} == {frozenset(group) for group in problem().groups}
    assert hard["branch_parameters"] * 12 == mtl["branch_parameters"]
    assert paper["branches"] < 12
    assert chance["branches"] == paper["branches"]
    assert sorted(map(len, chance["groups"])) == sorted(map(len, paper["groups"]))
    assert chance["groups"] != paper["groups"]
    assert [epoch for epoch, _ in chance["merges"]] == [epoch for epoch, _ in paper["merges"]]
    assert {row["steps"] for row in rows} == {3 * 5}
    assert all(len(row["curve"]["mean_metric"]) == 3 for row in rows)
    json.dumps(rows, allow_nan=False)


def test_a_control_of_late_merges_merges_as_late() -> None:
    default = study_methods.run(problem(), "default", 0)
    chance = study_methods.run(problem(), "chance", 0, [default])
    assert [epoch for epoch, _ in default["merges"]] == [epoch for epoch, _ in chance["merges"]] == [2]
    assert sorted(map(len, chance["groups"])) == sorted(map(len, default["groups"]))


def test_random_groups_of_a_repair_have_its_sizes() -> None:
    rows: list[dict] = []
    for variant in ("refit, late", "refit, late, random groups"):
        rows.append({"variant": variant, "seed": 3, **ablation.run(problem(), variant, 3, rows)})
    given, random = ([set(group) for group in row["groups"]] for row in rows)
    assert sorted(map(len, given)) == sorted(map(len, random))
    assert given != random
    assert rows[0]["merged_at"] == rows[1]["merged_at"] != []
    with pytest.raises(ValueError, match="needs 'refit, late' with seed 4 first"):
        ablation.run(problem(), "refit, late, random groups", 4, rows)


def test_a_training_that_diverges_is_counted_and_not_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wild = replace(problem(), recipe=Recipe(lr=1e30, epochs=3))
    monkeypatch.setattr(accuracy, "RESULTS", tmp_path)
    monkeypatch.setattr(accuracy, "SETTINGS", {"wild": Setting("wild", lambda seed: wild)})
    for _ in range(2):
        accuracy._run_missing("wild", ["mtl", "hard"], seeds=2, epochs=None)
    rows = read(tmp_path / "accuracy-wild.jsonl")
    assert [(row["method"], row["seed"]) for row in rows] == [("mtl", 0), ("hard", 0), ("mtl", 1), ("hard", 1)]
    assert all("is NaN or Inf" in row["diverged"] for row in rows)
    lost = {**rows[0], "method": "default", "seed": 7}
    calm = {**study_methods.run(problem(), "mtl", 0), "epochs": 3}
    lines = accuracy.table([calm, *rows[2:], lost]).splitlines()[2:]
    assert [line.split(" | ")[1] for line in lines] == ["1, 1 diverged", "0, 1 diverged", "0, 1 diverged"]
    assert {len(line.split(" | ")) for line in lines} == {10}


def test_a_control_needs_what_it_controls() -> None:
    with pytest.raises(ValueError, match="need paper with seed 0 first"):
        study_methods.run(problem(), "paper-chance", 0)
    with pytest.raises(ValueError, match="unknown method 'psychic'"):
        study_methods.run(problem(), "psychic", 0)
    with pytest.raises(ValueError, match="digits has no true groups"):
        study_methods.run(load("digits"), "oracle", 0)


def test_single_networks_are_summed() -> None:
    row = study_methods.run(problem(), "stl", 0)
    assert len(row["metrics"]) == 12
    assert row["mean_metric"] == pytest.approx(np.mean(list(row["metrics"].values())))
    assert row["steps"] == 12 * 3 * 5


def test_the_table_compares_seed_by_seed() -> None:
    def row(method: str, seed: int, metric: float, parameters: int) -> dict[str, object]:
        curve = {"mean_metric": [0.1, 0.2, 0.3, metric]}
        own = {"method": method, "seed": seed, "mean_metric": metric, "test_loss": 1.0, "branches": 2, "steps": 1000}
        return own | {"branch_parameters": parameters, "best_epoch": 4, "epochs": 4, "curve": curve}

    rows = [row("mtl", 0, 0.8, 100), row("mtl", 1, 0.6, 100), row("paper", 0, 0.9, 30), row("paper", 1, 0.5, 50)]
    header, _, mtl, paper = (line.split(" | ") for line in accuracy.table(rows).splitlines())
    assert header[3] == "− MTL, same seed"
    assert mtl[2:4] == ["0.7000 ± 0.1000", "–"]
    assert paper[2:4] == ["0.7000 ± 0.2000", "+0.0000 ± 0.1000"]
    assert paper[6] == "40 %"


def test_every_data_set_has_a_recipe_and_binary_tasks_are_judged_by_precision() -> None:
    assert set(SETTINGS) == {"digits", "fashion-500", "fashion-2000", "fashion-50000", "alphabets", "glyphs"}
    tasks = SETTINGS["digits"].build(0).tasks
    assert {task.metric for task in tasks} == {"average_precision"}


def test_strong_relatedness_is_found_by_every_way_to_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planted, "TASKS", 12)
    monkeypatch.setattr(planted, "GROUPS", 3)
    monkeypatch.setattr(planted, "SAMPLES", 600)
    found = planted.agreements(1.0, 0)
    assert set(found) == set(planted.WAYS)
    assert all(agreement == pytest.approx(1) for agreement in found.values())


def test_figures_of_the_report_stand_alone() -> None:
    inline = '<svg role="img" viewBox="0 0 10 20" width="10"><path stroke="var(--c0)" fill="var(--surface)"/></svg>'
    drawn = standalone(inline)
    assert "var(" not in drawn
    assert '<rect width="10" height="20" fill="#ffffff"/><path stroke="#0072b2"' in drawn
    assert 'xmlns="http://www.w3.org/2000/svg"' in drawn
