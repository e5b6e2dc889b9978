"""Targets of all tasks in one tensor, NaN where a label is missing, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NoReturn

import torch
from torch import Tensor

from ..kernels import checks
from ..tasks import Task, TaskLayout

MISSING = -100
"""A missing label in integer targets; in floats it is NaN."""

HALF = (torch.float16, torch.bfloat16)
HALF_CLASSES = 256
"""Class indices above this are not exact in bfloat16."""


def pack_targets(layout: TaskLayout, targets: Mapping[str, Tensor] | Tensor, *, check: bool = True) -> Tensor:
    """The targets of all tasks as one float tensor ``(B, target_width)``, NaN where a label is missing.

    Parameters
    ----------
    layout
        The layout of the tasks.
    targets
        One tensor per task name: ``(B,)`` or ``(B, 1)`` for a task of one target column, ``(B, d)`` for one of d.
        Or one tensor ``(B, target_width)``, columns in the order of the tasks: ``(B, T)`` where every task has one.
        Binary, multiclass and multilabel targets are floats (NaN = missing), integers (−100 = missing) or bools;
        regression and ranking targets are floats.
    check
        Look at the values too (:func:`check_targets`): one pass, and on a GPU one wait for the device.

    Returns
    -------
    Tensor
        A floating-point tensor is returned as it is. Integers become float32; a mapping becomes float64 where one
        of its tensors is, float32 elsewhere.

    Raises
    ------
    ValueError, TypeError
        One sentence that names the task: a task missing from ``targets`` or unknown to the layout, a wrong shape or
        dtype, batch sizes or devices that differ, or a value :func:`check_targets` refuses.

    Notes
    -----
    Time O(T) in Python and O(B · target_width) in torch: one stack or concatenation per dtype.
    """
    if isinstance(targets, Tensor):
        checks.require_tensor(targets, "targets")
        packed = _from_tensor(layout, targets)
    elif isinstance(targets, Mapping):
        packed = _from_mapping(layout, targets)
    else:
        raise TypeError(f"Targets must be a tensor or a mapping from task to tensor, not a {type(targets).__name__}.")
    if check:
        check_targets(layout, packed)
    return packed


def check_targets(layout: TaskLayout, packed: Tensor) -> None:
    """Raise ``ValueError`` that names the first task with a value it cannot have.

    Binary and multilabel targets are 0 or 1, class indices whole and in range, the others finite; NaN is a missing
    label everywhere. Does nothing in a compiled region.
    """
    if torch.compiler.is_compiling():
        return
    _check_packed(layout, packed)
    wrong = _wrong(layout, packed)
    if bool(wrong.any()):
        _raise_wrong(layout, packed, wrong)


def _wrong(layout: TaskLayout, packed: Tensor) -> Tensor:
    """``(B, target_width)``: which values lie outside their task's range, or are not whole where they must be."""
    if not packed.is_floating_point():
        raise TypeError(f"Packed targets have dtype {packed.dtype}; make them with pack_targets.")
    classes = layout.constant("classes", packed.device, packed.dtype)
    whole, greatest = classes > 0, torch.finfo(packed.dtype).max
    low = torch.zeros_like(classes).masked_fill_(~whole, -greatest)
    high = (classes - 1).masked_fill_(~whole, greatest)
    # Comparisons with NaN are false, so a missing label is never wrong; so is ∞ − ∞, which the range has caught.
    return (packed < low) | (packed > high) | ((packed - packed.floor() > 0) & whole)


def _raise_wrong(layout: TaskLayout, packed: Tensor, wrong: Tensor) -> NoReturn:
    """Name the first task that has a wrong value."""
    column = int(wrong.any(dim=0).nonzero()[0, 0])
    row = int(wrong[:, column].nonzero()[0, 0])
    value = float(packed[row, column])
    task = next(task for task, part in zip(layout.tasks, layout.target_slices, strict=True) if column < part.stop)
    where = f"Task {task.name!r} has the target {value:g} in row {row} of the batch"
    hint = " (−100 marks a missing label in integers only; in floats it is NaN)" if value == MISSING else ""
    if task.kind == "multiclass":
        raise ValueError(f"{where}; its classes are the whole numbers 0 to {task.outputs - 1}{hint}.")
    if task.kind in ("binary", "multilabel"):
        raise ValueError(f"{where}; a {task.kind} target is 0 or 1{hint}.")
    raise ValueError(f"{where}; a {task.kind} target must be finite, or NaN where the label is missing.")


def _check_packed(layout: TaskLayout, packed: Tensor) -> None:
    """Shape and precision of a packed tensor."""
    if packed.ndim != 2 or packed.shape[1] != layout.target_width:
        raise ValueError(
            f"The targets have shape {tuple(packed.shape)}; "
            f"the {len(layout)} tasks need (batch, {layout.target_width})."
        )
    if packed.dtype in HALF:
        for task in layout.tasks:
            _check_precision(task, packed.dtype)


