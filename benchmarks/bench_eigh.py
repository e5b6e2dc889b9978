"""asv: eigenvalues and eigenvectors of many small symmetric matrices, by every implementation."""

from __future__ import annotations

import torch

from selshare.kernels import batched_eigh, use

CASES = {"10,000 of 16×16": (10_000, 16), "2,000 of 80×80": (2_000, 80)}


class Matrices:
    """``reference`` is ``torch.linalg.eigh``; ``peers/torch_linalg.py`` has ratios within one run."""

    params = (list(CASES), ["native", "reference"])
    param_names = ("matrices", "backend")
    timeout = 300

    def setup(self, matrices: str, backend: str) -> None:
        torch.set_num_threads(2)
        generator = torch.Generator().manual_seed(0)
        count, size = CASES[matrices]
        halves = torch.randn(count, size, size, generator=generator)
        self.matrices = halves + halves.mT

    def time_eigh(self, matrices: str, backend: str) -> None:
        with use(backend):
            batched_eigh(self.matrices)

    def peakmem_eigh(self, matrices: str, backend: str) -> None:
        with use(backend):
            batched_eigh(self.matrices)
