"""The public operations, each with a reference and faster implementations; :mod:`.backend` says which one runs."""

from . import forks as forks  # children of fork take one thread
from .backend import BackendUnavailable, SlowerBackendWarning, use
from .capture import capture_gradients
from .eigh import batched_eigh
from .fused_step import fused_adam_step, fused_sgd_step
from .joint_tensor_train import JointTensorTrain, joint_tt_svd
from .modes import balanced_modes, fold_gradients
from .reachability import core_distances, mutual_reachability
from .sketch import SketchProjection, sketch_gradients
from .spanning_tree import mutual_reachability_mst
from .stacked_linear import LinearGradients, stacked_linear, stacked_linear_backward, weight_gradient
from .subnormals import subnormals_as_zero
from .svd import left_svd
from .tensor_train import TensorTrain, tt_svd

__all__ = [
    "BackendUnavailable",
    "JointTensorTrain",
    "LinearGradients",
    "SketchProjection",
    "SlowerBackendWarning",
    "TensorTrain",
    "balanced_modes",
    "batched_eigh",
    "capture_gradients",
    "core_distances",
    "fold_gradients",
    "fused_adam_step",
    "fused_sgd_step",
    "joint_tt_svd",
    "left_svd",
    "mutual_reachability",
    "mutual_reachability_mst",
    "sketch_gradients",
    "stacked_linear",
    "stacked_linear_backward",
    "subnormals_as_zero",
    "tt_svd",
    "use",
    "weight_gradient",
]
