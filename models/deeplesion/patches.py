"""Patches round lesions, and networks that turn a patch into one feature vector: what is mined."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from models.contract import FloatArray, ModelError
from models.deeplesion.backbone import Residual
from models.deeplesion.boxes import roi_align, with_image
from models.deeplesion.config import SPACING_MM, NetworkConfig
from models.deeplesion.fusion import levels_of
from models.deeplesion.mined import Patches
from models.deeplesion.network import Detector, HuWindows
from models.deeplesion.samples import load_sample
from models.deeplesion.table import Split

CONTEXT = 2.0
SIDE_PX = 128
TYPICAL_LOG_MM = math.log(20.0)
"""Taken off the logarithm of a size before a network sees it."""


def cut_patches(
    hu: FloatArray, boxes: NDArray[np.floating], spacing_mm: float, *, side_px: int = SIDE_PX, context: float = CONTEXT
) -> tuple[Tensor, Tensor]:
    """Squares round the boxes, `context` times their larger side, resized; what lies beyond the image is its edge.

    hu          float32 (M, Y, X)       boxes   (N, 4), edges, pixel i covering i to i + 1
    returns     int16 (N, M, side, side), HU; float32 (N,), logarithm of the larger side in mm
    raises      ModelError              a box without extent
    """
    edges = torch.from_numpy(np.asarray(boxes, np.float32)).reshape(-1, 4)
    larger = (edges[:, 2:] - edges[:, :2]).amax(1)
    if not bool((larger > 0).all()):
        raise ModelError("a box to be cut out has no extent")
    centre = (edges[:, :2] + edges[:, 2:]) / 2
    half = larger[:, None] * context / 2
    regions = with_image([torch.cat([centre - half, centre + half], 1)])
    cut = roi_align(torch.from_numpy(hu)[None], regions, stride=1, size=side_px)
    return cut.round().clamp(-(2**15), 2**15 - 1).to(torch.int16), (larger * spacing_mm).log()


def patches_of_samples(files: Sequence[Path], split: Split, *, side_px: int = SIDE_PX) -> Patches:
    """The annotated lesions of prepared samples, named `<file's stem>#<number of the box>`.

    raises   ModelError     none is annotated
    """
    names: list[str] = []
    cut: list[tuple[Tensor, Tensor]] = []
    for path in files:
        sample = load_sample(path)
        chosen = np.flatnonzero(sample.annotated)
        if len(chosen):
            names += [f"{path.stem}#{number}" for number in chosen]
            cut.append(cut_patches(sample.hu, sample.boxes[chosen], SPACING_MM, side_px=side_px))
    if not cut:
        raise ModelError("no annotated lesion among the samples")
    if len({part.shape[1] for part, _ in cut}) > 1:
        raise ModelError("the samples do not all have the same number of slices")
    hu, log_size = (torch.cat(parts) for parts in zip(*cut, strict=True))
    return Patches(tuple(names), hu, log_size, (split,) * len(names))


def with_lesions(files: Sequence[Path]) -> list[Path]:
    """Those of the prepared samples on which a lesion is annotated."""
    found = []
    for path in files:
        with np.load(path, allow_pickle=False) as arrays:
            if arrays["annotated"].any():
                found.append(path)
    return found


def relabel(files: Sequence[Path], labels: Mapping[str, int], out: Path) -> list[Path]:
    """Copies of prepared samples whose lesions are of these categories: pseudo-labels, or their control.

    labels      by the names of `patches_of_samples`
    raises      ModelError      an annotated lesion has no label
    """
    out.mkdir(parents=True, exist_ok=True)
    made = []
    for path in files:
        with np.load(path, allow_pickle=False) as arrays:
            content = dict(arrays)
        category = np.zeros_like(content["category"])
        for number in np.flatnonzero(content["annotated"]):
            name = f"{path.stem}#{number}"
            if name not in labels:
                raise ModelError(f"no label for {name}")
            category[number] = labels[name]
        content["category"] = category
        unfinished = (out / path.name).with_suffix(".part")
        with unfinished.open("wb") as stream:
            np.savez(stream, **content)
        os.replace(unfinished, out / path.name)
        made.append(out / path.name)
    return made


class PatchNet(nn.Module):
    """A small residual network for patches of 32 to 128 pixels; the lesion's size is one more channel.

    slices, windows     of the input, as the detector sees it
    """

    def __init__(
        self,
        slices: int = 3,
        windows: Sequence[tuple[float, float]] = NetworkConfig().windows,
        widths: Sequence[int] = (32, 64, 128, 256),
    ) -> None:
        super().__init__()
        self.windows = HuWindows(windows)
        self.stem = nn.Conv2d(slices * len(windows) + 1, widths[0], 5, 2, 2)
        self.stages = nn.Sequential(*(Residual(inside, outside, 2) for inside, outside in pairwise(widths)))
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")

    def forward(self, hu: Tensor, log_size: Tensor) -> Tensor:
        """(B, M, S, S), HU, and (B,) to (B, C)."""
        seen = self.windows(hu)
        size = (log_size - TYPICAL_LOG_MM)[:, None, None, None].expand(-1, 1, *seen.shape[2:])
        hidden: Tensor = self.stages(functional.relu(self.stem(torch.cat([seen, size], 1))))
        return hidden.mean((2, 3))


class DetectorFeatures(nn.Module):
    """The backbone of a detector, its levels averaged over the patch, and the lesion's size."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.windows, self.backbone = detector.windows, detector.backbone
        self.slices, self.images = detector.config.slices, detector.images

    def forward(self, hu: Tensor, log_size: Tensor) -> Tensor:
        """(B, M, S, S), HU, S a multiple of the backbone's, and (B,) to (B, levels · C + 1).

        raises   ModelError     another number of slices than the detector looks at
        """
        if hu.shape[1] != self.slices:
            raise ModelError(f"patches of {hu.shape[1]} slices for a network that looks at {self.slices}")
        levels = levels_of(self.backbone, self.windows(hu), self.images)
        return torch.cat([*(level.mean((2, 3)) for level in levels), (log_size - TYPICAL_LOG_MM)[:, None]], 1)
