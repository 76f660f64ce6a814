"""Which detections touch which lesions, on an image or in a scan: what FROC and accuracy are counted from.

Source: the evaluation of 3DCE and MULAN (arXiv 1806.09648, 1908.04373), which the literature on DeepLesion shares.

A detection that touches no lesion is a false positive. A lesion is found as soon as one detection touches it: a second
one there counts for nothing, and one detection may find two lesions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.contract import BoolArray, ModelError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

IOU = 0.5
NEVER = np.iinfo(np.int64).max
"""Rank of a lesion that no detection touches."""


@dataclass(frozen=True, eq=False)
class Reading:
    """One image: what is there, and what was detected.

    patient     key that stands for the patient
    truth       (L, 4), boxes: (D, 4): x1, y1, x2, y2 in pixels, both corners inside the box
    scores      (D,), higher is surer
    raises      ModelError      shapes do not fit, or a number is not finite
    """

    patient: str
    truth: Floats
    boxes: Floats
    scores: Floats

    def __post_init__(self) -> None:
        for name, width in (("truth", (4,)), ("boxes", (4,)), ("scores", ())):
            array = np.asarray(getattr(self, name), np.float64)
            array = array.reshape(0, *width) if array.size == 0 else array
            if array.shape[1:] != width or array.ndim != 1 + len(width) or not np.isfinite(array).all():
                raise ModelError(f"{name} of a reading: shape {array.shape}, or numbers that are not finite")
            object.__setattr__(self, name, array)
        if len(self.boxes) != len(self.scores):
            raise ModelError(f"a reading has {len(self.boxes)} boxes and {len(self.scores)} scores")


@dataclass(frozen=True, eq=False)
class Outcome:
    """One image or scan after matching; all that the measures need of it.

    found_at    (L,) highest score of a detection that touches the lesion, −inf where none does
    found_rank  (L,) place of the first such detection among the image's, from 1; NEVER where none does
    false       (F,) scores of detections that touch nothing
    scores      (D,) all, descending
    lesion      (D,) which lesion the detection is judged on, −1 where it touches none
    right       (D,) whether it is the first there (for average precision, where one detection finds one lesion)
    """

    patient: str
    found_at: Floats
    found_rank: Ints
    false: Floats
    scores: Floats
    lesion: Ints
    right: BoolArray

    def only(self, lesions: BoolArray) -> Outcome:
        """With a part of the lesions (L,), all false positives, and nothing that is on one of the others."""
        counts = np.append(lesions, True)[self.lesion]
        number = np.append(np.cumsum(lesions) - 1, -1)[self.lesion]
        return Outcome(
            patient=self.patient,
            found_at=self.found_at[lesions],
            found_rank=self.found_rank[lesions],
            false=self.false,
            scores=self.scores[counts],
            lesion=number[counts],
            right=self.right[counts],
        )


def iou(boxes: Floats, others: Floats) -> Floats:
    """Intersection over union (D, L), corners inside the boxes: a side is x2 − x1 + 1."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    shared = np.clip(high - low + 1, 0, None).prod(-1)
    areas = [(box[:, 2:] - box[:, :2] + 1).prod(-1) for box in (boxes, others)]
    overlap: Floats = shared / (areas[0][:, None] + areas[1][None, :] - shared)
    return overlap


def match(reading: Reading, *, overlap: float = IOU, strict: bool = False) -> Outcome:
    """Detections touch a lesion from this IoU on (strict: above it).

    Among equal scores, boxes go by x1, y1, x2, y2: a rank that knows nothing of the truth.
    """
    order = np.lexsort((*reading.boxes.T[::-1], -reading.scores))
    closeness = iou(reading.boxes[order], reading.truth)
    return _outcome(reading.patient, reading.scores[order], closeness, overlap, strict)


def match_centres(
    patient: str, centres_mm: Floats, scores: Floats, truth_mm: Floats, reach_mm: Floats | Sequence[float]
) -> Outcome:
    """One scan: a detection touches a lesion where its centre lies no further than `reach_mm` from the lesion's.

    centres_mm  (D, 3)      scores  (D,)
    truth_mm    (L, 3), none for a scan without lesions      reach_mm  (L,), its radius, say
    raises      ModelError      shapes do not fit, a number is not finite, or a reach is not positive
    """
    centres, truth = (np.asarray(points, np.float64).reshape(-1, 3) for points in (centres_mm, truth_mm))
    values, reach = (np.asarray(numbers, np.float64).reshape(-1) for numbers in (scores, reach_mm))
    if len(centres) != len(values) or len(truth) != len(reach):
        raise ModelError(f"{len(centres)} centres, {len(values)} scores; {len(truth)} lesions, {len(reach)} reaches")
    if not all(np.isfinite(array).all() for array in (centres, truth, values, reach)) or np.any(reach <= 0):
        raise ModelError("a centre, score or reach of a scan is not finite, or a reach not positive")
    order = np.lexsort((*centres.T[::-1], -values))
    distance = np.linalg.norm(centres[order, None] - truth[None], axis=-1)
    return _outcome(patient, values[order], 1 - distance / reach, 0.0, False)


def _outcome(patient: str, scores: Floats, closeness: Floats, limit: float, strict: bool) -> Outcome:
    """scores (D,) descending, closeness (D, L)."""
    touches = closeness > limit if strict else closeness >= limit
    found = touches.any(0)
    first = touches.argmax(0) if len(scores) else np.zeros(closeness.shape[1], np.int64)
    padded = np.append(scores, -np.inf)
    lesion, right = _one_to_one(touches, closeness)
    return Outcome(
        patient=patient,
        found_at=padded[np.where(found, first, len(scores))],
        found_rank=np.where(found, first + 1, NEVER).astype(np.int64),
        false=scores[~touches.any(1)],
        scores=scores,
        lesion=lesion,
        right=right,
    )


def _one_to_one(touches: BoolArray, closeness: Floats) -> tuple[Ints, BoolArray]:
    """The lesion of every detection, best first: the closest that no better one has taken, else the closest."""
    lesion = np.full(len(touches), -1, np.int64)
    right = np.zeros(len(touches), bool)
    free = np.ones(touches.shape[1], bool)
    for index in np.flatnonzero(touches.any(1)):
        right[index] = (touches[index] & free).any()
        candidates = np.flatnonzero(touches[index] & free if right[index] else touches[index])
        lesion[index] = candidates[closeness[index, candidates].argmax()]
        free[lesion[index]] = False
    return lesion, right
