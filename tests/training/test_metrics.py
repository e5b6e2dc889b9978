import itertools
import math

import numpy as np
import pytest
import scipy.special
import scipy.stats
import sklearn.metrics
import torch
import torchmetrics
from hypothesis import given
from hypothesis import strategies as st

from selshare.tasks import METRICS, Task, TaskLayout
from selshare.training import metrics
from selshare.training.metrics import higher_is_better, mean_metric, pair_accuracy, score

NAN = math.nan


def batch(layout, samples, missing, seed, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    outputs = (torch.randn(samples, layout.output_width, generator=generator) * 4).round() / 4  # with ties
    uniform = torch.rand(samples, layout.target_width, generator=generator)
    classes = torch.tensor(layout.target_classes)
    targets = torch.where(classes > 0, (uniform * classes).floor(), (uniform * 6).floor() / 2)
    targets[torch.rand(targets.shape, generator=generator) < missing] = NAN
    return outputs.to(dtype), targets


def curve(metric, labels, values):
    """Area under the ROC curve or average precision by scikit-learn; NaN where it is not defined."""
    if metric == "auroc":
        return sklearn.metrics.roc_auc_score(labels, values) if 0 < labels.sum() < len(labels) else NAN
    return sklearn.metrics.average_precision_score(labels, values) if labels.any() else NAN


def mean(values):
    kept = [value for value in values if not math.isnan(value)]
    return sum(kept) / len(kept) if kept else NAN


def expected(task, outputs, targets):
    """The metric of one task by scikit-learn, or pair by pair."""
    outputs, targets = outputs.double().numpy(), targets.double().numpy()
    there = ~np.isnan(targets)
    if not there.any():
        return NAN
    if task.metric in ("mae", "mse"):
        name = {"mae": "mean_absolute_error", "mse": "mean_squared_error"}[task.metric]
        return getattr(sklearn.metrics, name)(targets[there], outputs[there])
    rows = there[:, 0]
    if task.metric == "pair_accuracy":
        return plain_pair_accuracy(outputs[rows, 0], targets[rows, 0])
    if task.kind == "multiclass":
        labels, logits = targets[rows, 0].astype(int), outputs[rows]
        if task.metric == "accuracy":
            return sklearn.metrics.accuracy_score(labels, logits.argmax(1))
        # Rounded, so that equal logits give equal probabilities.
        probabilities = scipy.special.softmax(logits, axis=1).round(12)
        return mean([curve(task.metric, labels == c, probabilities[:, c]) for c in range(task.outputs)])
    columns = [(targets[there[:, c], c].astype(int), outputs[there[:, c], c]) for c in range(task.outputs)]
    if task.metric == "accuracy":
        return mean([sklearn.metrics.accuracy_score(t, s > 0) if len(t) else NAN for t, s in columns])
    return mean([curve(task.metric, t, s) if len(t) else NAN for t, s in columns])


def plain_pair_accuracy(scores, targets):
    """Pair by pair."""
    points = [
        0.5 if s == r else float((s > r) == (t > u))
        for (s, t), (r, u) in itertools.combinations(zip(scores, targets, strict=True), 2)
        if t != u
    ]
    return sum(points) / len(points) if points else NAN


def build(name, kind, metric, width):
    outputs = {"binary": 1, "ranking": 1, "multiclass": width + 1}.get(kind, width)
    loss = {"regression": "mse", "ranking": "logistic"}.get(kind, "cross_entropy")
    return Task(name, kind, outputs, loss, metric)


MEASURED = [(kind, metric) for kind, names in METRICS.items() for metric in names]
layouts = st.lists(st.tuples(st.sampled_from(MEASURED), st.integers(1, 4)), min_size=1, max_size=10).map(
    lambda chosen: TaskLayout([build(f"task {i}", *measured, width) for i, (measured, width) in enumerate(chosen)])
)


@given(layouts, st.integers(1, 40), st.sampled_from([0.0, 0.3, 0.9, 1.0]), st.integers(0, 2**20))
def test_built_in_metrics_equal_scikit_learn_task_by_task(layout, samples, missing, seed):
    outputs, targets = batch(layout, samples, missing, seed)
    scores = score(layout, outputs, targets)
    assert list(scores) == list(layout.names)
    for task, columns, wanted in zip(layout.tasks, layout.output_slices, layout.target_slices, strict=True):
        right = expected(task, outputs[:, columns], targets[:, wanted])
        assert scores[task.name] == pytest.approx(right, rel=1e-5, abs=1e-6, nan_ok=True), task


def test_default_metrics():
    tasks = [
        Task.binary("a"),
        Task.multiclass("b", classes=2),
        Task.multilabel("c", labels=2),
        Task.regression("d"),
        Task.ranking("e"),
    ]
    wanted = ["accuracy", "accuracy", "average_precision", "mae", "pair_accuracy"]
    assert [task.metric for task in tasks] == wanted


def test_blocks_of_tasks_give_the_same_scores(monkeypatch):
    layout = TaskLayout([build(f"{i}", "multilabel", "average_precision", 3) for i in range(5)])
    outputs, targets = batch(layout, 20, 0.2, 3)
    whole = score(layout, outputs, targets)
    monkeypatch.setattr(metrics, "_BLOCK", 130)
    assert score(layout, outputs, targets) == whole


@pytest.mark.parametrize("metric", ["auroc", "average_precision"])
def test_large_logits_are_told_apart(metric):
    # A float32 sigmoid makes 1.0 of the first four.
    outputs = torch.tensor([[30.0], [40.0], [1e6], [1e6 + 1], [-1e7]])
    targets = torch.tensor([[0.0], [1.0], [0.0], [1.0], [0.0]])
    found = score(TaskLayout([Task.binary("a", metric=metric)]), outputs, targets)["a"]
    assert found == pytest.approx(curve(metric, targets.numpy()[:, 0].astype(int), outputs.double().numpy()[:, 0]))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_any_precision_of_outputs(dtype):
    layout = TaskLayout([build(f"{kind} {metric}", kind, metric, 3) for kind, metric in MEASURED])
    outputs, targets = batch(layout, 30, 0.2, 5, dtype)
    exact = score(layout, outputs.double(), targets)
    assert score(layout, outputs.requires_grad_(), targets) == exact


@given(st.integers(0, 70), st.sampled_from([1, 2, 5, 1000]), st.sampled_from([0.0, 0.3, 1.0]), st.integers(0, 2**20))
def test_pair_accuracy_counts_pairs(samples, levels, missing, seed):
    generator = torch.Generator().manual_seed(seed)
    targets = torch.randint(levels, (samples, 3), generator=generator) / 7 - 1
    scores = torch.randint(levels, (samples, 3), generator=generator) / 3 - 2
    targets[torch.rand(targets.shape, generator=generator) < missing] = NAN
    found = pair_accuracy(scores, targets)
    there = ~targets.isnan()
    right = [plain_pair_accuracy(scores[there[:, c], c].numpy(), targets[there[:, c], c].numpy()) for c in range(3)]
    assert found.tolist() == pytest.approx(right, nan_ok=True)


def test_pair_accuracy_is_auroc_for_two_values_and_somers_d_in_general():
    scores, grades = torch.randn(200, 1).round(decimals=1), torch.randint(4, (200, 1)).double()
    two = grades.clamp(max=1)
    assert pair_accuracy(scores, two).item() == pytest.approx(sklearn.metrics.roc_auc_score(two[:, 0], scores[:, 0]))
    somers = scipy.stats.somersd(grades[:, 0].numpy(), scores[:, 0].numpy()).statistic
    assert pair_accuracy(scores, grades).item() == pytest.approx((1 + somers) / 2)


def test_pair_accuracy_of_many_samples_does_not_look_at_every_pair():
    grades = torch.arange(100_000).double().unsqueeze(1)
    assert pair_accuracy(-grades, grades).item() == 0.0
    assert pair_accuracy(grades.float(), grades).item() == 1.0


def test_a_callable_gets_raw_outputs_and_wholly_labelled_samples():
    seen = {}

    def metric(outputs, targets):
        seen[tuple(outputs.shape)] = (outputs.tolist(), targets.tolist(), targets.dtype)
        return 0.25

    layout = TaskLayout(
        [
            Task.binary("a", metric=metric),
            Task.multiclass("b", classes=3, metric=metric),
            Task.multilabel("c", labels=2, metric=metric),
            Task.regression("d", outputs=4, metric=metric),
            Task.regression("e", metric=metric),
        ]
    )
    outputs = torch.arange(22.0).reshape(2, 11)
    targets = torch.tensor([[1, 2, 1, NAN, 1, 2, 3, 4, NAN], [NAN, 0, 1, 0, NAN, 1, 1, 1, NAN]])
    scores = score(layout, outputs, targets)
    assert seen == {
        (1,): ([0.0], [1], torch.int64),
        (2, 3): ([[1, 2, 3], [12, 13, 14]], [2, 0], torch.int64),
        (1, 2): ([[15, 16]], [[1, 0]], torch.int64),
        (1, 4): ([[6, 7, 8, 9]], [[1, 2, 3, 4]], torch.float32),
    }
    assert scores == pytest.approx({"a": 0.25, "b": 0.25, "c": 0.25, "d": 0.25, "e": NAN}, nan_ok=True)


def test_a_torchmetrics_metric_gets_probabilities_and_keeps_its_state():
    calibration, error = torchmetrics.classification.BinaryCalibrationError(n_bins=1), torchmetrics.MeanSquaredError()
    error.update(torch.zeros(3), torch.ones(3))
    layout = TaskLayout(
        [
            Task.binary("a", metric=calibration),
            Task.regression("b", metric=error),
            Task.regression("c", metric=error),
        ]
    )
    # All logits lie in [0, 1]: torchmetrics would take them for probabilities.
    outputs = torch.tensor([[0.1, 1.0, 3.0], [0.9, 2.0, 4.0]])
    targets = torch.tensor([[1.0, 1.0, 1.0], [1.0, 1.0, NAN]])
    scores = score(layout, outputs, targets)
    assert scores["a"] == pytest.approx(1 - outputs[:, 0].sigmoid().mean().item(), rel=1e-5)
    assert (scores["b"], scores["c"]) == (0.5, 4.0)
    assert error.compute() == 1.0


@pytest.mark.parametrize(
    ("result", "message"), [(torch.zeros(2), r"'own' returned shape \(2,\)"), (None, "'own' returned a NoneType")]
)
def test_a_metric_of_ones_own_must_return_one_number(result, message):
    layout = TaskLayout([Task.binary("own", metric=lambda outputs, targets: result)])
    with pytest.raises(ValueError, match=message):
        score(layout, torch.zeros(2, 1), torch.zeros(2, 1))


def test_outputs_must_fit_and_be_finite():
    layout = TaskLayout([Task.binary("a"), Task.multiclass("b", classes=3)])
    with pytest.raises(ValueError, match=r"outputs have shape \(2, 3\)"):
        score(layout, torch.zeros(2, 3), torch.zeros(2, 2))
    outputs = torch.zeros(2, 4)
    outputs[1, 2] = NAN
    with pytest.raises(ValueError, match="outputs of task 'b' hold NaN or Inf"):
        score(layout, outputs, torch.zeros(2, 2))


def test_mean_metric_is_over_tasks_that_are_better_when_higher():
    mixed = TaskLayout([Task.binary("a"), Task.regression("b"), Task.ranking("c"), Task.binary("d")])
    assert mean_metric(mixed, {"a": 0.5, "b": 100.0, "c": 0.7, "d": NAN}) == pytest.approx(0.6)
    assert math.isnan(mean_metric(mixed, {"a": NAN, "b": 100.0, "c": NAN, "d": NAN}))
    errors = TaskLayout([Task.regression("a"), Task.regression("b", metric="mse")])
    assert mean_metric(errors, {"a": 1.0, "b": 2.0}) == 1.5


def test_higher_is_better():
    def cost(outputs, targets):
        return 0.0

    assert higher_is_better(Task.binary("a"))
    assert not higher_is_better(Task.regression("a"))
    assert not higher_is_better(Task.regression("a", metric=torchmetrics.MeanSquaredError()))
    assert higher_is_better(Task.regression("a", metric=torchmetrics.R2Score()))
    assert higher_is_better(Task.regression("a", metric=cost))
    cost.higher_is_better = False
    assert not higher_is_better(Task.regression("a", metric=cost))
