"""Tasks without common samples, tied by what is known of how their labels go together.

Kollias, Sharmanska and Zafeiriou (AAAI 2024, arXiv 2401.01219): a *source* multiclass task and a *target* task with
data sets of their own, and a table ``p(label | class)``. :class:`DistributionMatching` makes the target's head agree
with what the source's predictions imply, on every sample; :class:`SoftCoAnnotation` teaches the source's head what the
target's known labels imply. Both are added to the tasks' own losses with weight 1.

By default both differ from what was published, which made tasks worse than networks of their own (docs/objectives.md
has the figures): they speak only where the task that learns has no label, never louder than its own labels, and
co-annotation does not ask for level predictions between classes that the labels do not tell apart. As published::

    DistributionMatching(…, samples="all", weighting="mean", use_labels=False)
    SoftCoAnnotation(…, samples="all", weighting="mean", evidence="share", temperature=1.0)
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

Evidence = Literal["posterior", "likelihood", "share"]
EVIDENCE: tuple[Evidence, ...] = get_args(Evidence)
TEMPERATURES: dict[Evidence, float] = {"posterior": 1.0, "likelihood": 1.0, "share": 0.1}
Samples = Literal["unlabelled", "all"]
SAMPLES: tuple[Samples, ...] = get_args(Samples)
Weighting = Literal["sample", "mean"]
WEIGHTINGS: tuple[Weighting, ...] = get_args(Weighting)


class _Matching:
    """What both objectives have: two tasks, their relation, and how much which samples count."""

    def __init__(
        self,
        source: str,
        target: Target,
        relation: RelationTable | Any,
        *,
        classes: Sequence[str] | None,
        labels: Sequence[str] | None,
        strength: float,
        samples: Samples,
        weighting: Weighting,
    ) -> None:
        for what, value, known in (("samples", samples, SAMPLES), ("weighting", weighting, WEIGHTINGS)):
            if value not in known:
                raise ValueError(f"Matching {source!r} has no {what} {value!r}; choose from {', '.join(known)}.")
        if not 0 <= strength < float("inf"):
            raise ValueError(f"The strength of matching {source!r} is {strength}; it must be finite, 0 or more.")
        if labels is None and not isinstance(target, str):
            labels = tuple(target)  # the labels are tasks, and named as such
        self.source = source
        self.target: Target = target if isinstance(target, str) else tuple(target)
        self.relation = RelationTable.of(relation, classes=classes, labels=labels)
        self.strength = strength
        self.samples, self.weighting = samples, weighting
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

    def _average(self, losses: Tensor, matched: Tensor, labelled: Tensor) -> Tensor:
        """Over samples (dimension 0): losses where they are ``matched``, and how many the learner has labels for."""
        count = matched.sum(0)
        if self.weighting == "sample":
            count = torch.maximum(count, labelled.sum(0))
        return torch.where(matched, losses, 0).sum(0) / count.clamp(min=1)


class DistributionMatching(_Matching):
    """The target's prediction agrees with the one the source's implies, an :class:`~selshare.objectives.Objective`.

    ``q(a|x) = Σ_e p(e|x)·p(a|e)``, and the loss is the cross entropy of the target's ``p(a|x)`` with q (Kollias et al.,
    AAAI 2024, eq. for distribution matching; there the mean over every sample, labelled or not).

    *Ours*: ``samples``, ``weighting`` and ``use_labels``, below; the full Bernoulli cross entropy (the published
    ``−p log q`` alone is least where p = 0); no gradient through q, so that the source is not bent towards the target's
    mistakes (``stop_gradient=False`` lets it through); q clamped to ``[clamp, 1 − clamp]``; for a multiclass target the
    categorical cross entropy. The mean over labels of a multilabel task and the sum over binary ones, as their own
    losses have it.

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
    samples
        ``"unlabelled"``: a label is matched on the samples that lack it; ``"all"``, as published: on every sample, also
        against the label it has.
    weighting
        ``"mean"``, as published: the mean over the samples matched, however few a batch holds. ``"sample"``: that mean
        scaled down where more samples of the batch have the label, so that a sample matched never counts more than
        one labelled.
    use_labels
        Where a sample's class is known, that is p(e|x), in place of the source's prediction.
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
        samples: Samples = "unlabelled",
        weighting: Weighting = "sample",
        use_labels: bool = True,
        clamp: float = 1e-3,
        stop_gradient: bool = True,
    ) -> None:
        super().__init__(
            source,
            target,
            relation,
            classes=classes,
            labels=labels,
            strength=strength,
            samples=samples,
            weighting=weighting,
        )
        if not 0 <= clamp < 0.5:
            raise ValueError(f"clamp is {clamp}; it must be 0 or more and below .5.")
        self.clamp, self.stop_gradient, self.use_labels = clamp, stop_gradient, use_labels

    def __call__(self, model: MultiTaskModel, shared: Tensor, outputs: Tensor, targets: Tensor) -> Tensor:
        """The term for a batch; ``shared`` does not matter."""
        return self.of_outputs(model.layout, outputs, targets)

    def of_outputs(self, layout: TaskLayout, outputs: Tensor, targets: Tensor) -> Tensor:
        """The term for packed outputs ``(B, output_width)`` and packed targets; 0 where no sample is matched."""
        link = self._link(layout)
        outputs = _at_least_single(outputs)
        target = link.target_logits(outputs)
        implied = self._implied(link, link.source_logits(outputs), targets)
        labelled = link.target_labels(targets)[1].bool()
        if link.exclusive:
            losses = -(implied * torch.log_softmax(target, dim=1)).sum(1, keepdim=True)
            labelled = labelled[:, :1]
        else:
            losses = F.binary_cross_entropy_with_logits(target, implied, reduction="none")
        matched = ~labelled if self.samples == "unlabelled" else torch.ones_like(labelled)
        by_label = self._average(losses, matched, labelled)
        value = by_label.sum() if link.separate else by_label.mean()
        return require_finite_objective(self.strength * value, f"distribution matching of {self.source!r}")

    def _implied(self, link: LinkedTasks, source: Tensor, targets: Tensor) -> Tensor:
        """``q (B, A)``, clamped, without gradient unless that was asked for."""
        classes = torch.softmax(source, dim=1)
        if self.use_labels:
            members = link.source_members(targets).to(classes)
            classes = torch.where(members.any(1, keepdim=True), members, classes)
        implied = classes @ self._table_like(classes)
        implied = (implied.detach() if self.stop_gradient else implied).clamp(self.clamp, 1 - self.clamp)
        return implied / implied.sum(1, keepdim=True) if link.exclusive else implied


