"""The examples run as torchrun would run them."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
import torch

from several import start, wait

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize("name", ["distributed_data_parallel", "distributed_sharded"])
def test_example(name: str, tmp_path: Path) -> None:
    def run(_: None) -> None:
        torch.set_num_threads(1)
        runpy.run_path(str(EXAMPLES / f"{name}.py"))["main"](str(tmp_path / "out"))

    assert wait(start(run, 2, tmp_path, joined=False)) == [0, 0], (tmp_path / "0.log").read_text()
    assert "branches for 20 tasks, mean metric 0." in (tmp_path / "0.log").read_text()
    assert (tmp_path / "out").exists()
