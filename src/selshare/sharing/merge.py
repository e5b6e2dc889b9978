"""Carry out a merge plan: the only place where sharing changes a model or an optimizer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..model import MultiTaskModel
from ..model.bank import resize_stacked, stacked_tensors
from .align import align
from .compose import can_compose, compose
from .plan import MergePlan
from .refit import FIRST_MOMENTS, outputs_on, refit_heads, tasks_to_refit

Optimizers = torch.optim.Optimizer | Sequence[torch.optim.Optimizer] | None


def apply(
    plan: MergePlan,
    model: MultiTaskModel,
    optimizers: Optimizers = None,
    *,
    shared: Tensor | None = None,
    compose_branches: bool = False,
) -> None:
    """Merge the bank's branches in place, and with them the optimizers' state and the assignment.

    What a survivor holds afterwards (known: best is the default, the others are the paper's alternatives; *ours*:
    what happens to optimizer state and buffers):

    ========  ============================================  =======================================
    rule      parameters, floating-point buffers            optimizer state
    ========  ============================================  =======================================
    best      the survivor's own, to the bit                the survivor's own, to the bit
    mean      the group's mean, taken in float64, rounded   the group's mean, likewise
    max, min  the group's element-wise maximum, minimum     the survivor's own: a maximum of momenta
                                                            or of second moments means nothing
    ========  ============================================  =======================================

    Integer and boolean tensors (``num_batches_tracked``) are the survivor's own under every rule. Branches in no
    group keep all they have, to the bit; the trunk is not touched, nor are heads without ``shared``. State tensors
    move if they have one row per branch (as many dimensions as the parameter and its first one); others, like Adam's
    ``step``, stay.
    Parameters keep their identity, so param groups and schedulers go on; ``.grad`` of the bank's parameters is
    cleared. All is computed before anything is written: an error leaves model and optimizers as they were.

    With ``shared`` the merge preserves functions (*ours*): the heads of tasks whose branch changes are refitted to
    give on it what they gave before (:func:`~selshare.sharing.refit.refit_heads`), and under ``"mean"``, ``"max"``
    and ``"min"`` hidden units are aligned first (:func:`~selshare.sharing.align.align`). With ``compose_branches``
    too, ``"best"`` makes the survivor anew of the hidden units of all its group
    (:func:`~selshare.sharing.compose.compose`); its first moments in the optimizers are then set to zero, as they
    point among the old units, and the other state is the survivor's own. Branches of other kinds than stacks of
    Linear, activation and dropout layers have no units to be moved; of them the survivor stays as it is.

    Parameters
    ----------
    plan
        A plan for as many branches as the bank has.
    model
        The model whose bank shrinks.
    optimizers
        One or several; ``None`` is right only for optimizers without state.
    shared
        ``(N, …)`` recent shared representations to refit heads on; heads are not touched when ``None``.
    compose_branches
        Whether survivors are composed of their group's units, with ``shared`` and under ``"best"``.

    Raises
    ------
    ValueError
        If the plan is for another number of branches, or with ``shared`` a rule other than ``"best"`` meets branches
        whose units cannot be aligned.
    TypeError
        If an optimizer is none, or is an LBFGS, whose state is one flat history of all parameters together.
    """
    every = as_optimizers(optimizers)
    if plan.branches != model.bank.branches:
        raise ValueError(
            f"the merge plan is for {plan.branches} branches, but the bank has {model.bank.branches}; "
            "replay plans in their order on a model that has not merged."
        )
    if not plan.changes:
        return
    composed = False
    if shared is not None:
        outputs = outputs_on(model, shared)
        composed = compose_branches and plan.rule == "best" and can_compose(model.bank, shared)
        refitted = tasks_to_refit(plan, model.assignment, changed_survivors=composed or plan.rule != "best")
        if plan.rule != "best":
            align(plan, model.bank, shared, every)
        if composed:
            compose(plan, model.bank, shared, _outputs_of_groups(plan, model, outputs))
    tensors = {name: _merged(tensor, plan, plan.rule) for name, tensor in stacked_tensors(model.bank).items()}
    states = list(_moved_states(plan, model, every, forget=composed))
    assignment = plan.assignment_map().to(model.assignment.device)[model.assignment]
    resize_stacked(model.bank, tensors)
    for state, key, moved in states:
        state[key] = moved
    model.reassign(assignment)
    if shared is not None:
        refit_heads(model, shared, outputs, refitted, every)


def replay(plans: Iterable[MergePlan], model: MultiTaskModel, optimizers: Optimizers = None) -> None:
    """Apply saved plans, in their order, to a model that has not merged yet."""
    for plan in plans:
        apply(plan, model, optimizers)


def as_optimizers(optimizers: Optimizers) -> tuple[torch.optim.Optimizer, ...]:
    """None, one or several optimizers as a tuple, each of a kind whose state can follow a merge.

    Raises
    ------
    TypeError
        If one is not an optimizer, or is an LBFGS.
    """
    if optimizers is None:
        return ()
    every = (optimizers,) if isinstance(optimizers, torch.optim.Optimizer) else tuple(optimizers)
    for optimizer in every:
        if not isinstance(optimizer, torch.optim.Optimizer):
            raise TypeError(f"expected torch optimizers, got {type(optimizer).__name__}; pass model, then optimizer.")
        if isinstance(optimizer, torch.optim.LBFGS):
            raise TypeError(
                "LBFGS keeps one flat history of all parameters, which cannot follow a merge; use another optimizer."
            )
    return every


def _outputs_of_groups(plan: MergePlan, model: MultiTaskModel, outputs: Tensor) -> list[Tensor]:
    """The columns of ``outputs (N, output_width)`` of each group's tasks."""
    members, columns = model.tasks_by_branch(), model.layout.output_slices
    return [
        torch.cat([outputs[:, columns[task]] for branch in group for task in members[branch]], dim=1)
        for group in plan.groups
    ]


