"""Detection in a volume: key slices with their neighbours through the detector; detections to lesions and facts."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from models.contract import BoolArray, Code, FloatArray, Lesion, ModelError, ModelIdentity, Volume
from models.deeplesion.calibrate import calibrated
from models.deeplesion.config import SPACING_MM, RunConfig
from models.deeplesion.grouping import Axes, Region, SliceFinding, Track, axes_of, group, region_of
from models.deeplesion.network import AIR_HU, Detector
from models.deeplesion.place import SITES, Surroundings, site_of, surroundings_of
from models.deeplesion.resample import Mix, mixes, resized_shape
from models.device import as_written, has_fast_bfloat16

OnProgress = Callable[[int, int], None]
"""Called with key slices done and key slices in all."""

LEAST_SIDE_PX = 32
GPU_BATCH = 16
"""Key slices at once on a GPU, in place of the configuration's batch, which suits a CPU."""
BODY_HU = -300.0
NODULE: Code = ("27925004", "SCT", "Nodule")
LESION: Code = ("52988006", "SCT", "Lesion")
LEFT: Code = ("7771000", "SCT", "Left")
RIGHT: Code = ("24028007", "SCT", "Right")
PAIRED = frozenset({SITES["lung"], SITES["kidney"]})
MIDLINE_MM = 10.0
"""So close to the body's middle no side is named."""


@dataclass(frozen=True, eq=False)
class Found:
    """One lesion of a volume, before it is said which weights found it.

    score, operating_point      calibrated: of findings with such scores on validation, so many were lesions
    site                        the category's organ where it can be, else the part of the trunk
    laterality                  None where the organ has no sides, or the lesion lies in the middle
    """

    category: str
    score: float
    operating_point: float
    region: Region
    axes: Axes
    site: Code
    laterality: Code | None

    def lesion(self, volume: Volume, identity: ModelIdentity) -> Lesion:
        """As the node reports it."""
        mask: BoolArray = np.zeros(volume.voxels.shape, np.bool_)
        mask[self.region.box] = self.region.mask
        return Lesion(
            tracking_id=self._tracking_id(volume),
            category=NODULE if self.site == SITES["lung"] else LESION,
            site=self.site,
            laterality=self.laterality,
            mask=mask,
            slice_index=self.axes.index,
            long_axis_px=self.axes.long_px,
            short_axis_px=self.axes.short_px,
            long_axis_mm=self.axes.long_mm,
            short_axis_mm=self.axes.short_mm,
            volume_mm3=self.region.volume_mm3(positions_along_normal(volume), volume.spacing_zyx_mm[1:]),
            score=self.score,
            operating_point=self.operating_point,
            model=identity,
        )

    def _tracking_id(self, volume: Volume) -> str:
        """From the image and the place on it, so that the same images give the same."""
        (x1, y1), (x2, y2) = self.axes.long_px
        source = volume.sources[self.axes.index]
        place = f"{source.instance_uid}/{source.frame}/{round((x1 + x2) / 2)}/{round((y1 + y2) / 2)}"
        return f"lesion-{hashlib.sha256(place.encode()).hexdigest()[:12]}"


def run(
    network: Detector, volume: Volume, on_progress: OnProgress | None = None, *, config: RunConfig | None = None
) -> tuple[Found, ...]:
    """The lesions at or above the operating point, surest first. `Found.lesion` makes what the node reports.

    raises   ModelError     slices too small, or values that are not finite
    """
    least = float(network.operating_point)
    return tuple(find(network, volume, on_progress, config=config, least_score=least))


