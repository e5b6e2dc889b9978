"""asv: the joint tensor train of a stack of gradients, by number of branches and of modes."""

from __future__ import annotations

import torch
from torch import Tensor

from selshare.kernels import joint_tt_svd, use


def grouped(branches: int, values: int, groups: int = 50, noise: float = 0.3) -> Tensor:
    """Unit-norm rows around common centres: what gradients of related tasks look like. Full rank."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(groups, values, generator=generator)
    rows = torch.randn(branches, values, generator=generator).mul_(noise)
    rows += centres[torch.arange(branches) % groups]
    return torch.nn.functional.normalize(rows, dim=1)


class ByBranches:
    """Layers of 50 × 60: gradients of 3,000 numbers."""

    params = ([10, 100, 500, 2000, 5000], ["1 mode", "4 modes"])
    param_names = ("branches", "modes")
    timeout = 300

    def setup(self, branches: int, modes: str) -> None:
        torch.set_num_threads(2)
        self.stack = grouped(branches, 3000)
        self.modes = (3000,) if modes == "1 mode" else (5, 10, 6, 10)

    def time_rank_64(self, branches: int, modes: str) -> None:
        joint_tt_svd(self.stack, self.modes, max_rank=64)

    def peakmem_rank_64(self, branches: int, modes: str) -> None:
        joint_tt_svd(self.stack, self.modes, max_rank=64)

    def track_relative_error_at_rank_64(self, branches: int, modes: str) -> float:
        return joint_tt_svd(self.stack, self.modes, max_rank=64).relative_error_bound


class OneLarge:
    """2,000 gradients of a 100 × 300 layer; ``peers/joint_tensor_trains.py`` has the same case beside others."""

    params = (["1 mode", "4 modes"],)
    param_names = ("modes",)
    timeout = 300

    def setup(self, modes: str) -> None:
        torch.set_num_threads(2)
        self.stack = grouped(2000, 30_000)
        self.modes = (30_000,) if modes == "1 mode" else (10, 10, 15, 20)

    def time_rank_64(self, modes: str) -> None:
        joint_tt_svd(self.stack, self.modes, max_rank=64)

    def peakmem_rank_64(self, modes: str) -> None:
        joint_tt_svd(self.stack, self.modes, max_rank=64)


class AgainstTheReference:
    """200 gradients of 3,000 numbers to a relative error of 1 %, by every implementation."""

    params = (["blocked", "reference"],)
    param_names = ("backend",)

    def setup(self, backend: str) -> None:
        torch.set_num_threads(2)
        self.stack = grouped(200, 3000)

    def time_to_one_percent(self, backend: str) -> None:
        with use(backend):
            joint_tt_svd(self.stack, (5, 10, 6, 10))
