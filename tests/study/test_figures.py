"""The study's figures: what is far from all others leaves them room, and runs of two lengths are not mixed."""

from __future__ import annotations

import pytest

from benchmarks.study import figures


def row(method: str, seed: int, metric: float, **more) -> dict:
    return {"method": method, "seed": seed, "mean_metric": metric, "epochs": 3, **more}


@pytest.mark.parametrize(("metric", "text"), [(0.2, "−0.60"), (2.0, "+1.20")])
def test_a_method_far_off_is_an_arrow_with_its_figure(metric: float, text: str) -> None:
    rows = [row("mtl", seed, 0.8) for seed in range(3)]
    rows += [row("default", seed, 0.8 + 0.001 * seed) for seed in range(3)]
    rows += [row("paper", seed, 0.798 - 0.001 * seed) for seed in range(3)]
    figure = figures.differences({"one": [*rows, row("hard", 0, metric)], "other": rows})
    assert figure is not None
    far, near = (axes for axes in figure.axes if axes.get_visible())
    assert [note.get_text() for note in far.texts] == [text]
    assert max(map(abs, far.get_xlim())) < 0.05
    assert not near.texts


def test_a_method_at_some_distance_is_a_point() -> None:
    rows = [row("mtl", 0, 0.8), row("default", 0, 0.79), row("paper", 0, 0.76)]
    figure = figures.differences({"one": rows})
    assert figure is not None
    assert not figure.axes[0].texts
    assert figure.axes[0].get_xlim()[0] < -0.04


def test_losses_are_those_of_the_longest_runs() -> None:
    short = [row(name, 0, 0.5, setting="200 tasks in 10", test_loss=120.0) for name in ("mtl", "default", "paper")]
    long = [row(name, 0, 0.5, setting="200 tasks in 10", test_loss=100.0) for name in ("mtl", "default")]
    figure = figures.scale([*short, *({**one, "epochs": 9} for one in long)])
    assert figure is not None
    drawn = [line.get_xdata()[0] for line in figure.axes[0].get_lines() if len(line.get_xdata()) == 1]
    assert drawn == [0.5, 0.5]
