"""Checkpoints: one safetensors file each, tensors beside JSON, written whole or not at all.

There is no pickle in them: opening a stranger's file runs no code. What a state holds besides tensors goes into the
file's metadata as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ..files import write_whole

FORMAT = 1
_KEY = "selshare"
_TENSOR, _TUPLE, _ITEMS = "$tensor", "$tuple", "$items"


def write_checkpoint(file: Path, state: Mapping[str, Any]) -> None:
    """Write ``state``: nested mappings, lists and tuples of tensors, numbers, texts, booleans and ``None``.

    The file appears under its name when all of it is on the disk, not before: it is written beside, flushed, and
    renamed.

    Raises
    ------
    TypeError
        If the state holds something else; says where.
    OSError
        If it cannot be written; names the file. What was at ``file`` before is still there.
    """
    tensors: dict[str, Tensor] = {}
    tree = _flattened(state, "state", tensors)
    content = save(tensors, {_KEY: json.dumps({"format": FORMAT, "torch": torch.__version__, "state": tree})})
    write_whole(file, content, durable=True)


def read_checkpoint(file: Path) -> dict[str, Any]:
    """The state that :func:`write_checkpoint` wrote; tensors on the CPU.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is cut off, no checkpoint of selshare's, or written by a newer version; says which.
    """
    if not file.exists():
        raise FileNotFoundError(f"there is no checkpoint {file}.")
    try:
        with safe_open(file, framework="pt") as opened:
            metadata = opened.metadata() or {}
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118  # not a mapping
    except SafetensorError as error:
        raise ValueError(
            f"{file} is cut off or no safetensors file ({error}); delete it to use an earlier one."
        ) from error
    if _KEY not in metadata:
        raise ValueError(f"{file} is a safetensors file, but not a checkpoint that selshare wrote.")
    try:
        header = json.loads(metadata[_KEY])
        number, tree = header["format"], header["state"]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{file} is damaged: its metadata is not what selshare writes ({error}).") from error
    if number > FORMAT:
        raise ValueError(f"{file} has format {number}, and this selshare reads up to {FORMAT}; update selshare.")
    state: dict[str, Any] = _restored(tree, tensors)
    return state


def _flattened(value: Any, where: str, tensors: dict[str, Tensor]) -> Any:
    """``value`` as JSON has it; its tensors go into ``tensors``."""
    if isinstance(value, np.ndarray):
        value = torch.from_numpy(value.copy())
    if isinstance(value, Tensor):
        name = str(len(tensors))
        tensors[name] = value.detach().cpu().clone(memory_format=torch.contiguous_format)
        return {_TENSOR: name}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, tuple):
        return {_TUPLE: [_flattened(item, f"{where}[{i}]", tensors) for i, item in enumerate(value)]}
    if isinstance(value, list):
        return [_flattened(item, f"{where}[{i}]", tensors) for i, item in enumerate(value)]
    if isinstance(value, Mapping):
        plain = all(isinstance(key, str) and not key.startswith("$") for key in value)
        if plain:
            return {key: _flattened(item, f"{where}.{key}", tensors) for key, item in value.items()}
        items = [(key, item) for key, item in value.items()]
        return {_ITEMS: [[_flattened(k, where, tensors), _flattened(v, f"{where}[{k!r}]", tensors)] for k, v in items]}
    raise TypeError(
        f"{where} is a {type(value).__name__}, which a checkpoint cannot hold: it takes tensors, numbers, texts, None, "
        "and lists, tuples and mappings of them."
    )


def _restored(tree: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The inverse of :func:`_flattened`."""
    if isinstance(tree, list):
        return [_restored(item, tensors) for item in tree]
    if not isinstance(tree, dict):
        return tree
    if _TENSOR in tree:
        return tensors[tree[_TENSOR]]
    if _TUPLE in tree:
        return tuple(_restored(item, tensors) for item in tree[_TUPLE])
    if _ITEMS in tree:
        return {_restored(key, tensors): _restored(item, tensors) for key, item in tree[_ITEMS]}
    return {key: _restored(item, tensors) for key, item in tree.items()}
