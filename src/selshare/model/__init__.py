"""The model: trunk → shared representation → bank of branches → one head per task."""

from .bank import BranchBank
from .branches import mlp_branch
from .convert import convert, restore
from .heads import Heads
from .multitask import MultiTaskModel
from .onnx_file import export_onnx
from .plain import PlainModel
from .predictions import Prediction
from .resize import set_parameter_data

__all__ = [
    "BranchBank",
    "Heads",
    "MultiTaskModel",
    "PlainModel",
    "Prediction",
    "convert",
    "export_onnx",
    "mlp_branch",
    "restore",
    "set_parameter_data",
]
