"""Selective sharing to the letter, from end to end: groups found, branches merged, the lock, resuming, errors."""

import copy
import json
from functools import partial

import pytest
import torch
from torch import nn

from selshare.model import MultiTaskModel
from selshare.sharing import Clustering, MergePlan, SharingEvent, apply, replay
from selshare.sharing import SelectiveSharing as AnySharing
from selshare.tasks import Task

WIDTH = 10
SelectiveSharing = partial(AnySharing, preset="paper")


def planted(groups: int, members: int, samples: int = 384, seed: int = 3):
    """Inputs and targets of related tasks, members of a group next to each other; and a model for them."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(groups, WIDTH, generator=generator).repeat_interleave(members, dim=0)
    weights = centres + 0.2 * torch.randn(groups * members, WIDTH, generator=generator)
    inputs = torch.randn(samples, WIDTH, generator=generator)
    targets = torch.bernoulli(torch.sigmoid(2 * inputs @ weights.T), generator=generator)
    torch.manual_seed(seed)
    tasks = [Task.binary(f"g{t // members}m{t % members}") for t in range(groups * members)]
    model = MultiTaskModel(nn.Sequential(nn.Linear(WIDTH, 16), nn.ReLU()), 16, (12, 6), tasks)
    return model, inputs, targets


def train_epoch(model, optimizer, inputs, targets) -> torch.Tensor:
    for rows in torch.arange(len(inputs)).split(64):
        optimizer.zero_grad()
        loss = model.loss(model(inputs[rows]), targets[rows])
        loss.backward()
        optimizer.step()
    return loss


def momentum(model) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.5)


def scripted(*epochs):
    """A criterion that returns the given labels, an entry per epoch."""

    def script(rows, settings):
        return Clustering(torch.tensor(epochs[settings.epoch - 1][: len(rows)]))

    return script


def start(criterion="similarity", groups=3, members=3, **options):
    model, inputs, targets = planted(groups, members)
    optimizer = momentum(model)
    sharing = SelectiveSharing(criterion, **options).attach(model, optimizer)
    return model, optimizer, sharing, inputs, targets


def truth(groups: int, members: int) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(f"g{g}m{m}" for m in range(members)) for g in range(groups))


@pytest.mark.parametrize("embedding", ["joint", "per_branch"])
def test_similarity_finds_planted_groups_and_locks(embedding):
    model, optimizer, sharing, inputs, targets = start(embedding=embedding)
    train_epoch(model, optimizer, inputs, targets)
    event = sharing.end_epoch()
    assert set(event.groups) == set(truth(3, 3))
    assert event.merged == event.clusters == event.groups
    assert (event.epoch, event.branches_before, event.branches_after) == (1, 9, 3)
    assert event.locked
    assert event.lock_reason == "every task shares its branch with another"
    assert event.embedded == tuple(range(9))
    assert event.embedding.shape[0] == 9
    assert event.distances.shape == (9, 9)
    assert event.linkage.shape == (8, 4)
    assert event.condensed_tree.shape[1] == 4
    assert set(event.seconds) == {"capture", "embed", "cluster", "plan", "merge"}
    assert model.bank.branches == 3
    assert SharingEvent.from_json(json.loads(json.dumps(event.to_json()))).to_json() == event.to_json()


@pytest.mark.parametrize("criterion", ["similarity", "dissimilarity", "variance", "random"])
@pytest.mark.parametrize("merge", ["best", "mean", "max", "min"])
def test_every_criterion_and_rule_trains_to_the_lock(criterion, merge):
    model, optimizer, sharing, inputs, targets = start(criterion, groups=12, members=1, merge=merge)
    for _ in range(8):
        train_epoch(model, optimizer, inputs[:64], targets[:64])
        sharing.end_epoch()
    assert sharing.locked
    assert model.bank.branches < 12
    assert [event.epoch for event in sharing.events] == list(range(1, 9))
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())


def test_the_survivor_has_the_lowest_recorded_loss():
    model, optimizer, sharing, inputs, targets = start(scripted([0, 0, 0, 1, 1, -1, -1, -1, -1]))
    targets = targets.clone()
    targets[:, 0] = torch.nan  # never labelled: cannot be the survivor
    train_epoch(model, optimizer, inputs, targets)
    losses, weights = model.recorded_losses(), model.bank.first_weight.detach().clone()
    # Row 0 has no gradient, so the script's labels fall on branches 1 to 8.
    event = sharing.end_epoch()
    assert event.labels == (-1, 0, 0, 0, 1, 1, -1, -1, -1)
    first, second = (min(group, key=lambda task: losses[task]) for group in ((1, 2, 3), (4, 5)))
    assert event.plan.survivors == (first, second)
    assert torch.equal(model.bank.first_weight[model.assignment[1]], weights[first])
    assert event.merged == (("g0m1", "g0m2", "g1m0"), ("g1m1", "g1m2"))
    assert torch.isnan(model.recorded_losses()).all()


def test_a_task_without_labels_is_never_clustered():
    model, optimizer, sharing, inputs, targets = start("variance")  # which has no noise of its own
    targets = targets.clone()
    targets[:, 4] = torch.nan
    train_epoch(model, optimizer, inputs, targets)
    event = sharing.end_epoch()
    assert event.labels[4] == -1
    assert event.embedded == (0, 1, 2, 3, 5, 6, 7, 8)
    assert all("g1m1" not in group for group in event.groups)


def test_groups_grow_over_epochs_and_capture_starts_anew():
    model, optimizer, sharing, inputs, targets = start(scripted([0, 0, -1, -1, -1, -1], [0, 0, 1, 1, -1]), groups=2)
    train_epoch(model, optimizer, inputs, targets)
    first = sharing.end_epoch()
    assert first.groups == (("g0m0", "g0m1"),)
    train_epoch(model, optimizer, inputs, targets)
    second = sharing.end_epoch()
    assert second.branch_tasks[0] == ("g0m0", "g0m1")
    assert second.merged == (("g0m0", "g0m1", "g0m2"), ("g1m0", "g1m1"))
    assert second.groups == second.merged
    assert (second.branches_before, second.branches_after) == (5, 3)
    assert not sharing.locked
    assert len(sharing.plans) == 2


def test_warm_up_clusters_but_does_not_merge():
    model, optimizer, sharing, inputs, targets = start(warmup=2, patience=1)
    for _ in range(2):
        train_epoch(model, optimizer, inputs, targets)
        event = sharing.end_epoch()
        assert event.clusters
        assert (event.groups, event.merged, event.plan) == ((), (), None)
        assert event.branches_after == 9
        assert not event.locked
    train_epoch(model, optimizer, inputs, targets)
    assert sharing.end_epoch().merged


def test_patience_locks_and_then_nothing_is_done():
    model, optimizer, sharing, inputs, targets = start(scripted(*[[-1] * 9] * 3))
    for epoch in range(3):
        assert not sharing.locked
        train_epoch(model, optimizer, inputs, targets)
        event = sharing.end_epoch()
        assert event.locked == (epoch == 2)
    assert event.lock_reason == "epochs in a row without a change: 3"
    assert not model.bank.first_weight._backward_hooks
    after = sharing.end_epoch()
    assert (after.epoch, after.merged, after.labels, after.plan, after.embedding) == (4, (), (), None, None)
    assert after.locked
    assert after.seconds == {}


def test_one_task_two_tasks():
    model, inputs, targets = planted(1, 1)
    sharing = SelectiveSharing().attach(model, momentum(model))
    assert sharing.locked
    train_epoch(model, momentum(model), inputs, targets)
    event = sharing.end_epoch()
    assert event.groups == ()
    assert event.lock_reason == "a single task has nothing to share with"
    for criterion in ("similarity", "dissimilarity", "variance", "random"):
        model, optimizer, sharing, inputs, targets = start(criterion, groups=1, members=2)
        for _ in range(4):
            train_epoch(model, optimizer, inputs, targets)
            sharing.end_epoch()
        assert sharing.locked


def test_a_fully_shared_model_is_locked_from_the_start():
    model, _, sharing, _, _ = start(scripted([0] * 9))
    sharing.detach()
    apply(MergePlan(9, (tuple(range(9)),), (0,)), model)
    assert SelectiveSharing().attach(model).locked


def test_training_goes_on_with_any_optimizer_and_a_live_loss():
    for build in (
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
        lambda p: torch.optim.Adam(p, lr=0.01),
        lambda p: torch.optim.AdamW(p, lr=0.01),
        lambda p: torch.optim.RMSprop(p, lr=0.01),
    ):
        model, inputs, targets = planted(3, 3)
        optimizer = build(model.parameters())
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 4)
        sharing = SelectiveSharing().attach(model, optimizer)
        losses = []
        for _ in range(4):
            losses.append(train_epoch(model, optimizer, inputs, targets))  # their graphs stay alive
            sharing.end_epoch()
            scheduler.step()
        assert model.bank.branches == 3
        assert losses[-1] < losses[0]
        assert optimizer.param_groups[0]["lr"] == pytest.approx(0.0, abs=1e-9)


def test_replayed_plans_give_the_same_branches():
    model, optimizer, sharing, inputs, targets = start("random", merge="mean")
    fresh = copy.deepcopy(model)
    for _ in range(4):
        train_epoch(model, optimizer, inputs, targets)
        sharing.end_epoch()
    replay(sharing.plans, fresh)
    assert torch.equal(fresh.assignment, model.assignment)
    assert fresh.bank.branches == model.bank.branches
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(fresh(inputs), model(inputs))


def test_resuming_goes_on_as_if_never_stopped():
    criterion = "random"
    model, optimizer, sharing, inputs, targets = start(criterion, patience=2, seed=5)
    train_epoch(model, optimizer, inputs, targets)
    sharing.end_epoch()
    saved = json.loads(json.dumps(sharing.state_dict()))
    weights, moments = copy.deepcopy(model.state_dict()), copy.deepcopy(optimizer.state_dict())
    again, _, _ = planted(3, 3, seed=4)
    again.load_state_dict(weights)
    stepper = momentum(again)
    stepper.load_state_dict(moments)
    resumed = SelectiveSharing(criterion, patience=2, seed=5)
    resumed.load_state_dict(saved)
    resumed.attach(again, stepper)
    for _ in range(4):
        train_epoch(model, optimizer, inputs, targets)
        train_epoch(again, stepper, inputs, targets)
        one, other = sharing.end_epoch(), resumed.end_epoch()
        assert one.to_json() | {"seconds": {}} == other.to_json() | {"seconds": {}}
    assert resumed.state_dict() == sharing.state_dict()
    assert torch.equal(again(inputs), model(inputs))


def test_a_state_can_be_loaded_into_an_attached_sharing():
    model, optimizer, sharing, inputs, targets = start()
    untouched = copy.deepcopy(model)
    train_epoch(model, optimizer, inputs, targets)
    sharing.end_epoch()
    assert sharing.locked
    resumed = SelectiveSharing().attach(untouched)
    with pytest.raises(ValueError, match="left 3 branches, but the model has 9; load the model's saved state first"):
        resumed.load_state_dict(sharing.state_dict())
    assert not resumed.locked
    untouched.load_state_dict(model.state_dict())
    resumed.load_state_dict(sharing.state_dict())
    assert resumed.locked
    assert resumed.epoch == 1
    assert not untouched.bank.first_weight._backward_hooks


def test_a_state_of_other_settings_is_refused():
    state = SelectiveSharing("variance", patience=4).state_dict()
    with pytest.raises(ValueError, match=r"criterion='variance' \(here 'similarity'\), patience=4 \(here 3\)"):
        SelectiveSharing().load_state_dict(state)
    del state["plans"]
    with pytest.raises(ValueError, match="a sharing state has the keys"):
        SelectiveSharing("variance", patience=4).load_state_dict(state)


def test_nan_in_the_capture_names_the_tasks():
    model, _, sharing, inputs, targets = start()
    model.loss(model(inputs), targets).backward()
    bad = torch.zeros_like(model.bank.first_weight)
    bad[4, 0, 0] = torch.nan
    (model.bank.first_weight * bad).sum().backward()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match="NaN or Inf for task 'g1m1'; look for"):
        sharing.end_epoch()
    assert sharing.epoch == 0
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_an_epoch_without_backward_is_an_error():
    _, _, sharing, _, _ = start()
    with pytest.raises(RuntimeError, match="no gradient reached any branch"):
        sharing.end_epoch()


def test_attach_and_detach():
    model, inputs, targets = planted(2, 2)
    sharing = SelectiveSharing()
    with pytest.raises(RuntimeError, match=r"call attach\(model, optimizer\) before training"):
        sharing.end_epoch()
    assert sharing.attach(model, momentum(model)) is sharing
    with pytest.raises(RuntimeError, match="attached to this model already"):
        sharing.attach(model)
    with pytest.raises(RuntimeError, match="attached to another model already"):
        sharing.attach(planted(2, 2)[0])
    sharing.detach()
    sharing.detach()
    assert not model.bank.first_weight._backward_hooks
    with pytest.raises(RuntimeError, match="before training"):
        sharing.end_epoch()
    with pytest.raises(TypeError, match="takes a MultiTaskModel, not Linear"):
        sharing.attach(nn.Linear(1, 1))
    with pytest.raises(TypeError, match="LBFGS"):
        sharing.attach(model, torch.optim.LBFGS(model.parameters()))
    optimizer = momentum(model)
    sharing.attach(model, [optimizer])
    train_epoch(model, optimizer, inputs, targets)
    sharing.end_epoch()


def test_too_few_tasks_for_the_settings():
    model, _, _ = planted(2, 2)
    with pytest.raises(ValueError, match="has 4 branches, but min_samples=4 and min_cluster_size=2 need at least 5"):
        SelectiveSharing(min_samples=4).attach(model)
    with pytest.raises(ValueError, match="need at least 5; lower them"):
        SelectiveSharing(min_cluster_size=5).attach(model)
    SelectiveSharing(min_samples=3, min_cluster_size=4).attach(model)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"criterion": "alike"}, "unknown criterion 'alike'; choose from similarity, dissimilarity, variance, random"),
        ({"merge": "median"}, "unknown merge rule"),
        ({"embedding": "pca"}, "unknown embedding"),
        ({"capture": "guess"}, "unknown capture 'guess'; choose from exact"),
        ({"cluster_selection_method": "root"}, "'eom' or 'leaf'"),
        ({"relative_error": 1.0}, "relative_error"),
        ({"min_cluster_size": 1}, "min_cluster_size must be a whole number, at least 2; it is 1"),
        ({"min_samples": 0}, "min_samples"),
        ({"patience": 0}, "patience"),
        ({"warmup": -1}, "warmup"),
        ({"max_rank": 0}, "max_rank"),
        ({"seed": 0.5}, "seed"),
    ],
)
def test_settings_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        SelectiveSharing(**options)
