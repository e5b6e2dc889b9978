"""Distribution matching and soft co-annotation against the formulas, written out sample by sample."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from selshare import MultiTaskModel, Task, Trainer
from selshare.objectives import DistributionMatching, RelationTable, SoftCoAnnotation, estimate_relation, pack_targets
from selshare.tasks import TaskLayout

NAN = float("nan")
TASKS = (
    Task.regression("age"),
    Task.multilabel("units", labels=2),
    Task.multiclass("mood", classes=3),
    Task.binary("smile"),
    Task.multiclass("coarse", classes=2),
    Task.binary("frown"),
)
LAYOUT = TaskLayout(TASKS)
TABLE = [[0.9, 0.2], [0.1, 0.6], [0.0, 1.0]]
EXCLUSIVE = [[1.0, 0.0], [0.25, 0.75], [0.0, 1.0]]
PUBLISHED: dict[str, Any] = {"samples": "all", "weighting": "mean"}


class Frame:
    """What of a pandas DataFrame is used."""

    def __init__(self, values: list[list[float]], index: list[Any], columns: list[Any]) -> None:
        self.values, self.index, self.columns = values, index, columns

    def to_numpy(self) -> np.ndarray[Any, Any]:
        return np.array(self.values)


def random_outputs(samples: int = 5) -> Tensor:
    return torch.randn(samples, LAYOUT.output_width, dtype=torch.float64)


def parts(outputs: Tensor) -> dict[str, list[list[float]]]:
    return {
        name: outputs[:, columns].tolist() for name, columns in zip(LAYOUT.names, LAYOUT.output_slices, strict=True)
    }


def softmax(values: list[float]) -> list[float]:
    total = sum(math.exp(value) for value in values)
    return [math.exp(value) / total for value in values]


def bernoulli(logit: float, implied: float) -> float:
    p = 1 / (1 + math.exp(-logit))
    return -(implied * math.log(p) + (1 - implied) * math.log(1 - p))


def implied(outputs: Tensor, table: list[list[float]], clamp: float) -> list[list[float]]:
    found = []
    for logits in parts(outputs)["mood"]:
        moods = softmax(logits)
        row = [sum(p * table[e][i] for e, p in enumerate(moods)) for i in range(2)]
        found.append([min(max(q, clamp), 1 - clamp) for q in row])
    return found


@pytest.mark.parametrize("target", ["units", ("smile", "frown")])
def test_matching_is_the_bernoulli_cross_entropy(target: str | tuple[str, ...]) -> None:
    outputs = random_outputs()
    matching = DistributionMatching("mood", target, TABLE, clamp=0.15, strength=2.0)
    value = matching.of_outputs(LAYOUT, outputs, unlabelled())
    named = parts(outputs)
    q = implied(outputs, TABLE, 0.15)
    logits = (
        named["units"]
        if target == "units"
        else [[a[0], b[0]] for a, b in zip(named["smile"], named["frown"], strict=True)]
    )
    losses = [sum(map(bernoulli, row, wanted)) for row, wanted in zip(logits, q, strict=True)]
    expected = 2.0 * sum(losses) / len(losses) / (2 if target == "units" else 1)
    assert value.item() == pytest.approx(expected, rel=1e-12)


def test_matching_a_multiclass_target_is_the_categorical_cross_entropy() -> None:
    outputs = random_outputs()
    value = DistributionMatching("mood", "coarse", EXCLUSIVE, clamp=0.0).of_outputs(LAYOUT, outputs, unlabelled())
    q = implied(outputs, EXCLUSIVE, 0.0)
    losses = [
        -sum(wanted * math.log(p) for wanted, p in zip(row, softmax(logits), strict=True))
        for row, logits in zip(q, parts(outputs)["coarse"], strict=True)
    ]
    assert value.item() == pytest.approx(sum(losses) / len(losses), rel=1e-12)


@pytest.mark.parametrize("options", [{}, PUBLISHED])
@pytest.mark.parametrize(("target", "table"), [("units", TABLE), (("smile", "frown"), TABLE), ("coarse", EXCLUSIVE)])
def test_gradcheck_and_gradgradcheck(
    target: str | tuple[str, ...], table: list[list[float]], options: dict[str, Any]
) -> None:
    """q is held still, as the stopped gradient has it: the source's logits do not vary."""
    moods, packed = random_outputs(3)[:, LAYOUT.output_slices[2]], targets(units=UNITS[:3], mood=[NAN, 2.0, NAN])
    packed[0, LAYOUT.target_slices[4]] = 1.0

    def matching(outputs: Tensor) -> Tensor:
        outputs = torch.cat([outputs[:, :3], moods, outputs[:, 6:]], dim=1)
        return DistributionMatching("mood", target, table, **options).of_outputs(LAYOUT, outputs, packed)

    def teaching(outputs: Tensor) -> Tensor:
        return SoftCoAnnotation("mood", target, table, **options).of_outputs(LAYOUT, outputs, packed)

    def sharing(outputs: Tensor) -> Tensor:
        teaching = SoftCoAnnotation("mood", target, table, evidence="share", **options)
        return teaching.of_outputs(LAYOUT, outputs, packed)

    for objective in (matching, teaching, sharing):
        outputs = random_outputs(3).requires_grad_()
        assert torch.autograd.gradcheck(objective, outputs)
        assert torch.autograd.gradgradcheck(objective, outputs)


