"""A data set that loads by workers: spawned ones import it by name."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.data import Dataset

from selshare.kernels import batched_eigh


class Spectra(Dataset[tuple[Tensor, Tensor]]):
    """Each input holds eigenvalues that a kernel computes where the sample is loaded."""

    def __init__(self, count: int = 32) -> None:
        generator = torch.Generator().manual_seed(0)
        matrices = torch.randn(count, 40, 6, 6, generator=generator)
        self.matrices = matrices + matrices.mT
        self.targets = (torch.randn(count, 3, generator=generator) > 0).float()

    def __len__(self) -> int:
        return len(self.matrices)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        values, _ = batched_eigh(self.matrices[index])
        return values.mean(dim=0), self.targets[index]
