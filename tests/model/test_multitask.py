"""The model: outputs, predictions, losses, errors, state."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from selshare.model import MultiTaskModel
from selshare.model.bank import resize_stacked, stacked_tensors
from selshare.tasks import Task

TASKS = (
    Task.binary("sandal"),
    Task.multiclass("century", classes=7),
    Task.regression("year"),
    Task.ranking("striped wing"),
    Task.multilabel("attributes", labels=3),
    Task.multiclass("school", classes=7),
    Task.binary("boot"),
)


def mixed_model() -> MultiTaskModel:
    return MultiTaskModel(nn.Linear(4, 8), 8, (6, 5), TASKS)


def mixed_targets(batch: int) -> dict[str, Tensor]:
    return {
        "sandal": torch.randint(2, (batch,)),
        "century": torch.randint(7, (batch,)),
        "year": torch.randn(batch),
        "striped wing": torch.randn(batch),
        "attributes": torch.randint(2, (batch, 3)),
        "school": torch.randint(7, (batch,)),
        "boot": torch.randint(2, (batch,)).float(),
    }


def by_hand(model: MultiTaskModel, inputs: Tensor) -> dict[str, Tensor]:
    """Outputs task by task: unpack the bank and pick each head's weights."""
    shared = model.trunk(inputs)
    branches = model.bank.to_modules()
    outputs = {}
    for index, task in enumerate(model.tasks):
        place = model.layout.widths[task.outputs].index(index)
        weight, bias = (part[str(task.outputs)][place] for part in (model.heads.weights, model.heads.biases))
        outputs[task.name] = branches[int(model.assignment[index])](shared) @ weight.T + bias
    return outputs


