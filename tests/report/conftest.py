"""Run folders as the command line writes them, made up from planted groups, with real trees and distances."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.cluster import hierarchy
from scipy.spatial.distance import pdist, squareform

Groups = list[list[str]]
WriteRun = Callable[..., Path]


@pytest.fixture
def write_run(tmp_path: Path) -> WriteRun:
    """Return a function that writes a run folder: ``write_run(tasks=10, seeds=1)``."""

    def write(tasks: int = 10, groups: int = 3, seeds: int = 1, names: list[str] | None = None) -> Path:
        names = names or [f"task {index}" for index in range(tasks)]
        rows: list[dict[str, Any]] = []
        for seed in range(seeds):
            planted = [names[index : len(names) - 1 : groups] for index in range(groups)]
            for method in ("stl", "mtl", "similarity"):
                events = sharing_events(names, planted, seed) if method == "similarity" else []
                rows.append(row(method, seed, names, planted if events else []))
                if method != "stl":
                    history = {"epochs": epochs(names, events), "events": events, "best_epoch": 6}
                    history["lock_epoch"] = 5 if events else None
                    (tmp_path / f"{method}-seed{seed}.json").write_text(json.dumps(history))
        (tmp_path / "results.json").write_text(json.dumps(rows))
        (tmp_path / "problem.json").write_text(json.dumps({"name": "planted", "description": "Made up & planted."}))
        return tmp_path

    return write


def row(method: str, seed: int, names: list[str], groups: Groups) -> dict[str, Any]:
    generator = np.random.default_rng([seed, *method.encode()])
    metrics = {name: round(float(generator.uniform(0.8, 1)), 4) for name in names}
    return {
        "method": method,
        "seed": seed,
        "metrics": metrics,
        "mean_metric": sum(metrics.values()) / len(metrics),
        "parameters": {"stl": 487_664, "mtl": 130_664, "similarity": 90_264}[method],
        "branch_parameters": 50_000,
        "branches": {"stl": 0, "mtl": len(names), "similarity": len(groups) + 1}[method],
        "lock_epoch": 5 if groups else None,
        "groups": groups,
        "seconds_per_epoch": {"stl": 1.25, "mtl": 0.31, "similarity": 0.2}[method],
        "adjusted_rand": None,
    }


def epochs(names: list[str], events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    after = {event["epoch"]: event["branches_after"] for event in events}
    last = min(after.values(), default=len(names))
    return [
        {
            "epoch": epoch,
            "train_loss": 3 / epoch,
            "validation_loss": 3.2 / epoch + 0.1,
            "metrics": dict.fromkeys(names, 1 - 0.5 / epoch),
            "mean_metric": 1 - 0.5 / epoch,
            "branches": after.get(epoch, last),
            "seconds": 0.2 + 0.1 * (epoch == 1),
            "sharing_seconds": 0.02 * bool(events),
        }
        for epoch in range(1, 13)
    ]


def sharing_events(names: list[str], planted: Groups, seed: int) -> list[dict[str, Any]]:
    """Return five epochs: half of each group merges after the first, the rest after the third, then nothing; lock."""
    before: Groups = [[name] for name in names]
    halves = [group[: (len(group) + 1) // 2] for group in planted]
    found = {1: halves, 2: halves, 3: planted, 4: planted, 5: planted}
    events = []
    for epoch, groups in found.items():
        merged = [group for group in groups if group not in before]
        after = groups + [[name] for name in names if all(name not in group for group in groups)]
        after.sort(key=lambda branch: names.index(branch[0]))
        events.append(event(epoch, before, after, merged, planted, seed))
        before = after
    return events


def event(epoch: int, before: Groups, after: Groups, merged: Groups, planted: Groups, seed: int) -> dict[str, Any]:
    generator = np.random.default_rng([seed, epoch])
    group_of = {name: number for number, group in enumerate(planted) for name in group}
    target = [next((g for g, m in enumerate(merged) if branch[0] in m), -1) for branch in before]
    centres = np.eye(len(planted) + 1, 16)
    rows = np.stack([centres[group_of.get(branch[0], len(planted))] for branch in before])
    scatter = np.where(np.array(target) < 0, 0.25, 0.08)[:, None]  # what does not merge yet lies farther off
    rows = rows + scatter * generator.standard_normal(rows.shape)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    distances = squareform(pdist(rows))
    core = np.sort(distances, axis=1)[:, 1]
    reachability = np.maximum(distances, np.maximum.outer(core, core))
    np.fill_diagonal(reachability, 0)
    linkage = hierarchy.linkage(squareform(reachability, checks=False), "single")
    return {
        "epoch": epoch,
        "criterion": "similarity",
        "groups": [branch for branch in after if len(branch) > 1],
        "merged": merged,
        "clusters": merged,
        "branches_before": len(before),
        "branches_after": len(after),
        "locked": epoch == 5,
        "lock_reason": "epochs in a row without a change: 3" if epoch == 5 else None,
        "branch_tasks": before,
        "labels": target,
        "embedded": list(range(len(before))),
        "embedding": rows.tolist(),
        "distances": distances.tolist(),
        "linkage": linkage.tolist(),
        "condensed_tree": None,
        "plan": None,
        "seconds": {"embed": 0.0011, "cluster": 0.0042},
    }
