"""The study of partitions: sizes kept, similar ones more similar, a variance that is the partition's found as such."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.study import partitions
from selshare.data import Recipe, load


def problem():
    small = load("synthetic", tasks=8, groups=2, samples=200, features=10, relatedness=0.9)
    return replace(small, hidden=(6,), recipe=Recipe(epochs=3, batch_size=50))


def test_partitions_have_the_sizes_asked_for_and_are_what_their_names_say() -> None:
    chosen_problem = problem()
    distances = partitions.early_distances(chosen_problem)
    assert distances.shape == (8, 8)
    chosen = partitions.choose(chosen_problem, (4, 4), distances, random=3)
    assert list(chosen) == ["alike", "unlike", "random 0", "random 1", "random 2", "planted"]
    for groups in chosen.values():
        assert [len(group) for group in groups] == [4, 4]
        assert sorted(task for group in groups for task in group) == list(range(8))
    spread = {name: partitions.within(distances, groups) for name, groups in chosen.items()}
    assert spread["alike"] <= spread["planted"]
    assert all(spread["alike"] <= value <= spread["unlike"] for value in spread.values())


def test_a_partition_is_what_is_merged() -> None:
    row = partitions.run(problem(), ((0, 3, 5), (1, 2)), 0)
    assert row["branches"] == 5
    names = [task.name for task in problem().tasks]
    assert sorted(map(sorted, row["groups"])) == sorted([sorted(names[i] for i in g) for g in ((0, 3, 5), (1, 2))])


def test_a_variance_of_partitions_is_told_from_noise() -> None:
    generator = np.random.default_rng(0)
    centres = generator.normal(0, 3, 200)
    noise, between, chance = partitions.variance_parts(centres[:, None] + generator.normal(0, 1, (200, 5)))
    assert noise == pytest.approx(1, rel=0.1)
    assert between == pytest.approx(3, rel=0.2)
    assert chance < 1e-10
    noise, between, chance = partitions.variance_parts(generator.normal(0, 1, (200, 5)))
    assert noise == pytest.approx(1, rel=0.1)
    assert between < 0.25
    assert chance > 0.01


def test_the_table_has_a_line_for_each_data_set() -> None:
    rows = [
        {"setting": "digits", "partition": name, "repeat": repeat, "mean_metric": value + 0.01 * repeat, "test_loss": 1}
        for name, value in (("alike", 0.5), ("unlike", 0.6), ("random 0", 0.7), ("random 1", 0.8))
        for repeat in (0, 1)
    ]
    line = partitions.table(rows).splitlines()[2]
    assert "digits" in line
    assert "2 × 2" in line
    assert "0.7550 ± 0.0500 | 0.5050 ± 0.0050 | 0.6050 ± 0.0050 | –" in line