def scramble(model: MultiTaskModel) -> None:
    """Different weights everywhere, as after training."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()


def shrink(model: MultiTaskModel) -> None:
    """Put the seven tasks on three branches."""
    resize_stacked(model.bank, {name: tensor[:3].clone() for name, tensor in stacked_tensors(model.bank).items()})
    model.reassign(torch.tensor([0, 2, 1, 1, 0, 2, 2]))


@pytest.mark.parametrize("merged", [False, True])
def test_outputs_equal_a_loop_over_tasks(merged: bool) -> None:
    model = mixed_model().double()
    scramble(model)
    if merged:
        shrink(model)
    inputs = torch.randn(9, 4, dtype=torch.float64)
    outputs = model(inputs)
    assert outputs.shape == (9, model.layout.output_width)
    for name, expected in by_hand(model, inputs).items():
        torch.testing.assert_close(model.split(outputs)[name], expected, rtol=1e-12, atol=1e-12)


def test_predictions_fit_the_kinds() -> None:
    model = mixed_model()
    scramble(model)
    inputs = torch.randn(9, 4)
    predictions = model.predict(inputs, batch_size=4)
    raw = model.split(model(inputs))
    sandal, century, year = predictions["sandal"], predictions["century"], predictions["year"]
    torch.testing.assert_close(sandal.probabilities, torch.sigmoid(raw["sandal"][:, 0]))
    assert sandal.classes is not None
    assert sandal.classes.tolist() == (raw["sandal"][:, 0] > 0).long().tolist()
    torch.testing.assert_close(century.probabilities, raw["century"].softmax(1))
    assert century.classes is not None
    assert century.classes.tolist() == raw["century"].argmax(1).tolist()
    torch.testing.assert_close(year.values, raw["year"][:, 0])
    assert predictions["attributes"].probabilities is not None
    assert predictions["attributes"].probabilities.shape == (9, 3)
    assert predictions["striped wing"].probabilities is None
    assert model.training, "predict puts the mode back"


def test_tasks_start_alike() -> None:
    model = MultiTaskModel(nn.Identity(), 4, (6, 5), [Task.binary(str(i)) for i in range(3)])
    outputs = model(torch.randn(5, 4))
    torch.testing.assert_close(outputs, outputs[:, :1].expand(5, 3))


@pytest.mark.parametrize("tasks", [[Task.binary("only")], [Task.binary("one"), Task.regression("two")]])
def test_one_or_two_tasks_train(tasks: list[Task]) -> None:
    model = MultiTaskModel(nn.Linear(4, 8), 8, (6,), tasks)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    inputs, targets = torch.randn(16, 4), torch.ones(16, len(tasks))
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        loss = model.loss(model(inputs), targets)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_the_record_is_the_mean_loss_per_labelled_sample() -> None:
    model = MultiTaskModel(nn.Identity(), 4, (6,), [Task.regression("a"), Task.regression("b"), Task.regression("c")])
    nan = float("nan")
    first, second = torch.randn(2, 4), torch.randn(3, 4)
    targets = torch.tensor([[1.0, nan, nan], [2.0, 3.0, nan]]), torch.tensor([[1.0, nan, nan]] * 3)
    squares = []
    for inputs, target in zip((first, second), targets, strict=True):
        outputs = model(inputs)
        model.loss(outputs, target)
        squares.append((outputs - target) ** 2)
    expected = torch.cat(squares).detach().nanmean(0).double()
    torch.testing.assert_close(model.recorded_losses(), expected, equal_nan=True)
    model.reset_loss_record()
    model.eval()
    model.loss(model(first), targets[0])
    assert model.recorded_losses().isnan().all(), "nothing is recorded in evaluation mode"


@pytest.mark.parametrize("merged", [False, True])
def test_state_round_trips_into_a_fresh_model(merged: bool) -> None:
    model, fresh = mixed_model(), mixed_model()
    scramble(model)
    if merged:
        shrink(model)
    fresh.load_state_dict(model.state_dict())
    inputs = torch.randn(5, 4)
    assert torch.equal(fresh(inputs), model(inputs))
    model.load_state_dict(mixed_model().state_dict())
    assert model.bank.branches == len(TASKS), "and back from merged to unmerged"


def test_a_state_whose_assignment_does_not_fit_is_refused() -> None:
    model = mixed_model()
    state = model.state_dict()
    state["assignment"] = torch.tensor([0, 0, 0, 0, 0, 0, 0])
    with pytest.raises(ValueError, match="leave no branch without a task"):
        model.load_state_dict(state)


@pytest.mark.parametrize("merged", [False, True])
def test_compiled_step_equals_the_eager_step(merged: bool) -> None:
    model = mixed_model()
    scramble(model)
    if merged:
        shrink(model)
    inputs = torch.randn(9, 4)
    targets = torch.cat([part.float().reshape(9, -1) for part in mixed_targets(9).values()], dim=1)

    def step(inputs: Tensor, targets: Tensor) -> Tensor:
        return model.loss(model(inputs), targets)

    eager = step(inputs, targets)
    eager.backward()
    gradients = [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]
    model.zero_grad()
    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")(inputs, targets)
    compiled.backward()
    torch.testing.assert_close(compiled, eager)
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)
    with torch.no_grad():
        torch.testing.assert_close(step(inputs, targets), eager)


def test_a_branch_of_300_300_has_the_papers_parameters() -> None:
    model = MultiTaskModel(nn.Identity(), 300, (300, 300), [Task.binary(str(i)) for i in range(2)])
    assert model.branch_parameter_count() == 2 * 180_600
    assert model.parameter_count() == 2 * (180_600 + 301)


def test_own_branches_on_feature_maps() -> None:
    branch = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 5))
    model = MultiTaskModel(nn.Identity(), (3, 4, 4), tasks=TASKS, branch=branch)
    outputs = model(torch.randn(2, 3, 4, 4))
    assert outputs.shape == (2, model.layout.output_width)
    assert model.bank.first_weight.shape == (len(TASKS), 4, 3, 3, 3)


def test_errors_name_what_is_wrong() -> None:
    model = MultiTaskModel(nn.Linear(4, 8), 7, (6,), [Task.binary("a")])
    with pytest.raises(ValueError, match=r"output has shape \(2, 8\), but shared_features asks for \(batch, 7\)"):
        model(torch.randn(2, 4))
    model = MultiTaskModel(nn.Linear(4, 8), 8, (6,), [Task.binary("a")])
    inputs = torch.randn(3, 4)
    inputs[1, 2] = float("nan")
    with pytest.raises(ValueError, match="NaN or Inf, first in sample 1 of the batch: so do the inputs"):
        model(inputs)
    with torch.no_grad():
        model.heads.biases["1"].fill_(float("nan"))
    with pytest.raises(ValueError, match="a"):
        model.loss(model(torch.randn(3, 4)), torch.ones(3, 1))
    with pytest.raises(ValueError, match="branch="):
        MultiTaskModel(nn.Identity(), (3, 4, 4), (5,), [Task.binary("a")])


def test_numpy_in_numpy_out() -> None:
    tasks = [Task.binary("a"), Task.multiclass("b", classes=3), Task.regression("c")]
    model = MultiTaskModel(nn.Linear(4, 5), 5, (3,), tasks)
    inputs = np.random.default_rng(0).normal(size=(7, 4))
    inputs.flags.writeable = False
    found = model.predict(inputs, batch_size=3)
    wanted = model.predict(torch.tensor(inputs, dtype=torch.float32))
    for name in ("a", "b", "c"):
        for part in ("probabilities", "classes", "values"):
            array, tensor = getattr(found[name], part), getattr(wanted[name], part)
            assert (array is None) == (tensor is None)
            if array is not None:
                assert isinstance(array, np.ndarray)
                np.testing.assert_allclose(array, tensor.numpy(), rtol=1e-6)


def test_a_merged_state_loads_inside_another_module() -> None:
    """As in a LightningModule: torch then does not call the model's own ``load_state_dict``."""
    merged, fresh = (nn.ModuleDict({"inner": mixed_model()}) for _ in range(2))
    shrink(merged["inner"])
    fresh.load_state_dict(merged.state_dict())
    inputs = torch.randn(5, 4)
    torch.testing.assert_close(fresh["inner"](inputs), merged["inner"](inputs), rtol=0, atol=0)
    fresh.load_state_dict(nn.ModuleDict({"inner": mixed_model()}).state_dict())
    assert fresh["inner"].bank.branches == len(TASKS)
    state = merged.state_dict()
    state["inner.assignment"] = torch.zeros(len(TASKS), dtype=torch.int64)
    with pytest.raises(ValueError, match="leave no branch without a task"):
        fresh.load_state_dict(state)
