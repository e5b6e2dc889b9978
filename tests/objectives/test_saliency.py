"""The saliency regulariser against its definition: a loop over tasks, samples and pairs."""

from __future__ import annotations

from functools import partial
from itertools import combinations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor, nn

from selshare import MultiTaskModel, Task
from selshare.objectives import SaliencyRegularizer, TaskRelations, logit_gradients
from selshare.objectives.pair_distances import weighted_distances
from selshare.objectives.task_relations import RelationWeights, project_to_sum

KINDS = [
    Task.binary("a"),
    Task.multiclass("b", classes=3),
    Task.multilabel("c", labels=3),
    Task.regression("d", outputs=2),
    Task.ranking("e"),
    Task.multiclass("f", classes=3),
]
SGD = partial(torch.optim.SGD, lr=0.01)


def perturbed(model: MultiTaskModel) -> MultiTaskModel:
    """Float64, branches and heads moved apart, in training mode."""
    model.double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return model.train()


def small_model(tasks: list[Task] = KINDS, activation: str = "tanh") -> MultiTaskModel:
    return perturbed(MultiTaskModel(nn.Linear(4, 5), 5, (4, 3), tasks, activation=activation))


def merge(model: MultiTaskModel, assignment: list[int]) -> None:
    """Let tasks share branches, as after a merge."""
    state = model.state_dict()
    branches = max(assignment) + 1
    state = {k: v[:branches] if k.startswith("bank.") else v for k, v in state.items()}
    model.load_state_dict(state | {"assignment": torch.tensor(assignment)})


def loop_gradients(model: MultiTaskModel, shared: Tensor) -> list[list[Tensor]]:
    """A backward per task and sample."""
    result = []
    for task in model.tasks:
        own = []
        for sample in shared:
            at = sample[None] if sample.requires_grad else sample[None].detach().requires_grad_()
            output = model.split(model.outputs_from(at))[task.name][0]
            logit = output.max() if task.kind == "multiclass" else output.mean()
            own.append(torch.autograd.grad(logit, at, create_graph=True)[0][0])
        result.append(own)
    return result


def loop_distance(first: Tensor, second: Tensor, distance: str) -> Tensor:
    if distance == "cosine":
        return 1 - first @ second / (first.norm() * second.norm())
    return (first - second).norm(p=1 if distance == "l1" else 2)


def loop_regularizer(model: MultiTaskModel, shared: Tensor, weights: Tensor, distance: str) -> Tensor:
    vectors = loop_gradients(model, shared)
    return sum(
        weights[i, j] * loop_distance(vectors[i][b], vectors[j][b], distance)
        for i, j in combinations(range(len(vectors)), 2)
        for b in range(len(shared))
    )


def all_gradients(value: Tensor, model: MultiTaskModel) -> list[Tensor]:
    model.zero_grad()
    value.backward()
    return [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]


