from __future__ import annotations

from itertools import combinations

import pytest
import torch

from selshare.data import Problem, load


def group_numbers(problem: Problem) -> torch.Tensor:
    number = {name: g for g, members in enumerate(problem.groups) for name in members}
    return torch.tensor([number[task.name] for task in problem.tasks])


def test_shapes_and_planted_groups() -> None:
    problem = load("synthetic", tasks=23, groups=4, samples=50, features=7)
    inputs, targets = problem.train.tensors
    assert inputs.shape == (50, 7)
    assert targets.shape == (50, 23)
    assert set(targets.unique().tolist()) == {0.0, 1.0}
    assert problem.shared_features == 7
    assert problem.make_trunk()(inputs).shape == (50, 7)
    assert sorted(map(len, problem.groups)) == [5, 6, 6, 6]
    assert sorted(name for members in problem.groups for name in members) == sorted(t.name for t in problem.tasks)


def test_tasks_of_a_group_are_related_not_identical_and_others_unrelated() -> None:
    problem = load("synthetic", tasks=60, groups=6, samples=20_000)
    inputs, labels = problem.train.tensors
    # E[(y − ½) x] points along a task's weights: an estimate that knows nothing of how the labels were made.
    directions = torch.nn.functional.normalize((labels - 0.5).T @ inputs)
    cosines, group = directions @ directions.T, group_numbers(problem)
    same = (group[:, None] == group) & ~torch.eye(60, dtype=torch.bool)
    assert 0.7 < cosines[same].mean() < 0.85
    assert cosines[same].max() < 0.97
    assert abs(cosines[group[:, None] != group].mean()) < 0.1
    disagreement = [(labels[:, a] != labels[:, b]).float().mean() for a, b in combinations(range(10), 2)]
    assert min(disagreement) > 0.15


def test_noise_flips_that_share_of_labels() -> None:
    # With a strong signal the labels are a function of the inputs, but for the noise; the seed draws the same tasks.
    clean, noisy = (load("synthetic", samples=5_000, signal=1e4, noise=noise, seed=3) for noise in (0.0, 0.2))
    assert torch.equal(clean.train.tensors[0], noisy.train.tensors[0])
    flipped = (clean.train.tensors[1] != noisy.train.tensors[1]).float().mean(dim=0)
    assert 0.15 < flipped.min() < flipped.max() < 0.25


def test_relatedness_one_leaves_one_direction_a_group() -> None:
    problem = load("synthetic", tasks=12, groups=3, signal=1e4, noise=0.0, relatedness=1.0)
    labels, group = problem.train.tensors[1], group_numbers(problem)
    for g in range(3):
        members = labels[:, group == g]
        assert (members == members[:, :1]).float().mean() > 0.999


def test_task_order_says_nothing_about_groups_and_the_seed_draws_all() -> None:
    first, again, other = load("synthetic"), load("synthetic", seed=0), load("synthetic", seed=1)
    changes = (group_numbers(first).diff() != 0).sum()
    assert changes > 150  # neighbours in the list are rarely of one group
    for part in ("train", "validation", "test"):
        for ours, same, differs in zip(*(getattr(p, part).tensors for p in (first, again, other)), strict=True):
            assert torch.equal(ours, same)
            assert not torch.equal(ours, differs)
    assert first.groups == again.groups != other.groups


def test_difficulty_spreads_the_tasks_and_changes_nothing_else() -> None:
    plain, spread = (load("synthetic", tasks=100, samples=5_000, noise=0.0, difficulty=d) for d in (0.0, 1.0))
    assert torch.equal(plain.train.tensors[0], spread.train.tensors[0])
    assert plain.groups == spread.groups

    def sureness(problem: Problem) -> torch.Tensor:  # E|E[y x] − ½E[x]| grows with a task's signal
        inputs, labels = problem.train.tensors
        return ((labels - 0.5).T @ inputs / len(inputs)).norm(dim=1)

    assert sureness(plain).std() < 0.02
    assert sureness(spread).std() > 0.05


def test_labels_can_be_missing_in_training() -> None:
    full, gaps = (load("synthetic", tasks=30, samples=1_000, labelled=share) for share in (1.0, 0.25))
    labels, kept = full.train.tensors[1], gaps.train.tensors[1]
    there = ~kept.isnan()
    assert 0.2 < there.float().mean(0).min() < there.float().mean(0).max() < 0.3
    assert torch.equal(kept[there], labels[there])
    assert not full.train.tensors[1].isnan().any()
    for part in ("validation", "test"):
        assert torch.equal(getattr(full, part).tensors[1], getattr(gaps, part).tensors[1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tasks": 0}, "tasks=0; it must be at least 1"),
        ({"tasks": 5, "groups": 6}, "6 groups for 5 tasks"),
        ({"noise": 0.5}, "noise=0.5"),
        ({"relatedness": 1.1}, "relatedness=1.1"),
        ({"signal": 0.0}, "signal=0.0"),
        ({"samples": -1}, "samples=-1"),
        ({"difficulty": -0.1}, "difficulty=-0.1"),
        ({"labelled": 0.0}, "labelled=0.0"),
    ],
)
def test_values_out_of_range(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load("synthetic", **options)
