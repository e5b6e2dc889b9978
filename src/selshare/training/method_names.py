"""What a method's name says: a baseline, or objectives and a criterion joined by ``+``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..sharing import CRITERIA

BASELINES = ("stl", "mtl")
OBJECTIVES = ("srdml", "distribution-matching")


@dataclass(frozen=True)
class MethodParts:
    """A method taken apart: how branches merge (``None``: never), and what is added to the tasks' losses."""

    criterion: str | None
    objectives: tuple[str, ...]


def method_parts(method: str) -> MethodParts:
    """Take apart ``"mtl"``, ``"similarity"``, ``"srdml"``, ``"srdml+similarity"``, ``"srdml+distribution-matching"``.

    Raises
    ------
    ValueError
        If a part is unknown, comes twice, is a second criterion, or is ``stl``, or ``mtl`` with others.
    """
    parts = method.split("+")
    criteria = [part for part in parts if part in CRITERIA]
    objectives = tuple(part for part in parts if part in OBJECTIVES)
    if method != "mtl" and (len(criteria) + len(objectives) != len(parts) or len(criteria) > 1):
        raise _unknown([method])
    if len(set(parts)) != len(parts):
        raise ValueError(f"method {method} names a part twice.")
    return MethodParts(criteria[0] if criteria else None, objectives)


def check_methods(methods: Sequence[str]) -> None:
    """Raise ``ValueError`` if there are none or one is unknown."""
    if not methods:
        raise _unknown([])
    unknown = []
    for method in methods:
        parts = method.split("+")
        known = (*CRITERIA, *OBJECTIVES) if len(parts) > 1 else (*BASELINES, *CRITERIA, *OBJECTIVES)
        if any(part not in known for part in parts):
            unknown.append(method)
        elif method != "stl":
            method_parts(method)
    if unknown:
        raise _unknown(unknown)


def _unknown(methods: Sequence[str]) -> ValueError:
    known = ", ".join((*BASELINES, *CRITERIA, *OBJECTIVES))
    return ValueError(
        f"unknown method {', '.join(methods) or '(none given)'}; choose from {known}, or join objectives and at most "
        "one criterion by +, as in srdml+similarity."
    )
