"""The detector's losses: matching of anchors and proposals, sampling, and what is left out because nobody can know.

Negatives are drawn at random; none is preferred for being hard, since the hardest are often lesions that nobody
annotated (dossier 4.1).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from models.deeplesion import boxes as geometry
from models.deeplesion.config import MASK_SIDE, UNKNOWN_CATEGORY, LossConfig

if TYPE_CHECKING:
    from models.deeplesion.network import Detector

RPN_BETA, ROI_BETA = 1 / 9, 1.0
"""Where smooth L1 turns from square to linear, at the RPN and at the heads (Faster R-CNN)."""
NOTHING = -100
"""Category of a place without a lesion, and label of a box that is not drawn."""


@dataclass(frozen=True, eq=False)
class Targets:
    """What is annotated in one image.

    boxes       float (N, 4), pixels of the input
    category    int64 (N,), index into the network's categories, or UNKNOWN_CATEGORY: a lesion of whatever kind
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
class TargetBatch:
    """Targets of several images in one tensor each, filled up with empty boxes: a card has few large things to do.

    boxes       float (B, N, 4)         category    int64 (B, N), NOTHING where there is no lesion
    ignore      float (B, M, 4)         masks       bool (B, N, H, W), or None where no image has any
    masked      bool (B,): images whose masks are known
    """

    boxes: Tensor
    category: Tensor
    ignore: Tensor
    masks: Tensor | None
    masked: Tensor

    @classmethod
    def of(cls, targets: Sequence[Targets]) -> TargetBatch:
        """At least one place each, so that nothing is empty."""
        known = [target.masks is not None for target in targets]
        masks = [target.masks for target in targets if target.masks is not None]
        device = targets[0].boxes.device
        return cls(
            boxes=_filled([target.boxes for target in targets], 0),
            category=_filled([target.category for target in targets], NOTHING),
            ignore=_filled([target.boxes[:0] if target.ignore is None else target.ignore for target in targets], 0),
            masks=None
            if not masks
            else _filled([masks[0][:0] if target.masks is None else target.masks for target in targets], 0),
            masked=torch.tensor(known, device=device),
        )

    def __len__(self) -> int:
        return len(self.boxes)

    def __iter__(self) -> Iterator[Targets]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> Targets:
        """The targets of one image, as they were given."""
        there, near = self.category[index] != NOTHING, geometry.area(self.ignore[index]) > 0
        masks = self.masks[index][there] if self.masks is not None and bool(self.masked[index]) else None
        return Targets(self.boxes[index][there], self.category[index][there], masks, self.ignore[index][near])

    def to(self, device: torch.device) -> TargetBatch:
        """The same on a device."""
        masks = None if self.masks is None else self.masks.to(device)
        parts = (self.boxes.to(device), self.category.to(device), self.ignore.to(device))
        return TargetBatch(*parts, masks, self.masked.to(device))


def _filled(parts: Sequence[Tensor], value: int) -> Tensor:
    """(B, N, …) from tensors (n, …), N the largest n and at least 1."""
    longest = max(1, *(len(part) for part in parts))
    filled = parts[0].new_full((len(parts), longest, *parts[0].shape[1:]), value)
    for row, part in zip(filled, parts, strict=True):
        row[: len(part)] = part
    return filled


@dataclass(frozen=True, eq=False)
class Matches:
    """label (B, N): 1 lesion, 0 background, −1 neither; index (B, N): the annotation it is closest to."""

    label: Tensor
    index: Tensor


def match(
    boxes: Tensor, targets: TargetBatch, *, positive: float, negative: float, ignored: float, force_best: bool
) -> Matches:
    """Boxes to annotations by IoU.

    boxes               (B, N, 4), or (N, 4) for all images
    positive, negative  IoU from which on a box is a lesion, below which it is background
    force_best          every annotation gets the boxes closest to it, however far they are
    """
    overlap = geometry.iou(boxes, targets.boxes)  # (B, N, M); an empty place overlaps nothing
    best, index = overlap.max(-1)
    label = torch.where(best >= positive, 1, torch.where(best < negative, 0, -1))
    if force_best:
        most = overlap.max(-2, keepdim=True).values
        closest = (overlap == most) & (most > 0)
        chosen = closest.any(-1)
        label = torch.where(chosen, 1, label)
        index = torch.where(chosen, closest.long().argmax(-1), index)
    near = geometry.iou(boxes, targets.ignore).amax(-1) >= ignored
    return Matches(torch.where(near & (label == 0), -1, label), index)


