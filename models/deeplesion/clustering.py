"""Clusters of features, and how well two labellings agree: what one round of mining needs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.contract import ModelError

Labels = NDArray[np.int64]

MOST_STEPS = 100
LEAST_VARIANCE = 1e-6
"""Of the largest: components below are noise of the arithmetic, and whitening would blow them up."""


@dataclass(frozen=True, eq=False)
class Whitening:
    """Principal components to unit variance, then every vector to length 1.

    mean    (C,)        axes    (C, D), already divided by the components' standard deviations
    """

    mean: Tensor
    axes: Tensor

    def __call__(self, features: Tensor) -> Tensor:
        """(N, C) to (N, D), float32, length 1."""
        return torch.nn.functional.normalize((features - self.mean) @ self.axes, dim=1)


def fit_whitening(features: Tensor, components: int) -> Whitening:
    """Of (N, C) features; fewer components where the data have fewer.

    raises   ModelError     a feature is not finite, or all are the same
    """
    if not torch.isfinite(features).all():
        raise ModelError("features to be clustered are not finite")
    mean = features.double().mean(0)
    centred = features.double() - mean
    variance, axes = torch.linalg.eigh(centred.T @ centred / len(features))  # ascending
    if variance[-1] <= 0:
        raise ModelError("all features to be clustered are the same")
    kept = (variance > LEAST_VARIANCE * variance[-1]).nonzero().flatten()[-components:]
    return Whitening(mean.float(), (axes[:, kept] / variance[kept].sqrt()).float())


@dataclass(frozen=True, eq=False)
class Clusters:
    """A labelling by nearest centroid.

    centroids   float32 (K, D)      labels  (N,), each of 0 … K − 1 used
    """

    centroids: Tensor
    labels: Labels

    @property
    def sizes(self) -> Labels:
        """Members of each cluster."""
        return np.bincount(self.labels, minlength=len(self.centroids))


def nearest(points: Tensor, centroids: Tensor) -> Labels:
    """Index of the nearest centroid of each point (N, D)."""
    return _squared(points, centroids).argmin(1).numpy()


def kmeans(points: Tensor, clusters: int, *, restarts: int, seed: int) -> Clusters:
    """The best of several runs of Lloyd's algorithm from k-means++ seeds; no cluster is empty.

    raises   ModelError     fewer different points than clusters
    """
    generator = torch.Generator().manual_seed(seed)
    best: tuple[float, Tensor, Tensor] | None = None
    for _ in range(restarts):
        centroids = _spread_seeds(points, clusters, generator)
        centroids, labels, spread = _lloyd(points, centroids)
        if best is None or spread < best[0]:
            best = (spread, centroids, labels)
    if best is None:
        raise ModelError("k-means needs at least one start")
    return Clusters(best[1], best[2].numpy())


def drop_small(points: Tensor, clusters: Clusters, least_share: float) -> Clusters:
    """Members of clusters with less than this share of all points go to the nearest that stays; none stays empty."""
    least = min(max(least_share * len(points), 1), int(clusters.sizes.max()))
    while True:
        stays = clusters.sizes >= least
        centroids = clusters.centroids[torch.from_numpy(stays)]
        clusters = Clusters(centroids, nearest(points, centroids))
        if (clusters.sizes >= least).all():
            return clusters


def ward(points: Tensor, clusters: Clusters, *, least: int) -> list[Labels]:
    """Which merged cluster each cluster is in, for K, K − 1, … `least` clusters: those are merged first whose union
    adds least to the sum of squares."""
    sizes = clusters.sizes.astype(np.float64)
    centres = _means(points, clusters.labels, len(sizes))
    groups = np.arange(len(sizes))
    steps = [groups.copy()]
    alive = list(range(len(sizes)))
    while len(alive) > max(least, 1):
        _, a, b = min(
            (sizes[i] * sizes[j] / (sizes[i] + sizes[j]) * float(((centres[i] - centres[j]) ** 2).sum()), i, j)
            for n, i in enumerate(alive)
            for j in alive[n + 1 :]
        )
        centres[a] = (sizes[a] * centres[a] + sizes[b] * centres[b]) / (sizes[a] + sizes[b])
        sizes[a] += sizes[b]
        alive.remove(b)
        groups[groups == b] = a
        steps.append(np.unique(groups, return_inverse=True)[1])
    return steps


def bic(points: Tensor, labels: Labels) -> float:
    """Bayesian information criterion of spherical Gaussians of one common variance; less is better."""
    count, dimensions = points.shape
    sizes = np.bincount(labels)
    sizes = sizes[sizes > 0]
    means = _means(points, np.unique(labels, return_inverse=True)[1], len(sizes))
    inner = float((points.double().numpy() ** 2).sum() - (sizes[:, None] * means**2).sum())
    variance = max(inner / (count * dimensions), np.finfo(np.float64).tiny)
    log_likelihood = float((sizes * np.log(sizes / count)).sum()) - count * dimensions / 2 * np.log(variance)
    parameters = len(sizes) * dimensions + len(sizes)
    return float(-2 * log_likelihood + parameters * np.log(count))


def merge_by_bic(points: Tensor, clusters: Clusters, *, least: int, most: int | None = None) -> Labels:
    """Which merged cluster each cluster is in: as many as explain the points best, from `least` to `most`."""
    steps = ward(points, clusters, least=least)
    allowed = [groups for groups in steps if most is None or groups.max() < most]
    return min(allowed or steps[-1:], key=lambda groups: bic(points, groups[clusters.labels]))


def by_size(labels: Labels) -> Labels:
    """The same partition with the largest cluster 0, then 1 …; equal sizes by their first member.

    What the numbers were before leaves no trace.
    """
    _, first, inverse, sizes = np.unique(labels, return_index=True, return_inverse=True, return_counts=True)
    order = np.lexsort((first, -sizes))
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    return rank[inverse]


def mutual_information(first: Labels, second: Labels) -> float:
    """Normalised mutual information, over the mean of the entropies: 1 for the same partition, 0 for independent ones.

    Two labellings of one cluster each agree: 1. Numbers of the clusters do not matter.
    """
    table = _contingency(first, second) / len(first)
    rows, columns = table.sum(1), table.sum(0)
    there = table > 0
    shared = float((table[there] * np.log(table[there] / np.outer(rows, columns)[there])).sum())
    entropy = float(-(rows * np.log(rows)).sum() - (columns * np.log(columns)).sum()) / 2
    return 1.0 if entropy <= 0 else min(max(shared / entropy, 0.0), 1.0)


def purity(labels: Labels, truth: Labels) -> float:
    """Share of points that belong to the commonest true class of their cluster."""
    return float(_contingency(labels, truth).max(1).sum() / len(labels))


def _contingency(first: Labels, second: Labels) -> NDArray[np.float64]:
    if len(first) != len(second) or not len(first):
        raise ModelError(f"two labellings of {len(first)} and {len(second)} points")
    rows, columns = (np.unique(labels, return_inverse=True)[1] for labels in (first, second))
    table = np.zeros((rows.max() + 1, columns.max() + 1))
    np.add.at(table, (rows, columns), 1)
    return table


def _means(points: Tensor, labels: Labels, count: int) -> NDArray[np.float64]:
    return _centroids(points.double(), torch.from_numpy(labels), count).numpy()


def _centroids(points: Tensor, labels: Tensor, count: int) -> Tensor:
    """Means of the clusters' members; zero where there is none."""
    total = points.new_zeros((count, points.shape[1])).index_add_(0, labels, points)
    return total / torch.bincount(labels, minlength=count).clamp_min(1)[:, None]


