"""The region-based detector: HU through windows, backbone, region proposals, and heads for class, box and mask.

source: J18 (Yan et al., J Med Imaging 5(3) 036501) for proposals and heads, arXiv 1710.01766 for K + 1 classes,
MULAN (arXiv 1908.04373) for stride 4 and the mask branch, 3DCE (arXiv 1806.09648) for the fusion of images.
Boxes are class-agnostic.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.contract import ModelError
from models.deeplesion import boxes as geometry
from models.deeplesion.backbone import FOLDED, build_backbone
from models.deeplesion.config import (
    MASK_POOLED,
    MASK_SIDE,
    POOLED,
    SINGLE,
    FusionConfig,
    NetworkConfig,
    numbered,
    offsets_of,
)
from models.deeplesion.fusion import FusedHead, central, images_of, levels_of
from models.deeplesion.losses import TargetBatch, Targets, losses_of

AIR_HU = -1000.0
COARSE_FROM_PX = 64.0
"""Regions of at least this side are pooled from the pyramid's second level."""
REGIONS_AT_ONCE = {"cuda": 64}
"""By kind of device: regions are filled up with empty ones to a multiple of this."""
PRIOR = 0.01
"""Share of lesions that the untrained outputs start from: the background does not drown the first steps."""


class HuWindows(nn.Module):
    """HU to network input: every slice through every window, −1 at its low end and 1 at its high end.

    Differentiable, without rounding: a denoiser in front learns through it. Where one window saturates, the widest does
    not, so no value from −1024 to 3071 HU is without gradient.
    """

    def __init__(self, windows: Sequence[tuple[float, float]]) -> None:
        super().__init__()
        low, high = torch.tensor(windows).unbind(1)
        self.register_buffer("low", low[:, None, None])
        self.register_buffer("width", (high - low)[:, None, None])

    low: Tensor
    width: Tensor

    def forward(self, hu: Tensor) -> Tensor:
        """(B, M, H, W), HU, to (B, M · windows, H, W), windows of one slice side by side."""
        return (((hu[:, :, None] - self.low) / self.width).clamp(0, 1) * 2 - 1).flatten(1, 2)


@dataclass(frozen=True, eq=False)
class Detections:
    """What was found in one image, best first.

    boxes       float (N, 4), pixels of the input       scores      (N,), 1 − p(background)
    category    int (N,), index of the likeliest        categories  (N, K), probabilities, background left out
    masks       (N, 28, 28), probability inside the box, or None
    """

    boxes: Tensor
    scores: Tensor
    category: Tensor
    categories: Tensor
    masks: Tensor | None = None


