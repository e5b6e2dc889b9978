"""Training: the Trainer, its history, evaluation, and the methods that are compared."""

from .batches import Data, as_loader
from .evaluation import Evaluation, evaluate
from .history import EpochRecord, History
from .trainer import Trainer

__all__ = ["Data", "EpochRecord", "Evaluation", "History", "Trainer", "as_loader", "evaluate"]
