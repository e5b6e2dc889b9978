"""One number per task that says how well it does, from torchmetrics; pair accuracy is ours.

The built-in metrics are computed for many tasks in one call, so that thousands of tasks take seconds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
import torchmetrics
from torch import Tensor
from torchmetrics.functional import mean_absolute_error, mean_squared_error
from torchmetrics.functional.classification import (
    multilabel_accuracy,
    multilabel_auroc,
    multilabel_average_precision,
)

from ..objectives.losses import check_shapes
from ..tasks import Metric, Task, TaskLayout

_MISSING = -100
# Values of outputs looked at in one call: bounds the memory of the float64 copies.
_BLOCK = 1 << 22


def score(layout: TaskLayout, outputs: Tensor, packed: Tensor) -> dict[str, float]:
    """The metric of every task over N samples, on what is labelled.

    Parameters
    ----------
    layout
        The layout of the tasks.
    outputs
        Packed outputs ``(N, output_width)``, raw: logits, values, scores.
    packed
        Packed targets ``(N, target_width)`` from :func:`~selshare.objectives.pack_targets`.

    Returns
    -------
    dict
        Task name → its metric, NaN where it has no label or the metric is not defined (AUROC of one class).

        - ``accuracy``: share of labels that are right (binary, multilabel: a logit above 0 means 1; multiclass: the
          greatest logit).
        - ``auroc``, ``average_precision``: of each logit; for multiclass of each class's probability against the
          rest.
        - ``mae``, ``mse``: mean absolute and squared error over all labelled values.
        - ``pair_accuracy``: see :func:`pair_accuracy`.
        - a metric of one's own sees the samples whose targets are all there. A ``torchmetrics.Metric`` gets
          probabilities (binary, multiclass, multilabel) or values, and is used as a copy, so that its state stays;
          any other callable gets raw outputs. Outputs are ``(n,)`` for binary, ranking and a regression of one
          value, ``(n, w)`` elsewhere; targets are ``(n, w)`` for multilabel and a regression of several values,
          ``(n,)`` elsewhere, integers where they are classes.

        Multilabel and the class-by-class multiclass metrics are the mean over the labels or classes for which they
        are defined.

    Raises
    ------
    ValueError
        If shapes do not fit the layout, outputs hold NaN or Inf, or a metric of one's own does not return one
        number; names the task.

    Notes
    -----
    Time O(N log N) per output column; memory O(N · output_width) beside a few blocks.
    """
    outputs, packed = outputs.detach(), packed.detach()
    check_shapes(layout, outputs, packed)
    _check_finite(layout, outputs)
    scores = dict.fromkeys(layout.names, math.nan)
    own: list[tuple[Task, Metric]] = []
    families: dict[tuple[str, int, str], list[int]] = {}
    for index, task in enumerate(layout.tasks):
        if isinstance(task.metric, str):
            families.setdefault((task.kind, task.outputs, task.metric), []).append(index)
        else:
            own.append((task, task.metric))
    for (kind, width, metric), members in families.items():
        for part in _blocks(members, outputs.shape[0] * width):
            predicted = _take(outputs, [layout.output_slices[index] for index in part])
            targets = _take(packed, [layout.target_slices[index] for index in part])
            values = _BUILT_IN[metric](kind, predicted, targets)
            scores.update(zip((layout.names[index] for index in part), values.tolist(), strict=True))
    copies: dict[int, torchmetrics.Metric] = {}
    for task, own_metric in own:
        scores[task.name] = _own_metric(layout, task, own_metric, outputs, packed, copies)
    return scores


def mean_metric(layout: TaskLayout, scores: Mapping[str, float]) -> float:
    """The mean over the tasks whose metric is better when higher; over all tasks if there is no such task.

    Accuracies and errors have no common scale: a model with both is judged by the first. Tasks without a score (NaN)
    are left out; NaN if none is left. Higher is better unless every task's metric is better when lower.
    """
    chosen = [task.name for task in layout.tasks if higher_is_better(task)] or list(layout.names)
    values = [scores[name] for name in chosen if not math.isnan(scores[name])]
    return math.fsum(values) / len(values) if values else math.nan


def higher_is_better(task: Task) -> bool:
    """Whether a greater value of the task's metric is better.

    A metric of one's own says so with an attribute ``higher_is_better``, as ``torchmetrics.Metric`` has it; where
    that is absent or ``None``, greater is better.
    """
    if isinstance(task.metric, str):
        return task.metric not in ("mae", "mse")
    return getattr(task.metric, "higher_is_better", None) is not False


def pair_accuracy(scores: Tensor, targets: Tensor) -> Tensor:
    """Share of the pairs with different targets that the scores put in the same order; equal scores count half.

    For targets of two values this is the area under the ROC curve; in general ``(1 + D) / 2`` with Somers' D.

    Parameters
    ----------
    scores
        ``(N, n)``, finite.
    targets
        ``(N, n)``, NaN where missing.

    Returns
    -------
    Tensor
        ``(n,)`` float64; NaN where no two targets differ.

    Notes
    -----
    Time O(n · N log² N), memory O(n · N): pairs are counted while merging sorted halves, not one by one.
    """
    scores, targets = scores.T.contiguous(), targets.T.contiguous()
    present = ~torch.isnan(targets)
    grades = torch.where(present, targets, math.inf)
    ascending = grades.sort(dim=1).values
    below = torch.searchsorted(ascending, grades.contiguous())  # how many targets lie below each
    pairs = torch.where(present, below, 0).sum(1)
    agree, disagree = (_ascents(grades, torch.where(present, sign * scores, -math.inf)) for sign in (1, -1))
    return (1 + (agree - disagree) / pairs) / 2  # 0 / 0 is NaN


def _ascents(grades: Tensor, scores: Tensor) -> Tensor:
    """Rows ``(n, N)``: how many pairs have ``grade_i < grade_j`` and ``score_i < score_j``."""
    order = scores.argsort(dim=1, descending=True)
    scores, grades = scores.gather(1, order), grades.gather(1, order)
    # By grade, and among equal grades by falling score: then every i before j with score_i < score_j is a pair.
    sequence = scores.gather(1, grades.argsort(dim=1, stable=True))
    length = 1 << max(sequence.shape[1] - 1, 0).bit_length()
    sequence = torch.nn.functional.pad(sequence, (0, length - sequence.shape[1]), value=-math.inf)
    found = torch.zeros(sequence.shape[0], dtype=torch.int64, device=sequence.device)
    width = 1
    while width < length:
        halves = sequence.view(sequence.shape[0], -1, 2, width)
        left, right = halves[:, :, 0].contiguous(), halves[:, :, 1].contiguous()
        found += torch.searchsorted(left, right).sum((1, 2))
        sequence = halves.flatten(2).sort(dim=2).values.flatten(1)
        width *= 2
    return found


# Each built-in metric takes the kind, outputs (N, n, w) and targets (N, n, d), both float64 with NaN where a label is
# missing, and returns (n,).


def _accuracy(kind: str, outputs: Tensor, targets: Tensor) -> Tensor:
    if kind == "multiclass":
        predicted, labels = (outputs.argmax(2, keepdim=True) == targets).long(), targets * 0 + 1
    else:
        predicted, labels = (outputs > 0).long(), targets
    return _by_column(multilabel_accuracy, predicted, labels, ~torch.isnan(targets).all(dim=0))


def _auroc(kind: str, outputs: Tensor, targets: Tensor) -> Tensor:
    places, labels = _against_rest(kind, outputs, targets)
    return _by_column(multilabel_auroc, places, labels, (labels == 1).any(dim=0) & (labels == 0).any(dim=0))


def _average_precision(kind: str, outputs: Tensor, targets: Tensor) -> Tensor:
    places, labels = _against_rest(kind, outputs, targets)
    return _by_column(multilabel_average_precision, places, labels, (labels == 1).any(dim=0))


def _against_rest(kind: str, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Each label or class against the rest: values in [0, 1] in the order of the outputs, and labels 0, 1, NaN.

    A sigmoid would make large logits equal; ``x / (1 + |x|)`` in float64 keeps those of float32 apart up to 1e8.
    """
    if kind == "multiclass":
        missing = torch.isnan(targets)
        outputs = outputs.log_softmax(2)
        classes = torch.arange(outputs.shape[2], device=outputs.device)
        targets = (targets == classes).to(outputs.dtype).masked_fill(missing, math.nan)
    return (1 + outputs / (1 + outputs.abs())) / 2, targets


