"""Does sharing help? Methods × data sets × seeds, trained to convergence; results are kept and taken up again.

    python -m benchmarks.study.accuracy digits fashion-500 --methods mtl,paper,paper-chance --seeds 5
    python -m benchmarks.study.accuracy digits --epochs 60  # longer; kept apart from shorter runs
    python -m benchmarks.study.accuracy --table             # print what there is, train nothing

Every finished run is a line of ``benchmarks/study/results/accuracy-<data set>.jsonl``; runs that are there are not
repeated. Runs are ordered by seed, so that an interrupted study has whole comparisons. One whose loss becomes NaN or
Inf has a line that says so, and is counted beside the seeds of its method.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from selshare.data import Problem
from selshare.objectives import NonFiniteLoss

from . import methods as study_methods
from .results import RESULTS, Row, append, finished, markdown, mean_and_error, missing, plus_minus, read
from .settings import SETTINGS

FIRST = ("mtl", "default", "chance", "paper", "paper-chance", "hard")


def main() -> None:
    """Run what is missing and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", nargs="*", help=f"from {', '.join(SETTINGS)}; all by default")
    parser.add_argument("--methods", default=",".join(FIRST), help=f"from {', '.join(study_methods.names())}")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, help="the data set's own number by default")
    parser.add_argument("--table", action="store_true", help="print the tables only")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    chosen = arguments.settings or list(SETTINGS)
    if not arguments.table:
        for name in chosen:
            _run_missing(name, arguments.methods.split(","), arguments.seeds, arguments.epochs)
    for name in chosen:
        rows = read(_path(name))
        for epochs in sorted({row["epochs"] for row in rows}):
            print(f"\n{name}, {epochs} epochs\n\n{table([row for row in rows if row['epochs'] == epochs])}")


def _path(name: str) -> Path:
    return RESULTS / f"accuracy-{name}.jsonl"


def _run_missing(name: str, methods: Sequence[str], seeds: int, epochs: int | None) -> None:
    path = _path(name)
    epochs = epochs or SETTINGS[name].build(0).recipe.epochs
    wanted = [(method, seed, epochs) for seed in range(seeds) for method in methods]
    problems: dict[int, Problem] = {}
    for method, seed, _ in missing(read(path), wanted, ("method", "seed", "epochs")):
        if seed not in problems:
            problem = SETTINGS[name].build(seed)
            problems = {seed: replace(problem, recipe=replace(problem.recipe, epochs=epochs))}
        before = [row for row in finished(read(path)) if row["epochs"] == epochs]
        try:
            row = study_methods.run(problems[seed], method, seed, before)
            said = f"{row['mean_metric']:.4f}, {row['branches']} branches"
        except NonFiniteLoss as error:
            said = str(error)
            row = {"method": method, "seed": seed, "epochs": epochs, "diverged": said}
        append(path, {"setting": name, **row})
        print(f"{name} {method} seed {seed}: {said}", flush=True)


def table(rows: Sequence[Row]) -> str:
    """A line per method: mean metric, difference to MTL with the same seed, size, steps, convergence."""
    by_method: dict[str, dict[int, Row]] = {}
    for row in finished(rows):
        by_method.setdefault(row["method"], {})[row["seed"]] = row
    diverged = Counter(row["method"] for row in rows if "diverged" in row)
    ordered = [name for name in study_methods.names() if name in by_method or name in diverged]
    header = ["method", "seeds", "mean metric", "− MTL, same seed", "test loss", "branches", "branch parameters"]
    lines = (_line(name, by_method, diverged[name]) for name in ordered)
    return markdown([*header, "steps", "best epoch", "last quarter"], lines)


def _line(name: str, by_method: dict[str, dict[int, Row]], diverged: int) -> list[str]:
    if name not in by_method:
        return [name, f"0, {diverged} diverged", *["–"] * 8]
    rows, mtl = by_method[name], by_method.get("mtl", {})
    every = list(rows.values())
    differences = [row["mean_metric"] - mtl[seed]["mean_metric"] for seed, row in rows.items() if seed in mtl]
    shares = [row["branch_parameters"] / mtl[seed]["branch_parameters"] for seed, row in rows.items() if seed in mtl]
    best = [row["best_epoch"] for row in every if row["best_epoch"] is not None]
    return [
        name,
        f"{len(every)}" + (f", {diverged} diverged" if diverged else ""),
        plus_minus([row["mean_metric"] for row in every]),
        "–" if name == "mtl" or not differences else plus_minus(differences, sign="+"),
        plus_minus([row["test_loss"] for row in every]),
        "–" if name == "stl" else f"{mean_and_error(row['branches'] for row in every)[0]:.1f}",
        f"{100 * mean_and_error(shares)[0]:.0f} %" if shares else "–",
        f"{every[0]['steps']:,}",
        f"{mean_and_error(best)[0]:.0f} of {every[0]['epochs']}" if best else f"of {every[0]['epochs']}",
        f"{mean_and_error(map(_late_gain, every))[0]:+.4f}",
    ]


def _late_gain(row: Row) -> float:
    """How much the best validation metric rose in the last quarter of the epochs: small where it has converged."""
    values = row["curve"]["mean_metric"]
    cut = len(values) - max(len(values) // 4, 1)
    return max(values) - max(values[:cut])


if __name__ == "__main__":
    main()
