"""Boxes, anchors and regions: what torchvision has, in plain torch, deterministic on every device.

A box is (x1, y1, x2, y2) in pixels of the input; pixel i covers i to i + 1, its centre is at i + 0.5.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

ENCODING_SCALE = (0.1, 0.1, 0.2, 0.2)
"""Standard deviations of the RoI head's box corrections (Fast R-CNN): divides them to about one."""
LARGEST_GROWTH = math.log(16.0)


def area(boxes: Tensor, *, plus_one: bool = False) -> Tensor:
    """(…, 4) → (…); `plus_one` where x2, y2 are the last pixel inside (the convention of the DeepLesion papers)."""
    extra = 1.0 if plus_one else 0.0
    sides = (boxes[..., 2:] - boxes[..., :2] + extra).clamp_min(0)
    return sides[..., 0] * sides[..., 1]


def iou(first: Tensor, second: Tensor, *, plus_one: bool = False) -> Tensor:
    """Intersection over union, (…, N, 4) and (…, M, 4) → (…, N, M); 0 where both are empty."""
    extra = 1.0 if plus_one else 0.0
    low = torch.maximum(first[..., :, None, :2], second[..., None, :, :2])
    high = torch.minimum(first[..., :, None, 2:], second[..., None, :, 2:])
    sides = (high - low + extra).clamp_min(0)
    shared = sides[..., 0] * sides[..., 1]
    union = area(first, plus_one=plus_one)[..., :, None] + area(second, plus_one=plus_one)[..., None, :] - shared
    return shared / union.clamp_min(torch.finfo(union.dtype).tiny)


def nms(boxes: Tensor, scores: Tensor, threshold: float, *, plus_one: bool = False) -> Tensor:
    """Indices of the boxes kept, best first: none overlaps a better one by more than `threshold`."""
    order = torch.sort(scores, descending=True, stable=True).indices
    everything = torch.ones_like(order, dtype=torch.bool)
    return order[kept_by_nms(boxes[order], everything, threshold, plus_one=plus_one)]


def kept_by_nms(boxes: Tensor, valid: Tensor, threshold: float, *, plus_one: bool = False) -> Tensor:
    """Which of the valid boxes overlap no better one that is kept by more than `threshold`, bool (…, N).

    boxes   (…, N, 4), best first       valid   bool (…, N): the others are not there

    All boxes at once, again and again until nothing changes: what round k says of the first k boxes is final, and a
    few rounds are enough where chains of overlaps are short. The result is that of going through them one by one.
    """
    over = (iou(boxes, boxes, plus_one=plus_one) > threshold).triu(1).to(boxes.dtype)  # (…, N, N), better ones in rows
    kept = valid
    while True:
        beaten = (kept[..., None, :].to(boxes.dtype) @ over)[..., 0, :] > 0
        now = valid & ~beaten
        if torch.equal(now, kept):
            return now
        kept = now


def clip(boxes: Tensor, height: int, width: int) -> Tensor:
    """The part of each box inside the image."""
    limit = boxes.new_tensor([width, height, width, height])
    return torch.minimum(boxes.clamp_min(0), limit)


def encode(boxes: Tensor, references: Tensor, scale: Sequence[float] = (1, 1, 1, 1)) -> Tensor:
    """Boxes relative to reference boxes (Faster R-CNN): shift over size, logarithm of growth, over `scale`."""
    centre, size = _centre_size(boxes)
    reference_centre, reference_size = _centre_size(references)
    deltas = torch.cat([(centre - reference_centre) / reference_size, (size / reference_size).log()], -1)
    return deltas / deltas.new_tensor(scale)


def decode(deltas: Tensor, references: Tensor, scale: Sequence[float] = (1, 1, 1, 1)) -> Tensor:
    """Inverse of `encode`; growth beyond 16 times is cut."""
    shift, growth = (deltas * deltas.new_tensor(scale)).chunk(2, -1)
    reference_centre, reference_size = _centre_size(references)
    centre = reference_centre + shift * reference_size
    half = growth.clamp(-LARGEST_GROWTH, LARGEST_GROWTH).exp() * reference_size / 2
    return torch.cat([centre - half, centre + half], -1)


def _centre_size(boxes: Tensor) -> tuple[Tensor, Tensor]:
    low, high = boxes.chunk(2, -1)
    return (low + high) / 2, high - low


