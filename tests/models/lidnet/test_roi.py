"""The ROI perceptual loss: where it looks, where its gradient goes, and what it is blind to."""

import pytest
import torch

from models.deeplesion.config import NetworkConfig
from models.deeplesion.network import Detector, build
from models.lidnet.roi import (
    RoiConfig,
    map_perceptual_loss,
    regions,
    roi_perceptual_loss,
    shuffled,
)

SIDE = 256
SMALL = NetworkConfig(
    widths=(16, 16),
    fpn_channels=16,
    anchor_sides=((16.0, 32.0), (48.0,)),
    rpn_width=8,
    head_widths=(8, 16),
    mask_width=8,
)


@pytest.fixture(scope="module")
def detector() -> Detector:
    torch.manual_seed(5)
    torch.set_num_threads(1)
    return build(SMALL).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def full_dose() -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return 40 + 60 * torch.randn(2, 3, SIDE, SIDE, generator=generator)


ROIS = torch.tensor([[0.0, 100, 100, 130, 120], [1.0, 20, 40, 60, 90]])


def loss(detector: Detector, denoised: torch.Tensor, full: torch.Tensor, rois: torch.Tensor = ROIS) -> torch.Tensor:
    return roi_perceptual_loss(detector.features(denoised), detector.features(full), rois, detector.strides)


def test_same_image_no_loss_and_no_region_no_loss(detector, full_dose) -> None:
    assert loss(detector, full_dose, full_dose) == 0
    noisy = (full_dose + 50).requires_grad_(True)
    nothing = loss(detector, noisy, full_dose, torch.zeros(0, 5))
    assert nothing == 0
    nothing.backward()
    assert torch.isfinite(noisy.grad).all()
    assert not noisy.grad.any()


def test_grows_with_the_noise_inside(detector, full_dose) -> None:
    noise = torch.randn(full_dose.shape, generator=torch.Generator().manual_seed(2))
    values = [float(loss(detector, full_dose + sd * noise, full_dose)) for sd in (5, 15, 40, 100)]
    assert values == sorted(values)
    assert values[0] > 0


def test_noise_beyond_the_backbones_reach_changes_nothing(detector, full_dose) -> None:
    reach = backbone_radius(detector) + 2 * max(detector.strides)
    rois = torch.tensor([[0.0, 16, 16, 46, 46]])
    noise = 100 * torch.randn(full_dose[:1].shape, generator=torch.Generator().manual_seed(4))
    inside = noise.clone()
    inside[..., 46:, :] = inside[..., :, 46:] = 0
    outside = noise.clone()
    outside[..., : 46 + reach, : 46 + reach] = 0
    low = full_dose[:1] + inside
    assert outside.any()
    assert loss(detector, full_dose[:1] + outside, full_dose[:1], rois) == 0
    assert loss(detector, low + outside, full_dose[:1], rois) == loss(detector, low, full_dose[:1], rois) > 0
    values = [float(loss(detector, full_dose[:1] + part * inside, full_dose[:1], rois)) for part in (0.1, 0.3, 1.0)]
    assert values == sorted(values)


@pytest.mark.parametrize("level_hu", [-850.0, -100.0, 40.0, 900.0])
def test_the_detectors_windows_let_the_gradient_through_in_every_tissue(level_hu, detector, full_dose) -> None:
    """Lung, fat, soft tissue, bone: no window of the detector clips all of them away, and nothing rounds."""
    reference = full_dose - 40 + level_hu
    denoised = (reference + 15).requires_grad_(True)
    loss(detector, denoised, reference).backward()
    region = denoised.grad[0, 1, 100:120, 100:130]
    assert (region != 0).float().mean() > 0.9


def test_no_gradient_reaches_the_full_dose_image(detector, full_dose) -> None:
    denoised, full = (full_dose + 20).requires_grad_(True), full_dose.clone().requires_grad_(True)
    loss(detector, denoised, full).backward()
    assert denoised.grad.any()
    assert full.grad is None


def backbone_radius(detector: Detector) -> int:
    """How far an input pixel is felt by the finest level's middle cell: measured, not assumed."""
    probe = (40 * torch.randn(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(3))).requires_grad_(True)
    sum(level[0, :, level.shape[-2] // 2, level.shape[-1] // 2].sum() for level in detector.features(probe)).backward()
    touched = torch.nonzero(probe.grad[0].abs().sum(0))
    return int((touched - SIDE // 2).abs().max())


def test_gradient_ends_at_the_backbones_reach(detector, full_dose) -> None:
    reach = backbone_radius(detector) + 2 * max(detector.strides)
    side = 30
    end = 16 + side + reach
    assert end < SIDE - 32
    rois = torch.tensor([[0.0, 16, 16, 16 + side, 16 + side]])
    denoised = (full_dose[:1] + 20).requires_grad_(True)
    loss(detector, denoised, full_dose[:1], rois).backward()
    assert denoised.grad[..., :46, :46].any()
    assert not denoised.grad[..., end:, :].any()
    assert not denoised.grad[..., :, end:].any()


def test_regions_are_annotated_first_then_proposed_never_too_many(detector, full_dose) -> None:
    boxes = [torch.tensor([[50.0, 60, 70, 90]]), torch.zeros(0, 4)]
    found = regions(detector, full_dose, boxes, RoiConfig(best=3, least_objectness=2.0, most=4))
    assert (found.annotated, found.proposed) == (1, 6)
    assert len(found.rois) == 7
    assert torch.equal(found.rois[0], torch.tensor([0, 47.5, 56.25, 72.5, 93.75]))
    few = regions(detector, full_dose, [torch.rand(9, 4) * 20, boxes[1]], RoiConfig(most=5))
    assert (few.annotated, few.proposed) == (5, 5)


def test_regions_stay_inside_and_are_wide_enough_for_every_level(detector, full_dose) -> None:
    tiny = [torch.tensor([[0.0, 0, 3, 3], [250, 252, 256, 256]]), torch.zeros(0, 4)]
    found = regions(detector, full_dose, tiny, RoiConfig(best=0, least_objectness=2.0))
    assert found.rois[:, 1:].min() >= 0
    assert found.rois[:, 1:].max() <= SIDE
    inner = regions(detector, full_dose, [torch.tensor([[100.0, 100, 102, 102]])] * 2, RoiConfig(best=0))
    sides = inner.rois[:, 3:] - inner.rois[:, 1:3]
    assert (sides >= 2 * max(detector.strides)).all()


def test_shuffled_moves_boxes_to_the_other_image_and_nothing_else(detector, full_dose) -> None:
    found = regions(detector, full_dose, [torch.tensor([[50.0, 60, 70, 90]]), torch.zeros(0, 4)], RoiConfig())
    moved = shuffled(found, 2)
    assert torch.equal(moved.rois[:, 1:], found.rois[:, 1:])
    assert torch.equal(moved.rois[:, 0], 1 - found.rois[:, 0])


def test_whole_map_sees_what_regions_do_not(detector) -> None:
    levels = [torch.zeros(1, 4, 32, 32), torch.zeros(1, 4, 16, 16)]
    other = [level.clone() for level in levels]
    other[0][..., -1, -1] = 1.0
    rois = torch.tensor([[0.0, 8, 8, 40, 40]])
    assert roi_perceptual_loss(levels, other, rois, detector.strides) == 0
    assert map_perceptual_loss(levels, other) == pytest.approx(1 / (32 * 32) / 2)
