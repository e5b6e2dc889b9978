"""What gpu_check runs under compute-sanitizer: the CUDA kernels on few small matrices of every placement."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1])]

from benchmarks.bare import use_bare_package  # noqa: E402

use_bare_package()

import torch  # noqa: E402

from selshare.kernels import batched_eigh, left_svd, tt_svd, use  # noqa: E402


def main(device: str = "cuda") -> None:
    """Solve them."""
    with use("cuda"):
        for dtype in (torch.float32, torch.float64):
            for n in (1, 2, 7, 16, 33):
                matrices = torch.randn(3, n, n, dtype=dtype, device=device)
                batched_eigh(matrices + matrices.mT)
                left_svd(matrices)
            tt_svd(torch.randn(2, 5 * 6 * 7, dtype=dtype, device=device), (5, 6, 7))
        large = torch.randn(1, 128, 128, dtype=torch.float64, device=device)
        batched_eigh(large + large.mT)
        left_svd(large)
        left_svd(torch.randn(1, 100, 200, dtype=torch.float64, device=device))


if __name__ == "__main__":
    main()
