"""When to group and when to merge, refits, and trials, through SelectiveSharing from end to end."""

import copy
import io
import math

import pytest
import torch
from torch import nn

from selshare.model import MultiTaskModel
from selshare.optim import BankSGD
from selshare.sharing import Clustering, SelectiveSharing, replay, trial
from selshare.tasks import Task
from selshare.training import Trainer

TASKS = 6
GROUPED = [0, 0, 0, 1, 1, -1]


def data(samples: int = 160):
    generator = torch.Generator().manual_seed(1)
    weights = torch.randn(2, 8, generator=generator).repeat_interleave(3, 0)
    weights = weights + 0.2 * torch.randn(TASKS, 8, generator=generator)
    inputs = torch.randn(samples, 8, generator=generator)
    return inputs, (inputs @ weights.T > 0).float()


def start(optimizer="sgd", criterion="similarity", seed=0, **options):
    torch.manual_seed(seed)
    model = MultiTaskModel(nn.Linear(8, 6), 6, (5, 4), [Task.binary(f"t{i}") for i in range(TASKS)])
    build = {
        "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.5),
        "bank": lambda p: BankSGD(p, lr=0.1, momentum=0.5),
        "adam": lambda p: torch.optim.Adam(p, lr=0.01),
    }[optimizer]
    stepper = build(model.parameters())
    sharing = SelectiveSharing(criterion, **({"preset": "paper"} | options)).attach(model, stepper)
    return model, stepper, sharing


def epoch(model, optimizer):
    inputs, targets = data()
    for rows in torch.arange(len(inputs)).split(32):
        optimizer.zero_grad()
        model.loss(model(inputs[rows]), targets[rows]).backward()
        optimizer.step()


def scripted(*epochs):
    def script(rows, settings):
        return Clustering(torch.tensor(epochs[min(settings.epoch, len(epochs)) - 1][: len(rows)]))

    return script


def run(epochs, sharing, model, optimizer, losses=None):
    for number in range(epochs):
        epoch(model, optimizer)
        sharing.end_epoch(None if losses is None else losses[number])
    return [event.branches_after for event in sharing.events]


# When to group and when to merge


def test_group_early_merge_late():
    model, optimizer, sharing = start(group_epochs=1, warmup=3)
    assert run(5, sharing, model, optimizer) == [6, 6, 6, 2, 2]
    first, second, _, merging, after = sharing.events
    assert first.clusters == merging.merged == (("t0", "t1", "t2"), ("t3", "t4", "t5"))
    assert first.embedding is not None
    assert (second.labels, second.clusters, second.embedding) == (first.labels, first.clusters, None)
    assert after.locked
    assert not model.bank.first_weight._backward_hooks


@pytest.mark.parametrize(
    ("epochs", "options", "expected"),
    [
        (30, {}, 5),
        (9, {}, 3),  # the warm-up is a third
        (2, {}, 1),
        (30, {"warmup": 2}, 2),
        (9, {"stable_epochs": 4}, 5),
        (30, {"group_epochs": 7}, 7),
    ],
)
def test_by_default_the_first_five_epochs_are_clustered_or_those_of_the_warm_up(epochs, options, expected):
    model, optimizer, sharing = start(preset="default", **options)
    sharing.detach()
    sharing.attach(model, optimizer, epochs=epochs, steps=200)
    run(expected + 1, sharing, model, optimizer)
    assert [event.embedding is not None for event in sharing.events] == [True] * expected + [False]


def test_final_groups_merge_once_and_lock_though_a_task_is_left():
    model, optimizer, sharing = start(criterion=scripted(GROUPED), group_epochs=1)
    assert run(2, sharing, model, optimizer) == [3, 3]
    assert sharing.events[0].lock_reason == "the groups of the first epochs have merged"


@pytest.mark.parametrize("capture", ["exact", "free", "sketch"])
def test_the_gradients_of_several_epochs_are_clustered_together(capture):
    seen = []

    def criterion(rows, settings):
        seen.append(rows @ rows.T)
        return Clustering(torch.tensor(GROUPED))

    model, optimizer, sharing = start(
        criterion=criterion, group_epochs=3, capture=capture, sketch_above=0, relative_error=1e-6
    )
    twin, stepper, _ = start()
    total = torch.zeros_like(twin.bank.first_weight)

    def add(gradient):
        total.add_(gradient)

    twin.bank.first_weight.register_hook(add)
    for number in range(3):
        epoch(model, optimizer)
        epoch(twin, stepper)
        sharing.end_epoch()
        units = torch.nn.functional.normalize(total.flatten(1))
        tolerance = 0.5 if capture == "sketch" else 0.02
        torch.testing.assert_close(seen[number].to(units.dtype), units @ units.T, rtol=0, atol=tolerance)
    assert sharing.events[-1].merged


