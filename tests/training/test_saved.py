"""A newcomer's path: a table, training, prediction and export from the run folder."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pandas as pd
import pytest
import torch

from selshare.cli import app, main
from selshare.training.saved import load_trained, predict_table, table_columns


def write_table(file: Path) -> list[str]:
    """Six tasks of three kinds on three inputs, with missing labels."""
    random = np.random.default_rng(0)
    inputs = random.normal(size=(200, 3))
    data = pd.DataFrame(inputs, columns=["a", "b", "c"])
    for number in range(6):
        score = inputs @ random.normal(size=3)
        labels = [np.where(score > 0, "yes", "no"), 100 + 9 * score, np.digitize(score, [-1, 1]).astype(float)][
            number % 3
        ]
        data[f"t{number}"] = pd.Series(labels, dtype=object).where(random.random(200) < 0.8)
    data.to_csv(file, index=False)
    return [name for name in data if name.startswith("t")]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("newcomer")
    targets = write_table(folder / "houses.csv")
    arguments = ["compare", str(folder / "houses.csv"), "--targets", ",".join(targets), "--epochs", "3", "--quiet"]
    app([*arguments, "--methods", "mtl,similarity", "--output", str(folder / "run")], standalone_mode=False)
    return folder / "run"


def test_predictions_are_in_the_words_and_units_of_the_table(run: Path) -> None:
    data = pd.read_csv(run.parent / "houses.csv")
    model, weights = load_trained(run)
    assert weights.name == "similarity-seed0.safetensors"
    assert not model.training
    predicted = predict_table(model, table_columns(run), data[["c", "a", "b"]].iloc[5:30], batch_size=7)
    assert list(predicted.index) == list(range(5, 30))
    assert set(predicted["t0"]) <= {"yes", "no"}
    assert predicted["t0 probability"].between(0.5, 1).all()
    assert set(predicted["t2"]) <= {"0", "1", "2"}
    assert predicted["t2 probability"].between(1 / 3 - 1e-6, 1).all()
    assert predicted["t1"].between(40, 160).all()


def test_the_command_line_predicts_and_exports(run: Path, tmp_path: Path) -> None:
    table, out, onnx = (str(path) for path in (run.parent / "houses.csv", tmp_path / "out.csv", tmp_path / "m.onnx"))
    app(["predict", str(run), table, "--output", out], standalone_mode=False)
    app(["export", str(run), "--output", onnx, "--method", "mtl"], standalone_mode=False)
    model, columns = load_trained(run)[0], table_columns(run)
    data = pd.read_csv(table)
    pd.testing.assert_frame_equal(
        pd.read_csv(out, dtype={"t2": str, "t5": str}),
        predict_table(model, columns, data),
        check_dtype=False,
        rtol=1e-5,
    )
    inputs = columns.read_inputs(data)
    outputs = onnxruntime.InferenceSession(onnx).run(None, {"inputs": inputs.numpy()})
    wanted = load_trained(run, "mtl")[0](inputs).detach()
    torch.testing.assert_close(torch.cat([torch.from_numpy(part) for part in outputs], 1), wanted, rtol=1e-4, atol=1e-5)


def test_a_named_data_set_is_loaded_again(tmp_path: Path) -> None:
    options = ["--tasks", "4", "--groups", "2", "--samples", "100", "--epochs", "1", "--quiet"]
    app(["compare", "synthetic", *options, "--methods", "mtl", "--output", str(tmp_path)], standalone_mode=False)
    model, _ = load_trained(tmp_path)
    assert len(model.tasks) == 4
    with pytest.raises(ValueError, match="a run on synthetic, not on a table"):
        table_columns(tmp_path)


def test_what_cannot_be_loaded_is_named(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError, match="has no weights of stl; it has those of mtl with seed 0, similarity"):
        load_trained(run, "stl")
    with pytest.raises(FileNotFoundError, match=r"is no run folder: it has no results.json"):
        load_trained(tmp_path)
    for name in ("results.json", "problem.json"):
        (tmp_path / name).write_bytes((run / name).read_bytes())
    (tmp_path / "mtl-seed0.safetensors").write_bytes(b"half a file")
    with pytest.raises(ValueError, match=r"mtl-seed0.safetensors does not hold weights"):
        load_trained(tmp_path)
    (tmp_path / "problem.json").write_text(json.dumps({"name": "x"})[:-1])
    with pytest.raises(ValueError, match=r"problem.json is damaged"):
        load_trained(tmp_path)
    monkeypatch.setattr("sys.argv", ["selshare", "predict", str(tmp_path / "none"), "t.csv"])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
