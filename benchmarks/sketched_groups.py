"""Does a sketch find the groups that whole gradients find? ``python -m benchmarks.sketched_groups [--seeds 10]``.

For each data set and seed one epoch is trained, its gradients captured whole and as random projections of several
sizes at once, and as ``SelectiveSharing(capture="sketch")`` captures them. Each capture is embedded and clustered by
the similarity criterion, and the labels are compared.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from sklearn.metrics import adjusted_rand_score
from torch import Tensor
from torch.utils.data import DataLoader

from selshare.data import Problem, load
from selshare.sharing import Capture, GradientCapture, SelectiveSharing, SketchedCapture, embed
from selshare.sharing.capture import make_capture
from selshare.sharing.criteria import ClusterSettings, cluster_branches, similarity
from selshare.training.methods import build_model, make_optimizer

DATA: dict[str, tuple[str, dict[str, Any]]] = {
    "planted, 200 tasks in 10 groups": ("synthetic", {"tasks": 200, "groups": 10}),
    "planted, 500 tasks in 25 groups": ("synthetic", {"tasks": 500, "groups": 25}),
    "planted, 500 tasks in 25 groups, 300 features": ("synthetic", {"tasks": 500, "groups": 25, "features": 300}),
    "Fashion-MNIST, 20,000 images": ("fashion-mnist", {"train_size": 20_000}),
}
FOOTWEAR = {"sandal", "sneaker", "ankle boot"}  # the groups to find where there are no planted ones


def labels(gradients: Tensor, epoch_seed: int) -> list[int]:
    """A cluster per branch; those in none have a number of their own."""
    settings = ClusterSettings(
        min_cluster_size=2, min_samples=1, cluster_selection_method="eom", seed=epoch_seed, epoch=1
    )
    rows = embed(gradients, "joint", relative_error=1e-2, max_rank=256)
    found, _ = cluster_branches(similarity, rows, len(gradients), settings)
    return [label if label >= 0 else -1 - branch for branch, label in enumerate(found.tolist())]


WHOLE, DEFAULT = "all", 'capture="sketch"'


def captured(problem: Problem, seed: int, sizes: list[int]) -> dict[str, list[int]]:
    """Train an epoch; labels by what was captured. Sketches of more numbers than the gradient has are left out."""
    model = build_model(problem, seed)
    optimizer = make_optimizer(problem.recipe)(model.parameters())
    captures: dict[str, Capture] = {WHOLE: GradientCapture()}
    captures |= {f"{s:,}": SketchedCapture(s, seed) for s in sizes if s < model.bank.first_weight[0].numel()}
    captures[DEFAULT] = make_capture(SelectiveSharing(capture="sketch", seed=seed).settings)
    for capture in captures.values():
        capture.start(model, [optimizer])
    order = torch.Generator().manual_seed(seed)
    for inputs, targets in DataLoader(problem.train, problem.recipe.batch_size, shuffle=True, generator=order):
        optimizer.zero_grad()
        model.loss(model(inputs), targets).backward()
        optimizer.step()
    return {name: labels(capture.gradients(), seed) for name, capture in captures.items()}


def truth(problem: Problem) -> list[int]:
    """The planted group of each task, or whether it is footwear."""
    if problem.groups is None:
        return [int(task.name.lower() in FOOTWEAR) for task in problem.tasks]
    group_of = {name: number for number, group in enumerate(problem.groups) for name in group}
    return [group_of[task.name] for task in problem.tasks]


def found_groups(problem: Problem, found: list[int]) -> bool:
    """Whether every planted group, or footwear, is a cluster of its own."""
    clusters = [{t for t, label in enumerate(found) if label == number} for number in set(found)]
    true = truth(problem)
    wanted = [{t for t, label in enumerate(true) if label == number} for number in set(true)]
    return all(group in clusters for group in (wanted if problem.groups else wanted[1:]))


def measure(data: str, seeds: int, sizes: list[int]) -> list[dict[str, Any]]:
    """One row per capture: seeds on which the true groups were found, and the agreement with whole gradients."""
    name, options = DATA[data]
    rows: dict[str, dict[str, Any]] = {}
    for seed in range(seeds):
        problem = load(name, **options, **({"seed": seed} if name == "synthetic" else {}))
        by_capture = captured(problem, seed, sizes)
        for numbers, found in by_capture.items():
            row = {"data": data, "numbers": numbers, "found": 0, "same": 0, "seeds": seeds, "agreement": []}
            row = rows.setdefault(numbers, row)
            agreement = adjusted_rand_score(by_capture[WHOLE], found)
            row["found"] += found_groups(problem, found)
            row["same"] += agreement == 1.0
            row["agreement"].append(agreement)
    return list(rows.values())


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 4000, 16000])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print("| data | numbers a branch | true groups found | labels as from whole gradients | adjusted Rand, mean |")
    print("|---|---|---|---|---|")
    rows = []
    for data in DATA:
        for row in measure(data, arguments.seeds, arguments.sizes):
            rows.append(row)
            mean = sum(row["agreement"]) / len(row["agreement"])
            found, same = (f"{row[key]}/{row['seeds']}" for key in ("found", "same"))
            print(f"| {data} | {row['numbers']} | {found} | {same} | {mean:.3f} |", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
