"""A series in, a score per slice out: the same bits, whatever the batch, and a reason where there is none."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from models.clinreadnet.config import NetworkConfig, RunConfig
from models.clinreadnet.model import MODEL
from models.clinreadnet.network import build
from models.clinreadnet.run import prepare, run, score_slices, scores_of, stored_slice, summary
from models.contract import Acquisition, ModelError, ModelIdentity, SourceRef, Volume

IDENTITY = ModelIdentity("clinreadnet", "1", "0" * 64)


@pytest.fixture(scope="module")
def network():
    """One stage, so that whole slices are quick; an output that depends on the input."""
    torch.manual_seed(1)
    made = build(NetworkConfig(width=16, depths=(1,), heads=(1,), temperatures=(1.0,)))
    torch.nn.init.normal_(made.soqn.whole.weight, std=0.3)
    return prepare(made, torch.device("cpu"))


@pytest.fixture
def volume() -> Volume:
    rng = np.random.default_rng(1)
    y, x = np.mgrid[:400, :512] - np.array([200, 256])[:, None, None]
    inside = np.hypot(y / 150, x / 220) < 1
    noise = np.array([5, 20, 80, 5, 20])[:, None, None] * rng.standard_normal((5, 400, 512))
    affine = np.zeros((4, 4))
    affine[0, 2], affine[1, 1], affine[2, 0], affine[3, 3] = 0.8, 0.8, 3, 1
    return Volume(
        (np.where(inside, 40, -1000) + noise).astype(np.float32), affine, (3.0, 0.8, 0.8), np.zeros((5, 3)),
        tuple(SourceRef(f"1.{k}") for k in range(5)), Acquisition(modality="CT", kernel="B30f"),
    )  # fmt: skip


def test_every_slice_gets_a_score_and_its_distribution(network, volume):
    seen: list[tuple[int, int]] = []
    before = volume.voxels.copy()
    found = run(network, volume, lambda done, n: seen.append((done, n)))
    assert seen == [(4, 5), (5, 5)]
    assert found.probabilities.shape == (5, 21)
    assert found.levels.tolist() == pytest.approx([0.2 * k for k in range(21)])
    assert np.allclose(found.probabilities.sum(1), 1, atol=1e-5)
    assert np.allclose(found.probabilities @ found.levels, found.scores, atol=1e-5)
    assert ((found.scores >= 0) & (found.scores <= 4)).all()
    assert len(set(found.scores.tolist())) == 5
    assert np.array_equal(volume.voxels, before)


def test_same_slice_same_bits_wherever_it_stands(network, volume):
    found = run(network, volume)
    assert np.array_equal(run(network, volume).probabilities, found.probabilities)
    for index in range(5):
        alone = replace(volume, voxels=volume.voxels[index : index + 1])
        assert np.array_equal(run(network, alone).probabilities[0], found.probabilities[index])


def test_padding_counts_as_air(network, volume):
    padding = np.zeros(volume.voxels.shape, bool)
    padding[:, :20] = True
    circled = replace(volume, voxels=np.where(padding, np.float32(-3024), volume.voxels), padding=padding)
    aired = replace(volume, voxels=np.where(padding, np.float32(-1000), volume.voxels))
    assert np.array_equal(run(network, circled).scores, run(network, aired).scores)


def test_smaller_slices_lie_in_air_at_their_own_resolution():
    hu = np.full((400, 300), 40, np.float32)
    stored = stored_slice(hu)
    assert stored.shape == (1, 512, 512)
    assert float(stored[0, 56:456, 106:406].min()) == float(stored.max()) == pytest.approx(1040 / 1400)
    assert np.count_nonzero(stored) == hu.size


def test_out_of_domain_there_is_no_number_but_a_reason(network, volume):
    head = replace(volume, acquisition=replace(volume.acquisition, body_part="HEAD"))
    found = run(network, head)
    assert "head" in found.not_applicable
    assert found.scores.size == 0
    assert np.isnan(found.median)
    assert scores_of(found, IDENTITY) == ()


def test_values_that_are_no_numbers_are_refused(network, volume):
    volume.voxels[2, 3, 4] = np.nan
    with pytest.raises(ModelError, match="not finite"):
        run(network, volume)


def test_the_summary_is_median_percentile_and_poor_slices():
    scores = np.array([3.0, 3.2, 1.4, 3.1, 1.49, 1.5, 3.0, 3.0, 3.0, 3.0, 3.0], np.float32)
    found = summary(scores, scores, np.zeros((11, 21), np.float32), RunConfig())
    assert found.median == 3
    assert found.low == pytest.approx(1.49, abs=1e-4)
    assert found.poor == (2, 4)
    median, low, lowest = scores_of(found, IDENTITY)
    assert median.value == 3
    assert low.value == found.low
    assert (lowest.value, lowest.slice_index) == (pytest.approx(1.4), 2)
    assert {score.scale for score in (median, low, lowest)} == {(0, 4)}
    assert {score.applies_to for score in (median, low, lowest)} == {"input"}
    assert len(median.per_slice) == 11
    assert median.poor == found.poor
    assert low.poor == lowest.poor == ()


def test_at_most_a_batch_at_once(network):
    scores, spreads, p = score_slices(network, np.zeros((2, 64, 64), np.float32))
    assert scores.shape == spreads.shape == (2,)
    assert p.shape == (2, 21)


def test_the_model_runs_untrained_and_refuses_what_it_was_not_made_for(volume):
    torch.manual_seed(1)
    network = MODEL.prepare(MODEL.build(), torch.device("cpu"))
    found = MODEL.run(network, replace(volume, voxels=volume.voxels[:1]), None)
    assert found.scores.shape == (1,)
    assert MODEL.run(network, replace(volume, spacing_zyx_mm=(1.0, 0.2, 0.2)), None).not_applicable
