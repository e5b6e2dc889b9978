"""Tasks on disjoint halves of the images: what plain multi-task training does to them, and what matching does about it.

Each image is labelled for its class only, or for the other tasks only: Fashion-MNIST's classes and six attributes
that follow from them; a letter's script, of 24, and that script's line of descent and type. Of 1,000 images, one part
is labelled for the class and the rest for the other tasks, from 1:1 to 50:1, either of the two being scarce.

- ``stl``: a network per task, on the images labelled for it, repeated to 1,000 so that all take the same steps.
- ``mtl``: all tasks, one :class:`~selshare.data.TaskMixture`.
- ``published``: distribution matching and soft co-annotation to the letter, unit weights.
- ``default``: both as selshare has them.
- ``no co-annotation``, ``no matching``: the default with one of the two alone.
- ``likelihood``: the published form with co-annotation by the likelihood of labels.

The relation tables are known. All networks: 196 → 128 trunk on images pooled to 14×14, branches of 64, Adam from .004
down to 0 by a cosine, batches of 100, until the curves are flat: 40 epochs for Fashion-MNIST, 80 for the letters (the
rows hold the test metrics at three quarters of them too). The last weights are tested. Metrics: accuracy (multilabel:
mean over the labels). The default was chosen on seeds 0 to 2 of Fashion-MNIST; the rows are of seeds 5 to 9.

    python -m benchmarks.study.disjoint_labels     # trains what is not in the results yet, takes 25 minutes on a core
    python -m benchmarks.study.disjoint_labels --table
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from benchmarks.study.results import RESULTS, append, markdown, mean_and_error, missing, read
from selshare import MultiTaskModel, Task, Trainer
from selshare.data import TaskMixture, load
from selshare.data.fashion_mnist import CLASSES
from selshare.data.writing_systems import writing_systems
from selshare.objectives import DistributionMatching, Objective, SoftCoAnnotation
from selshare.objectives.distribution_matching import Evidence
from selshare.optim import BankAdam
from selshare.training.evaluation import evaluate
from selshare.training.history import EpochRecord

TRAIN, TEST, BATCH, RATE = 1_000, 3_000, 100, 0.004
EPOCHS = {"fashion": 40, "glyphs": 80}
RATIOS = ("50:1", "20:1", "5:1", "1:1", "1:5", "1:20", "1:50")  # labelled for the class : for the others
METHODS = ("stl", "mtl", "published", "default")
ABLATIONS = ("likelihood", "no co-annotation", "no matching")
ABLATED = ("20:1", "1:1", "1:20")
FIRST_SEED = 5
ATTRIBUTES = {
    "footwear": ("sandal", "sneaker", "ankle boot"),
    "upper body": ("t-shirt", "pullover", "dress", "coat", "shirt"),
    "long sleeves": ("pullover", "coat", "shirt"),
    "front opening": ("coat", "shirt"),
    "covers the legs": ("trouser", "dress"),
    "bare skin": ("t-shirt", "dress", "sandal"),
}
FILE = RESULTS / "disjoint_labels.jsonl"
KEYS = ("data", "ratio", "method", "seed")
Metrics = dict[str, float]


@dataclass(frozen=True)
class Setting:
    """Images, all labels of the source (the first task) and of the targets, and the relation of each target."""

    tasks: tuple[Task, ...]
    train: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    tables: dict[str, Tensor]


@functools.cache
def fashion(seed: int) -> Setting:
    problem = load("fashion-mnist", train_size=TRAIN, validation_size=TEST, seed=seed)
    table = torch.tensor([[float(name in having) for having in ATTRIBUTES.values()] for name in CLASSES])

    def ready(data: object) -> tuple[Tensor, Tensor]:
        images, one_hot = data.tensors  # type: ignore[attr-defined]
        classes = one_hot.argmax(1)
        return F.avg_pool2d(images, 2).flatten(1), torch.cat([classes[:, None].float(), table[classes]], dim=1)

    tasks = (
        Task.multiclass("class", classes=len(CLASSES)),
        Task.multilabel("attributes", labels=len(ATTRIBUTES), metric="accuracy"),
    )
    return Setting(tasks, ready(problem.train), ready(problem.validation), {"attributes": table})


@functools.cache
def glyphs(seed: int) -> Setting:
    names = [system.name for system in writing_systems()][:48:2]
    problem = load("glyphs", systems=names, letters=12, renderings=16, train_size=TRAIN, seed=seed)
    tasks = problem.tasks[:3]  # script, descent, type

    def ready(data: object) -> tuple[Tensor, Tensor]:
        images, targets = data.tensors  # type: ignore[attr-defined]
        return F.avg_pool2d(images, 2).flatten(1), targets[:, :3]

    (images, labels), test = ready(problem.train), ready(problem.test)
    shuffled = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))  # they come by letter
    train = images[shuffled], labels[shuffled]
    known = torch.zeros(tasks[0].outputs, 2)
    known[train[1][:, 0].long()] = train[1][:, 1:]
    tables = {task.name: F.one_hot(known[:, k].long(), task.outputs).double() for k, task in enumerate(tasks[1:])}
    return Setting(tasks, train, test, tables)


SETTINGS = {"fashion": fashion, "glyphs": glyphs}


def halves(setting: Setting, ratio: str) -> dict[str | tuple[str, ...], tuple[Tensor, Tensor]]:
    """The images labelled for the class, and those labelled for the others."""
    inputs, targets = setting.train
    of_class, of_others = map(int, ratio.split(":"))
    cut = round(len(inputs) * of_class / (of_class + of_others))
    source, others = setting.tasks[0].name, tuple(task.name for task in setting.tasks[1:])
    return {source: (inputs[:cut], targets[:cut, 0]), others: (inputs[cut:], targets[cut:, 1:])}


def trained(
    tasks: tuple[Task, ...],
    data: TaskMixture | tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    objectives: list[Objective],
    seed: int,
    epochs: int,
) -> list[Metrics]:
    """The test metrics after three quarters of the epochs and after all."""
    torch.manual_seed(seed)
    trunk = nn.Sequential(nn.Linear(196, 128), nn.ReLU())
    model = MultiTaskModel(trunk, 128, (64,), tasks)
    optimizer = BankAdam(model.parameters(), lr=RATE)
    found: list[Metrics] = []

    def look(record: EpochRecord) -> None:
        if record.epoch in (epochs * 3 // 4, epochs):
            found.append(evaluate(model, test).metrics)

    Trainer(
        model,
        optimizer,
        objectives=objectives,
        scheduler=torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs),
        batch_size=BATCH,
        seed=seed,
        callbacks=[look],
        progress=False,
    ).fit(data, epochs=epochs)
    return found


def objectives_of(method: str, setting: Setting) -> list[Objective]:
    """The terms of every relation."""
    source = setting.tasks[0].name
    made: list[Objective] = []
    for target, table in setting.tables.items():
        if method in ("published", "likelihood"):
            made.append(DistributionMatching(source, target, table, samples="all", weighting="mean", use_labels=False))
            evidence: Evidence = "share" if method == "published" else "likelihood"
            made.append(
                SoftCoAnnotation(
                    source, target, table, samples="all", weighting="mean", evidence=evidence, temperature=1.0
                )
            )
        if method in ("default", "no co-annotation"):
            made.append(DistributionMatching(source, target, table))
        if method in ("default", "no matching"):
            made.append(SoftCoAnnotation(source, target, table))
    return made


def run(setting: Setting, ratio: str, method: str, seed: int, epochs: int) -> list[Metrics]:
    """The test metric of each task, after three quarters of the epochs and after all."""
    parts = halves(setting, ratio)
    inputs, targets = setting.test
    if method != "stl":
        mixture = TaskMixture(setting.tasks, parts)
        return trained(setting.tasks, mixture, setting.test, objectives_of(method, setting), seed, epochs)
    metrics: list[Metrics] = [{}, {}]
    columns = iter(targets.split([task.targets for task in setting.tasks], dim=1))
    for task, (images, labels) in _single(setting, parts):
        times = max(1, round(TRAIN / len(images)))
        own = (images.repeat(times, 1), labels.repeat(times, *[1] * (labels.ndim - 1)))
        data = (own[0], own[1].reshape(len(own[0]), -1))
        found = trained((task,), data, (inputs, next(columns)), [], seed, epochs)
        metrics = [before | after for before, after in zip(metrics, found, strict=True)]
    return metrics


def _single(setting: Setting, parts: dict) -> Iterator[tuple[Task, tuple[Tensor, Tensor]]]:
    """Each task with the images and labels that are its own."""
    (own, others) = parts.values()
    yield setting.tasks[0], own
    widths = [task.targets for task in setting.tasks[1:]]
    for task, labels in zip(setting.tasks[1:], others[1].split(widths, dim=1), strict=True):
        yield task, (others[0], labels)


def methods(data: str, ratio: str) -> tuple[str, ...]:
    """What is trained: the ablations on Fashion-MNIST only, the published form of the letters at three ratios."""
    if data == "fashion":
        return (*METHODS, *(ABLATIONS if ratio in ABLATED else ()))
    return METHODS if ratio in ABLATED else tuple(name for name in METHODS if name != "published")


def table(data: str, columns: Sequence[str], ratios: Sequence[str] = RATIOS) -> str:
    """Mean accuracies by ratio, and the difference to single tasks with the same seed ± its standard error."""
    rows = [row for row in read(FILE) if row["data"] == data]
    lines = []
    for ratio in ratios:
        for task in next((list(row["metrics"]) for row in rows), []):
            values = {
                method: {r["seed"]: r["metrics"][task] for r in rows if (r["ratio"], r["method"]) == (ratio, method)}
                for method in ("stl", *columns)
            }
            if values["stl"]:
                lines.append([ratio, task, _mean(values["stl"]), *(_cell(values[name], values) for name in columns)])
    return markdown(["class : others", "task", "stl", *columns], lines)


def _mean(values: Mapping[int, float]) -> str:
    mean, error = mean_and_error(values.values())
    return f"{mean:.3f} ± {error:.3f}"


def _cell(own: Mapping[int, float], values: Mapping[str, Mapping[int, float]]) -> str:
    """Mean, and the difference to STL; marked where that is below 0 by more than its standard error."""
    seeds = sorted(own.keys() & values["stl"].keys())
    if not seeds:
        return "–"
    difference, error = mean_and_error(own[seed] - values["stl"][seed] for seed in seeds)
    mean, _ = mean_and_error(own.values())
    if len(seeds) == 1:
        return f"{mean:.3f} ({difference:+.3f}, one seed)"
    return f"{mean:.3f} ({difference:+.3f} ± {error:.3f}){' ▼' if difference < -error else ''}"


def tables() -> str:
    """All tables."""
    parts = [f"{data}:\n\n{table(data, METHODS[1:])}" for data in SETTINGS]
    ablation = table("fashion", ("published", "likelihood", "no co-annotation", "no matching", "default"), ABLATED)
    return "\n\n".join([*parts, f"fashion, one change at a time:\n\n{ablation}"])


def main() -> None:
    """Train what is missing and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=FIRST_SEED)
    parser.add_argument("--data", default=",".join(SETTINGS))
    parser.add_argument("--table", action="store_true", help="train nothing")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    wanted = [
        (data, ratio, method, seed)
        for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds)
        for data in arguments.data.split(",")
        for ratio in RATIOS
        for method in methods(data, ratio)
    ]
    if not arguments.table:
        for data, ratio, method, seed in missing(read(FILE), wanted, KEYS):
            before, metrics = run(SETTINGS[data](seed), ratio, method, seed, EPOCHS[data])
            row = {"data": data, "ratio": ratio, "method": method, "seed": seed, "epochs": EPOCHS[data]}
            append(FILE, row | {"metrics": metrics, "at_three_quarters": before})
            print(*row.values(), {name: round(value, 4) for name, value in metrics.items()}, flush=True)
    print(tables())


if __name__ == "__main__":
    main()