@dataclass(frozen=True, eq=False)
class Drawn:
    """index (B, S) of the boxes drawn, positives in the first `positives` places; kept bool (B, S): which are there."""

    index: Tensor
    kept: Tensor
    positives: int

    @property
    def positive(self) -> Tensor:
        """Places of positives, bool (B, S)."""
        return self.kept & (torch.arange(self.kept.shape[1], device=self.kept.device) < self.positives)


def draw(label: Tensor, count: int, most_positive: int, generator: torch.Generator | None) -> Drawn:
    """Positives and negatives of each image, drawn at random, `count` in all where there are so many.

    label   (B, N), as of `Matches`
    """
    device = label.device if generator is None else generator.device
    lots = torch.rand(label.shape, generator=generator, device=device).to(label.device)
    positive = torch.where(label == 1, lots, -1).topk(min(most_positive, label.shape[1]))
    negative = torch.where(label == 0, lots, -1).topk(min(count, label.shape[1]))
    taken = positive.values >= 0
    places = count - taken.sum(1, keepdim=True)
    left = (negative.values >= 0) & (torch.arange(negative.values.shape[1], device=label.device) < places)
    index = torch.cat([positive.indices, negative.indices], 1)
    return Drawn(index, torch.cat([taken, left], 1), positive.values.shape[1])


def losses_of(
    network: Detector, hu: Tensor, targets: TargetBatch, generator: torch.Generator | None
) -> dict[str, Tensor]:
    """See `Detector.losses`."""
    rules = network.config.loss
    levels = network.features(hu)
    outputs = network.rpn_outputs(levels)
    losses = _rpn_losses(outputs, targets, rules, generator)
    ranked = network.ranked(outputs, (hu.shape[-2], hu.shape[-1]))
    sample = _sample(ranked[0], ranked[2], targets, rules, generator)
    losses |= _roi_losses(network, levels, targets, sample)
    losses["mask"] = _mask_loss(network, levels, hu, targets, sample)
    return losses


def _rpn_losses(
    outputs: tuple[Tensor, Tensor, Tensor], targets: TargetBatch, rules: LossConfig, generator: torch.Generator | None
) -> dict[str, Tensor]:
    scores, deltas, anchors = outputs
    matches = match(
        anchors,
        targets,
        positive=rules.rpn_positive,
        negative=rules.rpn_negative,
        ignored=rules.ignored,
        force_best=True,
    )
    drawn = draw(matches.label, rules.rpn_samples, rules.rpn_most_positive, generator)
    label = torch.where(drawn.kept, matches.label.gather(1, drawn.index), NOTHING)
    chosen = _taken(scores, drawn.index).flatten(0, 1)
    cls = functional.cross_entropy(chosen, label.flatten(), reduction="sum", ignore_index=NOTHING)
    first = drawn.index[:, : drawn.positives]
    there = drawn.kept[:, : drawn.positives]
    annotation = _taken(targets.boxes, matches.index.gather(1, first))
    box = _box_loss(_taken(deltas, first), annotation, anchors[first], there, beta=RPN_BETA)
    count = drawn.kept.sum().clamp_min(1)
    return {"rpn_cls": cls / count, "rpn_box": box / count}


def _taken(values: Tensor, index: Tensor) -> Tensor:
    """Rows of (B, N, C) by index (B, S), (B, S, C)."""
    return values.gather(1, index[..., None].expand(-1, -1, values.shape[-1]))


def _box_loss(
    deltas: Tensor,
    annotation: Tensor,
    boxes: Tensor,
    there: Tensor,
    *,
    scale: Sequence[float] = (1, 1, 1, 1),
    beta: float,
) -> Tensor:
    """Smooth L1 of the corrections (…, 4) of boxes that are there, summed."""
    # An empty place is asked for no correction: its logarithm of size would be infinite.
    wanted = geometry.encode(torch.where(there[..., None], annotation, boxes), boxes, scale)
    loss = functional.smooth_l1_loss(deltas, wanted, beta=beta, reduction="none")
    return torch.where(there[..., None], loss, 0).sum()


