"""Losses: matching by hand, nothing without a target, gradients down to the HU, and what a teacher spares."""

from dataclasses import replace

import pytest
import torch

from models.deeplesion.config import UNKNOWN_CATEGORY, NetworkConfig
from models.deeplesion.losses import TargetBatch, Targets, _class_loss, draw, match, with_ignored
from models.deeplesion.network import Detections, Detector, build

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


RULES = {"positive": 0.5, "negative": 0.3, "ignored": 0.3}


def test_matching_by_hand():
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 4], [0, 0, 10, 2], [50, 50, 60, 60]])
    label = match(boxes, TargetBatch.of([targets((0, 0, 10, 10))]), force_best=False, **RULES).label
    assert label[0].tolist() == [1, -1, 0, 0]  # IoU 1, 0.4, 0.2, 0


def test_the_closest_anchor_stands_for_a_lesion_that_none_matches():
    boxes = torch.tensor([[0.0, 0, 10, 4], [0, 0, 10, 3], [50, 50, 60, 60]])
    both = TargetBatch.of([targets((50, 50, 52, 52), (0, 0, 10, 10)), targets()])
    matches = match(boxes, both, force_best=True, **RULES)
    assert matches.label.tolist() == [[1, -1, 1], [0, 0, 0]]
    assert matches.index[0, [0, 2]].tolist() == [1, 0]


def test_what_is_to_be_ignored_is_neither_lesion_nor_background():
    boxes = torch.tensor([[0.0, 0, 10, 10], [30, 30, 40, 40], [50, 50, 60, 60]])
    known = replace(targets((0, 0, 10, 10)), ignore=torch.tensor([[31.0, 30, 41, 40], [0, 0, 10, 10]]))
    matches = match(boxes, TargetBatch.of([known, targets()]), force_best=False, **RULES)
    assert matches.label.tolist() == [[1, -1, 0], [0, 0, 0]]


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
    grazed = replace(targets(), ignore=torch.tensor([[5.0, 5, 9, 9]]))
    (both,) = with_ignored(teacher, torch.zeros(1, 3, 64, 64), [grazed], 0.85)
    assert both.ignore.tolist() == [[5, 5, 9, 9], [0, 0, 10, 10]]


def test_a_lesion_of_an_unknown_kind_is_learnt_as_a_lesion(network):
    """All but its kind: the heads learn where it is, its mask, and that it is no background."""
    hu = torch.randn(1, 3, 64, 64) * 100
    masks = torch.zeros(1, 64, 64, dtype=torch.bool)
    masks[:, 20:40, 20:40] = True
    told, untold = (
        Targets(torch.tensor([[15.0, 15, 45, 45]]), torch.tensor([category]), masks)
        for category in (1, UNKNOWN_CATEGORY)
    )
    of_told, of_untold = (
        network.losses(hu, [target], generator=torch.Generator().manual_seed(1)) for target in (told, untold)
    )
    for name in ("rpn_cls", "rpn_box", "roi_box", "mask"):
        torch.testing.assert_close(of_untold[name], of_told[name])
    assert 0 < of_untold["roi_cls"] < of_told["roi_cls"]


def test_the_kind_of_a_lesion_of_an_unknown_kind_is_left_open():
    logits = torch.tensor([[2.0, 0.5, 1.0]], requires_grad=True)
    _class_loss(logits, torch.tensor([UNKNOWN_CATEGORY])).backward()
    assert logits.grad is not None
    background, *kinds = logits.grad[0]
    assert background > 0  # a step makes it smaller
    shares = torch.stack(kinds) / logits.detach()[0, 1:].softmax(0)
    assert shares[0] == pytest.approx(float(shares[1]))
    assert shares[0] < 0
    only = torch.tensor([[0.3, -0.2]])
    unknown, known = (_class_loss(only, torch.tensor([kind])) for kind in (UNKNOWN_CATEGORY, 1))
    torch.testing.assert_close(unknown, known)


def test_an_ignored_lesion_adds_nothing_to_the_loss(network):
    """Where every proposal lies on a box to ignore and nothing is annotated, the heads have nothing to learn."""
    hu = torch.randn(1, 3, 64, 64) * 300
    proposed, _ = network.proposals(hu)
    assert network.losses(hu, [targets()])["roi_cls"] > 0
    assert network.losses(hu, [replace(targets(), ignore=proposed[:, 1:])])["roi_cls"] == 0


def test_positives_and_negatives_are_drawn_up_to_their_number():
    label = torch.tensor([[1] * 5 + [0] * 20 + [-1] * 10, [0] * 35])
    drawn = draw(label, 12, 4, torch.Generator().manual_seed(1))
    assert drawn.positive.sum(1).tolist() == [4, 0]
    assert drawn.kept.sum(1).tolist() == [12, 12]
    for image in range(2):
        kept, positive = drawn.kept[image], drawn.positive[image]
        assert len(set(drawn.index[image][kept].tolist())) == 12
        assert (label[image][drawn.index[image][positive]] == 1).all()
        assert (label[image][drawn.index[image][kept & ~positive]] == 0).all()
    all_of_them = draw(label, 100, 50, None)
    assert all_of_them.positive.sum(1).tolist() == [5, 0]
    assert all_of_them.kept.sum(1).tolist() == [25, 35]


def test_every_background_box_is_drawn_at_times():
    label = torch.tensor([[0, -1, 0, 0, 1]])
    drawing = torch.Generator().manual_seed(1)
    found = [draw(label, 1, 0, drawing) for _ in range(60)]
    assert {int(one.index[0, 0]) for one in found} == {0, 2, 3}


def test_losses_do_not_depend_on_the_images_beside(network):
    """With every box drawn, a batch's losses are those of its images, weighed by the boxes that each has."""
    hu = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(2)) * 300
    given = [targets((10, 12, 30, 32)), targets((5, 6, 25, 30), (34, 30, 60, 58))]
    together = network.losses(hu, given)
    assert all(torch.isfinite(loss) for loss in together.values())
    swapped = network.losses(hu.flip(0), given[::-1])
    boxes_alone = [network.losses(hu[index : index + 1], [given[index]])["rpn_box"].detach() for index in range(2)]
    # Positives are few enough for all to be drawn, and 256 boxes are drawn of each image.
    assert together["rpn_box"].detach() == pytest.approx(float(torch.stack(boxes_alone).mean()), rel=1e-4)
    assert swapped["rpn_box"].detach() == pytest.approx(float(together["rpn_box"].detach()), rel=1e-4)


def test_a_batch_of_targets_gives_back_what_went_in():
    full = replace(targets((10, 12, 30, 32), (1, 1, 9, 9)), ignore=torch.tensor([[40.0, 40, 50, 50]]))
    only_boxes = Targets(torch.tensor([[10.0, 10, 30, 30]]), torch.tensor([1]))
    batch = TargetBatch.of([full, only_boxes, targets()])
    assert len(batch) == 3
    for given, found in zip([full, only_boxes, targets()], batch, strict=True):
        assert torch.equal(found.boxes, given.boxes)
        assert torch.equal(found.category, given.category)
        assert (found.masks is None) == (given.masks is None)
        assert found.masks is None or torch.equal(found.masks, given.masks)
        assert len(found.ignore) == (0 if given.ignore is None else len(given.ignore))
