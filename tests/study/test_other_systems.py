"""The studies of the other two systems: on data made here, small, and their tables."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from benchmarks.study import cifar_mtl_shape, disjoint_labels, srdml_synthetic
from benchmarks.study.results import append
from selshare import Task
from selshare.objectives import DistributionMatching, SoftCoAnnotation

TABLE = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])


def setting() -> disjoint_labels.Setting:
    generator = torch.Generator().manual_seed(0)
    classes = torch.randint(0, 3, (120,), generator=generator)
    centres = torch.randn(3, 196, generator=generator)
    inputs = centres[classes] + torch.randn(120, 196, generator=generator)
    targets = torch.cat([classes[:, None].float(), TABLE[classes]], dim=1)
    tasks = (Task.multiclass("class", classes=3), Task.multilabel("attributes", labels=2, metric="accuracy"))
    return disjoint_labels.Setting(
        tasks, (inputs[:80], targets[:80]), (inputs[80:], targets[80:]), {"attributes": TABLE}
    )


def test_no_image_is_labelled_for_both() -> None:
    parts = disjoint_labels.halves(setting(), "3:1")
    (classes, others) = parts.values()
    assert list(parts) == ["class", ("attributes",)]
    assert [len(classes[0]), len(others[0])] == [60, 20]
    assert [tuple(classes[1].shape), tuple(others[1].shape)] == [(60,), (20, 2)]
    assert torch.equal(torch.cat([classes[0], others[0]]), setting().train[0])


@pytest.mark.parametrize("method", [*disjoint_labels.METHODS, *disjoint_labels.ABLATIONS])
def test_each_method_of_the_sweep_trains(method: str) -> None:
    found = disjoint_labels.run(setting(), "1:1", method, 0, epochs=4)
    assert [set(metrics) for metrics in found] == [{"class", "attributes"}] * 2
    kinds = {
        "stl": [],
        "mtl": [],
        "no co-annotation": [DistributionMatching],
        "no matching": [SoftCoAnnotation],
    }.get(method, [DistributionMatching, SoftCoAnnotation])
    assert [type(term) for term in disjoint_labels.objectives_of(method, setting())] == kinds


def test_the_sweeps_table_marks_what_is_worse_than_single_tasks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disjoint_labels, "FILE", tmp_path / "rows.jsonl")
    values = {"stl": [0.5, 0.7], "mtl": [0.4, 0.61], "default": [0.9, 0.7]}
    for method, accuracies in values.items():
        for seed, accuracy in enumerate(accuracies):
            row = {"data": "fashion", "ratio": "1:1", "method": method, "seed": seed, "metrics": {"class": accuracy}}
            append(disjoint_labels.FILE, row)
    _, _, line = disjoint_labels.table("fashion", ["mtl", "default"]).splitlines()
    differences = np.subtract(values["mtl"], values["stl"])
    expected = f"{differences.mean():+.3f} ± {stats.sem(differences):.3f}"
    assert line.split(" | ")[3:] == [f"0.505 ({expected}) ▼", "0.800 (+0.200 ± 0.200) |"]


def one_vs_rest() -> cifar_mtl_shape.Data:
    generator = torch.Generator().manual_seed(0)
    classes = torch.arange(1000) % 4
    images = torch.randn(4, 196, generator=generator)[classes] + torch.randn(1000, 196, generator=generator)
    labels = torch.nn.functional.one_hot(classes, 4).float()
    tasks = tuple(Task.binary(f"class {k}", metric="auroc") for k in range(4))
    splits = [(images[part], labels[part]) for part in (slice(600), slice(600, 800), slice(800, 1000))]
    return cifar_mtl_shape.Data(tasks, *splits)


@pytest.mark.parametrize("method", ["stl", "mtl", "hard", "similarity", "srdml"])
def test_each_method_of_cifars_shape_trains(method: str) -> None:
    row = cifar_mtl_shape.run(one_vs_rest(), method, 0, epochs=4)
    assert 0.6 < row["auc"] <= 1
    assert 0.6 < row["accuracy"] <= 1
    assert ("relations" in row) == (method == "srdml")
    assert row.get("branches") == {"stl": None, "mtl": 4, "hard": 1, "srdml": 4}.get(method, row.get("branches"))


def test_cifars_table_compares_seed_by_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cifar_mtl_shape, "FILE", tmp_path / "rows.jsonl")
    for method, seed, auc in (("mtl", 0, 0.9), ("mtl", 1, 0.8), ("srdml", 0, 0.92), ("srdml", 1, 0.84)):
        row = {"method": method, "seed": seed, "accuracy": 0.5, "auc": auc, "best_epoch": 3, "last_quarter": 0.0}
        append(cifar_mtl_shape.FILE, row)
    header, _, mtl, srdml = (line.split(" | ") for line in cifar_mtl_shape.table().splitlines())
    assert header[4] == "AUC, %"
    assert mtl[4:6] == ["85.00 ± 5.00", "–"]
    assert srdml[4:6] == ["88.00 ± 4.00", "+3.00 ± 1.00"]


def test_the_synthetic_twelve(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(srdml_synthetic, "GRID", (0.1, 1.0))
    row = srdml_synthetic.run(0, "shared")
    assert row["as released, pairs"] == row["ω first, pairs"] == 6
    assert row["oracle"] < row["ω first"] < row["STL"] < row["as released"]
    lines = srdml_synthetic.table([row, row | {"STL": row["STL"] + 1}]).splitlines()
    assert len(lines) == 2 + 3 + len(srdml_synthetic.METHODS)
    assert "2 of 2" in lines[4]


def test_penalties_pull_towards_the_mean_of_those_they_tie() -> None:
    weights = torch.arange(24.0).reshape(12, 2)
    centred = weights.numpy() - weights.numpy().mean(0)
    mean = partial(srdml_synthetic.around_mean, 2.0)
    assert float(mean(weights)) == pytest.approx(2 * (centred**2).sum())
    pairs = torch.repeat_interleave(torch.randn(6, 20), 2, dim=0)
    assert float(srdml_synthetic.AroundClusters(1.0)(pairs)) == pytest.approx(0, abs=1e-8)
    data = srdml_synthetic.draw(5, "own", torch.Generator().manual_seed(0))
    exact = torch.tensor(srdml_synthetic.SLOPES, dtype=torch.float32)[:, None].expand(12, 20)
    assert srdml_synthetic.rmse(exact, data) < 0.05
    assert math.isclose(float(srdml_synthetic.oracle(1.0).true_weight()), 1.0)
