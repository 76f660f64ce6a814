"""Batches from samples: crops that hold whole lesions, beside crops without any; the step's number decides which."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from models.contract import FloatArray, ModelError
from models.deeplesion import boxes as geometry
from models.deeplesion.config import TrainConfig
from models.deeplesion.losses import TargetBatch, Targets
from models.deeplesion.network import AIR_HU
from models.deeplesion.samples import Sample, family_of, load_sample

LEAST_VISIBLE = 0.9
"""Part of a box that a crop must hold for it to be a target; of the others what is seen is ignored."""
HU_JITTER, GAIN_JITTER = 12.0, 0.04


@dataclass(frozen=True, eq=False)
class Batch:
    """Input of one step: hu float32 (B, M, P, P), one target per image.

    incomplete      indices of images in which a lesion may be that nobody annotated; None for all of them
    """

    hu: Tensor
    targets: TargetBatch
    incomplete: list[int] | None = None


class SampleStore:
    """All samples, drawn from by step number: the same step always gives the same batch."""

    def __init__(
        self,
        files: Sequence[Path],
        *,
        seed: int,
        categories: int,
        slices: int | None = None,
        complete: Collection[str] = (),
    ) -> None:
        """
        categories   outputs of the network: with one, every lesion is of that one
        slices       that the network looks at: of samples with more, the middle ones; None: all
        complete     families whose lesions are all annotated, since they were drawn
        """
        if not files:
            raise ModelError("no training samples")
        self._files = sorted(files)
        self._seed = seed
        self._single, self._slices = categories == 1, slices
        self._complete = complete
        families = [family_of(path) for path in self._files]
        count = Counter(families)
        weight = np.array([count[family] ** -0.5 for family in families])
        self._probability = weight / weight.sum()

    def batch(self, step: int, training: TrainConfig) -> Batch:
        """The batch of this step."""
        rng = np.random.default_rng((self._seed, step))
        chosen = rng.choice(len(self._files), size=training.batch, p=self._probability)
        samples = [self._load(self._files[index]) for index in chosen]
        crops = [self._crop(sample, training, rng) for sample in samples]
        incomplete = [index for index, sample in enumerate(samples) if sample.family not in self._complete]
        targets = TargetBatch.of([target for _, target in crops])
        return Batch(torch.stack([hu for hu, _ in crops]), targets, incomplete)

    def _load(self, path: Path) -> Sample:
        sample = load_sample(path)
        return sample if self._slices is None else replace(sample, hu=middle(sample.hu, self._slices))

    def _crop(self, sample: Sample, training: TrainConfig, rng: np.random.Generator) -> tuple[Tensor, Targets]:
        """A square crop, magnified a little, its HU shifted a little."""
        scale = float(rng.uniform(*training.scale_jitter))
        side = round(training.crop_px / scale)
        top, left = _place(sample, side, training.lesion_share, rng)
        window = _window(sample.hu.shape[1:], top, left, side)
        hu = torch.full((len(sample.hu), side, side), AIR_HU)
        hu[:, window.into[0], window.into[1]] = torch.from_numpy(sample.hu[:, window.of[0], window.of[1]])
        labels = np.zeros((side, side), np.uint8)
        labels[window.into] = sample.labels[window.of]
        shape = (training.crop_px, training.crop_px)
        hu = functional.interpolate(hu[None], size=shape, mode="bilinear", align_corners=False)[0]
        hu = hu * (1 + GAIN_JITTER * float(rng.uniform(-1, 1))) + HU_JITTER * float(rng.uniform(-1, 1))
        return hu, self._targets(sample, labels, (left, top), training.crop_px)

    def _targets(
        self,
        sample: Sample,
        labels: np.ndarray[tuple[int, int], np.dtype[np.uint8]],
        corner: tuple[int, int],
        side: int,
    ) -> Targets:
        factor = side / len(labels)
        shift = torch.tensor([*corner, *corner], dtype=torch.float32)
        whole = (torch.from_numpy(sample.boxes) - shift) * factor
        grazed = (torch.from_numpy(sample.ignore) - shift) * factor
        seen = geometry.clip(whole, side, side)
        visible = geometry.area(seen) / geometry.area(whole).clamp_min(1)
        annotated = torch.from_numpy(sample.annotated)
        kept = annotated & (visible >= LEAST_VISIBLE)
        cut = annotated & (visible > 0) & ~kept
        category = torch.from_numpy(sample.category)[kept]
        grid = torch.from_numpy(labels)[None, None].float()
        masks = [
            functional.interpolate((grid == number + 1).float(), size=(side, side), mode="bilinear")[0, 0] >= 0.5
            for number in torch.nonzero(kept)[:, 0].tolist()
        ]
        return Targets(
            boxes=seen[kept],
            category=torch.zeros_like(category) if self._single else category,
            masks=torch.stack(masks) if masks else torch.zeros((0, side, side), dtype=torch.bool),
            ignore=torch.cat([seen[cut], geometry.clip(grazed, side, side)]),
        )


def middle(hu: FloatArray, slices: int) -> FloatArray:
    """The middle ones of a stack of slices (M, Y, X).

    raises   ModelError     there are fewer, or no middle
    """
    beyond = len(hu) - slices
    if beyond < 0 or beyond % 2:
        raise ModelError(f"stacks of {len(hu)} slices for a network that looks at {slices}")
    return hu[beyond // 2 : beyond // 2 + slices]


@dataclass(frozen=True)
class _Window:
    """Where a crop lies: in the sample, and in the crop what of it is inside the sample."""

    of: tuple[slice, slice]
    into: tuple[slice, slice]


def _window(shape: Sequence[int], top: int, left: int, side: int) -> _Window:
    of, into = [], []
    for start, length in zip((top, left), shape, strict=True):
        first, last = max(start, 0), min(start + side, length)
        of.append(slice(first, last))
        into.append(slice(first - start, last - start))
    return _Window((of[0], of[1]), (into[0], into[1]))


def _place(sample: Sample, side: int, lesion_share: float, rng: np.random.Generator) -> tuple[int, int]:
    """Top and left of a crop: around a whole annotated lesion that fits, or anywhere."""
    boxes = sample.boxes[sample.annotated]
    boxes = boxes[(boxes[:, 2:] - boxes[:, :2]).max(1, initial=0) < side - 2]
    on_lesion = rng.random() < lesion_share
    box = boxes[int(rng.integers(len(boxes)))] if len(boxes) and on_lesion else None
    corner = []
    for axis, length in ((1, sample.hu.shape[1]), (0, sample.hu.shape[2])):
        low, high = min(0, length - side), max(0, length - side)
        if box is not None:
            low = max(low, int(np.ceil(box[axis + 2] - side)))
            high = min(high, int(np.floor(box[axis])))
        corner.append(int(rng.integers(low, max(high, low) + 1)))
    return corner[0], corner[1]
