import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from selshare.objectives import (
    TaskLosses,
    check_finite_losses,
    check_some_label,
    pack_targets,
    task_losses,
    weighted_sum,
)
from selshare.tasks import Task, TaskLayout

NAN = math.nan


def quartic(outputs, targets):
    return (outputs - targets).pow(4).sum(2)


BUILDERS = [
    lambda name: Task.binary(name),
    lambda name: Task.multiclass(name, classes=3, weight=0.5),
    lambda name: Task.multiclass(name, classes=5),
    lambda name: Task.multilabel(name, labels=2, weight=3.0),
    lambda name: Task.regression(name),
    lambda name: Task.regression(name, outputs=2, loss="l1"),
    lambda name: Task.regression(name, loss="huber"),
    lambda name: Task.ranking(name),
    lambda name: Task.ranking(name, loss="hinge", weight=0.0),
    lambda name: Task.regression(name, outputs=2, loss=quartic),
]
layouts = st.lists(st.integers(0, len(BUILDERS) - 1), min_size=1, max_size=14).map(
    lambda chosen: TaskLayout([BUILDERS[number](f"task {i}") for i, number in enumerate(chosen)])
)


def batch(layout, samples, missing, seed, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    outputs = torch.randn(samples, layout.output_width, generator=generator, dtype=dtype) * 2
    uniform = torch.rand(samples, layout.target_width, generator=generator, dtype=dtype)
    classes = torch.tensor(layout.target_classes)
    # Real values on a coarse grid: ranking targets tie.
    targets = torch.where(classes > 0, (uniform * classes).floor(), (uniform * 6).floor() / 2)
    targets[torch.rand(targets.shape, generator=generator) < missing] = NAN
    return outputs, targets


def plain_loss(task, outputs, targets):
    """One task, label by label, in plain arithmetic: (sum of the loss, how many terms)."""
    terms = []
    rows = list(zip(outputs, targets, strict=True))
    if callable(task.loss):
        terms = [((row - target) ** 4).sum() for row, target in rows if not target.isnan().any()]
    elif task.kind in ("binary", "multilabel"):
        for row, target in rows:
            for logit, label in zip(row, target, strict=True):
                if not label.isnan():
                    probability = 1 / (1 + torch.exp(-logit))
                    terms.append(-torch.log(probability if label == 1 else 1 - probability))
    elif task.kind == "multiclass":
        for row, target in rows:
            if not target.isnan():
                terms.append(-torch.log(torch.exp(row[int(target)]) / torch.exp(row).sum()))
    elif task.kind == "regression":
        for row, target in rows:
            for value, wanted in zip(row, target, strict=True):
                if not wanted.isnan():
                    error = (value - wanted).abs()
                    huber = error**2 / 2 if error <= 1 else error - 0.5
                    terms.append({"mse": error**2, "l1": error, "huber": huber}[task.loss])
    else:
        for (first, one), (second, other) in itertools.combinations(rows, 2):
            if one < other or one > other:
                margin = (1 if one > other else -1) * (first - second).squeeze()
                logistic = torch.log(1 + torch.exp(-margin))
                terms.append(logistic if task.loss == "logistic" else (1 - margin).clamp(min=0))
    total = torch.stack([term.reshape(()) for term in terms]).sum() if terms else outputs.sum() * 0
    return total, len(terms)


def plain_losses(layout, outputs, targets):
    parts = [
        plain_loss(task, outputs[:, columns], targets[:, wanted])
        for task, columns, wanted in zip(layout.tasks, layout.output_slices, layout.target_slices, strict=True)
    ]
    return torch.stack([total / max(count, 1) for total, count in parts]), torch.tensor([count for _, count in parts])


@given(layouts, st.integers(1, 7), st.sampled_from([0.0, 0.3, 0.9, 1.0]), st.integers(0, 2**20))
def test_losses_and_gradients_equal_a_plain_loop_over_tasks(layout, samples, missing, seed):
    outputs, targets = batch(layout, samples, missing, seed)
    mine, theirs = outputs.clone().requires_grad_(), outputs.clone().requires_grad_()
    losses = task_losses(layout, mine, targets)
    expected, counts = plain_losses(layout, theirs, targets)
    torch.testing.assert_close(losses.values, expected, rtol=1e-10, atol=1e-12)
    assert torch.equal(losses.labelled, counts)
    total = weighted_sum(layout, losses)
    expected_total = (torch.tensor(layout.weights, dtype=torch.float64) * expected).sum()
    torch.testing.assert_close(total, expected_total, rtol=1e-10, atol=1e-12)
    total.backward()
    expected_total.backward()
    torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-9, atol=1e-12)


