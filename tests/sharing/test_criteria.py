"""Criteria: each against its definition, computed by hdbscan, scipy or brute force."""

import hdbscan
import numpy as np
import pytest
import torch
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import cdist, squareform
from sklearn.metrics import adjusted_rand_score

from selshare.sharing import CRITERIA, Clustering, ClusterSettings, Embedding
from selshare.sharing.criteria import cluster_branches, find_criterion

SETTINGS = ClusterSettings()


def unit(rows: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def directions(groups: int = 4, members: int = 5, width: int = 12, noise: float = 0.15, seed: int = 0) -> torch.Tensor:
    """Unit rows around a few directions, members of a group next to each other."""
    generator = np.random.default_rng(seed)
    centres = generator.standard_normal((groups, width))
    rows = np.repeat(centres, members, axis=0)
    return unit(rows + noise * generator.standard_normal(rows.shape))


def euclidean(rows: torch.Tensor) -> np.ndarray:
    return cdist(rows.numpy(), rows.numpy())


def antipodal(rows: torch.Tensor) -> np.ndarray:
    distances = cdist(rows.numpy(), -rows.numpy())
    np.fill_diagonal(distances, 0)
    return distances


def mutual_reachability(distances: np.ndarray, k: int) -> np.ndarray:
    core = np.sort(distances + np.diag(np.full(len(distances), np.inf)), axis=1)[:, k - 1]
    reach = np.maximum(distances, np.maximum(core[:, None], core[None, :]))
    np.fill_diagonal(reach, 0)
    return reach


@pytest.mark.parametrize(("name", "distance"), [("similarity", euclidean), ("dissimilarity", antipodal)])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("min_samples", [1, 3])
def test_hdbscan_over_the_criterions_distance(name, distance, seed, min_samples):
    rows = torch.cat([directions(seed=seed), -directions(seed=seed)[:7]])
    settings = ClusterSettings(min_cluster_size=3, min_samples=min_samples)
    found = CRITERIA[name](rows, settings)
    np.testing.assert_allclose(found.distances.numpy(), distance(rows), atol=1e-12)
    assert found.labels.dtype == torch.int64
    peer = hdbscan.HDBSCAN(min_cluster_size=3, min_samples=min_samples, metric="precomputed")
    reach = mutual_reachability(distance(rows), min_samples)
    tree = linkage(squareform(reach, checks=False), "single")
    np.testing.assert_allclose(np.sort(found.linkage.numpy()[:, 2]), np.sort(tree[:, 2]), rtol=1e-6)
    labels = peer.fit(distance(rows)).labels_
    assert adjusted_rand_score(labels, found.labels.numpy()) == pytest.approx(1.0)
    np.testing.assert_array_equal(labels == -1, found.labels.numpy() == -1)
    assert found.linkage.shape == (len(rows) - 1, 4)
    assert found.condensed_tree.shape[1] == 4


def test_similarity_finds_directions_and_dissimilarity_opposites():
    rows = directions(groups=4, members=5)
    truth = np.repeat(range(4), 5)
    assert adjusted_rand_score(truth, CRITERIA["similarity"](rows, SETTINGS).labels.numpy()) == 1.0
    a, b = directions(groups=2, members=1, noise=0.0)
    opposites = torch.stack([a, -a, b, -b])
    assert CRITERIA["dissimilarity"](opposites, SETTINGS).labels.tolist() in ([0, 0, 1, 1], [1, 1, 0, 0])
    alike = torch.stack([a, a, b, b])
    far = CRITERIA["dissimilarity"](alike, SETTINGS).distances
    torch.testing.assert_close(far[0, 1], torch.tensor(2.0, dtype=torch.float64))


def between_mean_square(rows: np.ndarray, labels: np.ndarray) -> float:
    groups = [rows[labels == label] for label in np.unique(labels)]
    mean = rows.mean(axis=0)
    return sum(len(group) * np.sum((group.mean(axis=0) - mean) ** 2) for group in groups) / (len(groups) - 1)


@pytest.mark.parametrize("seed", range(5))
def test_variance_is_the_best_cut_of_the_dendrogram(seed):
    rows = directions(groups=3, members=4, noise=0.6, seed=seed)
    tree = linkage(squareform(mutual_reachability(euclidean(rows), 1), checks=False), "single")
    heights = np.unique(tree[:, 2])
    cuts = [fcluster(tree, height, "distance") for height in [0.0, *heights[:-1]]]
    best = max(cuts, key=lambda labels: (round(between_mean_square(rows.numpy(), labels), 10), -len(set(labels))))
    found = CRITERIA["variance"](rows, SETTINGS)
    assert not bool((found.labels < 0).any())
    assert adjusted_rand_score(best, found.labels.numpy()) == pytest.approx(1.0)
    assert len(found.labels.unique()) == len(set(best))
    np.testing.assert_allclose(found.distances.numpy(), euclidean(rows), atol=1e-12)


def test_variance_finds_few_large_clusters():
    rows = directions(groups=2, members=8, noise=0.05)
    labels = CRITERIA["variance"](rows, SETTINGS).labels
    assert adjusted_rand_score(np.repeat(range(2), 8), labels.numpy()) == 1.0


@pytest.mark.parametrize("count", [2, 3, 4, 10, 101])
def test_random_is_seeded_and_draws_no_branch_twice(count):
    rows = torch.randn(count, 3)

    def draw(seed: int, epoch: int) -> list[int]:
        found = CRITERIA["random"](rows, ClusterSettings(min_cluster_size=2, seed=seed, epoch=epoch))
        assert found.distances is None
        assert found.linkage is None
        return found.labels.tolist()

    draws = [draw(seed, epoch) for seed in range(4) for epoch in range(4)]
    assert draws == [draw(seed, epoch) for seed in range(4) for epoch in range(4)]
    for labels in draws:
        assert len(labels) == count
        assert all(labels.count(label) >= 2 for label in set(labels) - {-1})
    assert len(set(map(tuple, draws))) > (1 if count < 10 else 14)
    assert draw(0, 1) == CRITERIA["random"](-rows, ClusterSettings(seed=0, epoch=1)).labels.tolist()


@pytest.mark.parametrize("name", CRITERIA)
def test_few_rows(name):
    """Fewer rows than a cluster or its neighbours take: all noise, without a crash; more: labels for all."""
    for count in range(7):
        rows = directions(groups=6, members=1)[:count]
        embedding = Embedding(rows, torch.arange(count))
        settings = ClusterSettings(min_cluster_size=3, min_samples=4)
        labels, clustering = cluster_branches(CRITERIA[name], embedding, count, settings)
        assert labels.shape == (count,)
        assert (clustering is None) == (count <= 4)
        if count <= 4:
            assert (labels == -1).all()
    two, clustering = cluster_branches(CRITERIA[name], Embedding(rows[:2], torch.arange(2)), 2, SETTINGS)
    assert two.shape == (2,)
    assert clustering is not None


@pytest.mark.parametrize("name", CRITERIA)
def test_branches_without_a_row_are_noise(name):
    rows = directions(groups=2, members=4)
    branches = torch.tensor([0, 2, 3, 4, 6, 7, 8, 9])
    labels, clustering = cluster_branches(CRITERIA[name], Embedding(rows, branches), 11, SETTINGS)
    assert labels[[1, 5, 10]].tolist() == [-1, -1, -1]
    assert torch.equal(labels[branches], clustering.labels)


def test_the_distance_matrix_is_left_out_where_it_would_be_large():
    found = CRITERIA["similarity"](directions(groups=20, members=51), SETTINGS)
    assert found.distances is None
    assert found.linkage.shape == (1019, 4)


def test_float32_rows_group_alike():
    rows = directions()
    for name in ("similarity", "dissimilarity", "variance"):
        one, other = CRITERIA[name](rows, SETTINGS), CRITERIA[name](rows.float(), SETTINGS)
        assert adjusted_rand_score(one.labels.numpy(), other.labels.numpy()) == 1.0
        assert torch.equal(one.labels == -1, other.labels == -1)


def test_unknown_criteria_and_own_ones():
    with pytest.raises(ValueError, match="'alike'; choose from similarity, dissimilarity, variance, random, or pass"):
        find_criterion("alike")
    with pytest.raises(TypeError, match="not int"):
        find_criterion(3)

    def halves(rows, settings):
        return Clustering(torch.arange(len(rows)) % 2)

    name, function = find_criterion(halves)
    assert name == "halves"
    labels, _ = cluster_branches(function, Embedding(directions(1, 4), torch.tensor([0, 1, 2, 4])), 5, SETTINGS)
    assert labels.tolist() == [0, 1, 0, -1, 1]


@pytest.mark.parametrize(
    ("result", "error", "message"),
    [
        (torch.zeros(4, dtype=torch.int64), TypeError, "must return a Clustering, not Tensor"),
        (Clustering(torch.zeros(3, dtype=torch.int64)), ValueError, r"4 of them; got shape \(3,\)"),
        (Clustering(torch.zeros(4)), ValueError, "dtype torch.float32"),
        (Clustering(torch.full((4,), -2)), ValueError, "one integer label per row"),
    ],
)
def test_own_criteria_are_checked(result, error, message):
    embedding = Embedding(directions(1, 4), torch.arange(4))
    with pytest.raises(error, match=message):
        cluster_branches(lambda rows, settings: result, embedding, 4, SETTINGS)