@lru_cache(maxsize=16)
@torch.inference_mode(False)
def anchors(
    shape: tuple[int, int],
    stride: int,
    sides: tuple[float, ...],
    ratios: tuple[float, ...],
    device: torch.device | None = None,
) -> Tensor:
    """Anchors of one level, row by row, column by column: (H·W·sides·ratios, 4).

    Made once, for inference and training alike: not to be changed.

    shape   (H, W) of the level      ratios  height over width, at equal area
    """
    templates = torch.tensor(
        [
            (-side / root / 2, -side * root / 2, side / root / 2, side * root / 2)
            for side in sides
            for root in map(math.sqrt, ratios)
        ]
    )
    y, x = (((torch.arange(count) + 0.5) * stride) for count in shape)
    rows, columns = torch.meshgrid(y, x, indexing="ij")
    centres = torch.stack([columns, rows, columns, rows], -1)  # (H, W, 4)
    return (centres[:, :, None] + templates).reshape(-1, 4).to(device)


def with_image(boxes: Sequence[Tensor]) -> Tensor:
    """Boxes per image, (N, 4) each, to regions (K, 5): index of the image, then the box."""
    return torch.cat([torch.cat([part.new_full((len(part), 1), index), part], 1) for index, part in enumerate(boxes)])


def roi_align(features: Tensor, rois: Tensor, *, stride: float, size: int, samples: int = 2) -> Tensor:
    """Features in regions of any size, on a grid of cells of one size (He et al., Mask R-CNN; `aligned=True`).

    features    (B, C, H, W)        rois    (K, 5): index of the image, box in pixels of the input
    samples     per cell and direction, bilinear between feature centres; beyond the outermost the edge continues
    returns     float32 (K, C, size, size); differentiable in features

    Bilinear sampling and averaging over a cell act on rows and columns apart, so it is two matrix products.
    """
    count, channels, height, width = features.shape
    slot, per_image = _slots(rois[:, 0].long(), count)
    boxes = rois.new_zeros((count * per_image, 4)).index_copy(0, slot, rois[:, 1:]) / stride
    # Half precision would move the sampling points.
    with torch.autocast(features.device.type, enabled=False):
        rows = _cells(boxes[:, 1], boxes[:, 3], height, size, samples)  # (B·R, size, H)
        columns = _cells(boxes[:, 0], boxes[:, 2], width, size, samples)  # (B·R, size, W)
        lines = features.float().transpose(1, 2).reshape(count, height, channels * width)
        across = rows.reshape(count, per_image * size, height) @ lines  # (B, R·size, C·W)
        across = across.reshape(-1, size * channels, width)
        pooled = (across @ columns.transpose(-1, -2)).reshape(-1, size, channels, size)
    return pooled[slot].transpose(1, 2)


def position_sensitive_align(features: Tensor, rois: Tensor, *, stride: float, size: int, samples: int = 2) -> Tensor:
    """As `roi_align`, but each cell takes channels of its own (R-FCN, arXiv 1605.06409).

    features    (B, size · size · C, H, W): C channels of the first cell, of the next in its row …
    returns     float32 (K, C, size, size)
    """
    count, _, height, width = features.shape
    slot, per_image = _slots(rois[:, 0].long(), count)
    boxes = rois.new_zeros((count * per_image, 4)).index_copy(0, slot, rois[:, 1:]) / stride
    with torch.autocast(features.device.type, enabled=False):
        rows = _cells(boxes[:, 1], boxes[:, 3], height, size, samples).view(count, per_image, size, height)
        columns = _cells(boxes[:, 0], boxes[:, 2], width, size, samples).view(count, per_image, size, width)
        maps = features.float().reshape(count, size, size, -1, height, width)
        lines = torch.einsum("brih,bijchw->brijcw", rows, maps)
        pooled = torch.einsum("brijcw,brjw->brcij", lines, columns)
    return pooled.flatten(0, 1)[slot]


def _slots(image: Tensor, count: int) -> tuple[Tensor, int]:
    """For each region (K,) its place among as many places per image as the image with most regions has."""
    own = torch.nn.functional.one_hot(image, count)  # (K, B)
    rank = (own.cumsum(0) * own).sum(1) - 1
    per_image = int(own.sum(0).max()) if len(image) else 0
    return image * per_image + rank, per_image


def _cells(start: Tensor, end: Tensor, length: int, size: int, samples: int) -> Tensor:
    """Weight of each of `length` features in each of `size` cells from start to end, (K, size, length)."""
    steps = (torch.arange(size * samples, device=start.device, dtype=torch.float32) + 0.5) / (size * samples)
    position = (start[:, None] + (end - start)[:, None] * steps - 0.5).clamp(0, length - 1)
    centres = torch.arange(length, device=start.device, dtype=torch.float32)
    weight = (1 - (position[..., None] - centres).abs()).clamp_min(0)  # (K, size · samples, length)
    return weight.reshape(len(start), size, samples, length).mean(2)
