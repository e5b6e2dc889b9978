"""The plain module, torch.export and ONNX give what the model gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import nn

from selshare import MergePlan, MultiTaskModel, PlainModel, Task
from selshare.model import export_onnx
from selshare.sharing import apply

INPUTS = torch.randn(6, 7, generator=torch.Generator().manual_seed(0))


def merged_model() -> MultiTaskModel:
    """Five tasks of several widths on three branches that differ."""
    tasks = [
        Task.binary("a"),
        Task.multiclass("b", classes=3),
        Task.binary("c"),
        Task.regression("d"),
        Task.binary("e"),
    ]
    model = MultiTaskModel(nn.Sequential(nn.Linear(7, 8), nn.ReLU()), 8, (6, 4), tasks, dropout=0.2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    apply(MergePlan(5, ((0, 3), (1, 4)), (3, 1), "best"), model)
    return model.eval()


def test_outputs_are_the_model_s() -> None:
    model = merged_model()
    plain = PlainModel(model)
    assert plain.names == ("a", "b", "c", "d", "e")
    assert len(plain.branches) == 3
    torch.testing.assert_close(torch.cat(plain(INPUTS), dim=1), model(INPUTS))
    assert not any("selshare" in type(module).__module__ for module in list(plain.modules())[1:])


def test_it_keeps_copies() -> None:
    model = merged_model()
    plain = PlainModel(model)
    wanted = model(INPUTS)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    torch.testing.assert_close(torch.cat(plain(INPUTS), dim=1), wanted)


def test_torch_export_with_any_batch_size() -> None:
    model = merged_model()
    batch = torch.export.Dim("batch", min=1)
    exported = torch.export.export(PlainModel(model), (INPUTS,), dynamic_shapes=({0: batch},))
    for inputs in (INPUTS, INPUTS[:2]):
        torch.testing.assert_close(torch.cat(exported.module()(inputs), dim=1), model(inputs))


def test_onnxruntime_gives_the_same_outputs(tmp_path: Path) -> None:
    model = merged_model()
    file = tmp_path / "model.onnx"
    export_onnx(model, INPUTS, file)
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    assert [output.name for output in session.get_outputs()] == list(model.layout.names)
    for inputs in (INPUTS, INPUTS[:3]):
        outputs = session.run(None, {"inputs": inputs.numpy()})
        np.testing.assert_allclose(
            np.concatenate(outputs, axis=1), model(inputs).detach().numpy(), rtol=1e-4, atol=1e-5
        )
