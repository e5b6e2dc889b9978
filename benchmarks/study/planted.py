"""Planted groups: are they found, and what are they worth?

    python -m benchmarks.study.planted scale          # ARI, test loss and size at 200 and 1,000 tasks, with the oracle
    python -m benchmarks.study.planted relatedness    # ARI against relatedness, six ways to group
    python -m benchmarks.study.planted --table

*scale* trains on the planted tasks of ``selshare.data.synthetic`` (every seed draws them anew), unmerged and merged.
*relatedness* trains one epoch unmerged and groups the tasks by

- HDBSCAN on the embeddings of the epoch's gradients, as they are, without what they have in common, and as selshare
  does by default: without it where one group would hold more than half of the tasks;
- k-means and agglomerative clustering (average linkage) on the same embeddings, told the number of groups;
- TAG (Fifty et al., NeurIPS 2021): affinity of task i to task j = ``1 − L_j(after a step of i on the shared
  parameters) / L_j(before)``, averaged over the epoch, then agglomerative clustering of the symmetrised affinities,
  told the number of groups. (TAG's own group search is exponential in the number of tasks.)

With the identity as its trunk the planted model shares nothing below the branches and TAG has nothing to look at, so
the *relatedness* study gives it a trunk: one layer of as many units, the same for every way to group. It is kept to
few tasks because TAG costs tasks² losses a step.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.cluster import AgglomerativeClustering, KMeans
from sklearn.metrics import adjusted_rand_score
from torch import nn
from torch.func import functional_call

from selshare import SelectiveSharing
from selshare.data import Problem, Recipe, load
from selshare.objectives import pack_targets, task_losses
from selshare.sharing.grouping import noise_apart
from selshare.training.batches import as_loader
from selshare.training.methods import build_model, make_optimizer, make_trainer

from . import methods as study_methods
from .results import RESULTS, Row, append, markdown, mean_and_error, missing, plus_minus, read

SCALE = {"200 tasks in 10": (200, 10, 2_000), "1,000 tasks in 50": (1_000, 50, 2_000)}
SCALE_METHODS = ("mtl", "default", "oracle", "chance", "paper", "paper-chance", "hard")
EPOCHS = 90
RELATEDNESS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
TASKS, GROUPS, SAMPLES, FEATURES = 40, 5, 2_000, 32
OURS: dict[str, bool | str] = {"HDBSCAN (ours)": False, "by default": "auto", "centred": True}
WAYS = (*OURS, "k-means", "agglomerative", "TAG")


def main() -> None:
    """Run what is missing and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("studies", nargs="*", help="scale, relatedness; both by default")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--methods", default=",".join(SCALE_METHODS), help="of scale")
    parser.add_argument("--sizes", default=";".join(SCALE), help=f"of scale, from {'; '.join(SCALE)}")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="of scale; kept apart from runs of another number")
    parser.add_argument("--table", action="store_true", help="print the tables only")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    chosen = arguments.studies or ["scale", "relatedness"]
    if not arguments.table:
        if "scale" in chosen:
            run_scale(arguments.sizes.split(";"), arguments.methods.split(","), arguments.seeds, arguments.epochs)
        if "relatedness" in chosen:
            run_relatedness(arguments.seeds)
    print(f"\n{scale_table(read(RESULTS / 'planted-scale.jsonl'))}\n")
    print(f"\n{relatedness_table(read(RESULTS / 'planted-relatedness.jsonl'))}")


def run_scale(sizes: Sequence[str], methods: Sequence[str], seeds: int, epochs: int) -> None:
    """Train what is missing."""
    path = RESULTS / "planted-scale.jsonl"
    wanted = [(size, method, seed, epochs) for size in sizes for seed in range(seeds) for method in methods]
    for size, method, seed, _ in missing(read(path), wanted, ("setting", "method", "seed", "epochs")):
        tasks, groups, samples = SCALE[size]
        problem = load("synthetic", tasks=tasks, groups=groups, samples=samples, seed=seed)
        problem = replace(problem, recipe=replace(problem.recipe, epochs=epochs))
        rows = [row for row in read(path) if (row["setting"], row["epochs"]) == (size, epochs)]
        row = study_methods.run(problem, method, seed, rows)
        row["adjusted_rand"] = _agreement(problem, row)
        del row["metrics"]  # of a thousand tasks
        append(path, {"setting": size, **row})
        print(f"{size}, {method}, seed {seed}: loss {row['test_loss'] / tasks:.4f}, {row['branches']}", flush=True)


def run_relatedness(seeds: int) -> None:
    """Group what is missing."""
    path = RESULTS / "planted-relatedness.jsonl"
    wanted = [(relatedness, seed) for seed in range(seeds) for relatedness in RELATEDNESS]
    for relatedness, seed in missing(read(path), wanted, ("relatedness", "seed")):
        row = {"relatedness": relatedness, "seed": seed, "agreement": agreements(relatedness, seed)}
        append(path, row)
        print(row, flush=True)


def agreements(relatedness: float, seed: int) -> dict[str, float]:
    """The adjusted Rand index of each way to group, after one epoch unmerged."""
    problem = small_problem(relatedness, seed, epochs=1)
    truth = planted_groups(problem)
    rows, _ = _embedding(problem, seed, centre=False)
    affinity = tag_affinities(problem, seed)
    distance = affinity.max() - (affinity + affinity.T) / 2
    np.fill_diagonal(distance, 0)
    found = {
        **{way: _embedding(problem, seed, centre)[1] for way, centre in OURS.items()},
        "k-means": KMeans(GROUPS, n_init=10, random_state=seed).fit_predict(rows),
        "agglomerative": AgglomerativeClustering(GROUPS, linkage="average").fit_predict(rows),
        "TAG": AgglomerativeClustering(GROUPS, metric="precomputed", linkage="average").fit_predict(distance),
    }
    return {way: float(adjusted_rand_score(truth, labels)) for way, labels in found.items()}


