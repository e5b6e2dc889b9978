"""asv: HDBSCAN's steps by number of points; ``peers/clusterings.py`` has the whole of it beside others."""

from __future__ import annotations

import torch
from torch import Tensor

from selshare.cluster import HDBSCAN, single_linkage, variance_cut
from selshare.kernels import core_distances, mutual_reachability, mutual_reachability_mst


def overlapping(n: int, d: int, clusters: int = 50) -> Tensor:
    """Points around common centres, as far from them as the centres are from each other."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(clusters, d, generator=generator)
    return centres[torch.randint(clusters, (n,), generator=generator)] + torch.randn(n, d, generator=generator)


class ByPoints:
    """256 columns, float32: the full matrix at 500 points, none beyond."""

    params = ([500, 2000, 10_000],)
    param_names = ("points",)
    timeout = 120

    def setup(self, n: int) -> None:
        torch.set_num_threads(2)
        self.points = overlapping(n, 256)
        self.array = self.points.numpy()
        HDBSCAN().fit(self.array[:50])  # loads what Numba compiled

    def time_core_distances(self, n: int) -> None:
        core_distances(self.points, 10)

    def peakmem_core_distances(self, n: int) -> None:
        core_distances(self.points, 10)

    def time_spanning_tree(self, n: int) -> None:
        mutual_reachability_mst(self.points, 10)

    def peakmem_spanning_tree(self, n: int) -> None:
        mutual_reachability_mst(self.points, 10)

    def time_hdbscan(self, n: int) -> None:
        HDBSCAN(10).fit(self.array)

    def peakmem_hdbscan(self, n: int) -> None:
        HDBSCAN(10).fit(self.array)


class ByColumns:
    """2,000 points, of which only the matrix product grows with the columns."""

    params = ([2, 64, 1024], ["euclidean", "antipodal"])
    param_names = ("columns", "metric")

    def setup(self, d: int, metric: str) -> None:
        torch.set_num_threads(2)
        self.points = overlapping(2000, d)

    def time_spanning_tree(self, d: int, metric: str) -> None:
        mutual_reachability_mst(self.points, 10, metric=metric)


class FullMatrix:
    """The matrix of mutual reachability, 8 n² bytes by itself."""

    params = ([500, 2000],)
    param_names = ("points",)

    def setup(self, n: int) -> None:
        torch.set_num_threads(2)
        self.points = overlapping(n, 256)

    def time_mutual_reachability(self, n: int) -> None:
        mutual_reachability(self.points, 10)

    def peakmem_mutual_reachability(self, n: int) -> None:
        mutual_reachability(self.points, 10)


class VarianceCut:
    """The best cut of a dendrogram, after the tree."""

    params = ([500, 10_000],)
    param_names = ("points",)

    def setup(self, n: int) -> None:
        self.points = overlapping(n, 256).numpy()
        self.linkage = single_linkage(mutual_reachability_mst(torch.from_numpy(self.points), 10).numpy())
        variance_cut(self.linkage, self.points)

    def time_variance_cut(self, n: int) -> None:
        variance_cut(self.linkage, self.points)

    def peakmem_variance_cut(self, n: int) -> None:
        variance_cut(self.linkage, self.points)