@given(layouts, st.integers(0, 2**20), st.sampled_from([NAN, math.inf, -math.inf, 1e38]))
def test_what_belongs_to_a_missing_label_cannot_leak(layout, seed, poison):
    outputs, targets = batch(layout, 6, 0.4, seed, torch.float32)
    hidden = torch.zeros_like(outputs, dtype=torch.bool)
    for task, columns, wanted in zip(layout.tasks, layout.output_slices, layout.target_slices, strict=True):
        missing = targets[:, wanted].isnan()
        if task.kind == "multiclass" or callable(task.loss):
            missing = missing.any(dim=1, keepdim=True)
        hidden[:, columns] = missing
    clean = torch.where(hidden, 0, outputs).requires_grad_()
    dirty = torch.where(hidden, poison, outputs).requires_grad_()
    for start in (clean, dirty):
        task_losses(layout, start, targets).values.sum().backward()
    assert torch.equal(task_losses(layout, clean, targets).values, task_losses(layout, dirty, targets).values)
    assert torch.equal(clean.grad, dirty.grad)
    assert (clean.grad[hidden] == 0).all()


def test_unlabelled_tasks_add_nothing():
    layout = TaskLayout([build(str(i)) for i, build in enumerate(BUILDERS)])
    outputs = torch.randn(4, layout.output_width, requires_grad=True)
    losses = task_losses(layout, outputs, torch.full((4, layout.target_width), NAN))
    weighted_sum(layout, losses).backward()
    assert (losses.values == 0).all()
    assert (losses.labelled == 0).all()
    assert (outputs.grad == 0).all()
    with pytest.raises(ValueError, match="No task has a label in this batch"):
        check_some_label(losses)
    check_some_label(TaskLosses(losses.values, torch.tensor([0, 1])))


def test_a_batch_without_samples_has_no_loss():
    layout = TaskLayout([build(str(i)) for i, build in enumerate(BUILDERS)])
    losses = task_losses(layout, torch.zeros(0, layout.output_width), torch.zeros(0, layout.target_width))
    assert (losses.values == 0).all()
    assert (losses.labelled == 0).all()


def test_extreme_logits_stay_finite():
    layout = TaskLayout([Task.binary("a"), Task.multiclass("b", classes=2), Task.ranking("c")])
    outputs = torch.tensor([[-1e5, -1e5, 1e5, -1e5], [1e5, 1e5, -1e5, 1e5]], requires_grad=True)
    targets = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
    losses = task_losses(layout, outputs, targets)
    assert losses.values.tolist() == [1e5, 2e5, 2e5]
    losses.values.sum().backward()
    assert outputs.grad.isfinite().all()


