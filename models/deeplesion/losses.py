"""The detector's losses: matching of anchors and proposals, sampling, and what is left out because nobody can know.

Negatives are drawn at random; none is preferred for being hard, since the hardest are often lesions that nobody
annotated (dossier 4.1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from models.deeplesion import boxes as geometry
from models.deeplesion.config import MASK_SIDE, LossConfig

if TYPE_CHECKING:
    from models.deeplesion.network import Detector

RPN_BETA = 1 / 9
"""Where the RPN's smooth L1 turns from square to linear (Faster R-CNN)."""


@dataclass(frozen=True, eq=False)
class Targets:
    """What is annotated in one image.

    boxes       float (N, 4), pixels of the input       category    int64 (N,), index into the network's categories
    masks       bool (N, H, W), or None where only boxes are known
    ignore      float (M, 4): what lies here and is not annotated is neither lesion nor background
    """

    boxes: Tensor
    category: Tensor
    masks: Tensor | None = None
    ignore: Tensor | None = None

    def to(self, device: torch.device) -> Targets:
        """The same on a device."""
        moved = [None if part is None else part.to(device) for part in (self.masks, self.ignore)]
        return Targets(self.boxes.to(device), self.category.to(device), *moved)


@dataclass(frozen=True, eq=False)
class Matches:
    """label (N,): 1 lesion, 0 background, −1 neither; index (N,): the annotation it is closest to (0 without any)."""

    label: Tensor
    index: Tensor


def match(
    boxes: Tensor, targets: Targets, *, positive: float, negative: float, ignored: float, force_best: bool
) -> Matches:
    """Boxes to annotations by IoU.

    positive, negative  IoU from which on a box is a lesion, below which it is background
    force_best          every annotation gets the boxes closest to it, however far they are
    """
    label = torch.zeros(len(boxes), dtype=torch.long, device=boxes.device)
    index = torch.zeros_like(label)
    if len(targets.boxes):
        overlap = geometry.iou(boxes, targets.boxes)
        best, index = overlap.max(1)
        label = torch.where(best >= positive, 1, torch.where(best < negative, 0, -1))
        if force_best:
            most = overlap.max(0).values
            closest = (overlap == most) & (most > 0)
            chosen = closest.any(1)
            label[chosen] = 1
            index[chosen] = closest[chosen].long().argmax(1)
    if targets.ignore is not None and len(targets.ignore):
        near = geometry.iou(boxes, targets.ignore).max(1).values >= ignored
        label[near & (label == 0)] = -1
    return Matches(label, index)