class SoftCoAnnotation(_Matching):
    """The target's known labels say which classes are likely, an :class:`~selshare.objectives.Objective`.

    From the known labels a of a sample, ``q(e|x) = softmax(I(e|x)/τ)``, and the loss is the cross entropy of the
    source's ``p(e|x)`` with q (Kollias et al., AAAI 2024: soft co-annotation; there the mean over the samples labelled
    for the target).

    *Ours* by default: with ``evidence="posterior"`` the loss is the labels' own, ``−log Σ_e p(e|x)·p(a|e)``. Its
    gradient is that of the cross entropy with ``q(e|x) ∝ p(e|x)·p(a|e)`` held still: between classes that have the same
    labels it leaves the prediction as it is, where the published form asks for equal probabilities and so undoes what
    the samples labelled for the class have taught.

    Parameters
    ----------
    source, target, relation, classes, labels, strength
        As for :class:`DistributionMatching`.
    samples
        Of those labelled for the target: ``"unlabelled"``, those whose class is not known; ``"all"``, as published.
    weighting
        As for :class:`DistributionMatching`: ``"sample"``, or ``"mean"`` as published.
    evidence
        ``"posterior"``: see above, with ``I(e|x) = log p(e|x) + log p(a|e)``. ``"likelihood"``, *ours* too:
        ``I(e|x) = log p(a|e)``; at τ = 1 q is Bayes' posterior for classes of equal frequency, whatever the image. Both
        take labels for independent given the class. ``"share"``, as published: ``I(e|x) = Σ_i w_ei·a_i / Σ_i w_ei``,
        the share of the class's labels that are there (``w = p(a|e)``; labels not known are left out of both sums);
        labels that are there and should not be count for nothing.
    temperature
        τ; of ``"posterior"`` it divides ``log p(a|e)`` only. Published is 1, at which q is nearly level: with shares in
        [0, 1] and 7 classes it never exceeds .31. *Ours*: .1 for ``"share"``, else 1 where ``None``.
    clamp
        Probabilities are clamped to ``[clamp, 1 − clamp]`` before their logarithm; in (0, .5).

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
        samples: Samples = "unlabelled",
        weighting: Weighting = "sample",
        evidence: Evidence = "posterior",
        temperature: float | None = None,
        clamp: float = 1e-3,
    ) -> None:
        super().__init__(
            source,
            target,
            relation,
            classes=classes,
            labels=labels,
            strength=strength,
            samples=samples,
            weighting=weighting,
        )
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
        """The term for packed outputs ``(B, output_width)`` and packed targets; 0 where no sample counts."""
        link = self._link(layout)
        predicted = torch.log_softmax(link.source_logits(_at_least_single(outputs)), dim=1)
        scores, labelled = self._scores(link, targets)
        scores = scores.to(predicted)
        if self.evidence == "posterior":
            losses = -torch.logsumexp(predicted + scores, dim=1)
        else:
            losses = -(torch.softmax(scores, dim=1) * predicted).sum(1)
        known = link.source_members(targets).any(1)
        taught = labelled & ~known if self.samples == "unlabelled" else labelled
        value = self._average(losses, taught, known)
        return require_finite_objective(self.strength * value, f"soft co-annotation of {self.source!r}")

    def likely_classes(
        self, layout: TaskLayout, targets: Tensor, outputs: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """``q(e|x) (B, E)`` float64 from the known labels, and which samples ``(B,)`` have one.

        ``"posterior"`` starts from the source's prediction, and so needs packed ``outputs``; ``ValueError`` without.
        """
        link = self._link(layout)
        scores, labelled = self._scores(link, targets)
        if self.evidence == "posterior":
            if outputs is None:
                raise ValueError("The posterior of the classes starts from what the model predicts; give its outputs.")
            scores = scores + torch.log_softmax(link.source_logits(outputs).double(), dim=1)
        return torch.softmax(scores, dim=1), labelled

    def _scores(self, link: LinkedTasks, targets: Tensor) -> tuple[Tensor, Tensor]:
        """What the labels alone say, divided by τ ``(B, E)``, and which samples ``(B,)`` have one."""
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
        return scores / self.temperature, known.any(1)


def _at_least_single(outputs: Tensor) -> Tensor:
    """Half precision as float32."""
    return outputs.float() if outputs.dtype in (torch.float16, torch.bfloat16) else outputs
