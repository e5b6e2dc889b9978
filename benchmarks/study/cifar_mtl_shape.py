"""The shape of SRDML's CIFAR-MTL on Fashion-MNIST: ten one-vs-rest tasks, 2,000 training images a class.

As there (Bai and Zhao, KDD 2022): every image is labelled for all tasks; accuracy and AUC on 10,000 test images, means
over the tasks; Adam, batches of 200; SRDML sets in after as many epochs of plain training as follow it, ω by Adam
at .001. Unlike there: Fashion-MNIST pooled to 14×14 pixels, a trunk of one layer, 196 → 128, in place of a
pretrained VGG-16, branches of 64; and the weights tested are those of the best validation epoch by AUC (5,000 images
of their own), where the released code reports the best test figure over its epochs.

- ``stl``: a network per task.
- ``mtl``: the trunk shared, a branch per task: the paper's hard sharing.
- ``hard``: one branch for all tasks too.
- ``similarity``: selective sharing as it comes, which groups the tasks.
- ``pcgrad``: as ``mtl``, the tasks' gradients of the trunk put together by TorchJD's PCGrad.
- ``srdml as released``: λ = .1 times the *sum* over the samples of a batch.
- ``srdml``, ``srdml+pcgrad``: :class:`~selshare.objectives.SaliencyRegularizer` as it comes, .1 times the mean.
- ``srdml .01``: with .01 times the mean.

    python -m benchmarks.study.cifar_mtl_shape     # trains what is not in the results yet; needs selshare[aggregators]
"""

from __future__ import annotations

import argparse
import functools
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from benchmarks.study.results import RESULTS, Row, append, markdown, mean_and_error, missing, read
from selshare import MultiTaskModel, SelectiveSharing, Task, Trainer
from selshare.data import load
from selshare.objectives import SaliencyRegularizer, TaskRelations
from selshare.objectives.saliency import Reduction
from selshare.sharing import MergePlan, apply
from selshare.tasks import TaskLayout
from selshare.training.metrics import mean_metric, score

SIZE, VALIDATION, EPOCHS, BATCH, RATE = 20_000, 5_000, 12, 200, 0.001
METHODS = ("stl", "mtl", "hard", "similarity", "pcgrad", "srdml as released", "srdml", "srdml .01", "srdml+pcgrad")
FILE = RESULTS / "cifar_mtl_shape.jsonl"
Split = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Data:
    """Images ``(N, 196)`` and labels ``(N, 10)``."""

    tasks: tuple[Task, ...]
    train: Split
    validation: Split
    test: Split


@functools.cache
def images(seed: int) -> Data:
    """The images that this seed draws."""
    problem = load("fashion-mnist", train_size=SIZE, validation_size=VALIDATION, seed=seed)

    def ready(data: Any) -> Split:
        pixels, labels = data.tensors
        return F.avg_pool2d(pixels, 2).flatten(1), labels

    tasks = tuple(replace(task, metric="auroc") for task in problem.tasks)
    return Data(tasks, ready(problem.train), ready(problem.validation), ready(problem.test))


def run(data: Data, method: str, seed: int, epochs: int = EPOCHS) -> Row:
    """Mean accuracy and AUC on the test images, and what SRDML has learned."""
    if method == "stl":
        parts = [_trained(_only(data, task), "mtl", seed, epochs) for task in range(len(data.tasks))]
        keys = ("accuracy", "auc", "best_epoch", "last_quarter")
        return {key: sum(part[key] for part in parts) / len(parts) for key in keys}
    return _trained(data, method, seed, epochs)


def _only(data: Data, task: int) -> Data:
    splits = ((inputs, labels[:, task : task + 1]) for inputs, labels in (data.train, data.validation, data.test))
    return Data((data.tasks[task],), *splits)