def test_unstable_groups_wait_and_patience_runs_then():
    other = [0, 1, 0, 1, -1, -1]
    model, optimizer, sharing = start(criterion=scripted(GROUPED, other, GROUPED, GROUPED, GROUPED), stable_epochs=2)
    assert run(5, sharing, model, optimizer) == [6, 6, 6, 6, 3]
    model, optimizer, sharing = start(criterion=scripted(*[GROUPED, other] * 4), stable_epochs=1, patience=3)
    run(4, sharing, model, optimizer)
    assert sharing.locked
    assert model.bank.branches == TASKS


def test_stable_groups_end_grouping_early_and_unstable_ones_never_merge():
    model, optimizer, sharing = start(criterion=scripted(GROUPED), group_epochs=5, stable_epochs=1)
    assert run(3, sharing, model, optimizer) == [6, 3, 3]
    other = [0, 1, 0, 1, -1, -1]
    model, optimizer, sharing = start(criterion=scripted(*[GROUPED, other] * 2), group_epochs=3, stable_epochs=1)
    assert run(3, sharing, model, optimizer) == [6, 6, 6]
    assert sharing.events[-1].lock_reason == "the groups were not stable in 3 epochs"


# Refits


@pytest.mark.parametrize("merge", ["best", "mean"])
def test_outputs_survive_the_merge(merge):
    inputs, _ = data()
    change = {}
    for refit in (False, True):
        model, optimizer, sharing = start(refit_heads=refit, merge=merge, warmup=4, group_epochs=1)
        run(4, sharing, model, optimizer)
        epoch(model, optimizer)
        before = model(inputs).detach()
        sharing.end_epoch()
        assert model.bank.branches == 2
        change[refit] = float((model(inputs).detach() - before).square().mean() / before.var(0).mean())
    assert change[True] < 0.1
    assert change[True] < 0.5 * change[False]
    assert not model.trunk._forward_hooks, "nothing is kept after the lock"


@pytest.mark.parametrize("optimizer", ["sgd", "bank", "adam"])
def test_all_repairs_train_on_and_resume_to_the_bit(optimizer):
    options = {
        "refit_heads": True, "merged_gradient": "mean", "group_epochs": 2, "warmup": 3, "centre": True,
        "validate_merges": 2,
    }  # fmt: skip
    losses = [torch.full((TASKS,), value) for value in (1.0, 1.0, 1.0, 0.5, 0.9, 0.9, 0.9)]
    model, stepper, sharing = start(optimizer, **options)
    saved = []
    for number in range(7):
        epoch(model, stepper)
        sharing.end_epoch(losses[number])
        states = {"model": model.state_dict(), "optimizer": stepper.state_dict(), "sharing": sharing.state_dict()}
        buffer = io.BytesIO()
        torch.save(states, buffer)
        saved.append(buffer)
    assert [event.branches_after for event in sharing.events] == [6, 6, 6, 2, 2, 6, 6]
    assert sharing.settled
    for number, buffer in enumerate(saved):
        buffer.seek(0)
        states = torch.load(buffer)
        again, _, attached = start(optimizer, seed=1)
        attached.detach()
        again.load_state_dict(states["model"])
        other = type(stepper)(again.parameters(), lr=0.1)
        other.load_state_dict(states["optimizer"])
        resumed = SelectiveSharing(preset="paper", **options)
        resumed.load_state_dict(states["sharing"])
        resumed.attach(again, other)
        for later in range(number + 1, 7):
            epoch(again, other)
            resumed.end_epoch(losses[later])
        assert again.assignment.tolist() == model.assignment.tolist()
        assert all(torch.equal(v, model.state_dict()[k]) for k, v in again.state_dict().items())