def small_problem(relatedness: float, seed: int, epochs: int) -> Problem:
    """Forty tasks in five groups behind a trunk of one layer."""
    size = {"tasks": TASKS, "groups": GROUPS, "samples": SAMPLES, "features": FEATURES}
    problem = load("synthetic", relatedness=relatedness, seed=seed, **size)
    return replace(problem, make_trunk=dense_trunk, recipe=Recipe(epochs=epochs))


def dense_trunk() -> nn.Sequential:
    """One layer of as many units as there are features."""
    return nn.Sequential(nn.Linear(FEATURES, FEATURES), nn.ReLU())


def _embedding(problem: Problem, seed: int, centre: bool | str) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The embeddings of one epoch, and HDBSCAN's groups: noise is a group of its own for each."""
    sharing = SelectiveSharing(preset="paper", warmup=1, capture="free", seed=seed, centre=centre)
    model = build_model(problem, seed)
    make_trainer(problem, model, sharing, seed=seed, progress=False).fit(problem.train, epochs=1)
    event = sharing.events[0]
    assert event.embedding is not None
    return event.embedding.double().numpy(), noise_apart(event.labels)


def tag_affinities(problem: Problem, seed: int) -> NDArray[np.float64]:
    """TAG's affinities ``(T, T)``, row i: what a step of task i on the trunk does to the others' losses.

    Averaged over the steps of one epoch of ordinary training. All look-aheads of a step are one vectorised forward.
    """
    model = build_model(problem, seed)
    optimizer = make_optimizer(problem.recipe)(model.parameters())
    names = [name for name, _ in model.trunk.named_parameters()]
    total = torch.zeros(len(model.tasks), len(model.tasks), dtype=torch.float64)
    steps = 0
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        order = torch.Generator().manual_seed(seed)
        for inputs, targets in as_loader(problem.train, problem.recipe.batch_size, shuffle=True, generator=order):
            packed = pack_targets(model.layout, targets)
            parameters = [dict(model.trunk.named_parameters())[name] for name in names]
            losses = task_losses(model.layout, model(inputs), packed).values
            gradients = [torch.autograd.grad(loss, parameters, retain_graph=True) for loss in losses]
            before = losses.detach()
            for task, gradient in enumerate(gradients):
                stepped = {
                    name: value.detach() - problem.recipe.lr * change
                    for name, value, change in zip(names, parameters, gradient, strict=True)
                }
                with torch.no_grad():
                    shared = functional_call(model.trunk, stepped, (inputs,))
                    after = task_losses(model.layout, model.outputs_from(shared), packed).values
                total[task] += 1 - after.double() / before.double()
            optimizer.zero_grad()
            model.loss(model(inputs), targets).backward()
            optimizer.step()
            steps += 1
    return (total / steps).numpy()


def planted_groups(problem: Problem) -> list[int]:
    """The planted group of each task."""
    assert problem.groups is not None
    group_of = {name: number for number, group in enumerate(problem.groups) for name in group}
    return [group_of[task.name] for task in problem.tasks]


def _agreement(problem: Problem, row: Row) -> float:
    """The adjusted Rand index of a run's final groups."""
    branch = {name: number for number, group in enumerate(row["groups"]) for name in group}
    found = [branch.get(task.name, len(branch) + place) for place, task in enumerate(problem.tasks)]
    return float(adjusted_rand_score(planted_groups(problem), found))


def scale_table(rows: Sequence[Row]) -> str:
    """A line per size and method."""
    lines = []
    for size, epochs in dict.fromkeys((row["setting"], row["epochs"]) for row in rows):
        tasks = SCALE[size][0]
        of_size = [row for row in rows if (row["setting"], row["epochs"]) == (size, epochs)]
        mtl = {row["seed"]: row for row in of_size if row["method"] == "mtl"}
        for method in [name for name in study_methods.names() if any(row["method"] == name for row in of_size)]:
            own = [row for row in of_size if row["method"] == method]
            paired = [row for row in own if row["seed"] in mtl]
            less = [(row["test_loss"] - mtl[row["seed"]]["test_loss"]) / tasks for row in paired]
            share = [row["branch_parameters"] / mtl[row["seed"]]["branch_parameters"] for row in paired]
            lines.append(
                [
                    size,
                    method,
                    str(len(own)),
                    "–" if method in ("mtl", "hard") else plus_minus([row["adjusted_rand"] for row in own]),
                    plus_minus([row["test_loss"] / tasks for row in own]),
                    "–" if method == "mtl" or not less else plus_minus(less, "+"),
                    f"{mean_and_error(row['branches'] for row in own)[0]:.1f}",
                    f"{100 * mean_and_error(share)[0]:.1f} %" if share else "–",
                    f"{own[0]['steps']:,}",
                    f"{mean_and_error(row['best_epoch'] for row in own)[0]:.0f} of {own[0]['epochs']}",
                ]
            )
    header = ["tasks", "method", "seeds", "ARI", "test loss per task", "− MTL, same seed", "branches"]
    return markdown([*header, "branch parameters", "steps", "best epoch"], lines)


def relatedness_table(rows: Sequence[Row]) -> str:
    """A line per relatedness, a column per way to group."""
    lines = []
    for relatedness in sorted({row["relatedness"] for row in rows}):
        own = [row["agreement"] for row in rows if row["relatedness"] == relatedness]
        figures = [plus_minus([agreement[way] for agreement in own], digits=2) for way in WAYS]
        lines.append([f"{relatedness:g}", str(len(own)), *figures])
    return markdown(["relatedness", "seeds", *WAYS], lines)


if __name__ == "__main__":
    main()
