"""Tasks, targets, losses and settings with whatever values: the definition's result, or the documented error."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from hostile import SEEDS, SPOILED_INTEGERS, SPOILED_NUMBERS, Case, fuzzed, run
from selshare import MultiTaskModel, SelectiveSharing, Task
from selshare.cluster import HDBSCAN
from selshare.objectives import pack_targets
from selshare.tasks import KINDS, LOSSES, METRICS, TaskLayout

DATA = st.data()
ANYTHING: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=4),
    st.just(torch.ones(2)),
    st.just(np.ones(2)),
    st.lists(st.integers(), max_size=2),
    st.just(object()),
    st.just(10**400),
    st.binary(max_size=2),
)
WRONG = ANYTHING.map(lambda value: ("something", value))


@fuzzed(60)
@given(DATA)
def test_tasks(data: st.DataObject) -> None:
    case = Case(data.draw)
    kind = case.draw(st.sampled_from(KINDS))
    width = case.draw(st.integers(2, 5)) if kind not in ("binary", "ranking") else 1
    arguments: dict[str, Any] = {
        "name": "task",
        "kind": kind,
        "outputs": width,
        "loss": case.draw(st.sampled_from(LOSSES[kind])),
        "metric": case.draw(st.sampled_from(METRICS[kind])),
        "weight": case.draw(st.floats(0, 10)),
    }
    spoiled = case.draw(st.sampled_from([*arguments, None]))
    for name in arguments:
        if name == spoiled:
            arguments[name] = case.draw(ANYTHING)
            case.spoiled = name
    task, done = run(case, lambda: Task(**arguments))
    if not done:
        return
    assert (
        Task.from_json(task.to_json()) == task if isinstance(task.loss, str) and isinstance(task.metric, str) else True
    )
    layout = TaskLayout([task])
    assert layout.output_width == task.outputs >= 1
    assert np.isfinite(task.weight)


@fuzzed()
@given(st.one_of(ANYTHING, st.lists(st.one_of(ANYTHING, st.just(Task.binary("a"))), max_size=3)))
def test_layouts_of_anything(tasks: Any) -> None:
    layout, done = run(Case(lambda _: None, "tasks"), lambda: TaskLayout(tasks))
    assert not done or layout.names == ("a",)


def some_tasks(case: Case) -> list[Task]:
    """A few tasks of different kinds."""
    makers = (
        lambda name: Task.binary(name),
        lambda name: Task.multiclass(name, classes=3),
        lambda name: Task.multilabel(name, labels=2),
        lambda name: Task.regression(name, outputs=2, loss="l1"),
        lambda name: Task.regression(name),
        lambda name: Task.ranking(name),
    )
    chosen = case.draw(st.lists(st.sampled_from(makers), min_size=1, max_size=6))
    return [maker(f"task {number}") for number, maker in enumerate(chosen)]


def right_targets(case: Case, task: Task, rows: int) -> tuple[Tensor, np.ndarray[Any, Any]]:
    """Targets of one task in some dtype, a fifth of them missing; and the same in float64."""
    rng = np.random.default_rng(case.draw(SEEDS))
    shape = (rows, task.targets)
    exact = rng.integers(0, task.classes, shape).astype(float) if task.classes else rng.normal(size=shape)
    exact[rng.random(shape) < 0.2] = np.nan
    dtypes = [torch.float32, torch.float64] + (
        [torch.int64, torch.int8, torch.bool, torch.float16] if task.classes else []
    )
    dtype = case.draw(st.sampled_from(dtypes))
    if dtype == torch.bool and task.classes == 2:
        exact = np.nan_to_num(exact)
        values = torch.from_numpy(exact).bool()
    elif dtype.is_floating_point:
        values = torch.from_numpy(exact).to(dtype)
        exact = values.double().numpy()
    else:
        values = torch.from_numpy(np.where(np.isnan(exact), -100, exact)).to(
            torch.int64 if dtype == torch.bool else dtype
        )
    return (values[:, 0] if task.targets == 1 and case.draw(st.booleans()) else values), exact


WRONG_TARGETS = st.sampled_from(
    [
        "None",
        "array",
        "list",
        "another row",
        "too wide",
        "scalar",
        "complex",
        "meta",
        "sparse",
        "value",
        "infinite",
        "text",
    ]
)


def spoiled_targets(how: str, right: Tensor) -> Any:
    """Targets that no task of ours can have, or not beside the others."""
    wide = right.reshape(len(right), -1)
    return {
        "None": lambda: None,
        "text": lambda: "targets",
        "array": lambda: right.numpy(),
        "list": lambda: right.tolist(),
        "another row": lambda: torch.cat((right, right[:1])),
        "too wide": lambda: torch.cat((wide, wide, wide), dim=1),
        "scalar": lambda: torch.ones(()),
        "complex": lambda: right.to(torch.complex64),
        "meta": lambda: right.to("meta"),
        "sparse": lambda: right.to_sparse(),
        "value": lambda: torch.full_like(right.double(), 7.5),
        "infinite": lambda: torch.full_like(right.double(), torch.inf),
    }[how]()


@fuzzed(40)
@given(DATA)
def test_targets(data: st.DataObject) -> None:
    case = Case(data.draw)
    tasks, rows = some_tasks(case), case.draw(st.sampled_from([1, 2, 9]))
    layout = TaskLayout(tasks)
    parts = {task.name: right_targets(case, task, rows) for task in tasks}
    targets: Any = {name: part for name, (part, _) in parts.items()}
    for name, (part, _) in parts.items():
        targets[name] = case.spoil(
            name, WRONG_TARGETS.map(lambda how, part=part: (how, spoiled_targets(how, part))), part
        )
    others = [("unknown", {**targets, "other": torch.ones(rows)}), ("fewer", {}), ("None", None), ("list", [targets])]
    targets = case.spoil("targets", st.sampled_from(others), targets)
    packed, done = run(case, lambda: pack_targets(layout, targets))
    if not done:
        if case.spoiled.startswith("task"):  # a single wrong task is named
            pass
        return
    if case.spoiled:
        assert case.spoiled.endswith(("value", "another row")), (
            case.spoiled
        )  # 7.5 is a real number; one task has any rows
        return
    wanted = np.concatenate([exact for _, exact in parts.values()], axis=1)
    np.testing.assert_allclose(packed.double().numpy(), wanted, rtol=1e-6)


def loss_of(task: Task, outputs: np.ndarray[Any, Any], targets: np.ndarray[Any, Any]) -> float:
    """The mean loss of a task, label by label in float64."""
    losses = []
    if task.kind == "ranking":
        scores, grades = outputs[:, 0], targets[:, 0]
        losses = [
            np.logaddexp(0, scores[j] - scores[i])
            for i in range(len(grades))
            for j in range(len(grades))
            if grades[i] > grades[j]
        ]
    elif task.kind == "multiclass":
        for scores, (label,) in zip(outputs, targets, strict=True):
            if not np.isnan(label):
                losses.append(np.logaddexp.reduce(scores) - scores[int(label)])
    else:
        for score, label in zip(outputs.ravel(), targets.ravel(), strict=True):
            if not np.isnan(label):
                error = abs(score - label)
                losses.append(
                    np.logaddexp(0, score) - label * score if task.classes else error if task.loss == "l1" else error**2
                )
    return float(np.mean(losses)) if losses else 0.0


@fuzzed(40)
@given(DATA)
def test_losses(data: st.DataObject) -> None:
    case = Case(data.draw)
    tasks, rows = some_tasks(case), case.draw(st.sampled_from([0, 1, 2, 9]))
    model = MultiTaskModel(nn.Identity(), 4, (3,), tasks).double()
    parts = [right_targets(case, task, rows)[1] for task in tasks]
    exact = np.concatenate(parts, axis=1)
    right = torch.from_numpy(exact)
    generator = torch.Generator().manual_seed(case.draw(SEEDS))
    scale = 10.0 ** case.draw(st.sampled_from([-3, 0, 2]))
    outputs = torch.randn(rows, model.layout.output_width, generator=generator, dtype=torch.float64) * scale
    wrong = [
        ("None", None),
        ("list", outputs.tolist()),
        ("ints", outputs.long()),
        ("rows", torch.cat((outputs, outputs))),
        ("narrow", outputs[:, :-1]),
        ("flat", outputs.flatten()),
        ("NaN", outputs * torch.nan),
        ("meta", outputs.to("meta")),
        ("Inf", outputs + torch.inf),
        ("sparse", outputs.to_sparse()),
        ("array", outputs.numpy()),
    ]
    given_outputs = case.spoil("outputs", st.sampled_from(wrong), outputs)
    wrong_targets = [
        (how, how) for how in ("None", "list", "another row", "too wide", "complex", "array", "sparse", "meta")
    ]
    how = case.spoil("targets", st.sampled_from(wrong_targets), None)
    given_targets = right if how is None or not rows else spoiled_targets(how, right)
    labelled = not np.isnan(exact).all() and any(
        loss_of(task, outputs[:, part].numpy(), exact[:, columns])
        for task, part, columns in zip(tasks, model.layout.output_slices, model.layout.target_slices, strict=True)
    )
    if not labelled:
        case.spoiled = case.spoiled or "no label"
    found, done = run(case, lambda: model.loss(given_outputs, given_targets))
    if not done:
        assert float(model.loss_count.sum()) == 0
        return
    wanted = sum(
        loss_of(task, outputs[:, part].numpy(), exact[:, columns])
        for task, part, columns in zip(tasks, model.layout.output_slices, model.layout.target_slices, strict=True)
    )
    assert not case.spoiled or case.spoiled == "no label" or not rows, case.spoiled
    assert float(found) == pytest.approx(wanted, rel=1e-9, abs=1e-12)


SETTINGS = {
    "merge": "best",
    "embedding": "joint",
    "relative_error": 0.1,
    "max_rank": 3,
    "min_cluster_size": 2,
    "min_samples": 1,
    "cluster_selection_method": "leaf",
    "patience": 2,
    "warmup": 1,
    "capture": "exact",
    "seed": 1,
    "sketch_size": 9,
    "refit_rows": 5,
    "refit_heads": True,
    "merged_gradient": "mean",
    "group_epochs": 2,
    "stable_epochs": 0,
    "centre": False,
    "validate_merges": 0,
    "preset": "paper",
}


@fuzzed(80)
@given(DATA)
def test_settings_of_sharing(data: st.DataObject) -> None:
    case = Case(data.draw)
    name = case.draw(st.sampled_from([*SETTINGS, "criterion"]))
    value = case.draw(
        st.one_of(ANYTHING, SPOILED_INTEGERS.map(lambda pair: pair[1]), SPOILED_NUMBERS.map(lambda pair: pair[1]))
    )
    case.spoiled = name
    chosen = {**SETTINGS, name: value}
    sharing, done = run(case, lambda: SelectiveSharing(**chosen))
    if not done:
        SelectiveSharing(**SETTINGS)
        return
    torch.manual_seed(0)
    model = MultiTaskModel(nn.Linear(3, 8), 8, (6,), [Task.binary(f"task {number}") for number in range(5)])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def epoch() -> None:  # a setting that was taken can be used
        sharing.attach(model, optimizer)
        model.loss(model(torch.randn(8, 3)), torch.randint(0, 2, (8, 5)).float()).backward()
        optimizer.step()
        sharing.end_epoch(dict.fromkeys(model.layout.names, 0.5) if sharing.needs_validation else None)

    run(case, epoch)


@fuzzed(40)
@given(DATA)
def test_clusters(data: st.DataObject) -> None:
    case = Case(data.draw)
    n, d = case.draw(st.sampled_from([1, 2, 6, 30])), case.draw(st.sampled_from([1, 2, 5]))
    rng = np.random.default_rng(case.draw(SEEDS))
    points: Any = rng.normal(size=(n, d)).round(case.draw(st.sampled_from([0, 8])))
    wrong = [
        ("None", None),
        ("text", "points"),
        ("flat", points.ravel()),
        ("NaN", points * np.nan),
        ("Inf", points + np.inf),
        ("none", points[:0]),
        ("no columns", points[:, :0]),
        ("complex", points * 1j),
        ("objects", points.astype(object)),
        ("texts", points.astype(str)),
        ("deep", points[None]),
        ("meta", torch.ones(4, 2, device="meta")),
        ("a number", 3.0),
        ("list", points.tolist()),
        ("ints", points.astype(int)),
        ("tensor", torch.from_numpy(points)),
    ]
    points = case.spoil("points", st.sampled_from(wrong), points)
    arguments: dict[str, Any] = {
        "min_cluster_size": case.integer("min_cluster_size", st.integers(2, 5)),
        "min_samples": case.integer("min_samples", st.sampled_from([1, 2])),
        "cluster_selection_epsilon": case.number("cluster_selection_epsilon", st.sampled_from([0.0, 0.5])),
    }
    for name, right in {
        "metric": "euclidean",
        "cluster_selection_method": "eom",
        "allow_single_cluster": False,
    }.items():
        arguments[name] = case.spoil(name, WRONG, right)
    if n <= 2:
        case.spoiled = case.spoiled or "points: few"
    found, done = run_outside(case, lambda: HDBSCAN(**arguments).fit(points))
    if done:
        labels = found.labels_
        assert set(labels) == set(range(labels.max() + 1)) | ({-1} if -1 in labels else set())
        assert all((labels == label).sum() >= arguments["min_cluster_size"] for label in range(labels.max() + 1))


def run_outside(case: Case, call: Any) -> tuple[Any, bool]:
    """As :func:`hostile.run`, where scikit-learn words the error: any ``TypeError`` or ``ValueError`` will do."""
    try:
        return call(), True
    except (TypeError, ValueError):
        if not case.spoiled:
            raise
        return None, False
