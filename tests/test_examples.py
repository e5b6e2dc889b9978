"""Every script in examples/ runs to its end."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
SAYS = {
    "digits.py": "mean accuracy on the test images: 0.9",
    "own_loop.py": "epoch 6: 3 branches",
    "table.py": "together: score 0, score 2, score 4, score 6, score 8",
    "kernels_alone.py": "HDBSCAN: 4 clusters among the tensors",
    "export_onnx.py": "onnxruntime gives a1, a2, a3, b1, b2, b3",
    "saliency.py": "a1 and a2",
}


@pytest.mark.parametrize("script", SAYS)
def test_it_runs(
    script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(EXAMPLES / script), run_name="__main__")
    assert SAYS[script] in capsys.readouterr().out


def test_each_is_listed() -> None:
    scripts = {path.name for path in EXAMPLES.glob("*.py")}
    run_elsewhere = {"distributed_data_parallel.py", "distributed_sharded.py"}  # by torchrun, in tests/distributed
    assert scripts == set(SAYS) | run_elsewhere
    listed = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert all(f"[{name}]({name})" in listed for name in scripts)