def _trained(data: Data, method: str, seed: int, epochs: int) -> Row:
    torch.manual_seed(seed)
    trunk = nn.Sequential(nn.Linear(196, 128), nn.ReLU())
    model = MultiTaskModel(trunk, 128, (64,), data.tasks)
    if method == "hard":
        apply(MergePlan(len(data.tasks), (tuple(range(len(data.tasks))),), (0,)), model)
    warmup = (epochs // 2) * (len(data.train[0]) // BATCH)
    saliency = None
    if method.startswith("srdml"):
        reduction: Reduction = "sum" if method == "srdml as released" else "mean"
        saliency = SaliencyRegularizer(
            data.tasks, strength=0.01 if method == "srdml .01" else 0.1, reduction=reduction, warmup=warmup
        )
    history = Trainer(
        model,
        functools.partial(torch.optim.Adam, lr=RATE),
        SelectiveSharing(seed=seed) if method == "similarity" else None,
        objectives=[] if saliency is None else [saliency],
        aggregator=_pcgrad() if method.endswith("pcgrad") else None,
        batch_size=BATCH,
        seed=seed,
        select_by="metric",
        progress=False,
    ).fit(data.train, data.validation, epochs)
    curve = [record.mean_metric for record in history.epochs if record.mean_metric is not None]
    row: Row = {
        **_tested(model, data.test),
        "best_epoch": history.best_epoch,
        "last_quarter": max(curve) - max(curve[: 3 * epochs // 4]),
        "branches": model.bank.branches,
        "curve": curve,
    }
    return row if saliency is None else row | {"relations": _strongest(saliency.relations())}


def _pcgrad() -> Any:
    from torchjd.aggregation import PCGrad  # an optional extra, and only two of the methods need it

    return PCGrad()


@torch.no_grad()
def _tested(model: MultiTaskModel, test: Split) -> dict[str, float]:
    model.eval()
    outputs = model(test[0])
    found = {}
    for key, metric in (("accuracy", "accuracy"), ("auc", "auroc")):
        layout = TaskLayout([replace(task, metric=metric) for task in model.tasks])
        found[key] = mean_metric(layout, score(layout, outputs, test[1]))
    return found


def _strongest(relations: TaskRelations) -> list[list[str | float]]:
    """The ten pairs tied most."""
    return [list(pair) for pair in relations.strongest(10)]


def table() -> str:
    """Mean ± standard error over seeds, and the difference to MTL with the same seed."""
    rows = read(FILE)
    by_method = {method: {row["seed"]: row for row in rows if row["method"] == method} for method in METHODS}
    lines = []
    for method, own in by_method.items():
        if not own:
            continue
        cells = [method, str(len(own))]
        for key in ("accuracy", "auc"):
            cells.append(_percent(*mean_and_error(row[key] for row in own.values())))
            shared = own.keys() & by_method["mtl"].keys()
            differences = [own[seed][key] - by_method["mtl"][seed][key] for seed in sorted(shared)]
            cells.append(_percent(*mean_and_error(differences), signed=True) if method != "mtl" and shared else "–")
        cells.append(f"{mean_and_error(row['best_epoch'] for row in own.values())[0]:.0f} of {EPOCHS}")
        cells.append(f"{100 * mean_and_error(row['last_quarter'] for row in own.values())[0]:+.2f}")
        lines.append(cells)
    return markdown(
        ["method", "seeds", "accuracy, %", "− MTL", "AUC, %", "− MTL", "best epoch", "AUC in the last quarter"], lines
    )


def _percent(mean: float, error: float, *, signed: bool = False) -> str:
    return f"{100 * mean:{'+' if signed else ''}.2f} ± {100 * error:.2f}"


def main() -> None:
    """Train what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--table", action="store_true", help="train nothing")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    wanted = [(method, seed) for seed in range(arguments.seeds) for method in arguments.methods.split(",")]
    if not arguments.table:
        for method, seed in missing(read(FILE), wanted, ("method", "seed")):
            row = run(images(seed), method, seed)
            append(FILE, {"method": method, "seed": seed, **row})
            print(method, seed, f"accuracy {row['accuracy']:.4f}, AUC {row['auc']:.4f}", flush=True)
    print(table())


if __name__ == "__main__":
    main()
