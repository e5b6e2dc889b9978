"""asv: a training step with the saliency regulariser, and the distances alone."""

from __future__ import annotations

import torch

from benchmarks.peers.saliency import Ours
from selshare.objectives.pair_distances import weighted_distances


class Step:
    """Forward, regulariser, backward and update (see peers/saliency.py)."""

    params = ((10, 100, 500, 1000),)
    param_names = ("tasks",)
    timeout = 120

    def setup(self, tasks: int) -> None:
        torch.set_num_threads(2)
        torch.manual_seed(0)
        self.runner = Ours(tasks)
        self.runner.step()

    def time_step(self, tasks: int) -> None:
        self.runner.step()

    def peakmem_step(self, tasks: int) -> None:
        self.runner.step()


class Distances:
    """All pairs of 500 tasks' vectors of 128 channels at 32 samples, with the gradient."""

    params = (("l1", "l2", "cosine"),)
    param_names = ("distance",)

    def setup(self, distance: str) -> None:
        torch.set_num_threads(2)
        torch.manual_seed(0)
        self.vectors = torch.randn(500, 32, 128)
        self.weights = torch.full((500, 500), 1 / 124_750).fill_diagonal_(0)

    def time_distances(self, distance: str) -> None:
        weighted_distances(self.vectors, self.weights, distance)