def _squared(points: Tensor, centroids: Tensor) -> Tensor:
    """Squared distances (N, K)."""
    square: Tensor = (points**2).sum(1)[:, None] - 2 * points @ centroids.T + (centroids**2).sum(1)
    return square.clamp_min(0)


def _spread_seeds(points: Tensor, clusters: int, generator: torch.Generator) -> Tensor:
    """k-means++: each seed with a chance as its squared distance from those already drawn."""
    chosen = [int(torch.randint(len(points), (1,), generator=generator))]
    distance = ((points - points[chosen[0]]) ** 2).sum(1)
    while len(chosen) < clusters:
        if distance.max() <= 0:
            raise ModelError(f"fewer than {clusters} different points to be clustered")
        chosen.append(int(torch.multinomial(distance, 1, generator=generator)))
        distance = torch.minimum(distance, ((points - points[chosen[-1]]) ** 2).sum(1))
    return points[chosen]


def _lloyd(points: Tensor, centroids: Tensor) -> tuple[Tensor, Tensor, float]:
    labels = torch.full((len(points),), -1)
    for _ in range(MOST_STEPS):
        distance, moved = _squared(points, centroids).min(1)
        moved = _fill_empty(moved, distance, len(centroids))
        if torch.equal(moved, labels):
            break
        labels = moved
        centroids = _centroids(points, labels, len(centroids))
    spread = float(((points - centroids[labels]) ** 2).sum())
    return centroids, labels, spread


def _fill_empty(labels: Tensor, distance: Tensor, count: int) -> Tensor:
    """An empty cluster takes the point that lies farthest from its own centroid, unless it is alone there."""
    sizes = torch.bincount(labels, minlength=count)
    if sizes.min() > 0:
        return labels
    labels = labels.clone()
    farthest = iter(distance.argsort(descending=True).tolist())
    for empty in (sizes == 0).nonzero().flatten().tolist():
        point = next(index for index in farthest if sizes[labels[index]] > 1)
        sizes[labels[point]] -= 1
        sizes[empty] += 1
        labels[point] = empty
    return labels
