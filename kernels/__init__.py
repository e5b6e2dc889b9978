"""The public operations, each with a reference and faster implementations; :mod:`.backend` says which one runs."""

from .backend import BackendUnavailable, SlowerBackendWarning, use
from .capture import capture_gradients
from .fused_step import fused_adam_step, fused_sgd_step

__all__ = [
    "BackendUnavailable",
    "SlowerBackendWarning",
    "capture_gradients",
    "fused_adam_step",
    "fused_sgd_step",
    "use",
]