@pytest.mark.parametrize("stop", [True, False])
def test_the_source_learns_only_where_asked(stop: bool) -> None:
    outputs = random_outputs().requires_grad_()
    matching = DistributionMatching("mood", "units", TABLE, stop_gradient=stop, clamp=0.0)
    packed = unlabelled()
    if not stop:
        assert torch.autograd.gradcheck(lambda outputs: matching.of_outputs(LAYOUT, outputs, packed), outputs)
        assert torch.autograd.gradgradcheck(lambda outputs: matching.of_outputs(LAYOUT, outputs, packed), outputs)
    (gradient,) = torch.autograd.grad(matching.of_outputs(LAYOUT, outputs, packed), outputs)
    moods, units = LAYOUT.output_slices[2], LAYOUT.output_slices[1]
    assert bool(gradient[:, moods].any()) != stop
    assert bool(gradient[:, units].all())
    assert not bool(gradient[:, 0].any())


def test_it_is_least_where_the_two_agree() -> None:
    """The target is drawn to q itself, not to 0 as the one-sided loss would have it."""
    outputs = random_outputs()
    units = LAYOUT.output_slices[1]
    q = torch.tensor(implied(outputs, TABLE, 1e-3), dtype=torch.float64)
    outputs[:, units] = torch.logit(q)
    outputs.requires_grad_()
    value = DistributionMatching("mood", "units", TABLE).of_outputs(LAYOUT, outputs, unlabelled())
    (gradient,) = torch.autograd.grad(value, outputs)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-12)


def targets(**given: Any) -> Tensor:
    """Packed targets, all missing but those given."""
    samples = len(next(iter(given.values())))
    missing = {task.name: torch.full((samples, task.targets), NAN) for task in TASKS}
    return pack_targets(LAYOUT, missing | {name: torch.tensor(value) for name, value in given.items()})


def unlabelled(samples: int = 5) -> Tensor:
    return torch.full((samples, LAYOUT.target_width), NAN)


UNITS = [[1.0, 0.0], [NAN, 1.0], [NAN, NAN], [0.0, 0.0], [1.0, 1.0]]


def shares(row: list[float], table: list[list[float]]) -> list[float]:
    known = [i for i, label in enumerate(row) if not math.isnan(label)]
    result = []
    for weights in table:
        possible = sum(weights[i] for i in known)
        result.append(sum(weights[i] * row[i] for i in known) / possible if possible else 0.0)
    return result


def log_likelihoods(row: list[float], table: list[list[float]]) -> list[float]:
    result = []
    for weights in table:
        clamped = [min(max(w, 1e-3), 1 - 1e-3) for w in weights]
        pairs = [(w, a) for w, a in zip(clamped, row, strict=True) if not math.isnan(a)]
        result.append(sum(math.log(w) if a else math.log(1 - w) for w, a in pairs))
    return result


