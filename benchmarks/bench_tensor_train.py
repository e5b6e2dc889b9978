"""asv: tensor trains of many tensors at once; ``peers/tensor_trains.py`` has the large case beside others."""

from __future__ import annotations

import torch

from selshare.kernels import tt_svd, use

MODES = (10, 10, 15, 20)  # of a 100 × 300 layer


class ByBranches:
    """Gradients of a 100 × 300 layer to rank 8."""

    params = ([10, 100, 500, 2000, 5000],)
    param_names = ("branches",)
    timeout = 300

    def setup(self, branches: int) -> None:
        torch.set_num_threads(2)
        generator = torch.Generator().manual_seed(0)
        self.tensors = torch.randn(branches, 30_000, generator=generator)

    def time_rank_8(self, branches: int) -> None:
        tt_svd(self.tensors, MODES, max_rank=8)

    def peakmem_rank_8(self, branches: int) -> None:
        tt_svd(self.tensors, MODES, max_rank=8)


class AgainstTheReference:
    """200 gradients, by rank and by error; the reference is LAPACK in float64."""

    params = (["native", "reference"], ["rank 8", "relative error .1"])
    param_names = ("backend", "cut")
    timeout = 300

    def setup(self, backend: str, cut: str) -> None:
        torch.set_num_threads(2)
        self.tensors = torch.randn(200, 30_000, generator=torch.Generator().manual_seed(0))

    def time_cut(self, backend: str, cut: str) -> None:
        with use(backend):
            if cut == "rank 8":
                tt_svd(self.tensors, MODES, max_rank=8)
            else:
                tt_svd(self.tensors, MODES, relative_error=0.1)


class InnerProducts:
    """Of all pairs of trains: what the embedding ``per_branch`` clusters by."""

    params = ([100, 1000],)
    param_names = ("branches",)
    timeout = 300

    def setup(self, branches: int) -> None:
        torch.set_num_threads(2)
        tensors = torch.randn(branches, 30_000, generator=torch.Generator().manual_seed(0))
        self.train = tt_svd(tensors, MODES, max_rank=8)

    def time_inner_all(self, branches: int) -> None:
        self.train.inner_all()

    def peakmem_inner_all(self, branches: int) -> None:
        self.train.inner_all()
