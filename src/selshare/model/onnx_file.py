"""A trained model as an ONNX file."""

from __future__ import annotations

import importlib.util
import warnings
from pathlib import Path

import torch
from torch import Tensor

from ..files import whole_file
from .multitask import MultiTaskModel
from .plain import PlainModel


def export_onnx(model: MultiTaskModel, example: Tensor, file: str | Path) -> None:
    """Write ``model`` as ONNX: one input, ``inputs``, of any batch size, and one raw output per task, by its name.

    Parameters
    ----------
    model
        Exported in evaluation mode; left as it is.
    example
        A batch of at least two inputs of the right shape and dtype; its values do not matter.
    file
        Where to write.

    Raises
    ------
    OSError
        If the file cannot be written.
    ModuleNotFoundError
        If torch's exporter lacks onnx or onnxscript.
    """
    if not all(map(importlib.util.find_spec, ("onnx", "onnxscript"))):
        raise ModuleNotFoundError('export to ONNX needs two more packages: pip install "selshare[onnx]".')
    plain = PlainModel(model).eval()
    with whole_file(Path(file)) as partial, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns of its own parts
        torch.onnx.export(
            plain,
            (example,),
            partial,
            input_names=["inputs"],
            output_names=list(plain.names),
            dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
            external_data=False,
            verbose=False,
        )