# Trials


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("merge", ["best", "mean"])
def test_a_group_that_does_not_recover_is_put_back_to_the_bit(optimizer, merge):
    model, stepper, sharing = start(
        optimizer, scripted(GROUPED), validate_merges=2, merge=merge, refit_heads=True, patience=9
    )
    fresh = copy.deepcopy(model)
    epoch(model, stepper)
    before = copy.deepcopy(model.state_dict())
    moments = copy.deepcopy(stepper.state_dict()["state"])
    names = [name for name, _ in model.named_parameters()]
    sharing.end_epoch({f"t{i}": 1.0 for i in range(TASKS)})
    assert model.bank.branches == 3
    for losses in ([1, 1, 1, 2, 2, 1], [9, 9, 9, 2, 2, 1]):  # the first group recovers at once and stays
        epoch(model, stepper)
        now = copy.deepcopy(model.state_dict())
        event = sharing.end_epoch(torch.tensor(losses))
    assert sharing.events[1].accepted == (("t0", "t1", "t2"),)
    assert (event.accepted, event.undone) == ((), (("t3", "t4"),))
    assert (event.branches_before, event.branches_after) == (3, 4)
    assert model.assignment.tolist() == [0, 0, 0, 1, 2, 3]
    after = model.state_dict()
    for name, tensor in after.items():
        if name.startswith("bank"):
            assert torch.equal(tensor, torch.cat([now[name][:1], before[name][3:5], now[name][2:]]))
        elif name.startswith("heads"):
            assert torch.equal(tensor[3:5], before[name][3:5])
            assert torch.equal(tensor[[0, 1, 2, 5]], now[name][[0, 1, 2, 5]])
        elif name.startswith("trunk"):
            assert torch.equal(tensor, now[name])
    state = stepper.state_dict()["state"]
    for index, name in enumerate(names):
        for key, value in state[index].items():
            rows = slice(1, 3) if name.startswith("bank") else slice(3, 5)
            if value.ndim and not name.startswith("trunk"):
                assert torch.equal(value[rows], moments[index][key][3:5])
    replay(sharing.plans, fresh)
    assert fresh.assignment.tolist() == model.assignment.tolist()
    fresh.load_state_dict(after)
    inputs, _ = data()
    assert torch.equal(fresh(inputs), model(inputs))
    epoch(model, stepper)
    assert sharing.end_epoch(torch.ones(TASKS)).merged == (), "the parts of an undone group never merge again"


def test_a_lock_does_not_save_a_group_on_trial():
    model, optimizer, sharing = start(criterion=scripted([0, 0, 0, 1, 1, 1]), validate_merges=1)
    run(1, sharing, model, optimizer, [torch.ones(TASKS)])
    assert sharing.locked
    assert not sharing.settled
    run(1, sharing, model, optimizer, [torch.tensor([1, 1, 1, 2, 2, 2.0])])
    assert model.tasks_by_branch() == ((0, 1, 2), (3,), (4,), (5,))
    assert sharing.settled
    sharing.end_epoch()  # no losses are needed any more


def test_a_task_without_validation_labels_does_not_count():
    model, optimizer, sharing = start(criterion=scripted(GROUPED), validate_merges=1)
    nothing = torch.full((TASKS,), math.nan)
    run(2, sharing, model, optimizer, [nothing, nothing])
    assert sharing.events[-1].accepted == (("t0", "t1", "t2"), ("t3", "t4"))


@pytest.mark.parametrize("undone", [False, True])
def test_the_trainer_gives_validation_losses(undone, monkeypatch):
    if undone:
        monkeypatch.setattr(trial, "TOLERANCE", -1.0)  # nothing ever recovers
    torch.manual_seed(0)
    model = MultiTaskModel(nn.Linear(8, 6), 6, (5, 4), [Task.binary(f"t{i}") for i in range(TASKS)])
    sharing = SelectiveSharing(preset="paper", validate_merges=3, refit_heads=True)
    trainer = Trainer(model, lambda p: torch.optim.SGD(p, lr=0.1), sharing, progress=False)
    history = trainer.fit(data(), data(60), epochs=6)
    assert [record.branches for record in history.epochs] == [2, 2, 2, *[6 if undone else 2] * 3]
    assert history.events[-1].epoch == (4 if undone else 2), "no event after the trials are over"
    assert history.best_epoch > (3 if undone else 0), "the model kept has the final branches"
    assert trainer.evaluate(data(60)).loss == pytest.approx(history.epochs[history.best_epoch - 1].validation_loss)
    with pytest.raises(ValueError, match="validate_merges needs validation data"):
        Trainer(model, lambda p: torch.optim.SGD(p, lr=0.1), SelectiveSharing(validate_merges=1)).fit(data())