def _moved_states(
    plan: MergePlan, model: MultiTaskModel, optimizers: Sequence[torch.optim.Optimizer], *, forget: bool
) -> Iterable[tuple[dict[str, Any], str, Tensor]]:
    """For each state tensor with a row per branch: the dictionary and key it lives under, and its new value.

    With ``forget`` the survivors' first moments are zero.
    """
    rule = "mean" if plan.rule == "mean" else "best"
    position = {branch: new for new, branch in enumerate(plan.kept())}
    survivors = [position[survivor] for survivor in plan.survivors]
    for parameter in model.bank.parameters():
        for optimizer in optimizers:
            state = optimizer.state.get(parameter, {})
            for key, value in state.items():
                if isinstance(value, Tensor) and value.ndim == parameter.ndim and len(value) == plan.branches:
                    moved = _merged(value, plan, rule)
                    if forget and key in FIRST_MOMENTS:
                        moved[survivors] = 0
                    yield state, key, moved


def _merged(stacked: Tensor, plan: MergePlan, rule: str) -> Tensor:
    """The rows that remain, ``(G, …)`` → ``(G', …)``, the survivors' rows combined as ``rule`` says."""
    kept = plan.kept()
    rows = stacked.detach().index_select(0, torch.tensor(kept, device=stacked.device))
    if rule == "best" or not stacked.is_floating_point():
        return rows
    position = {branch: new for new, branch in enumerate(kept)}
    for group, survivor in zip(plan.groups, plan.survivors, strict=True):
        rows[position[survivor]] = _COMBINE[rule](stacked.detach()[list(group)])
    return rows


_COMBINE: dict[str, Callable[[Tensor], Tensor]] = {
    # In float64, rounded once: the result does not depend on the order of the branches.
    "mean": lambda rows: rows.double().mean(dim=0).to(rows.dtype),
    "max": lambda rows: rows.amax(dim=0),
    "min": lambda rows: rows.amin(dim=0),
}
