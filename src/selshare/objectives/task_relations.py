"""Relations between tasks that are learned while the model trains: the ω of SRDML."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

Form = Literal["normalized", "constrained"]
FORMS: tuple[Form, ...] = get_args(Form)
MakeOptimizer = Callable[[Iterable[nn.Parameter]], Optimizer]


@dataclass(frozen=True)
class TaskRelations:
    """How strongly each pair of tasks is tied, by name.

    Attributes
    ----------
    names
        The tasks.
    weights
        ``(T, T)`` float64, symmetric, 0 on the diagonal.
    """

    names: tuple[str, ...]
    weights: Tensor

    def between(self, first: str, second: str) -> float:
        """The weight of one pair; ``KeyError`` where a name is unknown."""
        for name in (first, second):
            if name not in self.names:
                raise KeyError(f"There is no task {name!r}.")
        return float(self.weights[self.names.index(first), self.names.index(second)])

    def strongest(self, count: int) -> list[tuple[str, str, float]]:
        """The ``count`` pairs of largest weight, strongest first; ties in the order of the tasks."""
        rows, columns = torch.triu_indices(len(self.names), len(self.names), 1).unbind()
        values = self.weights[rows, columns]
        order = values.argsort(descending=True, stable=True)[:count].tolist()
        return [(self.names[int(rows[k])], self.names[int(columns[k])], float(values[k])) for k in order]

    def to_json(self) -> dict[str, Any]:
        """As data that ``json.dumps`` takes."""
        return {"names": list(self.names), "weights": self.weights.tolist()}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> TaskRelations:
        """The inverse of :meth:`to_json`."""
        return cls(tuple(data["names"]), torch.tensor(data["weights"], dtype=torch.float64))


class RelationWeights(nn.Module):
    """ω: a non-negative weight for every pair of tasks, learned so that near tasks are tied more.

    Parameters
    ----------
    names
        The tasks, two or more.
    form
        ``"normalized"`` (the released code): a pair's weight is ``ω_ij / Σω``; ω starts at 1, follows the gradient of
        ``Σ ω_ij·D_ij / Σω`` and is clipped at 0. ``"constrained"`` (the paper's problem): a pair's weight is ω_ij
        itself; ω starts level, follows the gradient of ``Σ ω_ij·D_ij`` and is projected back onto ``ω ≥ 0``,
        ``Σω ≥ total``, and (*ours*) ``ω ≤ largest``. As all distances are ≥ 0, the least sum is ``total`` exactly, so
        steps are taken along ``Σω = total``.
    total
        β, constrained form only.
    largest
        An upper bound for each weight, constrained form only; ``None``: none. Without one all weight ends on the
        nearest pair; with ``largest = total / k`` it ends on the k nearest.
    optimizer
        Builds the optimizer of ω from parameters; Adam at its default rate, .001, as released.

    Attributes
    ----------
    omega
        ω of each pair ``(T(T−1)/2,)``, float64: (0, 1), (0, 2) … (1, 2) …

    Raises
    ------
    ValueError
        With fewer than two tasks, or where no ω satisfies the constraints.
    """

    def __init__(
        self,
        names: Sequence[str],
        *,
        form: Form = "normalized",
        total: float = 1.0,
        largest: float | None = None,
        optimizer: MakeOptimizer = torch.optim.Adam,
    ) -> None:
        super().__init__()
        self.names = tuple(names)
        pairs = len(self.names) * (len(self.names) - 1) // 2
        _check(self.names, form, total, largest, pairs)
        self.form, self.total, self.largest = form, total, largest
        start = 1.0 if form == "normalized" else total / pairs
        self.omega = nn.Parameter(torch.full((pairs,), start, dtype=torch.float64), requires_grad=False)
        self._optimizer = optimizer([self.omega])

    def forward(self) -> Tensor:
        """The weight of every pair, ``(T, T)`` float64, symmetric, 0 on the diagonal; normalized, pairs sum to 1."""
        rows, columns = self._pairs()
        matrix = self.omega.new_zeros(len(self.names), len(self.names))
        matrix[rows, columns] = self.omega / self.omega.sum() if self.form == "normalized" else self.omega
        return matrix + matrix.T

    def relations(self) -> TaskRelations:
        """:meth:`forward` by name, on the CPU."""
        return TaskRelations(self.names, self().cpu())

    @torch.no_grad()
    def update(self, distances: Tensor, strength: float = 1.0) -> None:
        """One step of ω for the distances ``(T, T)`` (symmetric) in a term of the given strength.

        Released rule: the gradient is ``λ(D_ij/Σω − Σ_kl ω_kl·D_kl/(Σω)²)``, then ω is clipped at 0. They cannot all
        be: the nearest pair's gradient is never positive.
        """
        omega, distances = self.omega, distances[self._pairs()].to(self.omega)
        if self.form == "normalized":
            total = omega.sum()
            omega.grad = strength * (distances / total - omega @ distances / total.square())
        else:
            omega.grad = strength * (distances - distances.mean())  # along Σω = total a shift of all changes nothing
        self._optimizer.step()
        omega.grad = None
        omega.copy_(omega.clamp(min=0) if self.form == "normalized" else self._projected())

    def _projected(self) -> Tensor:
        """ω back within its constraints."""
        return project_to_sum(self.omega, self.total, self.largest)

    def _pairs(self) -> tuple[Tensor, ...]:
        """Rows and columns of all pairs i < j, in the order of ω."""
        return torch.triu_indices(len(self.names), len(self.names), 1, device=self.omega.device).unbind()

    def get_extra_state(self) -> dict[str, Any]:
        """The optimizer's state, so that ``state_dict`` holds all there is."""
        return self._optimizer.state_dict()

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Load what :meth:`get_extra_state` gave."""
        self._optimizer.load_state_dict(copy.deepcopy(state))  # torch would share the tensors


def project_to_sum(values: Tensor, total: float, largest: float | None = None) -> Tensor:
    """The nearest point to ``values (n,)`` with ``0 ≤ x ≤ largest`` and ``Σx = total``; exact, O(n log n).

    It is ``clip(values − τ, 0, largest)``. As τ falls, the sum grows piecewise linearly, with a kink where an entry
    leaves 0 and one where it reaches ``largest`` (Wang and Lu, arXiv 1503.01002); kinks are sorted, and τ lies in the
    segment in which the sum passes ``total``.
    """
    kinks, slopes = values, torch.ones_like(values)
    if largest is not None:
        kinks, slopes = torch.cat((values, values - largest)), torch.cat((slopes, -slopes))
    kinks, order = kinks.sort(descending=True)
    slopes = slopes[order].cumsum(0)  # after each kink
    sums = torch.cat((kinks.new_zeros(1), (slopes[:-1] * (kinks[:-1] - kinks[1:])).cumsum(0)))  # at each kink
    segment = torch.searchsorted(sums, kinks.new_tensor(total)).clamp(min=1) - 1
    threshold = kinks[segment] - (total - sums[segment]) / slopes[segment]
    return (values - threshold).clamp(0, largest)


def _check(names: tuple[str, ...], form: str, total: float, largest: float | None, pairs: int) -> None:
    """Raise unless there are pairs, and an ω that satisfies the constraints."""
    if form not in FORMS:
        raise ValueError(f"unknown form {form!r} of task relations; choose from {', '.join(FORMS)}.")
    if pairs == 0:
        raise ValueError(f"Relations are between tasks, and there is only {len(names)}; give two tasks or more.")
    if form == "normalized":
        return
    if not 0 < total < float("inf"):
        raise ValueError(f"The sum of the task relations (total) is {total}; it must be above 0 and finite.")
    if largest is not None and largest * pairs < total:
        raise ValueError(
            f"No task relations can be at most {largest} each and sum to {total}: {pairs} pairs reach "
            f"{largest * pairs:g}; raise largest or lower total."
        )
