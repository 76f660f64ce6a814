"""The detector's shapes, its way in and its losses."""

from dataclasses import replace

import pytest
import torch

from models.deeplesion.config import J18, SINGLE, NetworkConfig
from models.deeplesion.losses import Targets, match, with_ignored
from models.deeplesion.network import Detections, Detector, HuWindows, build

LOSSES = {"rpn_cls", "rpn_box", "roi_cls", "roi_box", "mask"}


def targets(*boxes: tuple[float, float, float, float], side: int = 64) -> Targets:
    masks = torch.zeros(len(boxes), side, side, dtype=torch.bool)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes, strict=True):
        mask[int(y1) + 2 : int(y2) - 2, int(x1) + 2 : int(x2) - 2] = True
    return Targets(torch.tensor(boxes).reshape(-1, 4), torch.zeros(len(boxes), dtype=torch.long), masks)


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


def test_the_single_category_twin_has_two_outputs(tiny):
    twin = build(replace(tiny, categories=SINGLE))
    assert twin.roi_head.scores.out_features == 2
    assert set(twin.losses(torch.zeros(1, 3, 64, 64), [targets((10, 10, 30, 30))])) == LOSSES


def test_more_slices_are_a_matter_of_configuration(tiny):
    nine = build(replace(tiny, offsets_mm=tuple(2.0 * p for p in range(-4, 5))))
    assert len(nine.detect(torch.zeros(1, 9, 64, 64))) == 1


def test_losses_of_images_without_a_target_are_finite_and_train_the_background(network):
    losses = network.losses(torch.randn(2, 3, 64, 64) * 300, [targets(), targets()])
    assert set(losses) == LOSSES
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert losses["rpn_box"] == losses["roi_box"] == losses["mask"] == 0
    sum(losses.values()).backward()
    assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)
    assert network.roi_head.scores.weight.grad.abs().sum() > 0


def test_losses_without_masks_leave_the_mask_alone(network):
    only_boxes = Targets(torch.tensor([[10.0, 10, 30, 30]]), torch.tensor([1]))
    losses = network.losses(torch.randn(1, 3, 64, 64) * 300, [only_boxes])
    assert losses["mask"] == 0
    assert losses["roi_cls"] > 0


def test_each_loss_reaches_the_hu_in_front(network):
    """A denoiser before the detector learns from every one of them."""
    for name in LOSSES:
        hu = (torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 300).requires_grad_()
        # Box corrections start at zero weights: a step away from there.
        torch.nn.init.normal_(network.roi_head.deltas.weight, std=0.01)
        network.losses(hu, [targets((10, 12, 30, 32))])[name].backward()
        assert hu.grad is not None
        assert torch.isfinite(hu.grad).all()
        assert hu.grad.abs().sum() > 0, name


def test_a_frozen_detector_still_passes_the_gradient_on(network):
    network.eval().requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    hu = (torch.randn(1, 3, 64, 64) * 300).requires_grad_()
    sum(network.losses(hu, [targets((10, 12, 30, 32))]).values()).backward()
    assert hu.grad is not None
    assert hu.grad.abs().sum() > 0
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_the_same_generator_draws_the_same_samples(network):
    hu = torch.randn(1, 3, 96, 96) * 300
    one, other = (
        network.losses(hu, [targets((10, 12, 30, 32), side=96)], generator=torch.Generator().manual_seed(3))
        for _ in range(2)
    )
    assert all(torch.equal(one[name], other[name]) for name in LOSSES)


def test_features_do_not_look_beyond_their_receptive_field(network):
    """A change in one corner leaves the far corner's features bit for bit: no statistic of the whole image."""
    hu = torch.randn(1, 3, 256, 256) * 300
    changed = hu.clone()
    changed[..., :8, :8] += 500
    with torch.no_grad():
        before, after = network.features(hu)[0], network.features(changed)[0]
    assert not torch.equal(before[..., :2, :2], after[..., :2, :2])
    assert torch.equal(before[..., -8:, -8:], after[..., -8:, -8:])


RULES = {"positive": 0.5, "negative": 0.3, "ignored": 0.3}


def test_matching_by_hand():
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 4], [0, 0, 10, 2], [50, 50, 60, 60]])
    label = match(boxes, targets((0, 0, 10, 10)), force_best=False, **RULES).label
    assert label.tolist() == [1, -1, 0, 0]  # IoU 1, 0.4, 0.2, 0


def test_the_closest_anchor_stands_for_a_lesion_that_none_matches():
    boxes = torch.tensor([[0.0, 0, 10, 4], [0, 0, 10, 3], [50, 50, 60, 60]])
    matches = match(boxes, targets((50, 50, 52, 52), (0, 0, 10, 10)), force_best=True, **RULES)
    assert matches.label.tolist() == [1, -1, 1]
    assert matches.index[[0, 2]].tolist() == [1, 0]


def test_what_is_to_be_ignored_is_neither_lesion_nor_background():
    boxes = torch.tensor([[0.0, 0, 10, 10], [30, 30, 40, 40], [50, 50, 60, 60]])
    known = replace(targets((0, 0, 10, 10)), ignore=torch.tensor([[31.0, 30, 41, 40], [0, 0, 10, 10]]))
    assert match(boxes, known, force_best=False, **RULES).label.tolist() == [1, -1, 0]


class Teacher:
    """Finds what it is told to."""

    def __init__(self, boxes: list[list[float]], scores: list[float]) -> None:
        count = len(boxes)
        found = torch.tensor(boxes)
        self.found = Detections(found, torch.tensor(scores), torch.zeros(count, dtype=torch.long), torch.ones(count, 1))

    def detect(self, hu: torch.Tensor, *, masks: bool) -> list[Detections]:
        return [self.found] * len(hu)


def test_only_sure_findings_away_from_annotations_are_ignored():
    teacher = Teacher([[0, 0, 10, 10], [30, 30, 40, 40], [50, 50, 60, 60]], [0.9, 0.8, 0.3])
    annotated, empty = with_ignored(teacher, torch.zeros(2, 3, 64, 64), [targets((1, 1, 11, 11)), targets()], 0.5)
    assert annotated.ignore.tolist() == [[30, 30, 40, 40]]
    assert empty.ignore.tolist() == [[0, 0, 10, 10], [30, 30, 40, 40]]


def test_an_ignored_lesion_adds_nothing_to_the_loss(network):
    """Where every proposal lies in an ignored box and nothing is annotated, there is nothing to learn."""
    everything = torch.tensor([[x, y, x + w, y + h] for x in range(0, 64, 2) for y in range(0, 64, 2)
                               for w in (6, 12, 24, 48) for h in (6, 12, 24, 48)], dtype=torch.float32)  # fmt: skip
    plain = targets()
    losses = network.losses(torch.randn(1, 3, 64, 64) * 300, [replace(plain, ignore=everything)])
    without = network.losses(torch.randn(1, 3, 64, 64) * 300, [plain])
    assert losses["roi_cls"] == 0
    assert without["roi_cls"] > 0