def _by_column(metric: Callable[..., Tensor], predicted: Tensor, labels: Tensor, defined: Tensor) -> Tensor:
    """The metric of each column ``(N, n, w)``, where ``defined (n, w)``; the mean over w ``(n,)``."""
    values = torch.full(defined.shape, math.nan, dtype=torch.float64, device=labels.device)
    columns = int(defined.sum())
    if columns:
        known = torch.where(torch.isnan(labels), _MISSING, labels)[:, defined].long()
        # Arguments are ours: their validation would sort all targets.
        found = metric(predicted[:, defined], known, columns, average=None, ignore_index=_MISSING, validate_args=False)
        values[defined] = found.double()
    return values.nanmean(dim=1)


def _error(metric: Callable[[Tensor, Tensor], Tensor]) -> Callable[[str, Tensor, Tensor], Tensor]:
    """A regression metric over all labelled values of each task."""

    def errors(kind: str, outputs: Tensor, targets: Tensor) -> Tensor:
        present = ~torch.isnan(targets)
        values = torch.full(targets.shape[1:2], math.nan, dtype=torch.float64, device=targets.device)
        for task in present.any(dim=2).any(dim=0).nonzero().flatten().tolist():
            inside = present[:, task]
            values[task] = metric(outputs[:, task][inside], targets[:, task][inside])
        return values

    return errors


