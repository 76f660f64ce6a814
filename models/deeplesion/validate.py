"""Whole validation cases through the detector: calibrates its score, sets its operating point, measures its masks.

source: none; findings are compared with the planted truth voxel by voxel
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from models.contract import Acquisition, BoolArray, SourceRef, Volume
from models.deeplesion.calibrate import OVERLAP, Judged, at, calibrated, operating_point, platt
from models.deeplesion.config import DataConfig, DeepLesionConfig
from models.deeplesion.grouping import Region
from models.deeplesion.network import Detector
from models.deeplesion.run import Found, find
from models.deeplesion.samples import FAMILIES, LabelledVolume, draw_labelled, draw_seed, scanned
from models.simulation.cases import PlantedLesion

OnProgress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class Comparison:
    """One case: which findings are lesions, and how well those found are drawn (by the surest finding of each)."""

    judged: Judged
    dice: tuple[float, ...]
    volume_ratio: tuple[float, ...]


def cases_for_validation(config: DataConfig, test_families: Sequence[str], seed: int) -> Iterator[LabelledVolume]:
    """The drawn patients that the samples keep for validation, whole, each at a random dose."""
    for family in FAMILIES:
        if family in test_families:
            continue
        for number in range(config.validation_every - 1, config.cases, config.validation_every):
            name = f"{family}.{number:03d}"
            drawn = draw_labelled(family, name, config, draw_seed(name, seed))
            yield scanned(drawn, config, draw_seed(f"{name}/validation", seed))


def calibrate(
    network: Detector, config: DeepLesionConfig, *, seed: int, on_progress: OnProgress | None = None
) -> dict[str, Any]:
    """Set the network's calibration and operating point from validation cases; what was measured is returned."""
    network.calibration.copy_(torch.tensor([1.0, 0.0]))
    cases = list(cases_for_validation(config.data, config.test_families, seed))
    compared = []
    for done, case in enumerate(cases):
        compared.append(compare(find(network, as_volume(case), config=config.run), case))
        if on_progress is not None:
            on_progress(done + 1, len(cases))
    judged = [one.judged for one in compared]
    slope, intercept = platt(
        [score for case in judged for score in case.scores], [hit for case in judged for hit in case.hits]
    )
    point = operating_point(judged, most_false_per_case=config.data.most_false_per_case)
    network.calibration.copy_(torch.tensor([slope, intercept]))
    network.operating_point.fill_(calibrated(point.score, slope, intercept))
    dice = [value for one in compared for value in one.dice]
    ratio = [value for one in compared for value in one.volume_ratio]
    return {
        "cases": len(cases),
        "lesions": sum(len(case.best) for case in judged),
        "operating_point": asdict(point),
        "sensitivity_at_false_per_case": {
            str(limit): operating_point(judged, most_false_per_case=limit).sensitivity for limit in (0.5, 1, 2, 4)
        },
        "sensitivity_below_10_mm": _below(judged, point.score, 10.0),
        "everything": asdict(at(judged, 0.0)),
        "dice_median": float(np.median(dice)) if dice else None,
        "volume_ratio_median": float(np.median(ratio)) if ratio else None,
        "calibration": [slope, intercept],
    }


def compare(found: Sequence[Found], case: LabelledVolume) -> Comparison:
    """Findings and truth: a finding is a lesion where they share `OVERLAP` of the smaller's voxels."""
    hits = [False] * len(found)
    best: list[float] = []
    dice: list[float] = []
    ratio: list[float] = []
    for lesion in case.lesions:
        shared = [shared_voxels(one.region, lesion) for one in found]
        sizes = [(int(one.region.mask.sum()), int(lesion.mask.sum())) for one in found]
        met = [number for number, pair in enumerate(sizes) if shared[number] >= OVERLAP * min(pair)]
        for number in met:
            hits[number] = True
        best.append(max((found[number].score for number in met), default=float("nan")))
        if met:
            first = max(met, key=lambda number: found[number].score)
            dice.append(2 * shared[first] / sum(sizes[first]))
            ratio.append(sizes[first][0] / sizes[first][1])
    diameters = tuple(lesion.diameter_mm for lesion in case.lesions)
    judged = Judged(tuple(one.score for one in found), tuple(hits), diameters, tuple(best))
    return Comparison(judged, tuple(dice), tuple(ratio))


def shared_voxels(region: Region, lesion: PlantedLesion) -> int:
    """Voxels in both."""
    low = [max(one.start, other.start) for one, other in zip(region.box, lesion.box, strict=True)]
    high = [min(one.stop, other.stop) for one, other in zip(region.box, lesion.box, strict=True)]
    if any(first >= last for first, last in zip(low, high, strict=True)):
        return 0
    parts: list[BoolArray] = []
    for box, mask in ((region.box, region.mask), (lesion.box, lesion.mask)):
        z, y, x = (
            slice(first - part.start, last - part.start) for part, first, last in zip(box, low, high, strict=True)
        )
        parts.append(mask[z, y, x])
    return int(np.sum(parts[0] & parts[1]))


def as_volume(case: LabelledVolume) -> Volume:
    """The case as the node would read it: feet to head, anterior first, the patient's right first."""
    z, y, x = case.spacing_zyx_mm
    affine = np.zeros((4, 4))
    affine[0, 2], affine[1, 1], affine[2, 0], affine[3, 3] = x, y, z, 1
    origins = np.zeros((len(case.hu), 3))
    origins[:, 2] = np.arange(len(case.hu)) * z
    sources = tuple(SourceRef(f"{case.patient}.{number}") for number in range(len(case.hu)))
    return Volume(case.hu, affine, case.spacing_zyx_mm, origins, sources, Acquisition(modality="CT"))


def _below(cases: Sequence[Judged], score: float, diameter_mm: float) -> float | None:
    """Sensitivity at this score for the lesions smaller than this; None without any."""
    chosen = [
        best >= score
        for case in cases
        for best, diameter in zip(case.best, case.diameters_mm, strict=True)
        if diameter < diameter_mm
    ]
    return float(np.mean(chosen)) if chosen else None