@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("assignment", [None, [0, 1, 0, 2, 1, 1]])
def test_logit_gradients_equal_a_loop(activation: str, assignment: list[int] | None) -> None:
    model = small_model(activation=activation)
    if assignment:
        merge(model, assignment)
    shared = torch.randn(3, 5, dtype=torch.float64)
    expected = torch.stack([torch.stack(own) for own in loop_gradients(model, shared)])
    torch.testing.assert_close(logit_gradients(model, shared), expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("distance", ["l1", "l2", "cosine"])
@pytest.mark.parametrize("assignment", [None, [0, 1, 0, 2, 1, 1]])
def test_value_and_gradients_equal_a_loop(distance: str, assignment: list[int] | None) -> None:
    model = small_model()
    if assignment:
        merge(model, assignment)
    inputs = torch.randn(3, 4, dtype=torch.float64)
    regularizer = SaliencyRegularizer(model.tasks, strength=0.7, distance=distance, reduction="sum")
    with torch.no_grad():
        regularizer.weights.omega.uniform_()
    weights = regularizer.weights()

    shared = model.shared(inputs)
    expected = 0.7 * loop_regularizer(model, shared, weights, distance)
    expected_gradients = all_gradients(expected, model)
    shared = model.shared(inputs)
    value = regularizer(model, shared, torch.empty(0), torch.empty(0))
    torch.testing.assert_close(value, expected.detach(), rtol=1e-12, atol=0)
    gradients = all_gradients(value, model)
    assert len(gradients) == len(expected_gradients)
    for got, wanted in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("distance", ["l1", "l2", "cosine"])
def test_gradcheck_and_gradgradcheck(distance: str) -> None:
    model = perturbed(MultiTaskModel(nn.Linear(2, 2), 2, (2,), KINDS[:3], activation="tanh"))
    regularizer = SaliencyRegularizer(model.tasks, distance=distance, learn=False)
    inputs = torch.randn(2, 2, dtype=torch.float64)

    def value(*parameters: Tensor) -> Tensor:
        return regularizer(model, model.shared(inputs), torch.empty(0), torch.empty(0))

    parameters = tuple(parameter for parameter in model.parameters() if parameter is not model.heads.biases["1"])
    assert torch.autograd.gradcheck(value, parameters)
    assert torch.autograd.gradgradcheck(value, parameters, fast_mode=True)


def test_the_outputs_themselves_can_be_differentiated_twice() -> None:
    model = perturbed(MultiTaskModel(nn.Identity(), 3, (3, 2), [Task.binary("a"), Task.binary("b")], activation="tanh"))
    shared = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(model.outputs_from, (shared,))
    (saliency,) = torch.autograd.grad(model.outputs_from(shared)[:, 1].sum(), shared, create_graph=True)
    torch.testing.assert_close(saliency, logit_gradients(model, shared)[1])


def test_tasks_with_equal_weights_are_at_distance_zero_without_gradient() -> None:
    model = MultiTaskModel(nn.Linear(4, 5), 5, (4, 3), [Task.binary(name) for name in "abc"])
    for distance in ("l1", "l2", "cosine"):
        regularizer = SaliencyRegularizer(model.tasks, distance=distance)
        value = regularizer(model, model.shared(torch.randn(6, 4)), torch.empty(0), torch.empty(0))
        assert value.item() == pytest.approx(0, abs=1e-5)
        assert all(gradient.abs().max() < 1e-5 for gradient in all_gradients(value, model))


def test_a_dead_branch_leaves_gradients_finite() -> None:
    vectors = torch.randn(3, 2, 4, dtype=torch.float64)
    vectors[1] = 0
    vectors.requires_grad_()
    for distance in ("l1", "l2", "cosine"):
        total, distances = weighted_distances(vectors, torch.ones(3, 3, dtype=torch.float64), distance)
        (gradient,) = torch.autograd.grad(total, vectors)
        assert gradient.isfinite().all()
        if distance == "cosine":
            assert float(distances[0, 1]) == pytest.approx(2), "cosine 0 at both samples"


def test_blocks_do_not_change_l2(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, weights = torch.randn(5, 7, 4), torch.rand(5, 5)
    weights = (weights + weights.T).fill_diagonal_(0)
    whole = weighted_distances(vectors, weights, "l2")
    monkeypatch.setattr("selshare.objectives.pair_distances.BLOCK", 60)
    for got, wanted in zip(weighted_distances(vectors, weights, "l2"), whole, strict=True):
        torch.testing.assert_close(got, wanted)


def test_near_vectors_stay_apart() -> None:
    base = torch.randn(1, 4, 30) * 100
    vectors = base + 1e-3 * torch.randn(3, 4, 30)
    for distance in ("l1", "l2"):
        _, distances = weighted_distances(vectors, torch.ones(3, 3), distance)
        exact = vectors.double()
        norm = 1 if distance == "l1" else 2
        wanted = (exact[:, None] - exact).norm(p=norm, dim=3).sum(2)
        torch.testing.assert_close(distances.double(), wanted, rtol=1e-5, atol=0)


def test_maps_are_summed_over_positions() -> None:
    class Branch(nn.Sequential):
        """A branch that reads feature maps."""

    branch = Branch(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 2 * 2, 3))
    tasks = [Task.binary(name) for name in "abc"]
    model = perturbed(MultiTaskModel(nn.Identity(), (3, 4, 4), tasks=tasks, branch=branch))
    shared = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    regularizer = SaliencyRegularizer(tasks, strength=1.0, reduction="sum", learn=False)
    vectors = [[gradient.sum((1, 2)) for gradient in own] for own in loop_gradients(model, shared)]
    expected = sum(
        loop_distance(vectors[i][b], vectors[j][b], "l1") / 3 for i, j in combinations(range(3), 2) for b in range(2)
    )
    torch.testing.assert_close(regularizer(model, shared, torch.empty(0), torch.empty(0)), expected)


def test_a_flattened_map_is_summed_over_positions_where_asked() -> None:
    gradients = torch.randn(4, 3, 12, dtype=torch.float64)
    regularizer = SaliencyRegularizer(list("abcd"), channels=3, learn=False)
    maps = SaliencyRegularizer(list("abcd"), learn=False)
    torch.testing.assert_close(regularizer.of_gradients(gradients), maps.of_gradients(gradients.view(4, 3, 3, 2, 2)))
    with pytest.raises(ValueError, match="12 features, which are not 5 channels"):
        SaliencyRegularizer(list("abcd"), channels=5).of_gradients(gradients)


def test_mean_divides_by_the_samples() -> None:
    gradients = torch.randn(4, 8, 5, dtype=torch.float64)
    total = SaliencyRegularizer(list("abcd"), learn=False, reduction="sum").of_gradients(gradients)
    mean = SaliencyRegularizer(list("abcd"), learn=False).of_gradients(gradients)
    torch.testing.assert_close(mean * 8, total)


def test_omega_follows_the_released_rule() -> None:
    """``λ(D_uv/Σω − Σ ω·D/(Σω)²)`` over pairs, by SGD, clipped at 0: term by term as in the released loop."""
    weights = RelationWeights(list("abcd"), optimizer=SGD)
    omega = dict.fromkeys(combinations(range(4), 2), 1.0)
    for step in range(60):
        distances = torch.rand(4, 4, generator=torch.Generator().manual_seed(step)) * torch.arange(1, 5) ** 2 * 5
        distances = (distances + distances.T).fill_diagonal_(0).double()
        total = sum(omega.values())
        energy = sum(omega[p] / total**2 * float(distances[p]) for p in omega)
        omega = {p: max(0.0, w - 0.01 * 0.7 * (float(distances[p]) / total - energy)) for p, w in omega.items()}
        weights.update(distances, 0.7)
    assert min(omega.values()) == 0.0, "the case reaches the clipping"
    expected = torch.tensor(list(omega.values()), dtype=torch.float64)
    torch.testing.assert_close(weights.omega.detach(), expected, rtol=0, atol=1e-12)
    matrix = weights()
    for (i, j), value in omega.items():
        assert float(matrix[i, j]) == float(matrix[j, i]) == pytest.approx(value / sum(omega.values()), abs=1e-12)
    assert not matrix.diagonal().any()


def test_the_rule_is_the_gradient_of_the_regularizer() -> None:
    omega = torch.rand(6, dtype=torch.float64, requires_grad=True)
    distances = torch.rand(6, dtype=torch.float64)
    (gradient,) = torch.autograd.grad((omega / omega.sum() * distances).sum(), omega)
    weights = RelationWeights(list("abcd"), optimizer=partial(torch.optim.SGD, lr=1e-3))
    with torch.no_grad():
        weights.omega.copy_(omega)
    matrix = torch.zeros(4, 4, dtype=torch.float64)
    matrix[tuple(torch.triu_indices(4, 4, 1))] = distances
    weights.update(matrix + matrix.T)
    torch.testing.assert_close(weights.omega.detach(), (omega - 1e-3 * gradient).detach())


@pytest.mark.parametrize("largest", [None, 0.5, 2.0 / 12])
def test_projection_is_the_nearest_point(largest: float | None) -> None:
    for _ in range(5):
        values = torch.randn(12, dtype=torch.float64)
        projected = project_to_sum(values, 2.0, largest)
        found = minimize(
            lambda x, values: ((x - values) ** 2).sum(),
            x0=np.full(12, 2 / 12),
            args=(values.numpy(),),
            bounds=[(0, largest)] * 12,
            constraints={"type": "eq", "fun": lambda x: x.sum() - 2.0},
            tol=1e-12,
        )
        torch.testing.assert_close(projected, torch.from_numpy(found.x), rtol=0, atol=1e-5)


@pytest.mark.parametrize("optimizer", [SGD, partial(torch.optim.Adam, lr=0.02)])
def test_the_constrained_form_ends_on_the_nearest_pairs(optimizer: partial[torch.optim.Optimizer]) -> None:
    weights = RelationWeights(list("abcde"), form="constrained", total=3.0, largest=1.0, optimizer=optimizer)
    distances = torch.rand(5, 5, dtype=torch.float64) + 1
    for i, j in ((0, 1), (2, 3), (0, 4)):
        distances[i, j] = distances[j, i] = 0.1
    distances = ((distances + distances.T) / 2).fill_diagonal_(0)
    for _ in range(200):
        weights.update(distances)
        assert float(weights.omega.sum()) == pytest.approx(3.0)
        assert 0 <= float(weights.omega.min()) <= float(weights.omega.max()) <= 1 + 1e-9
    assert {pair[:2] for pair in weights.relations().strongest(3)} == {("a", "b"), ("c", "d"), ("a", "e")}
    assert float(weights.omega.max()) == pytest.approx(1.0)


@pytest.mark.parametrize("early", [True, False])
def test_in_the_warmup_at_most_omega_learns_and_evaluation_learns_nothing(early: bool) -> None:
    model = small_model()
    regularizer = SaliencyRegularizer(model.tasks, warmup=2, learn_in_warmup=early)
    reference = SaliencyRegularizer(model.tasks)
    shared = model.shared(torch.randn(3, 4, dtype=torch.float64))

    def call() -> float:
        return float(regularizer(model, shared, torch.empty(0), torch.empty(0)).detach())

    assert [call(), call()] == [0.0, 0.0]
    for _ in range(2 if early else 0):
        reference.of_gradients(logit_gradients(model, shared))
    assert torch.equal(regularizer.weights.omega, reference.weights.omega)
    before = regularizer.weights.omega.clone()
    assert bool((before == 1).all()) != early
    model.eval()
    assert call() > 0
    assert torch.equal(regularizer.weights.omega, before)
    model.train()
    assert call() > 0
    assert not torch.equal(regularizer.weights.omega, before)


def test_the_warmup_leaves_no_gradient() -> None:
    model = small_model()
    regularizer = SaliencyRegularizer(model.tasks, warmup=1)
    shared = model.shared(torch.randn(3, 4, dtype=torch.float64))
    assert not regularizer(model, shared, torch.empty(0), torch.empty(0)).requires_grad
    assert regularizer(model, shared, torch.empty(0), torch.empty(0)).requires_grad


def test_branches_run_in_evaluation_mode_and_are_put_back() -> None:
    model = perturbed(MultiTaskModel(nn.Identity(), 5, (4, 3), KINDS[:3], dropout=0.5))
    frozen = next(part for part in model.bank.stacked if isinstance(part, nn.Dropout))
    frozen.eval()
    shared = torch.randn(3, 5, dtype=torch.float64)
    torch.testing.assert_close(logit_gradients(model, shared), logit_gradients(model, shared), rtol=0, atol=0)
    assert model.bank.stacked.training
    assert not frozen.training


def test_state_goes_on_where_it_was() -> None:
    model = small_model()
    shared = model.shared(torch.randn(3, 4, dtype=torch.float64)).detach()
    first = SaliencyRegularizer(model.tasks, warmup=1)
    for _ in range(4):
        first(model, shared, torch.empty(0), torch.empty(0))
    second = SaliencyRegularizer(model.tasks, warmup=1)
    second.load_state_dict(first.state_dict())
    for regularizer in (first, second):
        regularizer(model, shared * 2, torch.empty(0), torch.empty(0))
    assert second.steps == 5
    assert torch.equal(first.weights.omega, second.weights.omega)


def test_relations_by_name() -> None:
    weights = torch.zeros(3, 3, dtype=torch.float64)
    weights[0, 2] = weights[2, 0] = 0.75
    weights[1, 2] = weights[2, 1] = 0.25
    relations = TaskRelations(("x", "y", "z"), weights)
    assert relations.strongest(2) == [("x", "z", 0.75), ("y", "z", 0.25)]
    assert relations.between("z", "y") == 0.25
    again = TaskRelations.from_json(relations.to_json())
    assert again.names == relations.names
    assert torch.equal(again.weights, weights)
    with pytest.raises(KeyError, match="no task 'w'"):
        relations.between("x", "w")


def test_half_precision_is_computed_in_single() -> None:
    gradients = torch.randn(3, 4, 5)
    value = SaliencyRegularizer(list("abc"), learn=False).of_gradients(gradients.bfloat16())
    expected = SaliencyRegularizer(list("abc"), learn=False).of_gradients(gradients.bfloat16().float())
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tasks": ["a"]}, "there is only 1; give two tasks or more"),
        ({"distance": "l3"}, "no distance 'l3'; choose from l1, l2, cosine"),
        ({"reduction": "max"}, "no reduction 'max'; choose from mean, sum"),
        ({"form": "free"}, "unknown form 'free'"),
        ({"strength": -1.0}, "strength is -1.0; it must be finite, 0 or more"),
        ({"channels": 0}, "0 channels"),
        ({"warmup": -1}, "warmup is -1"),
        ({"form": "constrained", "total": 0.0}, "is 0.0; it must be above 0"),
        ({"form": "constrained", "total": 4.0, "largest": 1.0}, "sum to 4.0: 3 pairs reach 3; raise largest"),
    ],
)
def test_errors(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SaliencyRegularizer(**({"tasks": ["a", "b", "c"]} | options))


def test_other_tasks_and_infinite_results_are_refused() -> None:
    model = small_model()
    shared = torch.randn(3, 5, dtype=torch.float64)
    with pytest.raises(ValueError, match="made for the tasks 'x', 'y', but the model has 'a', 'b', 'c' and 3 more"):
        SaliencyRegularizer(["x", "y"])(model, shared, torch.empty(0), torch.empty(0))
    with torch.no_grad():
        model.bank.first_weight.fill_(torch.inf)
    with pytest.raises(ValueError, match="saliency regulariser of the batch is NaN or Inf"):
        SaliencyRegularizer(model.tasks)(model, shared, torch.empty(0), torch.empty(0))