def _pair_accuracy(kind: str, outputs: Tensor, targets: Tensor) -> Tensor:
    return pair_accuracy(outputs.squeeze(2), targets.squeeze(2))


_BUILT_IN: dict[str, Callable[[str, Tensor, Tensor], Tensor]] = {
    "accuracy": _accuracy,
    "auroc": _auroc,
    "average_precision": _average_precision,
    "mae": _error(mean_absolute_error),
    "mse": _error(mean_squared_error),
    "pair_accuracy": _pair_accuracy,
}


def _blocks(members: Sequence[int], values: int) -> Iterator[Sequence[int]]:
    """Runs of members whose outputs, ``values`` each, fit in a block."""
    step = max(1, _BLOCK // max(values, 1))
    for start in range(0, len(members), step):
        yield members[start : start + step]


def _take(packed: Tensor, slices: Sequence[slice]) -> Tensor:
    """The columns ``(N, n, w)`` of n equally wide slices, in float64."""
    columns = [column for part in slices for column in range(part.start, part.stop)]
    taken = packed.index_select(1, torch.tensor(columns, device=packed.device)).double()
    return taken.view(packed.shape[0], len(slices), -1)


def _own_metric(
    layout: TaskLayout,
    task: Task,
    metric: Metric,
    outputs: Tensor,
    packed: Tensor,
    copies: dict[int, torchmetrics.Metric],
) -> float:
    """A user's metric, over wholly labelled samples."""
    index = layout.index(task.name)
    targets = packed[:, layout.target_slices[index]]
    inside = ~torch.isnan(targets).any(dim=1)
    if not bool(inside.any()):
        return math.nan
    predicted, targets = outputs[:, layout.output_slices[index]][inside], targets[inside]
    targets = targets.long() if task.classes else targets
    if isinstance(metric, torchmetrics.Metric):
        predicted = _probabilities(task, predicted)
        copy = copies.setdefault(id(metric), metric.clone().to(predicted.device))
        copy.reset()
        metric = copy
    if task.kind in ("binary", "ranking") or (task.kind == "regression" and task.outputs == 1):
        predicted, targets = predicted.squeeze(1), targets.squeeze(1)
    elif task.kind == "multiclass":
        targets = targets.squeeze(1)
    return _one_number(task, metric(predicted, targets))


def _probabilities(task: Task, outputs: Tensor) -> Tensor:
    """What torchmetrics expects: it would guess from the range of logits whether they are probabilities."""
    if task.kind == "multiclass":
        return outputs.softmax(1)
    return outputs.sigmoid() if task.kind in ("binary", "multilabel") else outputs


def _one_number(task: Task, value: object) -> float:
    """The result of a user's metric as a float."""
    if isinstance(value, (int, float)) or (isinstance(value, Tensor) and value.numel() == 1):
        return float(value)
    shown = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
    raise ValueError(f"The metric of task {task.name!r} returned {shown}; it must return one number.")


def _check_finite(layout: TaskLayout, outputs: Tensor) -> None:
    """Raise ``ValueError`` that names the first task with an output that is NaN or Inf."""
    finite = torch.isfinite(outputs)
    if bool(finite.all()):
        return
    column = int((~finite).any(dim=0).nonzero()[0, 0])
    task = next(task for task, part in zip(layout.tasks, layout.output_slices, strict=True) if column < part.stop)
    raise ValueError(
        f"The outputs of task {task.name!r} hold NaN or Inf; check the inputs for NaN and Inf, "
        f"or lower the learning rate."
    )