def _check_precision(task: Task, dtype: torch.dtype) -> None:
    """Half precision cannot hold the indices of many classes."""
    if task.kind == "multiclass" and task.outputs > HALF_CLASSES:
        raise TypeError(
            f"Task {task.name!r} has {task.outputs} classes and {_name(dtype)} targets, which hold class indices "
            f"exactly only up to {HALF_CLASSES}; give float32 or integer targets."
        )


def _from_tensor(layout: TaskLayout, targets: Tensor) -> Tensor:
    """A packed tensor as floats."""
    _check_packed(layout, targets)
    if targets.is_floating_point():
        return targets
    for task in layout.tasks:
        _check_dtype(task, targets.dtype)
    return _as_float(targets, torch.float32)


def _from_mapping(layout: TaskLayout, targets: Mapping[str, Tensor]) -> Tensor:
    """One tensor per task, packed: those of one dtype and number of dimensions are joined in one call."""
    _check_names(layout, targets)
    _check_tensors(layout, targets)
    parts: dict[tuple[torch.dtype, int], list[int]] = {}
    for index, name in enumerate(layout.names):
        tensor = targets[name]
        parts.setdefault((tensor.dtype, tensor.ndim), []).append(index)
    double = any(dtype == torch.float64 for dtype, _ in parts)
    joined = [
        _as_float(
            _join([targets[layout.names[index]] for index in members]), torch.float64 if double else torch.float32
        )
        for members in parts.values()
    ]
    if len(joined) == 1:
        return joined[0]
    packed = joined[0].new_empty(joined[0].shape[0], layout.target_width)
    for part, members in zip(joined, parts.values(), strict=True):
        packed.index_copy_(1, layout.target_columns_of(tuple(members), packed.device), part)
    return packed


def _join(tensors: list[Tensor]) -> Tensor:
    """Tensors of one number of dimensions, ``(B,)`` or ``(B, d)``, as one ``(B, columns)``."""
    if tensors[0].ndim == 2:
        return torch.cat(tensors, dim=1)
    return torch.stack(tensors).T.contiguous()  # faster than stacking along the second dimension


def _as_float(targets: Tensor, dtype: torch.dtype) -> Tensor:
    """Floats, with −100 in integers as NaN."""
    floats = targets.to(dtype)
    if targets.is_floating_point() or targets.dtype == torch.bool:
        return floats
    return floats.masked_fill(floats == MISSING, torch.nan)


def _check_names(layout: TaskLayout, targets: Mapping[str, Tensor]) -> None:
    """The mapping has every task, and nothing else."""
    missing = [name for name in layout.names if name not in targets]
    if missing:
        raise ValueError(
            f"The targets lack task {_first(missing)}; give a tensor for every task, NaN (floats) or −100 (integers) "
            f"where a label is missing."
        )
    if len(targets) > len(layout):
        known = set(layout.names)
        raise ValueError(
            f"The targets name the unknown task {_first([name for name in targets if name not in known])}."
        )


def _check_tensors(layout: TaskLayout, targets: Mapping[str, Tensor]) -> None:
    """Each tensor has its task's shape and dtype, and all have one batch size and one device."""
    first = layout.tasks[0]
    rows: int | None = None
    device: torch.device | None = None
    for task in layout.tasks:
        tensor = targets[task.name]
        if not isinstance(tensor, Tensor):
            raise TypeError(f"The targets of task {task.name!r} are a {type(tensor).__name__}; give a tensor.")
        shape, columns = tensor.shape, task.targets
        if not ((len(shape) == 1 and columns == 1) or (len(shape) == 2 and shape[1] == columns)):
            wanted = "(batch,)" if columns == 1 else f"(batch, {columns})"
            raise ValueError(f"The targets of task {task.name!r} have shape {tuple(shape)}; they must have {wanted}.")
        if rows is None:
            rows, device = shape[0], tensor.device
        if shape[0] != rows:
            raise ValueError(
                f"Task {task.name!r} has targets for {shape[0]} samples and task {first.name!r} for {rows}; "
                f"the batch must be the same."
            )
        if tensor.device != device:
            raise ValueError(
                f"The targets of task {task.name!r} are on {tensor.device} and those of task {first.name!r} on "
                f"{device}; move them to one device."
            )
        if tensor.layout != torch.strided or tensor.device.type in checks.WITHOUT_VALUES:
            checks.require_tensor(tensor, f"the tensor of task {task.name!r}")
        _check_dtype(task, tensor.dtype)


def _check_dtype(task: Task, dtype: torch.dtype) -> None:
    """Floats for every kind, precise enough for its classes; integers and bools where targets are classes."""
    if dtype.is_floating_point:
        if dtype in HALF:
            _check_precision(task, dtype)
        return
    if dtype.is_complex or task.kind in ("regression", "ranking"):
        raise TypeError(
            f"The targets of task {task.name!r} ({task.kind}) have dtype {_name(dtype)}; "
            f"give floats, NaN where a label is missing."
        )


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _first(names: list[str]) -> str:
    """The first name, and how many more there are."""
    return f"{names[0]!r}" + (f" (and {len(names) - 1} more)" if len(names) > 1 else "")