@pytest.mark.parametrize("given", [None, {"t0": 1.0}, torch.ones(2)])
def test_missing_validation_losses_are_an_error(given):
    model, optimizer, sharing = start(validate_merges=2)
    epoch(model, optimizer)
    with pytest.raises(ValueError, match=r"validate_merges=2 needs end_epoch\(validation_losses\): one loss for each"):
        sharing.end_epoch(given)


# Settings


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preset": "best"}, "unknown preset 'best'; choose from paper, default"),
        ({"merged_gradient": "max"}, "merged_gradient is 'sum', 'root' or 'mean', not 'max'"),
        ({"refit_heads": 1}, "refit_heads is True or False, not 1"),
        ({"compose_branches": "yes"}, "compose_branches is True or False, not 'yes'"),
        ({"centre": "always"}, "centre is True, False or 'auto', not 'always'"),
        ({"refit_rows": 0}, "refit_rows"),
        ({"group_epochs": -1}, "group_epochs"),
        ({"validate_merges": 0.5}, "validate_merges"),
        ({"group_epochs": 2, "stable_epochs": 2}, "stable_epochs=2 needs 3 clusterings"),
    ],
)
def test_settings_of_the_repairs_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        SelectiveSharing(**options)


@pytest.mark.parametrize(
    ("epochs", "steps", "merged_at"),
    [(1, 5, 1), (6, 5, 3), (90, None, 11), (90, 30, 11), (90, 25, 13), (36, 1, 13), (None, None, 11), (None, 20, 16)],
)
def test_by_default_groups_merge_when_the_network_has_learned_something(epochs, steps, merged_at):
    torch.manual_seed(0)
    model = MultiTaskModel(nn.Linear(8, 6), 6, (5, 4), [Task.binary(f"t{i}") for i in range(TASKS)])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.5)
    sharing = SelectiveSharing().attach(model, optimizer, epochs=epochs, steps=steps)
    run(merged_at, sharing, model, optimizer)
    assert [event.epoch for event in sharing.events if event.merged] == [merged_at]
    assert model.tasks_by_branch() == ((0, 1, 2), (3, 4, 5))
    assert sharing.settings["refit_heads"] is True
    assert sharing.settings["compose_branches"] is True


def crowded(parted: float) -> torch.Tensor:
    """Gradients of eight branches: two alike, and six that have much in common, in two groups that are ``parted``."""
    gradients = torch.zeros(8, 16)
    gradients[:, 0] = 1
    gradients[:3, 1], gradients[3:6, 1], gradients[6:, 2] = parted, -parted, 1
    for branch in range(8):
        gradients[branch, 3 + branch] = 0.2 if branch < 6 else 0.02
    return gradients.view(8, 2, 8)


@pytest.mark.parametrize(
    ("centre", "parted", "sizes"),
    [(False, 0.15, [2, 6]), ("auto", 0.15, [2, 3, 3]), (True, 0.15, [2, 3, 3]), ("auto", 0.25, [2, 3, 3])],
)
def test_what_all_tasks_have_in_common_is_taken_out_where_it_drowns_their_groups(centre, parted, sizes):
    torch.manual_seed(0)
    model = MultiTaskModel(nn.Linear(8, 8), 8, (2, 3), [Task.binary(f"t{i}") for i in range(8)])
    options = {"warmup": 1, "relative_error": 1e-6, "centre": centre}
    sharing = SelectiveSharing(preset="paper", **options).attach(model, torch.optim.SGD(model.parameters(), lr=0.1))
    (model.bank.first_weight * crowded(parted)).sum().backward()
    event = sharing.end_epoch()
    assert sorted(len(cluster) for cluster in event.clusters) == sizes


def test_what_is_chosen_wins_over_the_preset():
    sharing = SelectiveSharing(preset="paper", refit_heads=True)
    assert sharing.settings["refit_heads"] is True
    assert sharing.settings["group_epochs"] == 0