@pytest.mark.parametrize(("evidence", "temperature"), [("share", None), ("share", 1.0), ("likelihood", None)])
def test_soft_co_annotation_equals_the_formula(evidence: Any, temperature: float | None) -> None:
    outputs = random_outputs()
    options = {"evidence": evidence, "temperature": temperature, "strength": 0.5}
    teaching = SoftCoAnnotation("mood", "units", TABLE, **options, **PUBLISHED)
    value = teaching.of_outputs(LAYOUT, outputs, targets(units=UNITS))
    tau = temperature or (0.1 if evidence == "share" else 1.0)
    score = shares if evidence == "share" else log_likelihoods
    losses = []
    for row, logits in zip(UNITS, parts(outputs)["mood"], strict=True):
        if all(map(math.isnan, row)):
            continue
        q = softmax([s / tau for s in score(row, TABLE)])
        losses.append(-sum(a * math.log(b) for a, b in zip(q, softmax(logits), strict=True)))
    assert value.item() == pytest.approx(0.5 * sum(losses) / 4, rel=1e-12)


def test_by_default_co_annotation_is_the_likelihood_of_the_labels() -> None:
    """−log Σ p(e|x) p(a|e), summed over samples of unknown class; divided by the number of known ones where larger."""
    outputs, moods = random_outputs(), [NAN, 2.0, NAN, 0.0, 1.0]
    value = SoftCoAnnotation("mood", "units", TABLE).of_outputs(LAYOUT, outputs, targets(units=UNITS, mood=moods))
    losses = []
    for row, mood, logits in zip(UNITS, moods, parts(outputs)["mood"], strict=True):
        if not all(map(math.isnan, row)) and math.isnan(mood):
            likelihood = [math.exp(score) for score in log_likelihoods(row, TABLE)]
            losses.append(-math.log(sum(p * like for p, like in zip(softmax(logits), likelihood, strict=True))))
    assert len(losses) == 1
    assert value.item() == pytest.approx(sum(losses) / 3, rel=1e-12)


def test_its_gradient_is_that_of_the_posterior_held_still() -> None:
    outputs = random_outputs().requires_grad_()
    packed = targets(units=UNITS)
    teaching = SoftCoAnnotation("mood", "units", TABLE)
    (gradient,) = torch.autograd.grad(teaching.of_outputs(LAYOUT, outputs, packed), outputs)
    q, labelled = teaching.likely_classes(LAYOUT, packed, outputs.detach())
    moods = LAYOUT.output_slices[2]
    expected = torch.where(labelled[:, None], torch.softmax(outputs.detach()[:, moods], 1) - q, 0) / 4
    torch.testing.assert_close(gradient[:, moods], expected)
    assert not gradient[:, : moods.start].any()
    with pytest.raises(ValueError, match="starts from what the model predicts; give its outputs"):
        teaching.likely_classes(LAYOUT, packed)


def test_classes_of_the_same_labels_are_left_as_they_are() -> None:
    """What the labels do not tell apart is not made equal, as it is by the published form."""
    table, outputs, packed = [[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]], random_outputs(), targets(units=[[1.0, 0.0]] * 5)
    predicted = torch.softmax(outputs[:, LAYOUT.output_slices[2]], dim=1)
    posterior, _ = SoftCoAnnotation("mood", "units", table).likely_classes(LAYOUT, packed, outputs)
    published, _ = SoftCoAnnotation("mood", "units", table, evidence="share").likely_classes(LAYOUT, packed)
    torch.testing.assert_close(posterior[:, 0] / posterior[:, 1], predicted[:, 0] / predicted[:, 1])
    torch.testing.assert_close(published[:, 0], published[:, 1])
    assert float(posterior[:, 2].max()) < 1e-3


def test_by_default_only_missing_labels_are_matched_and_known_classes_are_used() -> None:
    outputs, moods = random_outputs(), [NAN, 2.0, 1.0, NAN, NAN]
    value = DistributionMatching("mood", "units", TABLE, clamp=0.15).of_outputs(
        LAYOUT, outputs, targets(units=UNITS, mood=moods)
    )
    q = implied(outputs, TABLE, 0.15)
    q[1], q[2] = [0.15, 0.85], [0.15, 0.6]  # rows of the table, clamped
    logits = parts(outputs)["units"]
    first = (bernoulli(logits[1][0], q[1][0]) + bernoulli(logits[2][0], q[2][0])) / 3  # three samples have the label
    second = bernoulli(logits[2][1], q[2][1]) / 4
    assert value.item() == pytest.approx((first + second) / 2, rel=1e-12)
    several = DistributionMatching("mood", ("smile", "frown"), TABLE, weighting="mean").of_outputs(
        LAYOUT, outputs, targets(smile=[1.0, 0.0, NAN, 1.0, 1.0])
    )
    q = implied(outputs, TABLE, 1e-3)
    named = parts(outputs)
    frowns = [bernoulli(named["frown"][k][0], q[k][1]) for k in range(5)]
    assert several.item() == pytest.approx(bernoulli(named["smile"][2][0], q[2][0]) + sum(frowns) / 5, rel=1e-12)


