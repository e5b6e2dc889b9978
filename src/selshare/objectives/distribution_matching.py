"""Tasks without common samples, tied by what is known of how their labels go together.

Kollias, Sharmanska and Zafeiriou (AAAI 2024, arXiv 2401.01219): a *source* multiclass task and a *target* task with
data sets of their own, and a table ``p(label | class)``. :class:`DistributionMatching` makes the target's head agree
with what the source's predictions imply, on every sample; :class:`SoftCoAnnotation` teaches the source's head what the
target's known labels imply. Both are added to the tasks' own losses with weight 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from ..tasks import TaskLayout
from .linked_tasks import LinkedTasks, Target
from .objective import require_finite_objective
from .relation_table import RelationTable

if TYPE_CHECKING:
    from ..model import MultiTaskModel

Evidence = Literal["share", "likelihood"]
EVIDENCE: tuple[Evidence, ...] = get_args(Evidence)
TEMPERATURES: dict[Evidence, float] = {"share": 0.1, "likelihood": 1.0}


class _Matching:
    """What both objectives have: two tasks, their relation, and a strength."""

    def __init__(
        self,
        source: str,
        target: Target,
        relation: RelationTable | Any,
        *,
        classes: Sequence[str] | None,
        labels: Sequence[str] | None,
        strength: float,
    ) -> None:
        if not 0 <= strength < float("inf"):
            raise ValueError(f"The strength of matching {source!r} is {strength}; it must be finite, 0 or more.")
        if labels is None and not isinstance(target, str):
            labels = tuple(target)  # the labels are tasks, and named as such
        self.source = source
        self.target: Target = target if isinstance(target, str) else tuple(target)
        self.relation = RelationTable.of(relation, classes=classes, labels=labels)
        self.strength = strength
        self._linked: tuple[TaskLayout, LinkedTasks] | None = None
        self._table = self.relation.probabilities

    def __repr__(self) -> str:
        """Which tasks, and how strongly."""
        return f"{type(self).__name__}({self.source!r} → {self.target!r}, strength={self.strength})"

    def _link(self, layout: TaskLayout) -> LinkedTasks:
        """The two tasks in this layout, checked against the table once."""
        if self._linked is None or self._linked[0] is not layout:
            link = LinkedTasks(layout, self.source, self.target)
            if (link.classes, link.labels) != tuple(self._table.shape):
                classes, labels = self._table.shape
                raise ValueError(
                    f"The relation table has {classes} classes and {labels} labels, but task {self.source!r} has "
                    f"{link.classes} classes and {link.described} {link.labels} labels."
                )
            if link.exclusive:
                self.relation.require_exclusive()
            self._linked = layout, link
        return self._linked[1]

    def _table_like(self, tensor: Tensor) -> Tensor:
        """The table on the tensor's device, copied there once, in its dtype."""
        if self._table.device != tensor.device:
            self._table = self._table.to(tensor.device)
        return self._table.to(tensor.dtype)


class DistributionMatching(_Matching):
    """The target's prediction agrees with the one the source's implies, an :class:`~selshare.objectives.Objective`.

    ``q(a|x) = Σ_e p(e|x)·p(a|e)``, and the loss is the cross entropy of the target's ``p(a|x)`` with q, on every
    sample, labelled or not (Kollias et al., AAAI 2024, eq. for distribution matching).

    *Ours*: the full Bernoulli cross entropy (the published ``−p log q`` alone is least where p = 0); no gradient
    through q, so that the source is not bent towards the target's mistakes (``stop_gradient=False`` lets it through);
    q clamped to ``[clamp, 1 − clamp]``; for a multiclass target the categorical cross entropy. The mean over labels of
    a multilabel task and the sum over binary ones, as their own losses have it.

    Parameters
    ----------
    source
        A multiclass task.
    target
        A multilabel, multiclass or binary task, or several binary tasks.
    relation
        ``p(label | class)``, see :meth:`~selshare.objectives.RelationTable.of`; of several binary tasks a column each,
        by name.
    classes, labels
        Names in the order of the source's classes and the target's labels, for a table in another order.
    strength
        Factor of the term.
    clamp
        See above; 0 or more, below .5.
    stop_gradient
        See above.

    Raises
    ------
    ValueError, TypeError
        Where the table does not fit (see :class:`~selshare.objectives.RelationTable`) or an option is out of range; at
        the first call, where tasks are unknown, of the wrong kind or size, or rows do not sum to 1 where they must.
    """

    def __init__(
        self,
        source: str,
        target: Target,
        relation: RelationTable | Any,
        *,
        classes: Sequence[str] | None = None,
        labels: Sequence[str] | None = None,
        strength: float = 1.0,
        clamp: float = 1e-3,
        stop_gradient: bool = True,
    ) -> None:
        super().__init__(source, target, relation, classes=classes, labels=labels, strength=strength)
        if not 0 <= clamp < 0.5:
            raise ValueError(f"clamp is {clamp}; it must be 0 or more and below .5.")
        self.clamp, self.stop_gradient = clamp, stop_gradient

    def __call__(self, model: MultiTaskModel, shared: Tensor, outputs: Tensor, targets: Tensor) -> Tensor:
        """The term for a batch; ``shared`` and ``targets`` do not matter."""
        return self.of_outputs(model.layout, outputs)

    def of_outputs(self, layout: TaskLayout, outputs: Tensor) -> Tensor:
        """The term for packed outputs ``(B, output_width)``."""
        link = self._link(layout)
        outputs = _at_least_single(outputs)
        source, target = link.source_logits(outputs), link.target_logits(outputs)
        implied = torch.softmax(source, dim=1) @ self._table_like(source)
        implied = (implied.detach() if self.stop_gradient else implied).clamp(self.clamp, 1 - self.clamp)
        if link.exclusive:
            implied = implied / implied.sum(1, keepdim=True)
            value = -(implied * torch.log_softmax(target, dim=1)).sum(1).mean()
        else:
            by_label = F.binary_cross_entropy_with_logits(target, implied, reduction="none").mean(0)
            value = by_label.sum() if link.separate else by_label.mean()
        return require_finite_objective(self.strength * value, f"distribution matching of {self.source!r}")


