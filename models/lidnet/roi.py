"""What the detector says of a denoised image: the ROI perceptual loss, in regions that the detector itself proposes.

source: LIDnet (arXiv 2104.08845) for the idea; regions, levels and weights are the dossier's (section 3), since the
paper's could not be read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from models.deeplesion import boxes as geometry
from models.deeplesion.config import POOLED
from models.deeplesion.network import Detector


@dataclass(frozen=True)
class RoiConfig:
    """Which regions, and how they weigh.

    best                proposals taken whatever their objectness
    least_objectness    of the further ones
    most                regions of one image, annotated ones first
    dilation            of each side, for context
    """

    best: int = 8
    least_objectness: float = 0.5
    most: int = 16
    dilation: float = 0.25


@dataclass(frozen=True, eq=False)
class Regions:
    """rois (K, 5): index of the image and box; of them so many annotated, the others proposed."""

    rois: Tensor
    annotated: int
    proposed: int


@torch.no_grad()
def regions(
    detector: Detector,
    full_dose: Tensor,
    annotated: Sequence[Tensor],
    config: RoiConfig,
    *,
    levels: Sequence[Tensor] | None = None,
) -> Regions:
    """The detector's proposals on the full-dose slices, and all annotated boxes.

    Never on the denoised slices: there a denoiser could lower the loss by keeping proposals from arising.

    full_dose   (B, M, H, W), HU        annotated   boxes (N, 4) per image
    levels      the detector's features of `full_dose`, where they are known
    """
    height, width = full_dose.shape[-2:]
    seen = detector.features(full_dose) if levels is None else levels
    chosen, counts = [], [0, 0]
    proposed = zip(*detector.propose(detector.rpn_outputs(seen), (height, width)), annotated, strict=True)
    for proposals, scores, boxes in proposed:  # best first
        rank = torch.arange(len(proposals), device=proposals.device)
        proposals = proposals[(rank < config.best) | (scores >= config.least_objectness)]
        known = boxes.to(proposals)[: config.most]
        proposals = proposals[: config.most - len(known)]
        counts[0] += len(known)
        counts[1] += len(proposals)
        chosen.append(_with_context(torch.cat([known, proposals]), (height, width), detector, config))
    return Regions(geometry.with_image(chosen), *counts)


def _with_context(boxes: Tensor, shape: tuple[int, int], detector: Detector, config: RoiConfig) -> Tensor:
    """Dilated, at least two cells of the coarsest level wide, clipped to the image."""
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    least = 2.0 * max(detector.strides)
    half = ((boxes[:, 2:] - boxes[:, :2]) * (1 + config.dilation)).clamp_min(least) / 2
    return geometry.clip(torch.cat([centre - half, centre + half], 1), *shape)


def shuffled(found: Regions, images: int) -> Regions:
    """The same boxes on the next image: the control that shows whether it is lesions that help."""
    rois = found.rois.clone()
    rois[:, 0] = (rois[:, 0] + 1) % images
    return Regions(rois, found.annotated, found.proposed)


def roi_perceptual_loss(
    denoised: Sequence[Tensor], full_dose: Sequence[Tensor], rois: Tensor, strides: Sequence[int]
) -> Tensor:
    """Mean square of the difference of the detector's features in the regions, levels weighed alike; 0 without any.

    denoised, full_dose     the detector's levels (B, C, H/stride, W/stride); no gradient reaches the second
    """
    total = sum((level.sum() * 0 for level in denoised), start=denoised[0].new_zeros((), dtype=torch.float32))
    if not len(rois):
        return total
    for ours, reference, stride in zip(denoised, full_dose, strides, strict=True):
        a = geometry.roi_align(ours, rois, stride=stride, size=POOLED)  # (K, C, 7, 7)
        b = geometry.roi_align(reference.detach(), rois, stride=stride, size=POOLED)
        total = total + (a - b).square().mean() / len(strides)
    return total


def map_perceptual_loss(denoised: Sequence[Tensor], full_dose: Sequence[Tensor]) -> Tensor:
    """The same over whole maps, as WGAN-VGG does with another network's features (arXiv 1708.00961)."""
    parts = [
        (ours.float() - reference.detach().float()).square().mean()
        for ours, reference in zip(denoised, full_dose, strict=True)
    ]
    return torch.stack(parts).mean()
