from __future__ import annotations

import numpy as np
import pytest
import torch

from selshare.data import load

SLOPES = [1, 1, 2, 2, 3, 3, -1, -1, -2, -2, -3, -3]


def test_each_task_has_its_own_points_and_its_planted_slope() -> None:
    problem = load("twelve")
    for part, points in ((problem.train, 10), (problem.validation, 40), (problem.test, 40)):
        inputs, targets = part.tensors
        assert inputs.shape == (12 * points, 20)
        assert torch.equal((~targets.isnan()).sum(1), torch.ones(12 * points, dtype=torch.int64))
        assert torch.equal((~targets.isnan()).sum(0), torch.full((12,), points))
    inputs, targets = (tensor.double().numpy() for tensor in problem.test.tensors)
    for task, slope in enumerate(SLOPES):
        rows = ~np.isnan(targets[:, task])
        weights, *_ = np.linalg.lstsq(inputs[rows], targets[rows, task], rcond=None)  # 40 points, 20 weights
        np.testing.assert_allclose(weights, slope, atol=0.02)


def test_six_pairs_of_equal_slope() -> None:
    problem = load("twelve")
    assert [task.name for task in problem.tasks][:4] == ["+1 a", "+1 b", "+2 a", "+2 b"]
    assert len(problem.groups) == 6
    assert {tuple(name[:2] for name in pair) for pair in problem.groups} == {
        (slope, slope) for slope in ("+1", "+2", "+3", "-1", "-2", "-3")
    }
    recipe = problem.recipe
    assert (recipe.lr, recipe.momentum, recipe.batch_size, recipe.epochs) == (0.01, 0.0, 120, 150)


def test_the_seed_draws_and_noise_is_noise() -> None:
    first, again, other = (load("twelve", seed=seed) for seed in (0, 0, 1))
    torch.testing.assert_close(first.train.tensors, again.train.tensors, equal_nan=True, rtol=0, atol=0)
    assert not torch.equal(first.train.tensors[0], other.train.tensors[0])
    noisy = load("twelve", noise=0.5, samples=100).train.tensors
    residuals = (noisy[1] - noisy[0].sum(1, keepdim=True) * torch.tensor(SLOPES)).flatten()
    assert 0.45 < residuals[~residuals.isnan()].std() < 0.55


@pytest.mark.parametrize(("options", "message"), [({"samples": 0}, "at least 1"), ({"noise": -1.0}, "not be negative")])
def test_values_out_of_range(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load("twelve", **options)
