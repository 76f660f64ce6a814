"""The detector's shapes and its way in."""

from dataclasses import replace

import pytest
import torch

from models.deeplesion import network as detectors
from models.deeplesion.config import J18, SINGLE, NetworkConfig
from models.deeplesion.network import Detections, Detector, HuWindows, build


@pytest.fixture
def network(tiny: NetworkConfig) -> Detector:
    torch.manual_seed(0)
    return build(tiny)


def test_windows_map_their_ends_to_minus_one_and_one():
    windows = HuWindows(((-175.0, 275.0), (-1500.0, 500.0)))
    hu = torch.tensor([-3000.0, -175.0, 50.0, 275.0, 3000.0]).reshape(1, 1, 1, 5)
    seen = windows(hu)
    assert seen.shape == (1, 2, 1, 5)
    assert seen[0, 0, 0].tolist() == [-1, -1, 0, 1, 1]
    assert seen[0, 1, 0].tolist() == pytest.approx([-1, 0.325, 0.55, 0.775, 1])


def test_every_hu_from_air_to_metal_has_a_gradient():
    windows = HuWindows(NetworkConfig().windows)
    hu = torch.linspace(-1020, 3070, 400).reshape(1, 1, 20, 20).requires_grad_()
    windows(hu).sum().backward()
    assert hu.grad is not None
    assert (hu.grad > 0).all()


def test_shapes_of_the_published_detector():
    """Dossier 4.2, on the meta device: shapes without arithmetic."""
    with torch.device("meta"):
        network = build(J18)
        level = network.features(torch.empty(1, 3, 512, 512))[0]
        scores, deltas = network.rpn[0](level)
        logits, correction = network.roi_head(torch.empty(5, 512, 7, 7))
    assert network.strides == (8,)
    assert level.shape == (1, 512, 64, 64)
    assert scores.shape == (1, 30, 64, 64)
    assert deltas.shape == (1, 60, 64, 64)
    assert network.roi_head.conv6.weight.shape == (512, 512, 3, 3)
    assert network.roi_head.conv7.weight.shape == (512, 512, 5, 5)
    assert logits.shape == (5, 2)
    assert correction.shape == (5, 4)


def test_levels_lie_at_strides_4_and_8_whatever_the_size(network):
    levels = network.features(torch.zeros(2, 3, 70, 101))
    assert [tuple(level.shape[-2:]) for level in levels] == [(18, 26), (9, 13)]
    assert network.strides == (4, 8)


def test_the_shipped_size_is_below_8_mb_in_half_precision():
    with torch.device("meta"):
        count = sum(parameter.numel() for parameter in build(NetworkConfig()).parameters())
    assert 2 * count < 8e6


def test_proposals_are_regions_inside_the_image_best_first(network):
    rois, objectness = network.proposals(torch.randn(2, 3, 64, 96) * 300)
    assert rois.shape == (len(objectness), 5)
    for image in (0, 1):
        mine = rois[:, 0] == image
        assert mine.any()
        assert (objectness[mine].diff() <= 0).all()
    assert (rois[:, 1:3] >= 0).all()
    assert (rois[:, 3] <= 96).all()
    assert (rois[:, 4] <= 64).all()


def test_detections_come_with_category_and_mask(network):
    found = network.detect(torch.randn(2, 3, 64, 64) * 300)
    assert len(found) == 2
    for part in found:
        assert isinstance(part, Detections)
        assert part.masks is not None
        count = len(part.boxes)
        assert count
        assert part.masks.shape == (count, 28, 28)
        assert part.categories.shape == (count, 2)
        torch.testing.assert_close(part.scores, part.categories.sum(1))  # 1 − p(background)
        assert (part.scores.diff() <= 0).all()
        assert torch.equal(part.category, part.categories.argmax(1))


def test_a_higher_least_score_only_takes_the_least_sure_away(network):
    hu = torch.randn(1, 3, 64, 64) * 300
    everything = network.detect(hu, least_score=0.0)[0]
    assert len(everything.boxes) > 4
    fourth = float(everything.scores[3])
    surest = network.detect(hu, least_score=fourth)[0]
    assert torch.equal(surest.scores, everything.scores[everything.scores >= fourth])
    assert torch.equal(surest.boxes, everything.boxes[: len(surest.boxes)])


def test_the_single_category_twin_has_two_outputs(tiny):
    twin = build(replace(tiny, categories=SINGLE))
    assert twin.roi_head.scores.out_features == 2
    hu = torch.zeros(1, 3, 64, 64)
    assert twin.classify(twin.features(hu), torch.tensor([[0.0, 10, 10, 30, 30]]))[0].shape == (1, 2)


def test_more_slices_are_a_matter_of_configuration(tiny):
    nine = build(replace(tiny, offsets_mm=tuple(2.0 * p for p in range(-4, 5))))
    assert len(nine.detect(torch.zeros(1, 9, 64, 64))) == 1


def test_features_do_not_look_beyond_their_receptive_field(network):
    """A change in one corner leaves the far corner's features bit for bit: no statistic of the whole image."""
    hu = torch.randn(1, 3, 256, 256) * 300
    changed = hu.clone()
    changed[..., :8, :8] += 500
    with torch.no_grad():
        before, after = network.features(hu)[0], network.features(changed)[0]
    assert not torch.equal(before[..., :2, :2], after[..., :2, :2])
    assert torch.equal(before[..., -8:, -8:], after[..., -8:, -8:])


def test_empty_regions_for_a_gpu_change_nothing(tiny, monkeypatch):
    torch.manual_seed(0)
    detector = build(tiny).eval()
    hu = torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(1)) * 300
    rois = torch.tensor([[0, 10.0, 12, 30, 32], [1, 5, 5, 80, 90], [1, 40, 40, 60, 50]])
    levels = detector.features(hu)
    found = [*detector.classify(levels, rois), detector.masks(levels, hu, rois)]
    monkeypatch.setitem(detectors.REGIONS_AT_ONCE, "cpu", 8)
    padded = [*detector.classify(levels, rois), detector.masks(levels, hu, rois)]
    for one, other in zip(found, padded, strict=True):
        assert one.shape == other.shape
        torch.testing.assert_close(one, other)
    assert len(detector.masks(levels, hu, rois[:0])) == 0
