"""Training: the Trainer, its history, evaluation, and the methods that are compared."""

from .batches import Data, as_loader
from .evaluation import Evaluation, evaluate
from .history import EpochRecord, History
from .logs import CSVLog, TensorBoardLog
from .trainer import Trainer

__all__ = [
    "CSVLog",
    "Data",
    "EpochRecord",
    "Evaluation",
    "History",
    "TensorBoardLog",
    "Trainer",
    "as_loader",
    "evaluate",
]