class SoftCoAnnotation(_Matching):
    """The target's known labels say which classes are likely, an :class:`~selshare.objectives.Objective`.

    From the known labels a of a sample, ``q(e|x) = softmax(I(e|x)/τ)``, and the loss is the cross entropy of the
    source's ``p(e|x)`` with q, on samples labelled for the target (Kollias et al., AAAI 2024: soft co-annotation).

    Parameters
    ----------
    source, target, relation, classes, labels, strength
        As for :class:`DistributionMatching`.
    evidence
        ``"share"``, as published: ``I(e|x) = Σ_i w_ei·a_i / Σ_i w_ei``, the share of the class's labels that are there
        (``w = p(a|e)``; labels not known are left out of both sums). ``"likelihood"``, *ours*:
        ``I(e|x) = log p(a|e)`` with independent labels, which also counts labels that are there and should not be; at
        τ = 1 q is then Bayes' posterior for classes of equal frequency.
    temperature
        τ. Published is 1, at which q is nearly level: with shares in [0, 1] and 7 classes it never exceeds .31. *Ours*:
        .1 for ``"share"``, 1 for ``"likelihood"`` where ``None``.
    clamp
        Probabilities are clamped to ``[clamp, 1 − clamp]`` before their logarithm (``"likelihood"``); in (0, .5).

    Raises
    ------
    ValueError, TypeError
        As :class:`DistributionMatching`.
    """

    def __init__(
        self,
        source: str,
        target: Target,
        relation: RelationTable | Any,
        *,
        classes: Sequence[str] | None = None,
        labels: Sequence[str] | None = None,
        strength: float = 1.0,
        evidence: Evidence = "share",
        temperature: float | None = None,
        clamp: float = 1e-3,
    ) -> None:
        super().__init__(source, target, relation, classes=classes, labels=labels, strength=strength)
        if evidence not in EVIDENCE:
            raise ValueError(f"Soft co-annotation has no evidence {evidence!r}; choose from {', '.join(EVIDENCE)}.")
        self.evidence = evidence
        self.temperature = TEMPERATURES[evidence] if temperature is None else temperature
        if not 0 < self.temperature < float("inf"):
            raise ValueError(f"The temperature is {temperature}; it must be finite and above 0.")
        if not 0 < clamp < 0.5:
            raise ValueError(f"clamp is {clamp}; it must be above 0 and below .5.")
        self.clamp = clamp

    def __call__(self, model: MultiTaskModel, shared: Tensor, outputs: Tensor, targets: Tensor) -> Tensor:
        """The term for a batch; ``shared`` does not matter."""
        return self.of_outputs(model.layout, outputs, targets)

    def of_outputs(self, layout: TaskLayout, outputs: Tensor, targets: Tensor) -> Tensor:
        """The term for packed outputs ``(B, output_width)`` and packed targets; 0 where no sample has a label."""
        link = self._link(layout)
        source = link.source_logits(_at_least_single(outputs))
        likely, labelled = self.likely_classes(layout, targets)
        by_sample = -(likely.to(source) * torch.log_softmax(source, dim=1)).sum(1)
        value = torch.where(labelled, by_sample, 0).sum() / labelled.sum().clamp(min=1)
        return require_finite_objective(self.strength * value, f"soft co-annotation of {self.source!r}")

    def likely_classes(self, layout: TaskLayout, targets: Tensor) -> tuple[Tensor, Tensor]:
        """``q(e|x) (B, E)`` float64 from the known labels, and which samples ``(B,)`` have one."""
        link = self._link(layout)
        labels, known = link.target_labels(targets)
        table = self._table_like(labels)
        if self.evidence == "share":
            possible = known @ table.T
            scores = torch.where(possible > 0, labels @ table.T / possible, 0)
        else:
            table = table.clamp(self.clamp, 1 - self.clamp)
            scores = labels @ table.log().T
            if not link.exclusive:
                scores = scores + (known - labels) @ (1 - table).log().T
        return torch.softmax(scores / self.temperature, dim=1), known.any(1)


def _at_least_single(outputs: Tensor) -> Tensor:
    """Half precision as float32."""
    return outputs.float() if outputs.dtype in (torch.float16, torch.bfloat16) else outputs