def test_as_published_every_sample_counts_by_what_is_predicted() -> None:
    outputs = random_outputs()
    packed = targets(units=UNITS, mood=[0.0, 1.0, 2.0, 0.0, NAN], coarse=[0.0, 1.0, NAN, NAN, NAN])
    for target, table in (("units", TABLE), ("coarse", EXCLUSIVE)):
        matching = DistributionMatching("mood", target, table, use_labels=False, **PUBLISHED)
        assert matching.of_outputs(LAYOUT, outputs, packed) == matching.of_outputs(LAYOUT, outputs, unlabelled())


def test_where_nothing_is_missing_nothing_is_matched() -> None:
    outputs = random_outputs().requires_grad_()
    packed = targets(units=[[1.0, 0.0]] * 5, mood=[0.0, 1.0, 2.0, 0.0, 1.0])
    for term in (DistributionMatching("mood", "units", TABLE), SoftCoAnnotation("mood", "units", TABLE)):
        value = term.of_outputs(LAYOUT, outputs, packed)
        (gradient,) = torch.autograd.grad(value, outputs)
        assert value.item() == 0
        assert not gradient.any()


def test_the_published_temperature_leaves_q_nearly_level() -> None:
    """METHOD: with shares in [0, 1] and 7 classes softmax never exceeds .31."""
    tasks = TaskLayout([Task.multiclass("e", classes=7), Task.multilabel("a", labels=7)])
    packed = torch.cat([torch.full((7, 1), NAN), torch.eye(7)], dim=1)
    share = partial(SoftCoAnnotation, "e", "a", torch.eye(7), evidence="share")
    published, labelled = share(temperature=1.0).likely_classes(tasks, packed)
    sharp, _ = share().likely_classes(tasks, packed)
    assert labelled.all()
    assert float(published.max()) == pytest.approx(math.e / (math.e + 6))
    assert float(sharp.diagonal().min()) > 0.999


def test_likelihood_is_bayes_rule() -> None:
    q, _ = SoftCoAnnotation("mood", "units", TABLE, evidence="likelihood", clamp=1e-9).likely_classes(
        LAYOUT, targets(units=[[1.0, 0.0]])
    )
    joint = torch.tensor([0.9 * 0.8, 0.1 * 0.4, 0.0])
    torch.testing.assert_close(q[0], (joint / joint.sum()).double(), rtol=1e-6, atol=1e-8)


def test_soft_co_annotation_of_a_multiclass_target() -> None:
    q, labelled = SoftCoAnnotation("mood", "coarse", EXCLUSIVE, evidence="share", temperature=1.0).likely_classes(
        LAYOUT, targets(coarse=[0.0, 1.0, NAN])
    )
    assert labelled.tolist() == [True, True, False]
    torch.testing.assert_close(q[:2], torch.softmax(torch.tensor(EXCLUSIVE, dtype=torch.float64).T, dim=1))


def test_without_a_label_soft_co_annotation_is_zero_and_finite() -> None:
    outputs = random_outputs(2).requires_grad_()
    value = SoftCoAnnotation("mood", "units", TABLE).of_outputs(LAYOUT, outputs, targets(units=[[NAN, NAN]] * 2))
    value.backward()
    assert value.item() == 0
    assert outputs.grad is not None
    assert not outputs.grad.any()


def test_tables_of_every_form_are_the_same() -> None:
    moods, units = ["sad", "glad", "mad"], ["up", "down"]
    expected = RelationTable.of(TABLE, classes=moods, labels=units)
    frame = Frame([TABLE[2][::-1], TABLE[0][::-1], TABLE[1][::-1]], ["mad", "sad", "glad"], ["down", "up"])
    mapping = {"mad": {"down": 1.0}, "glad": {"down": 0.6, "up": 0.1}, "sad": {"up": 0.9, "down": 0.2}}
    for table in (frame, mapping, np.array(TABLE), torch.tensor(TABLE, dtype=torch.float64), expected):
        found = RelationTable.of(table, classes=moods, labels=units)
        assert (found.classes, found.labels) == (("sad", "glad", "mad"), ("up", "down"))
        torch.testing.assert_close(found.probabilities, torch.tensor(TABLE, dtype=torch.float64))
    assert RelationTable.of(mapping).classes == ("mad", "glad", "sad"), "its own order where none is asked for"
    assert RelationTable.of(expected.to_json()).to_json() == expected.to_json()
    assert RelationTable.of({"a": {"x": 1.0}}, labels=["w", "x"]).probabilities.tolist() == [[0.0, 1.0]]


