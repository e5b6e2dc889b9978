"""The exact capture: the sum of the first weight's gradients over an epoch, whatever happens to ``.grad``."""

import pytest
import torch

from selshare.sharing import Capture, GradientCapture, MergePlan, apply


def expected_gradients(model, inputs, targets):
    """δᵀA per branch, in float64, from a copy of the model run branch by branch."""
    total = torch.zeros(model.bank.first_weight.shape, dtype=torch.float64)
    modules = [module.double() for module in model.bank.to_modules()]
    shared = model.trunk(inputs).detach().double()
    for task, branch in enumerate(model.assignment.tolist()):
        weight = modules[branch][0].weight
        head = model.heads.weights["1"][task].detach().double(), model.heads.biases["1"][task].detach().double()
        logits = torch.nn.functional.linear(modules[branch](shared), *head)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits[:, 0], targets[:, task].double())
        total[branch] += torch.autograd.grad(loss, weight)[0]
    return total


def batch(model, samples=8):
    return torch.randn(samples, 6), torch.randint(0, 2, (samples, len(model.tasks))).float()


def started(model):
    capture = GradientCapture()
    capture.start(model, ())
    return capture


def test_sums_the_gradients_of_an_epoch(make_model):
    """Through clipping, set_to_none, optimizer steps and two backwards before a step."""
    model = make_model(5)
    apply(MergePlan(5, ((1, 3),), (1,)), model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    capture = started(model)
    want = torch.zeros(4, 5, 4, dtype=torch.float64)
    for _ in range(3):
        optimizer.zero_grad()
        for _ in range(2):
            inputs, targets = batch(model)
            want += expected_gradients(model, inputs, targets)
            model.loss(model(inputs), targets).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1e-3)
        optimizer.step()
    got = capture.gradients()
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.double(), want, rtol=1e-4, atol=1e-6)
    assert isinstance(capture, Capture)


def test_counts_only_training(make_model):
    model = make_model(3)
    capture = started(model)
    inputs, targets = batch(model)
    model.eval()
    model.loss(model(inputs), targets).backward()
    assert not capture.gradients().any()
    model.train()
    model.loss(model(inputs), targets).backward()
    assert capture.gradients().any()


def test_one_buffer_for_all_epochs(make_model):
    model = make_model(4)
    capture = started(model)
    memory = capture.gradients().data_ptr()
    inputs, targets = batch(model)
    model.loss(model(inputs), targets).backward()
    apply(MergePlan(4, ((0, 2),), (2,)), model)
    capture.reset()
    assert capture.gradients().shape == (3, 5, 4)
    assert not capture.gradients().any()
    want = expected_gradients(model, inputs, targets)
    model.loss(model(inputs), targets).backward()
    torch.testing.assert_close(capture.gradients().double(), want, rtol=1e-4, atol=1e-6)
    assert capture.gradients().data_ptr() == memory


def test_stop_removes_the_hook(make_model):
    model = make_model(3)
    capture = started(model)
    assert model.bank.first_weight._backward_hooks
    capture.stop()
    capture.stop()
    assert not model.bank.first_weight._backward_hooks
    inputs, targets = batch(model)
    model.loss(model(inputs), targets).backward()
    with pytest.raises(RuntimeError, match="not been started"):
        capture.gradients()


def test_convolutional_branches_give_matrices(make_model):
    branch = torch.nn.Sequential(
        torch.nn.Unflatten(1, (1, 2, 2)), torch.nn.Conv2d(1, 3, 2), torch.nn.ReLU(), torch.nn.Flatten()
    )
    model = make_model(3, branch=branch)
    capture = started(model)
    inputs, targets = batch(model)
    model.loss(model(inputs), targets).backward()
    assert capture.gradients().shape == (3, 3, 4)
    assert torch.equal(capture.gradients(), model.bank.first_weight.grad.flatten(2))


@pytest.mark.parametrize(("dtype", "want"), [(torch.float64, torch.float64), (torch.bfloat16, torch.float32)])
def test_accumulates_in_float32_or_better(make_model, dtype, want):
    model = make_model(3).to(dtype)
    capture = started(model)
    inputs, targets = batch(model)
    model.loss(model(inputs.to(dtype)), targets).backward()
    assert capture.gradients().dtype == want
    assert torch.equal(capture.gradients(), model.bank.first_weight.grad.to(want))


def test_a_task_without_labels_leaves_a_zero_row(make_model):
    model = make_model(3, branch=torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.Tanh()))
    capture = started(model)
    inputs, targets = batch(model)
    targets[:, 1] = torch.nan
    model.loss(model(inputs), targets).backward()
    assert capture.gradients().flatten(1).any(dim=1).tolist() == [True, False, True]


def test_a_bank_changed_behind_its_back_is_an_error(make_model):
    model = make_model(4)
    started(model)
    apply(MergePlan(4, ((0, 2),), (2,)), model)
    inputs, targets = batch(model)
    loss = model.loss(model(inputs), targets)
    with pytest.raises(RuntimeError, match="has 3 branches but the capture was started for 4"):
        loss.backward()


def test_frozen_branches_are_an_error(make_model):
    model = make_model(3)
    model.bank.requires_grad_(False)
    with pytest.raises(ValueError, match="frozen"):
        started(model)