@dataclass(frozen=True, eq=False)
class _Sample:
    """Regions that the heads learn from.

    image, boxes    (K,) and (K, 4)
    category        (K,), 0 background, 1 and up lesions, UNKNOWN_CATEGORY lesions of an unknown kind
    index           (K,), annotation of its image that each positive is closest to
    """

    image: Tensor
    boxes: Tensor
    category: Tensor
    index: Tensor

    @property
    def rois(self) -> Tensor:
        """(K, 5), index of the image and box."""
        return torch.cat([self.image[:, None].to(self.boxes.dtype), self.boxes], 1)

    def where(self, chosen: Tensor) -> _Sample:
        """Some of them."""
        return _Sample(self.image[chosen], self.boxes[chosen], self.category[chosen], self.index[chosen])


@torch.no_grad()
def _sample(
    ranked: Tensor, kept: Tensor, targets: TargetBatch, rules: LossConfig, generator: torch.Generator | None
) -> _Sample:
    """Annotated boxes stand among the proposals: the heads learn from the first step on."""
    count = min(rules.roi_proposals, kept.shape[1])
    first = torch.sort(~kept, dim=1, stable=True).indices[:, :count]  # those kept by NMS, best first
    boxes = torch.cat([_taken(ranked, first), targets.boxes], 1)
    there = torch.cat([kept.gather(1, first), targets.category != NOTHING], 1)
    matches = match(
        boxes,
        targets,
        positive=rules.roi_positive,
        negative=rules.roi_positive,
        ignored=rules.ignored,
        force_best=False,
    )
    label = torch.where(there, matches.label, -1)
    drawn = draw(label, rules.roi_samples, rules.roi_most_positive, generator)
    index = matches.index.gather(1, drawn.index)
    category = targets.category.gather(1, index)
    category = torch.where(category == UNKNOWN_CATEGORY, category, category + 1)
    category = torch.where(drawn.positive, category, 0)
    image = torch.arange(len(boxes), device=boxes.device)[:, None].expand_as(index)
    everything = _Sample(image.flatten(), _taken(boxes, drawn.index).flatten(0, 1), category.flatten(), index.flatten())
    return everything.where(drawn.kept.flatten())


def _roi_losses(
    network: Detector, levels: Sequence[Tensor], targets: TargetBatch, sample: _Sample
) -> dict[str, Tensor]:
    logits, deltas = network.classify(levels, sample.rois)
    annotation = targets.boxes[sample.image, sample.index]
    scale = geometry.ENCODING_SCALE
    box = _box_loss(deltas, annotation, sample.boxes, sample.category != 0, scale=scale, beta=ROI_BETA)
    count = max(len(sample.category), 1)
    cls = _class_loss(logits, sample.category)
    return {"roi_cls": cls / count, "roi_box": box / count}


def _class_loss(logits: Tensor, category: Tensor) -> Tensor:
    """Cross entropy, summed; a lesion of an unknown kind is asked to be a lesion, of whichever category."""
    unknown = category == UNKNOWN_CATEGORY
    told = functional.cross_entropy(logits, category.clamp_min(0), reduction="none")
    any_lesion = logits.logsumexp(1) - logits[:, 1:].logsumexp(1)
    return torch.where(unknown, any_lesion, told).sum()


def _mask_loss(
    network: Detector, levels: Sequence[Tensor], hu: Tensor, targets: TargetBatch, sample: _Sample
) -> Tensor:
    """Binary cross entropy of the masks of regions on lesions whose masks are known."""
    learnt = sample.where((sample.category != 0) & targets.masked[sample.image])
    logits = network.masks(levels, hu, learnt.rois)
    if targets.masks is None or not len(learnt.boxes):
        return logits.sum()
    number = learnt.image * targets.masks.shape[1] + learnt.index
    regions = torch.cat([number[:, None].to(learnt.boxes.dtype), learnt.boxes], 1)
    masks = targets.masks.flatten(0, 1)[:, None].float()
    wanted = geometry.roi_align(masks, regions, stride=1, size=MASK_SIDE)[:, 0]
    return functional.binary_cross_entropy_with_logits(logits, wanted)


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