def test_binary_targets_are_matched_by_name() -> None:
    frame = Frame([[row[1], row[0]] for row in TABLE], ["0", "1", "2"], ["frown", "smile"])
    outputs = random_outputs()
    by_name = DistributionMatching("mood", ("smile", "frown"), frame).of_outputs(LAYOUT, outputs, unlabelled())
    in_order = DistributionMatching("mood", ("smile", "frown"), TABLE).of_outputs(LAYOUT, outputs, unlabelled())
    assert by_name.item() == in_order.item()


def test_relations_are_counted() -> None:
    packed = targets(
        mood=[0.0, 0.0, 1.0, 1.0, 1.0, 2.0, NAN],
        units=[[1.0, NAN], [0.0, 1.0], [1.0, 1.0], [NAN, 0.0], [1.0, 0.0], [NAN, NAN], [1.0, 1.0]],
    )
    table = estimate_relation(TASKS, packed, "mood", "units", smoothing=1.0)
    assert table.counts is not None
    assert table.counts.tolist() == [[2.0, 1.0], [2.0, 3.0], [0.0, 0.0]]
    expected = [[(1 + 1) / (2 + 2), (1 + 1) / (1 + 2)], [(2 + 1) / (2 + 2), (1 + 1) / (3 + 2)], [0.5, 0.5]]
    torch.testing.assert_close(table.probabilities, torch.tensor(expected, dtype=torch.float64))
    with pytest.raises(ValueError, match="Class 'angry' of task 'mood' has no sample"):
        estimate_relation(LAYOUT, packed, "mood", "units", smoothing=0.0, classes=["sad", "glad", "angry"])


def test_relations_to_exclusive_classes_sum_to_one() -> None:
    packed = targets(mood=[0.0, 0.0, 1.0, 2.0], coarse=[0.0, 1.0, 1.0, NAN])
    table = estimate_relation(TASKS, packed, "mood", "coarse", smoothing=0.5)
    expected = [[1.5 / 3, 1.5 / 3], [0.5 / 2, 1.5 / 2], [0.5, 0.5]]
    torch.testing.assert_close(table.probabilities, torch.tensor(expected, dtype=torch.float64))
    table.require_exclusive()


