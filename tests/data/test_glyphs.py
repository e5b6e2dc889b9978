from __future__ import annotations

from pathlib import Path

import pytest
import torch

from selshare.data import load
from selshare.objectives import task_losses
from selshare.tasks import TaskLayout
from selshare.training.metrics import mean_metric, score

SYSTEMS = ["Latin", "Hebrew", "Tifinagh", "Canadian Aboriginal"]
SMALL = {"systems": SYSTEMS, "renderings": 5, "letters": 16}


def test_seven_mixed_tasks(fonts: Path) -> None:
    problem = load("glyphs", root=fonts, **SMALL)
    assert [(task.name, task.kind, task.outputs) for task in problem.tasks] == [
        ("script", "multiclass", 4),
        ("descent", "multiclass", 7),
        ("type", "multiclass", 4),
        ("category", "multiclass", 3),
        ("serif", "binary", 1),
        ("weight", "binary", 1),
        ("year", "regression", 1),
    ]
    script, descent, kind, category, serif, weight, year = problem.train.tensors[1].unbind(1)
    latin, hebrew, tifinagh, canadian = (script == number for number in range(4))
    # Latin alone has capitals and small letters, and sans and serif faces here; Tifinagh has a single face.
    assert set(category[latin].tolist()) == {0.0, 1.0}
    assert set(category[~latin].tolist()) == {2.0}
    assert set(serif[latin].tolist()) == {0.0, 1.0}
    assert serif[~latin].isnan().all()
    assert set(weight[latin | hebrew].tolist()) == {0.0, 1.0}
    assert weight[tifinagh | canadian].isnan().all()
    # An alphabet twice, an abjad and an abugida, in alphabetical order; Hebrew and Tifinagh are of Semitic descent.
    assert [kind[system].unique().tolist() for system in (latin, hebrew, tifinagh, canadian)] == [[2], [0], [2], [1]]
    assert descent[hebrew].unique().tolist() == descent[tifinagh].unique().tolist() != descent[latin].unique().tolist()
    millennia = [round(year[system].unique().item(), 3) for system in (latin, hebrew, tifinagh, canadian)]
    assert millennia == [-0.6, -0.25, -0.138, 1.84]


def test_bold_images_have_more_ink(fonts: Path) -> None:
    images, targets = load("glyphs", root=fonts, **SMALL).train.tensors
    ink, weight = images.mean((1, 2, 3)), targets[:, 5]
    assert ink[weight == 1].mean() > 1.2 * ink[weight == 0].mean()


def test_the_error_is_in_years_and_lower_is_better(fonts: Path) -> None:
    problem = load("glyphs", root=fonts, **SMALL)
    layout, targets = TaskLayout(problem.tasks), problem.test.tensors[1]
    outputs = torch.zeros(len(targets), layout.output_width)
    outputs[:, -1] = targets[:, -1] + 0.05  # fifty years late
    scores = score(layout, outputs, targets)
    assert scores["year"] == pytest.approx(50, rel=1e-4)
    assert mean_metric(layout, scores) < 1, "years are not averaged with accuracies"
    assert task_losses(layout, outputs, targets).values[-1].item() == pytest.approx(0.05**2, rel=1e-4)


def test_omniarts_and_cubs_set_ups(fonts: Path) -> None:
    glyphs, attributes = (load(name, root=fonts, **SMALL) for name in ("glyphs", "glyph-attributes"))
    for problem in (glyphs, attributes):
        assert problem.make_trunk()(problem.train.tensors[0][:2]).shape == (2, 2048) == (2, problem.shared_features)
    assert (glyphs.hidden, glyphs.dropout, attributes.hidden) == ((300, 300), 0.2, (512, 256))
    assert (glyphs.recipe.optimizer, glyphs.recipe.lr, glyphs.recipe.batch_size, glyphs.recipe.epochs) == (
        "adam", 0.001, 100, 50,
    )  # fmt: skip
    assert (attributes.recipe.lr, attributes.recipe.batch_size) == (0.01, 32)


def test_ten_rankings_of_the_same_images(fonts: Path) -> None:
    glyphs, attributes = (load(name, root=fonts, **SMALL) for name in ("glyphs", "glyph-attributes"))
    assert len(attributes.tasks) == 10
    assert {task.kind for task in attributes.tasks} == {"ranking"}
    images, targets = attributes.train.tensors
    assert torch.equal(images, glyphs.train.tensors[0])
    assert targets.isfinite().all()
    # What is measured on the drawing is seen in the distorted image.
    ink = images.sum((1, 2, 3)) / (images > 0.3).any(2).sum((1, 2)) / (images > 0.3).any(3).sum((1, 2))
    assert torch.corrcoef(torch.stack([ink, targets[:, 0]]))[0, 1] > 0.75
    assert all(len(column.unique()) > 2 for column in targets.T)
