"""A merged model as ONNX: each task is a named output, merged branches are there once."""

from __future__ import annotations

import numpy as np
import onnxruntime
import torch
from torch import nn

import selshare
from selshare import Task
from selshare.model import export_onnx


def main() -> None:
    """Train and merge, export, run what was exported."""
    torch.manual_seed(0)
    inputs = torch.randn(400, 10)
    targets = (inputs[:, [0, 0, 0, 1, 1, 1]] + 0.3 * torch.randn(400, 6) > 0).float()
    tasks = [Task.binary(name) for name in ("a1", "a2", "a3", "b1", "b2", "b3")]
    model = selshare.MultiTaskModel(nn.Sequential(nn.Linear(10, 16), nn.ReLU()), 16, (8,), tasks)
    sharing = selshare.SelectiveSharing()
    selshare.Trainer(model, sharing=sharing, progress=False).fit((inputs, targets), epochs=6)
    print(f"{model.bank.branches} branches: {sharing.events[-1].groups}")

    export_onnx(model, inputs[:2], "merged.onnx")
    session = onnxruntime.InferenceSession("merged.onnx", providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    outputs = session.run(names, {session.get_inputs()[0].name: inputs.numpy()})
    ours = model.split(model(inputs))
    worst = max(np.abs(output - ours[name].detach().numpy()).max() for name, output in zip(names, outputs, strict=True))
    print(f"onnxruntime gives {', '.join(names)}; at most {worst:.1e} off")
    assert worst < 1e-4


if __name__ == "__main__":
    main()
