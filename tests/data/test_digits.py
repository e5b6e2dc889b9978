import torch
from sklearn.datasets import load_digits

from selshare.data import load


def test_splits_are_disjoint_complete_and_stratified() -> None:
    problem = load("digits")
    parts = [problem.train.tensors, problem.validation.tensors, problem.test.tensors]
    assert [len(inputs) for inputs, _ in parts] == [1077, 360, 360]
    # Put together, the parts are the bundled set: every image as often as there, with its own label.
    images, labels = load_digits(return_X_y=True)
    expected = sorted(zip(map(bytes, images.astype("uint8")), labels.tolist(), strict=True))
    pixels = torch.cat([inputs for inputs, _ in parts]).mul(16).to(torch.uint8).flatten(1).numpy()
    classes = torch.cat([targets for _, targets in parts]).argmax(dim=1).tolist()
    assert sorted(zip(map(bytes, pixels), classes, strict=True)) == expected
    for _, targets in parts:
        assert torch.equal(targets.sum(dim=1), torch.ones(len(targets)))  # exactly one class
        assert (targets.mean(dim=0) - torch.cat([t for _, t in parts]).mean(dim=0)).abs().max() < 0.003


def test_the_seed_decides_the_split() -> None:
    first, again, other = load("digits"), load("digits", seed=0), load("digits", seed=1)
    assert torch.equal(first.train.tensors[0], again.train.tensors[0])
    assert not torch.equal(first.train.tensors[0], other.train.tensors[0])


def test_trunk_and_tasks() -> None:
    problem = load("digits")
    inputs, targets = problem.train[0]
    assert inputs.shape == (1, 8, 8)
    assert 0 <= inputs.min() < inputs.max() <= 1
    assert problem.make_trunk()(inputs[None].expand(2, -1, -1, -1)).shape == (2, problem.shared_features)
    assert [task.name for task in problem.tasks] == [f"digit {digit}" for digit in range(10)]
    assert targets.shape == (10,)
    assert {task.kind for task in problem.tasks} == {"binary"}
    recipe = problem.recipe
    assert (recipe.optimizer, recipe.lr, recipe.momentum, recipe.batch_size, recipe.epochs) == (
        "sgd",
        0.02,
        0.5,
        64,
        30,
    )