class RpnHead(nn.Module):
    """Two scores (background, lesion) and four box corrections per anchor."""

    def __init__(self, inward: int, width: int, per_cell: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inward, width, 3, 1, 1)
        self.scores = nn.Conv2d(width, 2 * per_cell, 1)
        self.deltas = nn.Conv2d(width, 4 * per_cell, 1)
        for layer in (self.scores, self.deltas):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        with torch.no_grad():
            self.scores.bias.view(per_cell, 2)[:, 1] = -math.log((1 - PRIOR) / PRIOR)  # type: ignore[union-attr]

    def forward(self, level: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) to (B, 2A, H, W) and (B, 4A, H, W)."""
        hidden = functional.relu(self.conv(level))
        return self.scores(hidden), self.deltas(hidden)


class RoiHead(nn.Module):
    """conv6 (3×3) and conv7 (5×5), both without padding, to K + 1 class scores and one box correction."""

    def __init__(self, inward: int, widths: tuple[int, int], categories: int) -> None:
        super().__init__()
        self.conv6 = nn.Conv2d(inward, widths[0], 3)
        self.conv7 = nn.Conv2d(widths[0], widths[1], 5)
        self.scores = nn.Linear(widths[1], categories + 1)
        self.deltas = nn.Linear(widths[1], 4)
        nn.init.normal_(self.scores.weight, std=0.01)
        nn.init.zeros_(self.deltas.weight)
        nn.init.zeros_(self.deltas.bias)

    def forward(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """(K, C, 7, 7) to (K, 1 + categories), background first, and (K, 4)."""
        hidden = functional.relu(self.conv6(pooled))  # (K, w, 5, 5)
        hidden = functional.relu(self.conv7(hidden)).flatten(1)  # (K, w')
        return self.scores(hidden), self.deltas(hidden)


class MaskHead(nn.Module):
    """Pooled features 14 → 28, joined with the key slice itself: a box of 13 pixels has three features across."""

    def __init__(self, inward: int, width: int, image_channels: int) -> None:
        super().__init__()
        self.before = nn.Conv2d(inward, width, 3, 1, 1)
        self.up = nn.ConvTranspose2d(width, width, 2, 2)
        self.join = nn.Conv2d(width + image_channels, width, 3, 1, 1)
        self.after = nn.Conv2d(width, width, 3, 1, 1)
        self.out = nn.Conv2d(width, 1, 1)

    def forward(self, pooled: Tensor, image: Tensor) -> Tensor:
        """(K, C, 14, 14) and (K, windows, 28, 28) to logits (K, 28, 28)."""
        hidden = functional.relu(self.up(functional.relu(self.before(pooled))))  # (K, w, 28, 28)
        hidden = functional.relu(self.join(torch.cat([hidden, image], 1)))
        logits: Tensor = self.out(functional.relu(self.after(hidden)))
        return logits[:, 0]


class Detector(nn.Module):
    """HU slices in, lesions out."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        self.rules = config.detect
        self.windows = HuWindows(config.windows)
        self.images = images_of(config)
        self.backbone = build_backbone(config, config.slices // self.images * len(config.windows))
        per_cell = [len(sides) * len(config.anchor_ratios) for sides in config.anchor_sides]
        channels = self.backbone.channels
        self.rpn = nn.ModuleList(RpnHead(channels, config.rpn_width, count) for count in per_cell)
        self.roi_head: RoiHead | FusedHead = (
            RoiHead(channels, config.head_widths, len(config.categories))
            if config.fusion is None
            else FusedHead(channels, self.images, config.fusion, len(config.categories))
        )
        self.mask_head = MaskHead(channels, config.mask_width, len(config.windows))
        # Set after training, on validation; buffers, so that they travel with the weights.
        self.register_buffer("calibration", torch.tensor([1.0, 0.0]))
        self.register_buffer("operating_point", torch.tensor(0.5))

    calibration: Tensor
    operating_point: Tensor

    @property
    def strides(self) -> tuple[int, ...]:
        """Of the levels that `features` returns."""
        return self.backbone.strides

    def features(self, hu: Tensor) -> list[Tensor]:
        """Backbone levels, finest first, (B, C, H/stride, W/stride), rounded up; C those of all images that are fused.

        hu      float32 (B, M, H, W), the key slice in the middle
        """
        height, width = hu.shape[-2:]
        multiple = self.backbone.multiple
        padded = functional.pad(hu, (0, -width % multiple, 0, -height % multiple), value=AIR_HU)
        seen = self.windows(padded).contiguous(memory_format=torch.channels_last)
        levels = levels_of(self.backbone, seen.to(self._dtype), self.images)
        return [
            level[..., : -(-height // stride), : -(-width // stride)]
            for level, stride in zip(levels, self.strides, strict=True)
        ]

    def proposals(self, hu: Tensor) -> tuple[Tensor, Tensor]:
        """Regions that may hold a lesion: (K, 5), index of the image and box, and their objectness (K,), best first."""
        boxes, scores = self.propose(self.rpn_outputs(self.features(hu)), (hu.shape[-2], hu.shape[-1]))
        return geometry.with_image(boxes), torch.cat(scores)

    def losses(
        self,
        hu: Tensor,
        targets: Sequence[Targets] | TargetBatch,
        *,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """rpn_cls, rpn_box, roi_cls, roi_box, mask: scalars, finite also where no image has a target.

        targets     one per image       generator   draws the samples; None for torch's own
        """
        batch = targets if isinstance(targets, TargetBatch) else TargetBatch.of(targets)
        return losses_of(self, hu, batch, generator)

    @torch.no_grad()
    def detect(self, hu: Tensor, *, masks: bool = True, least_score: float | None = None) -> list[Detections]:
        """What is found in each image of (B, M, H, W), HU.

        least_score     instead of the configuration's: a curve needs also what no reader would be shown
        """
        least = self.rules.least_score if least_score is None else least_score
        levels = self.features(hu)
        boxes, _ = self.propose(self.rpn_outputs(levels), (hu.shape[-2], hu.shape[-1]))
        rois = geometry.with_image(boxes)
        logits, deltas = self.classify(levels, rois)
        refined = geometry.decode(deltas, rois[:, 1:], geometry.ENCODING_SCALE)
        refined = geometry.clip(refined, hu.shape[-2], hu.shape[-1])
        probability = logits.softmax(1)
        found = []
        for index in range(len(hu)):
            mine = rois[:, 0] == index
            found.append(self._best(refined[mine], probability[mine], least))
        if not masks:
            return found
        kept = geometry.with_image([part.boxes for part in found])
        shapes = self.masks(levels, hu, kept).sigmoid()
        return [
            Detections(part.boxes, part.scores, part.category, part.categories, shapes[kept[:, 0] == index])
            for index, part in enumerate(found)
        ]

    def rpn_outputs(self, levels: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Scores (B, N, 2), corrections (B, N, 4) and anchors (N, 4) of all levels, float32."""
        scores, deltas, anchors = [], [], []
        described = zip(self.rpn, levels, self.strides, self.config.anchor_sides, strict=True)
        for head, level, stride, sides in described:
            level_scores, level_deltas = head(central(level, self.images))
            scores.append(level_scores.float().permute(0, 2, 3, 1).reshape(len(level), -1, 2))
            deltas.append(level_deltas.float().permute(0, 2, 3, 1).reshape(len(level), -1, 4))
            shape = (level.shape[-2], level.shape[-1])
            anchors.append(geometry.anchors(shape, stride, sides, self.config.anchor_ratios, level.device))
        return torch.cat(scores, 1), torch.cat(deltas, 1), torch.cat(anchors)

    def propose(
        self, outputs: tuple[Tensor, Tensor, Tensor], shape: tuple[int, int]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Boxes (N, 4) and objectness (N,) per image, best first."""
        boxes, scores, kept = self.ranked(outputs, shape)
        chosen = [mask.nonzero()[: self.rules.proposals, 0] for mask in kept]
        images = range(len(chosen))
        return [boxes[image][chosen[image]] for image in images], [scores[image][chosen[image]] for image in images]

    @torch.no_grad()
    def ranked(self, outputs: tuple[Tensor, Tensor, Tensor], shape: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
        """The likeliest regions (B, N, 4), their objectness (B, N), best first, and which NMS keeps, bool (B, N).

        No gradient runs through where a region is.
        """
        scores, deltas, anchors = outputs
        best = torch.topk(scores.softmax(-1)[..., 1], min(self.rules.before_nms, scores.shape[1]))
        corrections = deltas.gather(1, best.indices[..., None].expand(-1, -1, 4))
        boxes = geometry.clip(geometry.decode(corrections, anchors[best.indices]), *shape)
        large = (boxes[..., 2:] - boxes[..., :2] >= 1).all(-1)
        return boxes, best.values, geometry.kept_by_nms(boxes, large, self.rules.proposal_nms)

    def classify(self, levels: Sequence[Tensor], rois: Tensor) -> tuple[Tensor, Tensor]:
        """Class scores (K, 1 + categories), background first, and box corrections (K, 4) of the regions."""
        count, rois = len(rois), _rounded_up(rois)
        if isinstance(self.roi_head, FusedHead):
            maps = [self.roi_head.maps(level) for level in levels]
            pooled = self._pooled(maps, rois, POOLED, align=geometry.position_sensitive_align)
        else:
            pooled = self._pooled(levels, rois, POOLED)
        logits, deltas = self.roi_head(pooled.to(self._dtype))
        return logits[:count].float(), deltas[:count].float()

    def masks(self, levels: Sequence[Tensor], hu: Tensor, rois: Tensor) -> Tensor:
        """Logits of being lesion, (K, 28, 28), on cells that divide each region's box."""
        count, rois = len(rois), _rounded_up(rois)
        middle = self.config.slices // 2
        key = self.windows(hu[:, middle : middle + 1])
        image = geometry.roi_align(key, rois, stride=1, size=MASK_SIDE)
        pooled = self._pooled([central(level, self.images) for level in levels], rois, MASK_POOLED)
        logits: Tensor = self.mask_head(pooled.to(self._dtype), image.to(self._dtype))
        return logits[:count].float()

    def _pooled(
        self, levels: Sequence[Tensor], rois: Tensor, size: int, *, align: Callable[..., Tensor] = geometry.roi_align
    ) -> Tensor:
        """Features of each region from the level that suits its size, (K, C, size, size)."""
        if len(levels) == 1:
            return align(levels[0], rois, stride=self.strides[0], size=size)
        coarse = geometry.area(rois[:, 1:]).sqrt() >= COARSE_FROM_PX
        order = torch.cat([torch.nonzero(~coarse), torch.nonzero(coarse)])[:, 0]
        parts = [
            align(level, rois[chosen], stride=stride, size=size)
            for level, stride, chosen in zip(levels, self.strides, (~coarse, coarse), strict=True)
        ]
        return torch.cat(parts)[torch.argsort(order)]

    def _best(self, boxes: Tensor, probability: Tensor, least: float) -> Detections:
        scores = 1 - probability[:, 0]
        sides = boxes[:, 2:] - boxes[:, :2]
        usable = (scores >= least) & (sides >= 1).all(1)
        boxes, scores, categories = boxes[usable], scores[usable], probability[usable, 1:]
        kept = geometry.nms(boxes, scores, self.rules.nms)[: self.rules.most]
        return Detections(boxes[kept], scores[kept], categories[kept].argmax(1), categories[kept])

    @property
    def _dtype(self) -> torch.dtype:
        return self.roi_head.scores.weight.dtype


def _rounded_up(rois: Tensor) -> Tensor:
    """Regions (K, 5) with empty ones behind, up to a round number: a GPU plans its convolutions anew for every K."""
    multiple = REGIONS_AT_ONCE.get(rois.device.type, 1)
    return functional.pad(rois, (0, 0, 0, -len(rois) % multiple))


def shaped_like(shapes: Mapping[str, Sequence[int]], base: NetworkConfig) -> NetworkConfig:
    """`base` with as many categories, slices and fused images as weights of these shapes, by name, have.

    raises   ModelError     they are of another kind of network
    """
    try:
        slices = shapes["backbone.stem.weight"][1] // (FOLDED * len(base.windows))
        count = shapes["roi_head.scores.bias"][0] - 1
        images, fusion = 1, None
        if "roi_head.cells.weight" in shapes:
            per_cell = shapes["roi_head.cells.weight"][0] // POOLED**2
            width, joined = shapes["roi_head.full.weight"]
            images, fusion = joined // (per_cell * POOLED**2), FusionConfig(slices, per_cell, width)
    except LookupError as error:
        raise ModelError("not the weights of this detector") from error
    known = {len(names): names for names in (SINGLE, base.categories)}
    categories = known.get(count, numbered(count))
    return replace(base, categories=categories, offsets_mm=offsets_of(slices * images), fusion=fusion)


def build(config: NetworkConfig) -> Detector:
    """The untrained detector."""
    return Detector(config)