@pytest.mark.parametrize("targets_dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_dtypes(dtype, targets_dtype):
    layout = TaskLayout([build(str(i)) for i, build in enumerate(BUILDERS)])
    outputs, targets = batch(layout, 6, 0.3, 1)
    outputs, targets = outputs.to(dtype).requires_grad_(), targets.to(targets_dtype)
    losses = task_losses(layout, outputs, targets)
    assert losses.values.dtype == (dtype if dtype in (torch.float32, torch.float64) else torch.float32)
    assert losses.labelled.dtype == torch.int64
    expected, _ = plain_losses(layout, outputs.detach().double(), targets.double())
    torch.testing.assert_close(losses.values.double(), expected, rtol=1e-5, atol=1e-6)
    losses.values.sum().backward()
    assert outputs.grad.dtype == dtype
    assert outputs.grad.isfinite().all()


def test_autocast():
    layout = TaskLayout([build(str(i)) for i, build in enumerate(BUILDERS)])
    inputs, weight = torch.randn(6, 8), torch.randn(layout.output_width, 8, requires_grad=True)
    _, targets = batch(layout, 6, 0.3, 1, torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = torch.nn.functional.linear(inputs, weight)
        losses = task_losses(layout, outputs, targets)
        total = weighted_sum(layout, losses)
    assert outputs.dtype == torch.bfloat16
    expected, _ = plain_losses(layout, outputs.detach().double(), targets.double())
    torch.testing.assert_close(losses.values.double(), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(total.double(), torch.tensor(layout.weights).double() @ expected, rtol=1e-5, atol=1e-5)
    total.backward()
    assert weight.grad.isfinite().all()


def test_ranking_compares_targets_in_their_own_precision():
    layout = TaskLayout([Task.ranking("a")])
    targets = torch.tensor([[1.0], [1.0 + 1e-12]], dtype=torch.float64)
    assert task_losses(layout, torch.zeros(2, 1), targets).labelled.tolist() == [1]


def test_compiles_whole():
    layout = TaskLayout([build(f"{i}") for i, build in enumerate(BUILDERS * 2)])

    def step(outputs, targets):
        return weighted_sum(layout, task_losses(layout, outputs, pack_targets(layout, targets)))

    outputs, targets = batch(layout, 5, 0.3, 2)
    mine, theirs = outputs.clone().requires_grad_(), outputs.clone().requires_grad_()
    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    compiled(mine, targets).backward()
    step(theirs, targets).backward()
    torch.testing.assert_close(mine.grad, theirs.grad)
    assert torch.equal(compiled(mine, torch.full_like(targets, NAN)), torch.zeros((), dtype=torch.float64))


class Recorder:
    """A loss of one's own that keeps what it was given."""

    def __init__(self, result=lambda outputs, targets: (outputs - targets).square().mean(2)):
        self.result = result
        self.calls = []

    def __call__(self, outputs, targets):
        self.calls.append((outputs.detach(), targets))
        return self.result(outputs, targets)


def test_tasks_that_share_a_loss_are_computed_in_one_call():
    loss = Recorder()
    layout = TaskLayout(
        [
            Task.regression("a", outputs=2, loss=loss),
            Task.binary("b"),
            Task.regression("c", outputs=2, loss=loss),
        ]
    )
    outputs = torch.arange(10.0).reshape(2, 5).requires_grad_()
    targets = torch.tensor([[1.0, 2.0, 0.0, NAN, 4.0], [3.0, 4.0, 1.0, 5.0, 6.0]])
    losses = task_losses(layout, outputs, targets)
    assert len(loss.calls) == 1
    given_outputs, given_targets = loss.calls[0]
    assert given_outputs.tolist() == [[[0, 1], [0, 0]], [[5, 6], [8, 9]]]
    assert given_targets.tolist() == [[[1, 2], [0, 0]], [[3, 4], [5, 6]]]
    assert losses.labelled.tolist() == [2, 2, 1]
    assert losses.values[[0, 2]].tolist() == [2.5, 9.0]


def test_a_loss_of_ones_own_that_is_singular_at_zero_does_not_leak():
    loss = Recorder(lambda outputs, targets: outputs.abs().log().squeeze(2) * targets.squeeze(2))
    layout = TaskLayout([Task.regression("a", loss=loss)])
    outputs = torch.tensor([[2.0], [3.0]], requires_grad=True)
    losses = task_losses(layout, outputs, torch.tensor([[1.0], [NAN]]))
    losses.values.sum().backward()
    assert losses.values.tolist() == pytest.approx([math.log(2)])
    assert outputs.grad.tolist() == [[0.5], [0.0]]


@pytest.mark.parametrize(
    ("result", "error", "message"),
    [
        (lambda outputs, targets: (outputs - targets).mean(), ValueError, r"'own' returned shape \(\).*\(4, 2\)"),
        (lambda outputs, targets: outputs - targets, ValueError, r"'own' returned shape \(4, 2, 1\)"),
        (lambda outputs, targets: 1.0, TypeError, "'own' must return a float tensor"),
        (lambda outputs, targets: (outputs > targets)[:, :, 0], TypeError, "'own' must return a float tensor"),
    ],
)
def test_a_loss_of_ones_own_must_return_a_loss_per_sample_and_task(result, error, message):
    loss = Recorder(result)
    layout = TaskLayout([Task.regression("own", loss=loss), Task.regression("other", loss=loss)])
    with pytest.raises(error, match=message):
        task_losses(layout, torch.zeros(4, 2), torch.zeros(4, 2))


@pytest.mark.parametrize(
    ("outputs", "targets", "error", "message"),
    [
        (torch.zeros(2, 3), torch.zeros(2, 2), ValueError, r"outputs have shape \(2, 3\).*\(batch, 4\)"),
        (torch.zeros(2, 4), torch.zeros(2, 4), ValueError, r"targets have shape \(2, 4\).*\(batch, 2\)"),
        (torch.zeros(2, 4), torch.zeros(3, 2), ValueError, "outputs for 2 samples and targets for 3"),
        (torch.zeros(2, 4).long(), torch.zeros(2, 2), TypeError, "must be floats"),
    ],
)
def test_shapes_must_fit(outputs, targets, error, message):
    with pytest.raises(error, match=message):
        task_losses(TaskLayout([Task.binary("a"), Task.multiclass("b", classes=3)]), outputs, targets)


def test_losses_that_are_not_finite_name_their_tasks():
    layout = TaskLayout([Task.binary(str(i)) for i in range(9)])
    values, labelled = torch.zeros(9), torch.ones(9, dtype=torch.int64)
    check_finite_losses(layout, TaskLosses(values, labelled))
    values[3] = NAN
    with pytest.raises(
        ValueError, match=r"loss of task '3' is NaN or Inf; check the inputs .* lower the learning rate"
    ):
        check_finite_losses(layout, TaskLosses(values, labelled))
    values[2:] = math.inf
    with pytest.raises(ValueError, match="task '2', '3', '4', '5', '6' and 2 more"):
        check_finite_losses(layout, TaskLosses(values, labelled))