def find(
    network: Detector,
    volume: Volume,
    on_progress: OnProgress | None = None,
    *,
    config: RunConfig | None = None,
    least_score: float = 0.0,
) -> list[Found]:
    """All candidates of at least this (calibrated) score, surest first, but for what is air outside the body.

    raises   ModelError     slices too small, or values that are not finite
    """
    rules = config or RunConfig()
    if volume.voxels.ndim != 3 or min(volume.voxels.shape[1:]) < LEAST_SIDE_PX:
        raise ModelError(f"slices of at least {LEAST_SIDE_PX} pixels a side are needed")
    if not np.isfinite(volume.voxels).all():
        raise ModelError("the volume holds values that are not finite")
    image = volume.voxels if volume.padding is None else np.where(volume.padding, np.float32(AIR_HU), volume.voxels)
    positions = positions_along_normal(volume)
    findings = _detect(network, image, positions, volume.spacing_zyx_mm, rules, on_progress)
    tracks = group(findings, positions, link_iou=rules.link_iou, gap_mm=rules.gap_mm)
    slope, intercept = (float(value) for value in network.calibration)
    scored = [(calibrated(track.score, slope, intercept), track) for track in tracks]
    kept = sorted((pair for pair in scored if pair[0] >= least_score), key=lambda pair: -pair[0])
    if not kept:
        return []
    keys = key_slices(positions, rules.step_mm)
    around = surroundings_of(volume, image, positions)
    regions = [region_of(track, (image.shape[0], image.shape[1], image.shape[2]), keys) for _, track in kept]
    return [
        _found(track, score, region, network, volume, image, around)
        for (score, track), region in zip(kept, regions, strict=True)
        if not around.is_in_room(region, image)
    ]


def positions_along_normal(volume: Volume) -> NDArray[np.float64]:
    """Of each slice, from the first, mm, increasing; exact also where steps are uneven."""
    normal = np.cross(volume.affine[:3, 2], volume.affine[:3, 1])
    along = (volume.slice_origins_mm - volume.slice_origins_mm[0]) @ (normal / np.linalg.norm(normal))
    return np.asarray(along if along[-1] >= 0 else -along, np.float64)


def key_slices(positions_mm: NDArray[np.float64], step_mm: float) -> list[int]:
    """Slices to look at: about `step_mm` apart, or all where they are thicker."""
    chosen = [0]
    for index in range(1, len(positions_mm)):
        if positions_mm[index] - positions_mm[chosen[-1]] >= 0.75 * step_mm:
            chosen.append(index)
    return chosen


def _detect(
    network: Detector,
    image: FloatArray,
    positions: NDArray[np.float64],
    spacing_zyx_mm: tuple[float, float, float],
    rules: RunConfig,
    on_progress: OnProgress | None,
) -> list[SliceFinding]:
    shape = resized_shape((image.shape[1], image.shape[2]), spacing_zyx_mm[1:], SPACING_MM)
    scale = np.array([image.shape[2] / shape[1], image.shape[1] / shape[0]] * 2)
    keys = key_slices(positions, rules.step_mm)
    device = network.calibration.device
    batch = GPU_BATCH if device.type == "cuda" else rules.batch
    made = [mixes(key, positions, network.config.offsets_mm, legacy=rules.legacy_interp) for key in keys]
    findings: list[SliceFinding] = []
    for start in range(0, len(keys), batch):
        chosen = keys[start : start + batch]
        slabs = _slabs(image, made[start : start + batch], shape, device)
        # Always so many at once: convolutions round differently in batches of other sizes.
        missing = slabs.new_full((batch - len(chosen), *slabs.shape[1:]), AIR_HU)
        detected = detect_in(network, torch.cat([slabs, missing]))
        for key, part in zip(chosen, detected, strict=False):
            findings += [_finding(key, row, part, scale) for row in range(len(part[0]))]
        if on_progress is not None:
            on_progress(min(start + batch, len(keys)), len(keys))
    return findings


@torch.inference_mode()
def _slabs(image: FloatArray, made: list[list[Mix]], shape: tuple[int, int], device: torch.device) -> Tensor:
    """Key slices with their neighbours on the network's pixels, made on its device, (B, M, H, W), HU.

    Bit for bit what `resample.slab` and `resample.resize` make of one key slice on a CPU.
    """
    mixed = [end for one in made for mix in one for end in (mix.lower, mix.upper)]
    first = min(mixed)
    near = torch.from_numpy(np.ascontiguousarray(image[first : max(mixed) + 1], np.float32)).to(device)
    lower, upper = (torch.tensor([[mix[end] - first for mix in one] for one in made], device=device) for end in (0, 1))
    weight = torch.tensor([[mix.weight for mix in one] for one in made], dtype=torch.float64, device=device)
    share, rest = (part.float()[..., None, None] for part in (weight, 1 - weight))
    planes = rest * near[lower] + share * near[upper]  # (B, M, Y, X)
    if planes.shape[-2:] == shape:
        return planes
    return functional.interpolate(planes, size=shape, mode="bilinear", align_corners=False, antialias=True)


