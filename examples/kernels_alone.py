"""Kernels without models: compress many tensors at once, and cluster points exactly."""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits

from selshare.cluster import HDBSCAN
from selshare.kernels import fold_gradients, joint_tt_svd, mutual_reachability_mst, tt_svd


def main() -> None:
    """Tensor trains of 200 matrices, then HDBSCAN of 1,797 images."""
    torch.manual_seed(0)
    patterns = torch.randn(4, 40, 60)
    matrices = patterns.repeat_interleave(50, 0) + 0.1 * torch.randn(200, 40, 60)
    tensors = fold_gradients(matrices)  # (200, 5, 8, 6, 10)
    trains = tt_svd(tensors, tensors.shape[1:], max_rank=12)
    kept = sum(core[0].numel() for core in trains.cores)
    error = (trains.reconstruct().reshape(200, -1) - matrices.reshape(200, -1)).norm() / matrices.norm()
    print(f"tt_svd: {kept} numbers for {matrices[0].numel()}, relative error {error:.2f}")

    joint = joint_tt_svd(tensors, tensors.shape[1:], max_rank=4)
    print(f"joint_tt_svd: an embedding {tuple(joint.embedding.shape)}, at most {joint.relative_error_bound:.3f} off")
    labels = HDBSCAN(min_cluster_size=5).fit_predict(joint.embedding.numpy())
    print(f"HDBSCAN: {labels.max() + 1} clusters among the tensors")

    images = load_digits().data
    tree = mutual_reachability_mst(torch.from_numpy(images), k=5)
    print(f"spanning tree of {len(images)} digits: {len(tree)} edges, the longest {float(tree[-1, 2]):.1f}")
    labels = HDBSCAN(min_cluster_size=15, min_samples=5).fit_predict(images)
    print(f"HDBSCAN: {labels.max() + 1} clusters of images, {(labels < 0).mean():.0%} noise")


if __name__ == "__main__":
    main()
