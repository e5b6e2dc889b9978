"""The step size of a merged branch: the sum of its tasks' gradients, their mean, or between the two."""

from __future__ import annotations

from torch import Tensor
from torch.utils.hooks import RemovableHandle

from ..model import MultiTaskModel
from ..model.lazy_gradient import Factors, LazyGradient, factors_of

POWERS = {"sum": 0.0, "root": 0.5, "mean": 1.0}


class MergedGradient:
    """Divides the gradient of every branch of ``n`` tasks by ``n``, its square root, or not at all.

    The losses of tasks add up, so a branch of ten tasks takes steps up to ten times as long as one of its tasks would
    have made alone (``"sum"``, the paper's), at a rate that was right for one; with ``"mean"`` it takes the mean of
    their steps. Gradients that point independent ways add up to ``√n`` of one: divided by that (``"root"``, *ours*)
    a merged branch goes on with steps as long as before. Hooks on the bank's parameters do it, so trunk and heads
    see the gradients they would have seen; a gradient that is not formed (:mod:`selshare.model.lazy_gradient`) stays
    so: its error factor is divided. Optimizers that divide a gradient by its own size (Adam) do not notice.

    Parameters
    ----------
    rule
        ``"sum"``, ``"root"`` or ``"mean"``.

    Raises
    ------
    ValueError
        If it is none of these.
    """

    def __init__(self, rule: str) -> None:
        if rule not in POWERS:
            raise ValueError(f"the rule for merged gradients is one of {', '.join(POWERS)}, not {rule!r}.")
        self._power = POWERS[rule]
        self._model: MultiTaskModel | None = None
        self._hooks: list[RemovableHandle] = []
        self._parts: Tensor | None = None

    def start(self, model: MultiTaskModel) -> None:
        """Begin to divide."""
        if not self._power:
            return
        self._model = model
        self.refresh()
        self._hooks = [p.register_hook(self._divided) for p in model.bank.parameters() if p.requires_grad]

    def refresh(self) -> None:
        """Count the tasks of each branch anew, after a merge."""
        if self._model is None:
            return
        counts = self._model.assignment.bincount(minlength=self._model.bank.branches)
        weight = self._model.bank.first_weight
        merged = bool((counts > 1).any())
        self._parts = counts.to(weight.device, weight.dtype).pow(-self._power) if merged else None

    def stop(self) -> None:
        """Remove the hooks."""
        for hook in self._hooks:
            hook.remove()
        self._hooks, self._model, self._parts = [], None, None

    def _divided(self, gradient: Tensor) -> Tensor | None:
        """The hook: the gradient to go on with; ``None`` for the same one."""
        if self._parts is None:
            return None
        factors = factors_of(gradient)
        if factors is None:
            parts: Tensor = self._parts.to(gradient.device, gradient.dtype)
            return gradient * parts.view(-1, *[1] * (gradient.ndim - 1))
        factors.check_unchanged()
        delta = factors.delta * self._parts.to(factors.delta.dtype).view(-1, 1, 1)
        scaled = Factors(delta, factors.inputs, factors.source, factors.rectify)
        scaled.accumulators = factors.take_accumulators()
        return LazyGradient(scaled)
