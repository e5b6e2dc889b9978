"""What is clustered: of which gradients are the groups made, and does it matter?

    python -m benchmarks.study.clustered fashion-2000 alphabets planted --seeds 5
    python -m benchmarks.study.clustered fashion-2000 --train 3     # and train with these groups, 3 seeds
    python -m benchmarks.study.clustered --table

Trains one epoch unmerged and groups its tasks by the criterion ``similarity`` from

- the gradients of the first layer, as the paper does, without what they have in common, and, as selshare does by
  default, without it where one group would hold more than half of the tasks;
- those of positive labels only, of negative labels only, or of both with equal weight (*balanced*);
- the gradients up to their sign: tasks count as near if they pull in the same or in opposite directions;
- the gradients of the branches' second layer;
- the first or the last quarter of the epoch's batches.

*planted* are 40 tasks in 5 groups of relatedness .5, where grouping is hard but not hopeless. ``--train`` gives groups
to ``SelectiveSharing``'s defaults in place of their own.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from sklearn.metrics import adjusted_rand_score
from torch import Tensor, nn

from selshare import SelectiveSharing
from selshare.data import Problem
from selshare.objectives import pack_targets, task_losses, weighted_sum
from selshare.sharing import ClusterSettings, embed
from selshare.sharing.criteria import cluster_branches, find_criterion
from selshare.sharing.grouping import noise_apart, one_holds_most
from selshare.training.batches import as_loader
from selshare.training.methods import build_model, make_optimizer

from . import methods as study_methods
from .planted import planted_groups, small_problem
from .results import RESULTS, Row, append, markdown, mean_and_error, missing, read
from .settings import SETTINGS

CENTRED = ", centred"
PLAIN = ("all", "positives", "negatives", "balanced", "either sign", "second layer", "first quarter", "last quarter")
DEFAULT = "all, centred where one group holds most"
WAYS = (*PLAIN, *(f"{way}{CENTRED}" for way in ("all", "positives", "balanced")), DEFAULT)
QUARTERS = {0: "first quarter", 3: "last quarter"}
EPOCHS = {"fashion-2000": 100, "alphabets": 40}
TRAINED = ("all", "positives", "balanced", f"all{CENTRED}")
PATH = RESULTS / "clustered.jsonl"


def main() -> None:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", nargs="*", help="fashion-2000, alphabets, planted; all by default")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--train", type=int, default=0, help="so many seeds")
    parser.add_argument("--ways", default=";".join(TRAINED), help="to train, separated by ';'")
    parser.add_argument("--table", action="store_true", help="print the table only")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for name in () if arguments.table else arguments.settings or [*EPOCHS, "planted"]:
        wanted = [(name, seed, way) for seed in range(arguments.seeds) for way in WAYS]
        for seed in dict.fromkeys(seed for _, seed, _ in missing(_rows(0), wanted, ("setting", "seed", "way"))):
            for row in groups(name, seed):
                append(PATH, row)
        if name in EPOCHS:
            _train(name, arguments.ways.split(";"), arguments.train)
    print(table(read(PATH)))


def groups(name: str, seed: int) -> list[Row]:
    """The groups of every way, after one epoch."""
    problem = _problem(name, seed, epochs=1)
    names, parts = [task.name for task in problem.tasks], gradients(problem, seed)
    rows = []
    for way in WAYS:
        labels = _labels(parts[way.partition(",")[0]], way, seed)
        if way == DEFAULT and one_holds_most(torch.from_numpy(labels)):
            labels = _labels(parts["all"], f"all{CENTRED}", seed)
        found = [[names[task] for task in np.flatnonzero(labels == label)] for label in sorted(set(labels) - {-1})]
        row: Row = {"setting": name, "seed": seed, "way": way, "epochs": 0, "groups": found}
        row["branches"] = len(found) + int((labels == -1).sum())
        if problem.groups is not None:
            row["adjusted_rand"] = float(adjusted_rand_score(planted_groups(problem), noise_apart(labels)))
        rows.append(row)
    return rows


def gradients(problem: Problem, seed: int) -> dict[str, Tensor]:
    """Sums over an epoch of ordinary training: a gradient ``(T, O, H)`` for every way."""
    model = build_model(problem, seed)
    optimizer = make_optimizer(problem.recipe)(model.parameters())
    first = model.bank.first_weight
    second = next(layer for layer in list(model.bank.stacked)[1:] if isinstance(layer, nn.Linear)).weight
    total: dict[str, Tensor] = {}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        order = torch.Generator().manual_seed(seed)
        loader = as_loader(problem.train, problem.recipe.batch_size, shuffle=True, generator=order)
        for step, (inputs, targets) in enumerate(loader):
            packed = pack_targets(model.layout, targets)
            outputs, kept = model(inputs), {}
            for way, shown in (("all", packed), ("positives", _only(packed, 1)), ("negatives", _only(packed, 0))):
                loss = weighted_sum(model.layout, task_losses(model.layout, outputs, shown))
                kept[way] = [g.detach().clone() for g in torch.autograd.grad(loss, (first, second), retain_graph=True)]
            seen = {way: pair[0] for way, pair in kept.items()}
            seen["balanced"] = seen["positives"] + seen["negatives"]
            seen["either sign"], seen["second layer"] = kept["all"]
            quarter = 4 * step // len(loader)
            seen |= {
                name: seen["all"] for name, place in (("first quarter", 0), ("last quarter", 3)) if place == quarter
            }
            for way, gradient in seen.items():
                total[way] = total.get(way, 0) + gradient
            optimizer.zero_grad()
            model.loss(model(inputs), targets).backward()
            optimizer.step()
    return total


def _only(packed: Tensor, label: int) -> Tensor:
    """Binary targets without those of the other class."""
    return packed.masked_fill(packed != label, torch.nan)


def _labels(gradient: Tensor, way: str, seed: int) -> np.ndarray:
    """A cluster for each task, −1 for none."""
    embedding = embed(gradient, relative_error=1e-2, max_rank=256, centre=way.endswith(CENTRED))
    if way == "either sign":  # of unit vectors a and −a the outer products are the same
        rows = embedding.rows
        embedding = replace(embedding, rows=(rows.unsqueeze(2) * rows.unsqueeze(1)).flatten(1))
    told = ClusterSettings(min_cluster_size=2, min_samples=1, cluster_selection_method="eom", seed=seed, epoch=1)
    labels, _ = cluster_branches(find_criterion("similarity")[1], embedding, len(gradient), told)
    return labels.numpy()


def _problem(name: str, seed: int, epochs: int) -> Problem:
    if name == "planted":
        return small_problem(0.5, seed, epochs)
    problem = SETTINGS[name].build(seed)
    return replace(problem, recipe=replace(problem.recipe, epochs=epochs))


def _rows(epochs: int) -> list[Row]:
    return [row for row in read(PATH) if row["epochs"] == epochs]


def _train(name: str, ways: Sequence[str], seeds: int) -> None:
    """Train with the groups found."""
    epochs = EPOCHS[name]
    wanted = [(name, seed, way) for seed in range(seeds) for way in ways]
    for _, seed, way in missing(_rows(epochs), wanted, ("setting", "seed", "way")):
        found = next(r for r in _rows(0) if (r["setting"], r["seed"], r["way"]) == (name, seed, way))["groups"]
        problem = _problem(name, seed, epochs)
        model = build_model(problem, seed)
        index = {task: number for number, task in enumerate(model.layout.names)}
        given = study_methods.FixedGroups(model, [(1, [[index[task] for task in group] for group in found])])
        history, seconds = study_methods.fit(problem, model, SelectiveSharing(given, capture="free", seed=seed), seed)
        row = study_methods.row_of(problem, way, seed, model, history, seconds)
        append(PATH, {"setting": name, "way": way, **{k: v for k, v in row.items() if k not in ("curve", "method")}})
        print(f"{name}, {way}, seed {seed}: {row['mean_metric']:.4f}, {row['branches']} branches", flush=True)


def table(rows: Sequence[Row]) -> str:
    """A line per setting and way: branches, how true or how alike over seeds, and what training makes of them."""
    lines = []
    for name, way in itertools.product(dict.fromkeys(row["setting"] for row in rows), WAYS):
        own = [row for row in rows if (row["setting"], row["way"]) == (name, way)]
        found = [row for row in own if row["epochs"] == 0]
        trained = [row["mean_metric"] for row in own if row["epochs"] > 0]
        if found:
            rand = [row["adjusted_rand"] for row in found if "adjusted_rand" in row] or _pairwise(found)
            largest = [max(map(len, row["groups"]), default=1) for row in found]
            shown = [_figure([row["branches"] for row in found], 1), _figure(largest, 1), _figure(rand, 2)]
            lines.append([name, way, str(len(found)), *shown, _figure(trained, 4), str(len(trained) or "–")])
    header = ["data", "gradients", "seeds", "branches", "largest group", "ARI", "mean metric", "seeds trained"]
    return markdown(header, lines)


def _pairwise(rows: Sequence[Row]) -> list[float]:
    """For each seed the mean adjusted Rand index between its groups and the other seeds'."""
    tasks = sorted({task for row in rows for group in row["groups"] for task in group})
    labels = []
    for row in rows:
        of = {task: number for number, group in enumerate(row["groups"]) for task in group}
        labels.append([of.get(task, -1 - place) for place, task in enumerate(tasks)])
    return [
        float(np.mean([adjusted_rand_score(one, other) for j, other in enumerate(labels) if j != i]))
        for i, one in enumerate(labels)
        if len(labels) > 1
    ]


def _figure(values: Sequence[float], digits: int) -> str:
    if not values:
        return "–"
    mean, error = mean_and_error(values)
    return f"{mean:.{digits}f}" + (f" ± {error:.{digits}f}" if len(values) > 1 else "")


if __name__ == "__main__":
    main()
