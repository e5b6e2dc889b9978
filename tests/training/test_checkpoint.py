"""What a checkpoint holds comes back as it was; files that are none are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from safetensors.torch import save_file

from selshare.training.checkpoint import FORMAT, read_checkpoint, write_checkpoint

TENSORS = st_numpy.arrays(
    st.sampled_from([np.float32, np.float64, np.int64, np.bool_, np.uint8]),
    st_numpy.array_shapes(min_dims=0, max_dims=3, max_side=4),
).map(lambda array: torch.from_numpy(np.array(array)))
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | TENSORS
STATES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(
            st.text(max_size=4) | st.integers() | st.tuples(st.integers(), st.text(max_size=2)), inner, max_size=3
        )
    ),
    max_leaves=12,
)


def same(one: Any, other: Any) -> bool:
    """Equal in type, structure and every bit that matters; NaN equals NaN."""
    if isinstance(one, torch.Tensor):
        return (
            one.dtype == other.dtype and one.shape == other.shape and one.numpy().tobytes() == other.numpy().tobytes()
        )
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return type(one) is type(other) and len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and (one == other or (one != one and other != other))


@given(state=st.dictionaries(st.text(max_size=4), STATES, max_size=4))
def test_any_state_comes_back(state: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.mktemp("states") / "a.safetensors"
    write_checkpoint(file, state)
    assert same(read_checkpoint(file), state)
    assert [path.name for path in file.parent.iterdir()] == ["a.safetensors"]


def test_views_and_shared_memory(tmp_path: Path) -> None:
    base = torch.arange(12.0).reshape(3, 4)
    state = {"row": base[1], "transposed": base.T, "again": base, "strided": base[:, ::2]}
    write_checkpoint(tmp_path / "a", state)
    assert same(read_checkpoint(tmp_path / "a"), {name: tensor.contiguous() for name, tensor in state.items()})


def test_a_state_that_cannot_be_held_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    write_checkpoint(file, {"step": 1})
    with pytest.raises(TypeError, match=r"state\.optimizer\[0\]\[1\] is a function, which a checkpoint cannot hold"):
        write_checkpoint(file, {"optimizer": {0: [1, lambda: 2]}})
    assert read_checkpoint(file) == {"step": 1}
    with pytest.raises(OSError, match=r"a\.safetensors/b"):
        write_checkpoint(file / "b", {"step": 2})


def test_files_that_are_none_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    write_checkpoint(file, {"weights": torch.ones(100)})
    whole = file.read_bytes()
    for size in (0, 4, 60, len(whole) - 1):
        file.write_bytes(whole[:size])
        with pytest.raises(ValueError, match="is cut off or no safetensors file"):
            read_checkpoint(file)
    save_file({"weights": torch.ones(2)}, file)
    with pytest.raises(ValueError, match="not a checkpoint that selshare wrote"):
        read_checkpoint(file)
    save_file({}, file, {"selshare": "{"})
    with pytest.raises(ValueError, match="is damaged"):
        read_checkpoint(file)
    save_file({}, file, {"selshare": json.dumps({"format": FORMAT + 1, "state": {}})})
    with pytest.raises(ValueError, match=f"has format {FORMAT + 1}, and this selshare reads up to {FORMAT}; update"):
        read_checkpoint(file)
    with pytest.raises(FileNotFoundError, match="no checkpoint"):
        read_checkpoint(tmp_path / "absent")
