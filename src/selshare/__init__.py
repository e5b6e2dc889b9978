"""Train many tasks at once, learn during training which belong together, and merge their branches."""

from .model import BranchBank, MultiTaskModel, PlainModel, Prediction, convert, restore
from .optim import BankAdam, BankAdamW, BankSGD
from .sharing import MergePlan, SelectiveSharing, SharingEvent
from .tasks import Task
from .training import History, Trainer, evaluate

__version__ = "0.1.0"

__all__ = [
    "BankAdam",
    "BankAdamW",
    "BankSGD",
    "BranchBank",
    "History",
    "MergePlan",
    "MultiTaskModel",
    "PlainModel",
    "Prediction",
    "SelectiveSharing",
    "SharingEvent",
    "Task",
    "Trainer",
    "__version__",
    "convert",
    "evaluate",
    "restore",
]
