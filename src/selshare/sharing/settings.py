"""The settings of selective sharing: presets, and what is out of range."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ..kernels.checks import is_one_of, require_share
from .capture import check_capture
from .embed import check_method
from .plan import check_rule
from .step_size import POWERS

AUTO = "auto"
AUTO_EPOCHS, AUTO_STEPS = 10, 300
AUTO_GROUP_EPOCHS = 5

PRESETS: dict[str, dict[str, Any]] = {
    "paper": {
        "refit_heads": False,
        "compose_branches": False,
        "merged_gradient": "sum",
        "group_epochs": 0,
        "stable_epochs": 0,
        "warmup": 0,
        "validate_merges": 0,
        "centre": False,
    },
    "default": {
        "refit_heads": True,
        "compose_branches": True,
        "merged_gradient": "root",
        "group_epochs": AUTO,
        "stable_epochs": 0,
        "warmup": AUTO,
        "validate_merges": 0,
        "centre": AUTO,
    },
}
"""What the repairs are set to where a user leaves them at ``None``: as in the paper, or as the ablation chose."""

_LEAST = {
    "min_cluster_size": 2,
    "min_samples": 1,
    "patience": 1,
    "seed": 0,
    "max_rank": 1,
    "sketch_size": 1,
    "sketch_above": 0,
    "refit_rows": 1,
    "group_epochs": 0,
    "stable_epochs": 0,
    "warmup": 0,
    "validate_merges": 0,
}


_MOST = 2**63 - 1


def resolve(preset: str, chosen: Mapping[str, Any]) -> dict[str, Any]:
    """The settings ``chosen``, with those that are ``None`` and part of a preset taken from it.

    Raises
    ------
    ValueError
        If there is no preset of that name.
    """
    if not is_one_of(preset, PRESETS):
        raise ValueError(f"unknown preset {preset!r}; choose from {', '.join(PRESETS)}.")
    defaults = PRESETS[preset]
    return {name: defaults.get(name) if value is None else value for name, value in chosen.items()}


def warmup_epochs(warmup: int | str, epochs: int | None, steps: int | None) -> int:
    """Epochs before the first merge: as given, or for ``"auto"`` 10, or as many as make 300 steps where that is more.

    No more than a third of all ``epochs``. ``steps`` is the number of an epoch's steps; either may not be known.
    """
    if isinstance(warmup, int):
        return warmup
    enough = AUTO_EPOCHS if not steps else max(AUTO_EPOCHS, math.ceil(AUTO_STEPS / steps))
    return enough if epochs is None else min(enough, epochs // 3)


def group_epochs_of(wanted: int | str, warmup: int, stable_epochs: int) -> int:
    """Epochs whose gradients are clustered together: as given, or for ``"auto"`` 5.

    ``"auto"`` is no more than the ``warmup``, and enough for ``stable_epochs``.
    """
    if isinstance(wanted, int):
        return wanted
    return max(1, stable_epochs + 1, min(AUTO_GROUP_EPOCHS, warmup))


def check_settings(settings: Mapping[str, Any]) -> None:
    """Raise ``ValueError`` on a setting that is unknown or out of range."""
    check_rule(settings["merge"])
    check_method(settings["embedding"])
    check_capture(settings["capture"])
    _check_choice(settings, "cluster_selection_method", ("eom", "leaf"))
    _check_choice(settings, "merged_gradient", tuple(POWERS))
    require_share(settings["relative_error"], "relative_error")
    for name in ("refit_heads", "compose_branches"):
        if not isinstance(settings[name], bool):
            raise ValueError(f"{name} is True or False, not {settings[name]!r}.")
    if not isinstance(settings["centre"], bool) and not is_one_of(settings["centre"], (AUTO,)):
        raise ValueError(f"centre is True, False or {AUTO!r}, not {settings['centre']!r}.")
    for name, lowest in _LEAST.items():
        value = settings[name]
        if (name == "max_rank" and value is None) or (name in ("warmup", "group_epochs") and is_one_of(value, (AUTO,))):
            continue
        if isinstance(value, bool) or not isinstance(value, int) or not lowest <= value <= _MOST:
            shown = value if not isinstance(value, int) or abs(value) <= _MOST else "one of more than 63 bits"
            raise ValueError(f"{name} must be a whole number, at least {lowest}; it is {shown!r}.")
    most = settings["group_epochs"]
    if most and most != AUTO and settings["stable_epochs"] >= most:
        raise ValueError(
            f"stable_epochs={settings['stable_epochs']} needs {settings['stable_epochs'] + 1} clusterings, but "
            f"group_epochs={most} allows only as many as that; raise group_epochs."
        )


def _check_choice(settings: Mapping[str, Any], name: str, choices: Sequence[str]) -> None:
    """Raise unless a setting is one of some words."""
    if not is_one_of(settings[name], choices):
        *others, last = map(repr, choices)
        raise ValueError(f"{name} is {', '.join(others)} or {last}, not {settings[name]!r}.")
