"""The model: trunk → shared representation → bank of branches → one head per task."""

from .bank import BranchBank
from .branches import mlp_branch
from .heads import Heads
from .multitask import MultiTaskModel
from .predictions import Prediction
from .resize import set_parameter_data

__all__ = ["BranchBank", "Heads", "MultiTaskModel", "Prediction", "mlp_branch", "set_parameter_data"]
