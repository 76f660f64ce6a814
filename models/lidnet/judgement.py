"""What a denoised slice is worth: to detectors, and measured with rulers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby, islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt
from torch import nn

from models.contract import BoolArray, FloatArray
from models.deeplesion.config import CURVE_LEAST_SCORE, SPACING_MM
from models.deeplesion.network import Detections, Detector
from models.evaluation.matching import Outcome, Reading, match
from models.evaluation.metrics import SOFT_TISSUE, psnr, ssim
from models.lidnet.collaborate import denoise_stack, half_precision
from models.lidnet.joint import JointSample, load_joint

RING_MM = (2.0, 5.0)
JUDGED_AT_ONCE = 4


@dataclass
class Measured:
    """One method at one dose: outcomes of each detector, by its name, and numbers per patient."""

    outcomes: dict[str, list[Outcome]] = field(default_factory=lambda: defaultdict(list))
    numbers: dict[str, dict[str, list[float]]] = field(default_factory=lambda: defaultdict(partial(defaultdict, list)))

    def add(self, other: Measured) -> None:
        """The same method, measured on another training."""
        for name, outcomes in other.outcomes.items():
            self.outcomes[name] += outcomes
        for name, values in other.numbers.items():
            for patient, more in values.items():
                self.numbers[name][patient] += more


Doses = dict[float, Measured]
"""One method at each dose fraction."""


@torch.no_grad()
def judge_on(
    denoiser: nn.Module | None,
    detectors: Mapping[str, Detector],
    tested: Sequence[Path],
    fractions: Sequence[float],
    *,
    side_px: int | None = None,
) -> Doses:
    """Detectors, and rulers, on samples as this denoiser shows them, None for as they are, at each dose.

    side_px     None: on whole slices; else on squares of so many pixels, around a lesion where there is one
    """
    device = next(iter(detectors.values())).calibration.device
    doses: Doses = {fraction: Measured() for fraction in fractions}
    for samples in _alike(tested, side_px):
        for fraction, into in doses.items():
            low = [torch.from_numpy(sample.low(fraction))[None].to(device) for sample in samples]
            shown = torch.cat(low if denoiser is None else [_denoised(denoiser, hu) for hu in low])
            for name, detector in detectors.items():
                found = detector.detect(shown, masks=False, least_score=CURVE_LEAST_SCORE)
                into.outcomes[name] += map(_outcome, samples, found)
            keys = shown[:, shown.shape[1] // 2].cpu().numpy()
            for sample, key in zip(samples, keys, strict=True):
                for measure, value in compare(key, sample).items():
                    into.numbers[measure][sample.patient].append(value)
    return doses


def _outcome(sample: JointSample, found: Detections) -> Outcome:
    """What touches a lesion that the slice only grazes is neither right nor wrong."""
    boxes, scores = found.boxes.cpu().numpy(), found.scores.cpu().numpy().astype(np.float64)
    truth = _last_inside(np.concatenate([sample.boxes, sample.ignore]))
    outcome = match(Reading(sample.patient, truth, _last_inside(boxes), scores))
    return outcome.only(np.arange(len(truth)) < len(sample.boxes))


def _alike(files: Sequence[Path], side_px: int | None) -> Iterator[list[JointSample]]:
    """The samples in their order, at most so many at once, all of one shape."""
    whole = map(load_joint, files)
    shown = whole if side_px is None else (sample.square(side_px) for sample in whole)
    for _, samples in groupby(shown, lambda sample: sample.full.shape):
        while some := list(islice(samples, JUDGED_AT_ONCE)):
            yield some


def _denoised(denoiser: nn.Module, hu: torch.Tensor) -> torch.Tensor:
    with half_precision(hu.device):
        return _padded(denoiser, hu)


def _padded(denoiser: nn.Module, hu: torch.Tensor) -> torch.Tensor:
    """(1, M, H, W) of any size through a denoiser that wants multiples."""
    multiple = int(getattr(denoiser, "multiple", 1))
    height, width = hu.shape[-2:]
    padded = nn.functional.pad(hu, (0, -width % multiple, 0, -height % multiple), mode="reflect")
    return denoise_stack(denoiser, padded)[..., :height, :width]


def _last_inside(boxes: FloatArray) -> NDArray[np.float64]:
    """Boxes whose x2, y2 are edges, to boxes whose x2, y2 are the last pixel inside, as the protocol counts."""
    return boxes.astype(np.float64).reshape(-1, 4) - (0, 0, 1, 1)


def compare(image: FloatArray, sample: JointSample) -> Mapping[str, float]:
    """Key slice (Y, X) against the full dose.

    PSNR of the body; in the lesions' boxes RMSE and SSIM; of the lesions CNR, and how far their mean, and their
    contrast to the ring around them, are from the full dose's: more contrast is positive, bright or dark.
    """
    reference = sample.full[len(sample.full) // 2]
    boxes = np.zeros(image.shape, bool)
    squares = []
    for rows, columns in map(_inside, sample.boxes):
        boxes[rows, columns] = True
        squares.append((image - reference)[rows, columns].astype(np.float64).ravel() ** 2)
    masks = [sample.labels == number + 1 for number in range(len(sample.boxes))]
    ours, theirs = ([_spot(shown, mask) for mask in masks] for shown in (image, reference))
    pairs = list(zip(ours, theirs, strict=True))
    return {
        "PSNR (dB)": psnr(image, reference, window=SOFT_TISSUE, where=sample.body),
        "ROI RMSE (HU)": float(np.sqrt(np.concatenate(squares).mean())) if squares else float("nan"),
        "ROI SSIM": ssim(image, reference, window=SOFT_TISSUE, where=boxes) if boxes.any() else float("nan"),
        "CNR": _mean([abs(spot.contrast) / spot.spread for spot in ours if spot.spread > 0]),
        "lesion bias (HU)": _mean([own.mean - full.mean for own, full in pairs]),
        "lesion contrast (HU)": _mean(
            [float(np.sign(full.contrast)) * (own.contrast - full.contrast) for own, full in pairs]
        ),
    }


@dataclass(frozen=True)
class _Spot:
    """A lesion: its mean, the mean and the standard deviation of the ring around it, HU."""

    mean: float
    around: float
    spread: float

    @property
    def contrast(self) -> float:
        return self.mean - self.around


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else float("nan")


def _inside(box: FloatArray) -> tuple[slice, slice]:
    x1, y1, x2, y2 = (round(float(value)) for value in box)
    return slice(y1, y2), slice(x1, x2)


def _spot(image: FloatArray, inside: BoolArray) -> _Spot:
    near = _around(inside, int(np.ceil(RING_MM[1] / SPACING_MM)))
    image, inside = image[near], inside[near]
    distance = distance_transform_edt(~inside, sampling=SPACING_MM)
    ring = image[(distance >= RING_MM[0]) & (distance <= RING_MM[1])]
    return _Spot(float(image[inside].mean()), float(ring.mean()), float(ring.std()))


def _around(inside: BoolArray, margin_px: int) -> tuple[slice, slice]:
    """The smallest rectangle that holds the mask and a margin around it."""
    rows, columns = (np.flatnonzero(inside.any(axis)) for axis in (1, 0))
    return (
        slice(max(rows[0] - margin_px, 0), rows[-1] + margin_px + 1),
        slice(max(columns[0] - margin_px, 0), columns[-1] + margin_px + 1),
    )