_Arrays = tuple[FloatArray, FloatArray, FloatArray, FloatArray]


@torch.inference_mode()
@as_written()
def detect_in(network: Detector, hu: Tensor, *, least_score: float | None = None) -> list[_Arrays]:
    """Boxes, scores, categories and masks of each image of (B, M, H, W), HU, on whatever device the network is.

    least_score     instead of the network's
    raises   ModelError     another number of slices than the network looks at
    """
    if hu.shape[1] != network.config.slices:
        raise ModelError(f"stacks of {hu.shape[1]} slices for a network that looks at {network.config.slices}")
    found = network.detect(hu.to(network.calibration.device), least_score=least_score)
    masks = [one.boxes.new_zeros((len(one.boxes), 1, 1)) if one.masks is None else one.masks for one in found]
    ends = np.cumsum([len(one.boxes) for one in found])[:-1]
    # All images at once: on a GPU each copy waits for all that was asked of it before.
    boxes, scores, categories, shapes = (
        np.split(torch.cat(parts).cpu().numpy(), ends)
        for parts in (
            [one.boxes for one in found],
            [one.scores for one in found],
            [one.categories for one in found],
            masks,
        )
    )
    return list(zip(boxes, scores, categories, shapes, strict=True))


def _finding(index: int, row: int, part: _Arrays, scale: NDArray[np.float64]) -> SliceFinding:
    boxes, scores, categories, masks = part
    x1, y1, x2, y2 = (float(value) for value in boxes[row] * scale)
    return SliceFinding(index, (x1, y1, x2, y2), float(scores[row]), categories[row], masks[row])


def _found(
    track: Track,
    score: float,
    region: Region,
    network: Detector,
    volume: Volume,
    image: FloatArray,
    around: Surroundings,
) -> Found:
    category = network.config.categories[track.category]
    axes = axes_of(region, volume.spacing_zyx_mm)
    site = site_of(category, region, axes.index, around)
    side = laterality(region, axes.index, volume, image) if site in PAIRED else None
    return Found(category, score, float(network.operating_point), region, axes, site, side)


def laterality(region: Region, index: int, volume: Volume, image: FloatArray) -> Code | None:
    """The patient's side, from the body's middle on this slice; None near the middle."""
    body = image[index] > BODY_HU
    if not body.any():
        return None
    rows, columns = np.nonzero(region.mask[index - region.box[0].start])
    middle, place = (
        (volume.affine @ np.array([index, down, across, 1.0]))[0]
        for down, across in (
            (_median_place(body.sum(1)), _median_place(body.sum(0))),
            (rows.mean() + region.box[1].start, columns.mean() + region.box[2].start),
        )
    )
    if abs(place - middle) < MIDLINE_MM:
        return None
    return LEFT if place > middle else RIGHT


def _median_place(counts: NDArray[np.integer]) -> float:
    """Median of indices of which each occurs so often."""
    up_to = counts.cumsum()
    middle = ((up_to[-1] - 1) // 2, up_to[-1] // 2)
    return float(np.searchsorted(up_to, middle, side="right").mean())


def prepare(network: Detector, device: torch.device, *, half: bool | None = None) -> Detector:
    """The network as `run` wants it.

    half     bf16: None where the processor has it, since elsewhere it is slower than float32
    """
    if half is None:
        half = has_fast_bfloat16(device)
    network.to(device).eval().requires_grad_(False)
    for part in (network.backbone, network.rpn, network.roi_head, network.mask_head):
        part.to(torch.bfloat16 if half else torch.float32)
    for parameter in network.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return network