def draw(label: Tensor, count: int, most_positive: int, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
    """Indices of positives and of negatives, drawn at random, `count` in all where there are so many."""
    positive, negative = (torch.nonzero(label == value)[:, 0] for value in (1, 0))
    positive = _some(positive, most_positive, generator)
    return positive, _some(negative, count - len(positive), generator)


def _some(indices: Tensor, count: int, generator: torch.Generator | None) -> Tensor:
    if len(indices) <= count:
        return indices
    drawn = torch.randperm(len(indices), generator=generator)[:count]
    return indices[drawn.to(indices.device)]


def losses_of(
    network: Detector, hu: Tensor, targets: Sequence[Targets], generator: torch.Generator | None
) -> dict[str, Tensor]:
    """See `Detector.losses`."""
    rules = network.config.loss
    levels = network.features(hu)
    outputs = network.rpn_outputs(levels)
    losses = _rpn_losses(outputs, targets, rules, generator)
    proposed, _ = network.propose(outputs, (hu.shape[-2], hu.shape[-1]))
    samples = [_sample(boxes, target, rules, generator) for boxes, target in zip(proposed, targets, strict=True)]
    losses |= _roi_losses(network, levels, samples)
    losses["mask"] = _mask_loss(network, levels, hu, samples)
    return losses


def _rpn_losses(
    outputs: tuple[Tensor, Tensor, Tensor],
    targets: Sequence[Targets],
    rules: LossConfig,
    generator: torch.Generator | None,
) -> dict[str, Tensor]:
    scores, deltas, anchors = outputs
    cls, box, count = scores.sum() * 0, deltas.sum() * 0, 0
    for image_scores, image_deltas, target in zip(scores, deltas, targets, strict=True):
        matches = match(
            anchors,
            target,
            positive=rules.rpn_positive,
            negative=rules.rpn_negative,
            ignored=rules.ignored,
            force_best=True,
        )
        positive, negative = draw(matches.label, rules.rpn_samples, rules.rpn_most_positive, generator)
        chosen = torch.cat([positive, negative])
        cls = cls + functional.cross_entropy(image_scores[chosen], matches.label[chosen], reduction="sum")
        wanted = geometry.encode(target.boxes[matches.index[positive]], anchors[positive])
        box = box + functional.smooth_l1_loss(image_deltas[positive], wanted, beta=RPN_BETA, reduction="sum")
        count += len(chosen)
    return {"rpn_cls": cls / max(count, 1), "rpn_box": box / max(count, 1)}


@dataclass(frozen=True, eq=False)
class _Sample:
    """Regions of one image that the heads learn from: positives first."""

    boxes: Tensor
    category: Tensor  # (N,), 0 background
    index: Tensor  # (P,), annotation of each positive
    targets: Targets


@torch.no_grad()
def _sample(proposed: Tensor, target: Targets, rules: LossConfig, generator: torch.Generator | None) -> _Sample:
    """Annotated boxes stand among the proposals: the heads learn from the first step on."""
    boxes = torch.cat([proposed[: rules.roi_proposals], target.boxes])
    matches = match(
        boxes,
        target,
        positive=rules.roi_positive,
        negative=rules.roi_positive,
        ignored=rules.ignored,
        force_best=False,
    )
    positive, negative = draw(matches.label, rules.roi_samples, rules.roi_most_positive, generator)
    chosen, index = torch.cat([positive, negative]), matches.index[positive]
    category = torch.cat([target.category[index] + 1, target.category.new_zeros(len(negative))])
    return _Sample(boxes[chosen], category, index, target)


def _roi_losses(network: Detector, levels: Sequence[Tensor], samples: Sequence[_Sample]) -> dict[str, Tensor]:
    rois = geometry.with_image([sample.boxes for sample in samples])
    logits, deltas = network.classify(levels, rois)
    category = torch.cat([sample.category for sample in samples])
    wanted = torch.cat(
        [
            geometry.encode(
                sample.targets.boxes[sample.index], sample.boxes[: len(sample.index)], geometry.ENCODING_SCALE
            )
            for sample in samples
        ]
    )
    count = max(len(category), 1)
    return {
        "roi_cls": functional.cross_entropy(logits, category, reduction="sum") / count,
        "roi_box": functional.smooth_l1_loss(deltas[category > 0], wanted, reduction="sum") / count,
    }


def _mask_loss(network: Detector, levels: Sequence[Tensor], hu: Tensor, samples: Sequence[_Sample]) -> Tensor:
    rois, wanted = [], []
    for number, sample in enumerate(samples):
        if sample.targets.masks is None or not len(sample.index):
            continue
        boxes = sample.boxes[: len(sample.index)]
        rois.append(functional.pad(boxes, (1, 0), value=float(number)))
        regions = torch.cat([sample.index[:, None].to(boxes.dtype), boxes], 1)
        masks = sample.targets.masks[:, None].float()
        wanted.append(geometry.roi_align(masks, regions, stride=1, size=MASK_SIDE)[:, 0])
    regions = torch.cat(rois) if rois else hu.new_zeros((0, 5))
    logits = network.masks(levels, hu, regions)
    if not rois:
        return logits.sum()
    return functional.binary_cross_entropy_with_logits(logits, torch.cat(wanted))


@torch.no_grad()
def with_ignored(teacher: Detector, hu: Tensor, targets: Sequence[Targets], score: float) -> list[Targets]:
    """The targets, and to ignore what the teacher is sure of (score) although it overlaps no annotation."""
    found = teacher.detect(hu, masks=False)
    ignoring = []
    for detections, target in zip(found, targets, strict=True):
        sure = detections.boxes[detections.scores >= score]
        if len(target.boxes) and len(sure):
            sure = sure[geometry.iou(sure, target.boxes).max(1).values <= 0]
        known = sure if target.ignore is None else torch.cat([target.ignore, sure])
        ignoring.append(replace(target, ignore=known))
    return ignoring
