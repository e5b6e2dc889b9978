"""Activation regions of tasks and groups: do tasks that share a branch look at the same places?

    python -m benchmarks.study.regions --seeds 5

Trains Fashion-MNIST with the paper's convolutional trunk, unmerged and merged, and measures how much the regions of
pairs of tasks overlap (see ``selshare.report.activation_regions``): within the groups that were found, and in random
pairs. In the merged model a group's tasks share a branch, which alone makes them look alike; the unmerged model, asked
about the same groups, does not have that excuse. Seed 0's figure is written to ``docs/images/regions.svg``.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import torch

from selshare import MultiTaskModel, SelectiveSharing
from selshare.data import Problem, Recipe, load
from selshare.report.activation_regions import activation_regions, group_overlap
from selshare.report.figures import regions_figure
from selshare.training.methods import build_model

from . import methods as study_methods
from .results import RESULTS, Row, append, markdown, mean_and_error, missing, read
from .standalone import standalone

IMAGES = 200
FIGURE = Path(__file__).parents[2] / "docs" / "images" / "regions.svg"
MODELS = ("merged", "unmerged")


def main() -> None:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--table", action="store_true", help="print the table only")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    path = RESULTS / "regions.jsonl"
    if not arguments.table:
        for (seed,) in missing(read(path), [(seed,) for seed in range(arguments.seeds)], ("seed",)):
            row = run(seed, arguments.epochs)
            append(path, row)
            print({key: row[key] for key in ("seed", *MODELS)}, flush=True)
    print(table(read(path)))


def run(seed: int, epochs: int) -> Row:
    """One merged and one unmerged model of the same weights, and their overlaps."""
    problem = load("fashion-mnist", trunk="cnn", train_size=2_000, validation_size=1_000, seed=seed)
    problem = replace(problem, recipe=Recipe(epochs=epochs))
    merged, unmerged = build_model(problem, seed), build_model(problem, seed)
    sharing = SelectiveSharing(preset="paper", capture="free", seed=seed)
    study_methods.fit(problem, merged, sharing, seed)
    study_methods.fit(problem, unmerged, None, seed)
    names = merged.layout.names
    groups = [[names[task] for task in members] for members in merged.tasks_by_branch() if len(members) > 1]
    row: Row = {"seed": seed, "epochs": epochs, "groups": groups}
    for name, model in zip(MODELS, (merged, unmerged), strict=True):
        row[name] = _overlap(problem, model, groups, FIGURE if (seed, name) == (0, "merged") else None)
    return row


def _overlap(problem: Problem, model: MultiTaskModel, groups: list[list[str]], figure: Path | None) -> dict[str, float]:
    inputs, targets = problem.test[:IMAGES]
    regions = activation_regions(model, inputs, targets)
    if figure is not None:
        figure.parent.mkdir(parents=True, exist_ok=True)
        figure.write_text(standalone(regions_figure(regions, groups)), encoding="utf-8")
    found = group_overlap(regions, groups)
    assert found is not None, "nothing merged"
    return {"within": found.within, "random": found.random, "as_high": found.as_high}


def table(rows: list[Row]) -> str:
    """A line per model."""
    lines = []
    for name in MODELS if rows else ():
        within, random, as_high = ([row[name][key] for row in rows] for key in ("within", "random", "as_high"))
        figures = [
            f"{mean:.3f} ± {error:.3f}".removesuffix(" ± nan") for mean, error in map(mean_and_error, (within, random))
        ]
        lines.append([name, str(len(rows)), *figures, f"{100 * mean_and_error(as_high)[0]:.0f} %"])
    header = ["model", "seeds", "overlap within groups", "of random pairs", "random groups that overlap as much"]
    return markdown(header, lines)


if __name__ == "__main__":
    main()
