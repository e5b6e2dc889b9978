"""Several processes train one model: batches split over ranks, or the bank sharded by branch."""

from .data_parallel import DataParallel, Share
from .launch import current_ranks, processes
from .lost import RankLost
from .ranks import Ranks

__all__ = ["DataParallel", "RankLost", "Ranks", "Share", "current_ranks", "processes"]
