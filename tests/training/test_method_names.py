"""Methods by name: taken apart, made for a problem, run, and reported."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from selshare import Task
from selshare.data import Problem, Recipe
from selshare.objectives import DistributionMatching, SaliencyRegularizer, SoftCoAnnotation
from selshare.report import write_report
from selshare.training.compare import compare
from selshare.training.method_names import MethodParts, check_methods, method_parts
from selshare.training.method_objectives import make_objectives

TABLE = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
TASKS = (
    Task.binary("odd"),
    Task.multiclass("class", classes=3),
    Task.multilabel("marks", labels=2, metric="accuracy"),
    Task.regression("size"),
)


def problem(tasks: tuple[Task, ...] = TASKS, **options: object) -> Problem:
    classes = torch.arange(90) % 3
    inputs = nn.functional.one_hot(classes, 3).float() + 0.1 * torch.randn(90, 3)
    columns = {
        "odd": (classes % 2)[:, None].float(),
        "class": classes[:, None].float(),
        "marks": TABLE[classes],
        "size": inputs[:, :1],
    }
    data = TensorDataset(inputs, torch.cat([columns[task.name] for task in tasks], dim=1))
    return Problem(
        name="small",
        description="",
        tasks=tasks,
        train=data,
        validation=data,
        test=data,
        make_trunk=lambda: nn.Linear(3, 6),
        shared_features=6,
        hidden=(4,),
        recipe=Recipe(lr=0.1, batch_size=30, epochs=2),
        **options,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    ("method", "criterion", "objectives"),
    [
        ("mtl", None, ()),
        ("similarity", "similarity", ()),
        ("srdml", None, ("srdml",)),
        ("srdml+similarity", "similarity", ("srdml",)),
        ("random+distribution-matching+srdml", "random", ("distribution-matching", "srdml")),
    ],
)
def test_names_are_taken_apart(method: str, criterion: str | None, objectives: tuple[str, ...]) -> None:
    check_methods([method, "stl"])
    assert method_parts(method) == MethodParts(criterion, objectives)


@pytest.mark.parametrize(
    ("methods", "message"),
    [
        ([], r"unknown method \(none given\)"),
        (["mtl", "srdlm", "simil"], "unknown method srdlm, simil; choose from stl, mtl, similarity"),
        (["mtl+srdml"], r"unknown method mtl\+srdml"),
        (["stl+srdml"], r"unknown method stl\+srdml"),
        (["random+similarity"], r"unknown method random\+similarity"),
        (["srdml+srdml"], r"srdml\+srdml names a part twice"),
    ],
)
def test_unknown_names(methods: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_methods(methods)


def test_objectives_fit_the_problem() -> None:
    (saliency,) = make_objectives(problem(), ["srdml"], {"srdml": {"strength": 0.5}})
    assert isinstance(saliency, SaliencyRegularizer)
    assert (saliency.strength, saliency.warmup) == (0.5, 3), "the first epoch has three steps"
    made = make_objectives(problem(), ["distribution-matching"])
    assert [type(term) for term in made] == [DistributionMatching] * 2 + [SoftCoAnnotation] * 2
    assert [term.target for term in made[:2]] == ["odd", "marks"]  # type: ignore[attr-defined]
    estimated = made[1].relation  # type: ignore[attr-defined]
    torch.testing.assert_close(estimated.probabilities, (30 * TABLE.double() + 1) / 32)
    given = make_objectives(problem(relations={("class", "marks"): TABLE}), ["distribution-matching"])
    assert len(given) == 2
    torch.testing.assert_close(given[0].relation.probabilities, TABLE.double())  # type: ignore[attr-defined]


def test_tasks_that_cannot_be_matched() -> None:
    with pytest.raises(ValueError, match="small has no such pair; leave the method out"):
        make_objectives(problem((TASKS[0], TASKS[3])), ["distribution-matching"])
    apart = problem()
    targets = apart.train.tensors[1]  # type: ignore[attr-defined]
    targets[:45, 1] = math.nan
    targets[45:, 2:4] = math.nan
    with pytest.raises(ValueError, match="labelled for both task 'class' and task 'marks'"):
        make_objectives(apart, ["distribution-matching"])


def test_compare_runs_them_and_the_report_shows_the_relations(tmp_path: Path) -> None:
    methods = ["mtl", "srdml+random", "distribution-matching"]
    rows = compare(lambda seed: problem(), methods, folder=tmp_path, progress=False)
    assert [row.method for row in rows] == methods
    assert rows[1].branches < 4
    assert rows[2].branches == 4
    learned = json.loads((tmp_path / "srdml+random-seed0.json").read_text())["relations"]
    assert learned["names"] == [task.name for task in TASKS]
    assert sum(map(sum, learned["weights"])) == pytest.approx(2)
    assert "relations" not in json.loads((tmp_path / "mtl-seed0.json").read_text())
    page = write_report(tmp_path).read_text()
    assert page.count('<section id="relations-') == 1
    assert "Learned weights of all pairs of 4 tasks." in page
    strongest = max(learned["weights"][i][j] for i in range(4) for j in range(i))
    assert f"<td>{strongest:.3g}</td>" in page