def test_relations_to_binary_tasks_carry_their_names() -> None:
    packed = targets(mood=[0.0, 1.0], smile=[1.0, 0.0], frown=[NAN, 1.0])
    table = estimate_relation(TASKS, packed, "mood", ["frown", "smile"], smoothing=0.0001, classes="xyz")
    assert table.labels == ("frown", "smile")
    assert table.probabilities[0, 1] > 0.99


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("joy", "units", TABLE), "no task 'joy' to match"),
        (("mood", "unit", TABLE), "no task 'unit' to match"),
        (("units", "mood", TABLE), "'units' is multilabel; it must be multiclass"),
        (("mood", "age", [[1.0]] * 3), r"'age' \(regression\) cannot be the target"),
        (("mood", "mood", EXCLUSIVE), "another task"),
        (("mood", ("smile", "units"), {"0": {"smile": 1.0, "units": 0.0}}), "'units' is multilabel"),
        (("mood", "units", TABLE[:2]), "2 classes and 2 labels, but task 'mood' has 3 classes and task 'units' 2"),
        (("mood", "coarse", TABLE), r"class '0' sum to 1.1; .* each row must sum to 1"),
        (("mood", (), np.zeros((3, 0))), r"not shape \(3, 0\)"),
    ],
)
def test_errors_about_tasks(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DistributionMatching(*arguments).of_outputs(LAYOUT, random_outputs(), unlabelled())


@pytest.mark.parametrize(
    ("table", "names", "message"),
    [
        ([[0.5, 1.5]], {}, "class '0' to label '1' is 1.5"),
        ([[0.5, NAN]], {}, "label '1' is nan"),
        ([0.5, 0.5], {}, r"not shape \(2,\)"),
        ({"a": {"x": 1.0}}, {"classes": ["a", "b"]}, "no class 'b'; it has 'a'"),
        ({"a": {"x": 1.0}, "b": {"x": 1.0}}, {"classes": ["a"]}, "unknown class 'b'; the task has 'a'"),
        ({"a": {"x": 1.0}}, {"labels": ["y"]}, "unknown label 'x'; the task has 'y'"),
        ([[0.5, 0.5]], {"labels": ["x", "x"]}, "label 'x' twice"),
        ([[0.5, 0.5]], {"labels": ["x"]}, "1 classes and 1 labels"),
    ],
)
def test_errors_about_tables(table: Any, names: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RelationTable.of(table, **names)


def test_other_errors() -> None:
    with pytest.raises(TypeError, match="relation of class 'a' is a list; give a mapping"):
        RelationTable.of({"a": [1.0]})
    with pytest.raises(ValueError, match="no evidence 'guess'"):
        SoftCoAnnotation("mood", "units", TABLE, evidence="guess")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="Matching 'mood' has no samples 'some'; choose from unlabelled, all"):
        SoftCoAnnotation("mood", "units", TABLE, samples="some")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="Matching 'mood' has no weighting 'max'; choose from sample, mean"):
        DistributionMatching("mood", "units", TABLE, weighting="max")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="temperature is 0"):
        SoftCoAnnotation("mood", "units", TABLE, temperature=0)
    with pytest.raises(ValueError, match="clamp is"):
        DistributionMatching("mood", "units", TABLE, clamp=0.5)
    with pytest.raises(ValueError, match="strength of matching 'mood' is -1"):
        SoftCoAnnotation("mood", "units", TABLE, strength=-1)
    with pytest.raises(ValueError, match="No sample is labelled for both task 'mood' and task 'units'"):
        estimate_relation(TASKS, targets(mood=[0.0, NAN], units=[[NAN, NAN], [1.0, 0.0]]), "mood", "units")
    with pytest.raises(ValueError, match="No sample is labelled for task 'mood', so its relation"):
        estimate_relation(TASKS, targets(units=UNITS), "mood", "units")
    with pytest.raises(ValueError, match="No sample is labelled for tasks 'smile', 'frown'"):
        estimate_relation(TASKS, targets(mood=[0.0, 1.0]), "mood", ("smile", "frown"))
    with pytest.raises(ValueError, match="smoothing is -1"):
        estimate_relation(TASKS, targets(mood=[0.0]), "mood", "units", smoothing=-1)
    with pytest.raises(ValueError, match="distribution matching of 'mood' of the batch is NaN or Inf"):
        DistributionMatching("mood", "units", TABLE).of_outputs(LAYOUT, random_outputs() * NAN, unlabelled())


def test_disjoint_tasks_teach_each_other() -> None:
    """Classes are labelled on one half, attributes on the other, and one class's attribute only through the table."""
    generator = torch.Generator().manual_seed(0)
    classes = torch.randint(0, 3, (300,), generator=generator)
    inputs = torch.nn.functional.one_hot(classes, 3).float() + 0.1 * torch.randn(300, 3, generator=generator)
    table = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    tasks = [Task.multiclass("class", classes=3), Task.multilabel("attributes", labels=2, metric="accuracy")]
    half = torch.arange(300) < 150
    labels = torch.where((~half & (classes != 2))[:, None], table[classes], NAN)  # class 2 is never seen with them
    packed = torch.cat([torch.where(half, classes.float(), NAN)[:, None], labels], dim=1)
    truth = torch.cat([classes.float()[:, None], table[classes]], dim=1)

    accuracies = []
    for objectives in ([], [DistributionMatching("class", "attributes", table)]):
        torch.manual_seed(0)
        model = MultiTaskModel(nn.Identity(), 3, (8,), tasks)
        adam = torch.optim.Adam(model.parameters(), lr=0.05)
        Trainer(model, adam, objectives=objectives, progress=False, batch_size=30).fit((inputs, packed), epochs=10)
        with torch.no_grad():
            predicted = model.split(model(inputs))["attributes"] > 0
        unseen = classes == 2
        accuracies.append(float((predicted == truth[:, 1:].bool())[unseen].float().mean()))
    assert accuracies[1] > 0.95 > accuracies[0]
