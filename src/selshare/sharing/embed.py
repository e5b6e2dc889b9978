"""From captured gradients to one embedding row per branch.

Gradients are scaled to unit norm (branches are compared by direction: a rare task has a small gradient), compressed
by a tensor train and returned as unit-norm rows. Known (Strezoski et al. 2019): a tensor train compresses the
gradients, its factors are stacked, normalised and clustered. *Ours*: the joint form, and inner products in the
per-branch form, because the factors of separate trains each have their own signs and rotations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..kernels import fold_gradients, joint_tt_svd, tt_svd
from ..kernels.checks import is_one_of


@dataclass(frozen=True, eq=False, slots=True)
class Embedding:
    """Rows to cluster.

    Attributes
    ----------
    rows
        ``(n, r)``, unit norm.
    branches
        ``(n,)`` int64 on the CPU, ascending: the branch of each row. A branch without a gradient has no row.
    """

    rows: Tensor
    branches: Tensor


def embed(
    gradients: Tensor,
    method: str = "joint",
    *,
    relative_error: float = 1e-2,
    max_rank: int | None = None,
    centre: bool = False,
    names: Sequence[str] | None = None,
) -> Embedding:
    """Embed the branches by their gradients.

    Parameters
    ----------
    gradients
        ``(G, O, H)`` float32 or float64. Any scale: 1e-30 and 1e+30 do as well as 1. A row of zeros (a branch whose
        tasks had no label) gets no row in the result.
    method
        ``"joint"``: one tensor train of all branches, the branch mode first; the rows are ``U₁Σ₁``, so that
        distances between rows are distances between compressed gradients.
        ``"per_branch"``: one tensor train per branch, the paper's literal form, compared by inner products; the rows
        are a Euclidean embedding of these, so that distances between rows are distances between trains.
    relative_error
        The part of the norm the tensor trains may lose, of the whole stack (joint) or of each gradient (per branch).
    max_rank
        A limit on the width of the joint train's rows, or on every rank of the per-branch trains.
    centre
        Subtract the mean of the unit-norm gradients first: what all tasks have in common says nothing of their
        relations (*ours*; one-vs-rest tasks of one label set have their mostly negative part in common).
    names
        What to call each row in an error, e.g. ``"task 'sandal'"``; ``"branch 3"`` where not given.

    Raises
    ------
    ValueError
        If a gradient holds NaN or Inf, or the method is unknown.
    """
    check_method(method)
    units, live = _unit_gradients(gradients, names)
    if centre and len(live) > 2:  # of two, the centred ones are opposite whatever they were
        units, left = _unit_gradients(units - units.mean(0), None)
        live = live[left]
    rows = units.flatten(1)
    if len(live) > 1:
        rows = _METHODS[method](units, relative_error, max_rank)
        lengths = torch.linalg.vector_norm(rows, dim=1)
        # A row that the truncation took away whole has no direction left to compare.
        rows, live = rows[lengths > 0] / lengths[lengths > 0, None], live[(lengths > 0).to("cpu")]
    return Embedding(rows, live)


def check_method(method: str) -> None:
    """Raise ``ValueError`` unless ``method`` is a way to embed."""
    if not is_one_of(method, _METHODS):
        raise ValueError(f"unknown embedding {method!r}; choose from {', '.join(_METHODS)}.")


def _unit_gradients(gradients: Tensor, names: Sequence[str] | None) -> tuple[Tensor, Tensor]:
    """The gradients that are not zero, at unit norm ``(n, O, H)``, and their branches ``(n,)``."""
    lengths = torch.linalg.vector_norm(gradients, dim=(1, 2))
    safe = 1e4 * torch.finfo(gradients.dtype).tiny ** 0.5  # squares of entries that matter do not vanish
    if bool(((lengths > safe) & (lengths < 1 / safe)).all()):
        return gradients / lengths[:, None, None], torch.arange(len(gradients))
    return _unit_gradients_of_any_size(gradients, names)


def _unit_gradients_of_any_size(gradients: Tensor, names: Sequence[str] | None) -> tuple[Tensor, Tensor]:
    """As :func:`_unit_gradients`, also for gradients that are zero, tiny, huge or not finite, in more passes."""
    largest = gradients.abs().amax(dim=(1, 2)) if gradients.numel() else gradients.new_zeros(len(gradients))
    bad = (~torch.isfinite(largest)).nonzero().flatten().tolist()
    if bad:
        who = ", ".join(names[branch] if names else f"branch {branch}" for branch in bad)
        raise ValueError(
            f"the captured gradient holds NaN or Inf for {who}; look for NaN in its inputs or targets, or lower the "
            "learning rate."
        )
    live = largest.nonzero().flatten()
    # In two steps, so that squaring a tiny or huge gradient neither vanishes nor overflows.
    alive = gradients if len(live) == len(gradients) else gradients[live]
    units = alive / largest[live, None, None]
    units /= torch.linalg.vector_norm(units, dim=(1, 2), keepdim=True)
    return units, live.to("cpu")


def _joint(units: Tensor, relative_error: float, max_rank: int | None) -> Tensor:
    """``U₁Σ₁`` of the joint train.

    The branch mode comes first, so its factor does not depend on how the layer's widths are split after it. They are
    left whole here: the cores of their modes would be computed for nothing.
    """
    rows = units.flatten(1)
    return joint_tt_svd(rows, (rows.shape[1],), max_rank=max_rank, relative_error=relative_error).embedding


def _per_branch(units: Tensor, relative_error: float, max_rank: int | None) -> Tensor:
    """Points with the inner products of the trains: ``V Λ^½`` of their Gram matrix ``V Λ Vᵀ``."""
    folded = fold_gradients(units)
    modes = tuple(folded.shape[1:])
    trains = tt_svd(folded.flatten(1), modes, max_rank=max_rank, relative_error=relative_error)
    gram = trains.inner_all()
    values, vectors = torch.linalg.eigh(gram)
    # What rounding makes of zero eigenvalues carries no distance.
    kept = values > values[-1] * len(values) * torch.finfo(units.dtype).eps
    points: Tensor = (vectors[:, kept] * values[kept].sqrt()).flip(1)
    return points.to(units.dtype)


_METHODS: dict[str, Callable[[Tensor, float, int | None], Tensor]] = {
    "joint": _joint,
    "per_branch": _per_branch,
}
