"""Mixed precision, float64, accumulation, clipping, schedules, averages and compilation in the Trainer."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from selshare import BankAdam, BankSGD, MultiTaskModel, SelectiveSharing, Task, Trainer
from selshare.data import load
from selshare.objectives import NonFiniteLoss
from selshare.training.average import WeightAverage
from selshare.training.methods import build_model
from selshare.training.update import Update

SGD = partial(BankSGD, lr=0.05, momentum=0.5)


def small_model(tasks: int = 5, make: Callable[[str], Task] = Task.binary) -> MultiTaskModel:
    torch.manual_seed(0)
    trunk = nn.Sequential(nn.Linear(4, 30), nn.ReLU())
    return MultiTaskModel(trunk, 30, (6, 3), [make(str(i)) for i in range(tasks)])


def small_data(samples: int = 48, tasks: int = 5, batch: int = 8) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(samples, 4, generator=generator)
    targets = (inputs @ torch.randn(4, tasks, generator=generator) > 0).float()
    return list(zip(inputs.split(batch), targets.split(batch), strict=True))


def joined(batches: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    inputs, targets = zip(*batches, strict=True)
    return torch.cat(inputs), torch.cat(targets)


def run(data: Any = None, epochs: int = 1, batch: int = 8, **options: Any) -> MultiTaskModel:
    model = options.pop("model", None) or small_model()
    options = {"optimizer": SGD, "progress": False, **options}
    Trainer(model, batch_size=batch, **options).fit(data or joined(small_data()), epochs=epochs)
    return model


def weights(model: MultiTaskModel) -> Tensor:
    return nn.utils.parameters_to_vector(model.parameters()).detach()


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
@pytest.mark.parametrize("preset", ["paper", "default"])
def test_mixed_precision_finds_the_groups_of_full_precision(precision: str, preset: str) -> None:
    problem = load("synthetic", tasks=40, groups=4, samples=1500, seed=1)
    assert problem.groups is not None
    model = build_model(problem, seed=0)
    make = partial(BankSGD, lr=problem.recipe.lr, momentum=problem.recipe.momentum)
    sharing = SelectiveSharing(preset=preset, warmup=0)
    trainer = Trainer(model, make, sharing, precision=precision, progress=False)
    history = trainer.fit(problem.train, problem.validation, epochs=2)
    found = {frozenset(model.layout.names[t] for t in tasks) for tasks in model.tasks_by_branch()}
    assert found == {frozenset(group) for group in problem.groups}
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
    assert history.epochs[-1].mean_metric > 0.6


@pytest.mark.parametrize("capture", ["exact", "free", "sketch"])
@pytest.mark.parametrize("kind", [torch.optim.SGD, BankSGD])
def test_captures_are_of_the_unscaled_gradients(capture: str, kind: type[torch.optim.Optimizer]) -> None:
    """A scale that doubles after each step, and a step that overflows, leave the capture as it is without a scaler."""

    def captured(scaler: torch.amp.GradScaler | None) -> Tensor:
        model = small_model()
        optimizer = kind(model.parameters(), lr=0.01, momentum=0.5)
        sharing = SelectiveSharing(capture=capture, sketch_size=60, sketch_above=0)
        sharing.attach(model, optimizer, scaler=scaler)
        for number, (inputs, targets) in enumerate(small_data()):
            optimizer.zero_grad()
            loss = model.loss(model(inputs), targets)
            if scaler is None:
                loss.backward()
                optimizer.step()
                continue
            if number == 2:  # overflows: neither stepped nor captured
                scaler.scale(loss * 1e38).backward()
                scaler.step(optimizer)
                scaler.update()
                optimizer.zero_grad()
                loss = model.loss(model(inputs), targets)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
        assert sharing._capture is not None
        return sharing._capture.gradients().clone()

    scaled = captured(torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=1))
    torch.testing.assert_close(scaled, captured(None), rtol=1e-3, atol=1e-5)


def test_float64_models_take_float32_data() -> None:
    model = run(model=small_model().double(), sharing=SelectiveSharing())
    reference = run(sharing=SelectiveSharing())
    assert all(parameter.dtype == torch.float64 for parameter in model.parameters())
    assert model.bank.branches == reference.bank.branches
    torch.testing.assert_close(weights(model).float(), weights(reference), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("make", [SGD, partial(BankAdam, lr=0.01), partial(torch.optim.SGD, lr=0.05)])
def test_accumulated_batches_are_one_large_batch(make: Callable[..., torch.optim.Optimizer]) -> None:
    whole = run(batch=16, optimizer=make)
    parts = run(batch=8, accumulate=2, optimizer=make)
    # The same 16 samples a step: the order of samples depends on the seed alone.
    torch.testing.assert_close(weights(parts), weights(whole), rtol=1e-4, atol=1e-6)
    assert not torch.allclose(weights(run(batch=8)), weights(whole), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("sized", [True, False])
def test_the_last_step_may_have_fewer_batches(sized: bool) -> None:
    model = small_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    update = Update(optimizer, "cpu", accumulate=4)
    batches = small_data()  # 6 batches: steps of 4 and 2
    update.begin_epoch(len(batches) if sized else None)
    taken = []
    for inputs, targets in batches:
        update.begin_batch()
        update.backward(model.loss(model(inputs), targets))
        taken.append(update.end_batch())
    taken.append(update.end_epoch())
    assert taken == ([False] * 3 + [True, False, True, False] if sized else [False] * 3 + [True, False, False, True])


def test_clipping_bounds_the_norm_of_a_step() -> None:
    start = weights(small_model())
    batch = small_data(8)
    free = run(joined(batch), optimizer=partial(BankSGD, lr=1.0))
    bounded = run(joined(batch), optimizer=partial(BankSGD, lr=1.0), clip_norm=0.01)
    assert float((weights(free) - start).norm()) > 0.02
    torch.testing.assert_close((weights(bounded) - start).norm(), torch.tensor(0.01), rtol=1e-3, atol=0)
    scaled = run(joined(batch), optimizer=partial(BankSGD, lr=1.0), clip_norm=0.01, precision="float16")
    torch.testing.assert_close((weights(scaled) - start).norm(), torch.tensor(0.01), rtol=1e-2, atol=0)


def test_a_schedule_by_steps() -> None:
    model = small_model()
    optimizer = SGD(model.parameters())
    schedule = LambdaLR(optimizer, lambda step: 0.9**step)
    sharing = SelectiveSharing(capture="free")
    data = joined(small_data())
    Trainer(
        model,
        optimizer,
        sharing,
        scheduler=schedule,
        scheduler_every="step",
        accumulate=2,
        batch_size=8,
        progress=False,
    ).fit(data, epochs=2)
    assert schedule.last_epoch == 6  # 2 epochs of 6 batches, 2 to a step
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.05 * 0.9**6)


@pytest.mark.parametrize("capture", ["exact", "free"])
def test_averaged_weights_are_evaluated_and_kept(capture: str) -> None:
    decay = 0.8
    model, twin = small_model(), small_model()
    batches = small_data()
    history = Trainer(
        model,
        partial(torch.optim.SGD, lr=0.1),
        SelectiveSharing(capture=capture, warmup=5),
        average=decay,
        progress=False,
    ).fit(_as_loader(batches), joined(batches), epochs=1)
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.1)
    average = weights(twin).clone()
    for number, (inputs, targets) in enumerate(batches, 1):
        optimizer.zero_grad()
        twin.loss(twin(inputs), targets).backward()
        optimizer.step()
        d = min(decay, (1 + number) / (10 + number))
        average = d * average + (1 - d) * weights(twin)
    torch.testing.assert_close(weights(model), average)
    nn.utils.vector_to_parameters(average, twin.parameters())
    assert history.epochs[0].validation_loss == pytest.approx(Trainer(twin).evaluate(joined(batches)).loss)


def test_an_average_starts_anew_at_a_merge() -> None:
    problem = load("synthetic", tasks=20, groups=2, samples=800, seed=1)
    model = build_model(problem, seed=0)
    sharing = SelectiveSharing(preset="paper")
    trainer = Trainer(model, SGD, sharing, average=0.9, progress=False)
    history = trainer.fit(problem.train, problem.validation, epochs=3)
    assert history.epochs[0].branches < 20
    assert all(len(t) == model.bank.branches for n, t in trainer._average._averages.items() if n.startswith("bank."))


def test_an_average_survives_being_saved() -> None:
    model = small_model()
    average = WeightAverage(model, 0.9)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    average.update()
    state = average.state_dict()
    other = WeightAverage(model, 0.9)
    other.load_state_dict(state)
    for name, tensor in average._averages.items():
        torch.testing.assert_close(other._averages[name], tensor, rtol=0, atol=0)
    before = weights(model)
    with average.in_place():
        assert not torch.equal(weights(model), before)
    assert torch.equal(weights(model), before)


def test_one_graph_for_forward_and_losses_and_one_for_backward() -> None:
    """``fullgraph=True`` raises at a graph break; merges compile anew, and the weights are those of an eager run."""
    problem = load("synthetic", tasks=20, groups=2, samples=800, seed=1)
    models = []
    for compile in (False, True):
        model = build_model(problem, seed=0)
        trainer = Trainer(model, SGD, SelectiveSharing(preset="paper"), compile=compile, progress=False)
        if compile:
            trainer._loss = torch.compile(trainer._loss._torchdynamo_orig_callable, fullgraph=True, backend="aot_eager")
        history = trainer.fit(problem.train, epochs=2)
        assert history.events[0].merged
        models.append(model)
    torch.testing.assert_close(weights(models[1]), weights(models[0]), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"precision": "half"}, "precision must be None, 'bfloat16' or 'float16'; it is 'half'"),
        ({"accumulate": 0}, "accumulate must be a whole number of batches"),
        ({"clip_norm": 0.0}, "clip_norm must be above 0"),
        ({"average": 1.0}, "average must be a decay between 0 and 1"),
        ({"scheduler_every": "batch"}, "scheduler_every must be 'epoch' or 'step'"),
        ({"compile": True, "on_nonfinite": "skip"}, "compile=True takes the tasks' losses only"),
        ({"aggregator": lambda matrix: matrix.sum(0), "accumulate": 2}, "an aggregator puts gradients together itself"),
    ],
)
def test_errors_are_sentences(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Trainer(small_model(), SGD, **options)


def test_a_batch_that_cannot_be_used_is_left_out_of_its_step() -> None:
    batches = small_data(32)
    batches[1][1][0] = 1e30  # its squared error is Inf
    clean = [batches[0], *batches[2:]]
    model, twin = small_model(make=Task.regression), small_model(make=Task.regression)
    options: dict[str, Any] = {"accumulate": 2, "on_nonfinite": "skip", "progress": False}
    history = Trainer(model, partial(torch.optim.SGD, lr=0.1), **options).fit(_as_loader(batches), epochs=1)
    assert sum(history.epochs[0].skipped.values()) == 5
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.1)
    for group in (clean[:1], clean[1:]):
        optimizer.zero_grad()
        for inputs, targets in group:
            (twin.loss(twin(inputs), targets) / 2).backward()
        optimizer.step()
    torch.testing.assert_close(weights(model), weights(twin))
    with pytest.raises(NonFiniteLoss):
        Trainer(small_model(make=Task.regression), SGD, progress=False).fit(_as_loader(batches), epochs=1)


def _as_loader(batches: list[tuple[Tensor, Tensor]]) -> torch.utils.data.DataLoader[Any]:
    """The batches as they are."""
    return torch.utils.data.DataLoader(batches, batch_size=None)  # type: ignore[arg-type]  # a list is a data set
