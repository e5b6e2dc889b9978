"""The study of early grouping: groups of every epoch, agreement of seeds or with what is planted."""

from dataclasses import replace

import pytest

from benchmarks.study import early
from selshare.data import Recipe, load


def test_groups_are_those_of_each_epoch() -> None:
    small = load("synthetic", tasks=12, groups=3, samples=300, features=12, relatedness=0.95)
    small = replace(small, hidden=(8,), recipe=Recipe(epochs=early.EPOCHS + 1))
    row = early.groups(small, 0)
    assert len(row["labels"]) == early.EPOCHS
    assert all(len(labels) == 12 and min(labels) >= 0 for labels in row["labels"])
    assert row["planted"] == [place for place in row["planted"] if place in (0, 1, 2)]
    assert early.agreement([row], early.EPOCHS) > 0.9


def test_agreement_is_of_pairs_of_seeds_or_with_the_truth() -> None:
    rows = [{"labels": [labels], "planted": None} for labels in ([0, 0, 1, 1], [1, 1, 0, 0], [0, 1, 0, 1])]
    assert early.agreement(rows, 1) == pytest.approx((1 - 0.5 - 0.5) / 3)
    rows = [{"labels": [[0, 0, 1, 1]], "planted": [5, 5, 6, 6]}, {"labels": [[0, 1, 0, 1]], "planted": [5, 5, 6, 6]}]
    assert early.agreement(rows, 1) == pytest.approx((1 - 0.5) / 2)


def test_the_table_says_how_many_branches() -> None:
    rows = [
        {"setting": "digits", "seed": seed, "planted": None, "labels": [[0, 0, 1]] * early.EPOCHS} for seed in (0, 1)
    ]
    assert "| digits | 2 | 1.00 (2.0) |" in early.table(rows)
