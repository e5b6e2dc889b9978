"""The repairs one by one: each added to the paper's method alone, and each of the others to the default.

    python -m benchmarks.study.ablation fashion-500 fashion-2000 digits --seeds 5
    python -m benchmarks.study.ablation --table            # print what there is, train nothing

Every finished run is a line of ``benchmarks/study/results/ablation-<setting>.jsonl``; runs that are there are not
repeated. Differences are to MTL with the same seed: same data, weights and order of samples.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from selshare import MultiTaskModel, SelectiveSharing
from selshare.data import Problem
from selshare.training.evaluation import evaluate
from selshare.training.methods import build_model

from .methods import FixedGroups, fit, shuffled
from .results import RESULTS, Row, append, find, markdown, mean_and_error, missing, plus_minus, read
from .settings import SETTINGS

LATE = {"group_epochs": "auto", "warmup": "auto"}
DEFAULT = {**LATE, "refit_heads": True, "compose_branches": True, "merged_gradient": "root", "centre": "auto"}
VARIANTS: dict[str, dict[str, Any] | None] = {
    "mtl": None,
    "paper": {},
    "refit": {"refit_heads": True},
    "composed": {"refit_heads": True, "compose_branches": True},
    "late": LATE,
    "refit, late": {"refit_heads": True, **LATE},
    "mean step": {"merged_gradient": "mean"},
    "root step": {"merged_gradient": "root"},
    "stable": {"stable_epochs": 2},
    "validated": {"validate_merges": 3},
    "centre": {"centre": True},
    "default": DEFAULT,
    "default, first epoch": {**DEFAULT, "group_epochs": 1},
    "default, late gradients": {**DEFAULT, "group_epochs": 0},
    "default, mean step": {**DEFAULT, "merged_gradient": "mean"},
    "default, sum step": {**DEFAULT, "merged_gradient": "sum"},
    "default, stable": {**DEFAULT, "stable_epochs": 2},
    "default, validated": {**DEFAULT, "validate_merges": 3},
    "refit, late, random groups": {"refit_heads": True, **LATE},
}
RANDOM = {"refit, late, random groups": "refit, late"}
"""Variants that merge random groups of the sizes that another found with the same seed."""


def main() -> None:
    """Run what is missing and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", nargs="*", default=["fashion-500", "fashion-2000", "digits"])
    parser.add_argument("--variants", default=";".join(VARIANTS), help="separated by ';'")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, help="in place of the setting's own")
    parser.add_argument("--table", action="store_true", help="print the tables only")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for name in arguments.settings:
        if not arguments.table:
            _run_missing(name, arguments.variants.split(";"), arguments.seeds, arguments.epochs)
        rows = read(RESULTS / f"ablation-{name}.jsonl")
        for epochs in sorted({row["epochs"] for row in rows}):
            print(f"\n{name}, {epochs} epochs\n\n{table([row for row in rows if row['epochs'] == epochs])}")


def _run_missing(name: str, variants: Sequence[str], seeds: int, epochs: int | None) -> None:
    """All runs of one setting that are not on disk yet, a seed after the other."""
    path = RESULTS / f"ablation-{name}.jsonl"
    problems: dict[int, Problem] = {}
    epochs = epochs or SETTINGS[name].build(0).recipe.epochs
    wanted = [(variant, seed, epochs) for seed in range(seeds) for variant in variants]
    for variant, seed, _ in missing(read(path), wanted, ("variant", "seed", "epochs")):
        if seed not in problems:
            problem = SETTINGS[name].build(seed)
            problems = {seed: replace(problem, recipe=replace(problem.recipe, epochs=epochs))}
        row = run(problems[seed], variant, seed, read(path))
        append(path, {"setting": name, "variant": variant, "seed": seed, **row})
        print(f"{name}, {variant}, seed {seed}: {row['mean_metric']:.4f}, {row['branches']} branches", flush=True)


def run(problem: Problem, variant: str, seed: int, rows: Sequence[Row] = ()) -> Row:
    """Train one variant and test its best validation epoch; ``rows`` has the one that random groups are sized by."""
    started = time.perf_counter()
    model = build_model(problem, seed)
    sharing = _sharing(variant, seed, model, rows)
    history, _ = fit(problem, model, sharing, seed)
    tested = evaluate(model, problem.test)
    return {
        "mean_metric": tested.mean_metric,
        "loss": tested.loss,
        "branches": model.bank.branches,
        "merged_at": [event.epoch for event in history.events if event.merged],
        "groups": [list(names) for names in (sharing.events[-1].groups if sharing else ())],
        "best_epoch": history.best_epoch,
        "epochs": problem.recipe.epochs,
        "curve": [record.mean_metric for record in history.epochs],
        "branch_curve": [record.branches for record in history.epochs],
        "seconds": time.perf_counter() - started,
    }


def _sharing(variant: str, seed: int, model: MultiTaskModel, rows: Sequence[Row]) -> SelectiveSharing | None:
    """What merges a variant's branches; nothing does for *mtl*."""
    options = VARIANTS[variant]
    if options is None:
        return None
    criterion: str | FixedGroups = "similarity"
    if variant in RANDOM:
        sized = find(rows, variant=RANDOM[variant], seed=seed)
        if sized is None:
            raise ValueError(f"{variant!r} needs {RANDOM[variant]!r} with seed {seed} first.")
        criterion = FixedGroups(model, shuffled(model, [(1, sized["groups"])], seed))
    return SelectiveSharing(criterion, preset="paper", capture="free", seed=seed, **options)


def table(rows: Sequence[Row]) -> str:
    """A line per variant: mean metric, difference to MTL with the same seed, branches, drop at the merge."""
    unmerged = {row["seed"]: row["mean_metric"] for row in rows if row["variant"] == "mtl"}
    lines = []
    for variant in [name for name in VARIANTS if any(row["variant"] == name for row in rows)]:
        own = [row for row in rows if row["variant"] == variant]
        paired = [row["mean_metric"] - unmerged[row["seed"]] for row in own if row["seed"] in unmerged]
        lines.append(
            [
                variant,
                str(len(own)),
                plus_minus([row["mean_metric"] for row in own]),
                plus_minus(paired, "+") if paired else "–",
                f"{mean_and_error([row['branches'] for row in own])[0]:.1f}",
            ]
        )
    return markdown(["variant", "seeds", "mean metric", "minus MTL", "branches"], lines)


if __name__ == "__main__":
    main()
