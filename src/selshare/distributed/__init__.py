"""Several processes train one model: batches split over ranks, or the bank sharded by branch."""

from .data_parallel import DataParallel, Share
from .launch import current_ranks, processes
from .lost import RankLost
from .ranks import Ranks
from .sharded import ShardedModel
from .sharing import DataParallelEpochEnd, ShardedEpochEnd

__all__ = [
    "DataParallel",
    "DataParallelEpochEnd",
    "RankLost",
    "Ranks",
    "ShardedEpochEnd",
    "ShardedModel",
    "Share",
    "current_ranks",
    "processes",
]
