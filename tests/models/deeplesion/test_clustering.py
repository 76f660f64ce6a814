import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models.contract import ModelError
from models.deeplesion.clustering import (
    Clusters,
    bic,
    by_size,
    drop_small,
    fit_whitening,
    kmeans,
    merge_by_bic,
    mutual_information,
    nearest,
    purity,
    ward,
)

labellings = st.lists(st.integers(0, 4), min_size=1, max_size=30).map(np.array)


def blobs(centres: list[tuple[float, float]], each: int, spread: float = 0.1) -> tuple[torch.Tensor, np.ndarray]:
    generator = torch.Generator().manual_seed(0)
    truth = np.repeat(np.arange(len(centres)), each)
    noise = spread * torch.randn(len(truth), 2, generator=generator)
    return torch.tensor(centres)[torch.from_numpy(truth)] + noise, truth


def test_whitened_components_have_unit_variance_and_no_correlation() -> None:
    torch.manual_seed(1)
    features = torch.randn(500, 6) @ torch.randn(6, 6) + 3
    whitening = fit_whitening(features, 4)
    projected = (features - whitening.mean) @ whitening.axes
    assert torch.allclose(projected.T @ projected / 500, torch.eye(4), atol=1e-3)
    assert torch.allclose(whitening(features).norm(dim=1), torch.ones(500), atol=1e-5)


def test_directions_without_variance_are_left_out() -> None:
    torch.manual_seed(1)
    flat = torch.randn(50, 2) @ torch.randn(2, 8)
    assert fit_whitening(flat, 8).axes.shape == (8, 2)


def test_features_that_cannot_be_clustered_are_refused() -> None:
    with pytest.raises(ModelError, match="the same"):
        fit_whitening(torch.ones(5, 3), 2)
    with pytest.raises(ModelError, match="finite"):
        fit_whitening(torch.tensor([[1.0, float("nan")], [0.0, 1.0]]), 2)
    with pytest.raises(ModelError, match="fewer than 3 different"):
        kmeans(torch.tensor([[0.0], [1.0]]).repeat(5, 1), 3, restarts=2, seed=0)


def test_separate_blobs_are_found() -> None:
    points, truth = blobs([(0, 0), (3, 0), (0, 3), (3, 3)], 30)
    found = kmeans(points, 4, restarts=5, seed=2)
    assert mutual_information(found.labels, truth) == pytest.approx(1)
    assert np.array_equal(nearest(points, found.centroids), found.labels)


@given(count=st.integers(1, 12), seed=st.integers(0, 1000), wide=st.booleans())
def test_no_cluster_is_empty(count: int, seed: int, wide: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(12, 2, generator=generator)
    if wide:
        points[0] *= 1000
    found = kmeans(points, count, restarts=2, seed=seed)
    assert (found.sizes > 0).all()
    assert len(found.centroids) == count
    assert (drop_small(points, found, 0.2).sizes > 0).all()


def test_the_same_seed_gives_the_same_clusters() -> None:
    points = torch.randn(200, 5, generator=torch.Generator().manual_seed(3))
    first, second = (kmeans(points, 7, restarts=3, seed=9) for _ in range(2))
    assert np.array_equal(first.labels, second.labels)
    assert torch.equal(first.centroids, second.centroids)


def test_a_small_cluster_goes_to_its_neighbour() -> None:
    points, truth = blobs([(0, 0), (5, 0)], 50)
    points = torch.cat([points, torch.tensor([[4.0, 1.0]])])
    clusters = Clusters(torch.tensor([(0.0, 0.0), (5.0, 0.0), (4.0, 1.0)]), np.append(truth, 2))
    assert np.array_equal(drop_small(points, clusters, 0.05).labels, np.append(truth, 1))
    assert len(drop_small(points, clusters, 0.0).centroids) == 3


def test_ward_merges_what_adds_least_to_the_sum_of_squares() -> None:
    # Pairs by n·m / (n + m)·d²: (0, 1) cost 10·10/20·1 = 5, (1, 2) 10·1/11·4 = 3.6, (0, 2) 10/11·9 = 8.2.
    points = torch.tensor([0.0] * 10 + [1.0] * 10 + [3.0])[:, None]
    labels = np.array([0] * 10 + [1] * 10 + [2])
    steps = ward(points, Clusters(torch.tensor([[0.0], [1.0], [3.0]]), labels), least=1)
    assert [step.tolist() for step in steps] == [[0, 1, 2], [0, 1, 1], [0, 0, 0]]


def test_bic_of_two_points_of_mass_by_hand() -> None:
    # Means 0 and 4, each with members at ±1: within sum of squares 4, variance 1; k(d + 1) = 4 parameters.
    points = torch.tensor([[-1.0], [1.0], [3.0], [5.0]])
    expected = -2 * 4 * np.log(0.5) + 4 * np.log(1.0) + 4 * np.log(4)
    assert bic(points, np.array([0, 0, 1, 1])) == pytest.approx(expected)


def test_splinters_of_blobs_are_merged_to_the_blobs() -> None:
    points, truth = blobs([(0, 0), (3, 0), (0, 3)], 60)
    splinters = kmeans(points, 12, restarts=5, seed=0)
    groups = merge_by_bic(points, splinters, least=2)
    assert mutual_information(groups[splinters.labels], truth) == pytest.approx(1)


def test_merging_stops_at_the_least_number() -> None:
    points, _ = blobs([(0, 0)], 100)
    splinters = kmeans(points, 8, restarts=2, seed=0)
    assert len(set(merge_by_bic(points, splinters, least=3))) == 3


def test_numbers_of_clusters_go_by_size() -> None:
    assert by_size(np.array([7, 2, 2, 5, 5, 9, 9, 9])).tolist() == [3, 1, 1, 2, 2, 0, 0, 0]


@given(labels=labellings, seed=st.integers(0, 100))
def test_renaming_clusters_changes_nothing(labels: np.ndarray, seed: int) -> None:
    renamed = np.random.default_rng(seed).permutation(5)[labels]
    assert np.array_equal(by_size(renamed), by_size(labels))
    assert mutual_information(labels, renamed) == pytest.approx(1)
    assert purity(labels, renamed) == purity(renamed, labels) == 1


@given(first=labellings, seed=st.integers(0, 100))
def test_agreement_is_symmetric_and_between_0_and_1(first: np.ndarray, seed: int) -> None:
    second = np.random.default_rng(seed).integers(0, 3, len(first))
    value = mutual_information(first, second)
    assert 0 <= value <= 1
    assert value == pytest.approx(mutual_information(second, first))


def test_agreement_by_hand() -> None:
    # Independent halves: 0. A partition against its refinement into four: I = ln 2, mean entropy 1.5 ln 2.
    halves, across, quarters = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1]), np.arange(4)
    assert mutual_information(halves, across) == pytest.approx(0)
    assert mutual_information(halves, quarters) == pytest.approx(2 / 3)
    assert purity(halves, quarters) == 0.5
    assert purity(quarters, halves) == 1
    assert purity(np.array([0, 0, 0, 1]), np.array([5, 5, 6, 6])) == 0.75


def test_labellings_of_different_points_are_refused() -> None:
    with pytest.raises(ModelError, match="2 and 3 points"):
        mutual_information(np.zeros(2, np.int64), np.zeros(3, np.int64))
