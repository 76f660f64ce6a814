import math

import numpy as np
import pytest

from models.contract import ModelError
from models.evaluation.matching import Reading, iou, match, match_centres

from .readings import A, B, reading


def test_areas_count_both_corners() -> None:
    # 10 × 10 and 10 × 5 px: 50 / 100. Without the +1: 36 / 81 = .44.
    assert iou(np.array([A]), np.array([(0.0, 0.0, 9.0, 4.0), B])).tolist() == [[0.5, 0.0]]


def test_half_overlap_is_a_hit_for_froc_and_none_for_accuracy() -> None:
    half = reading([A], [((0.0, 0.0, 9.0, 4.0), 0.9)])
    assert match(half).found_at.tolist() == [0.9]
    assert match(half, strict=True).found_at.tolist() == [-math.inf]
    assert match(half, strict=True).false.tolist() == [0.9]


@pytest.mark.parametrize(
    ("boxes", "scores"),
    [([A], []), ([A], [math.nan]), ([(0.0, 0.0, math.inf, 9.0)], [0.5]), ([(0.0, 0.0, 9.0)], [0.5])],
)
def test_detections_that_cannot_be_read_are_refused(boxes: list[tuple[float, ...]], scores: list[float]) -> None:
    with pytest.raises(ModelError, match="reading"):
        Reading("p", np.array([A]), np.array(boxes), np.array(scores))


def test_a_lesion_goes_to_the_nearest_free_detection() -> None:
    # The surest touches both and takes the nearer; the other is left for the second, which touches it alone.
    low, high = (0.0, 0.0, 9.0, 9.0), (0.0, 3.0, 9.0, 12.0)
    outcome = match(reading([low, high], [((0.0, 1.0, 9.0, 10.0), 0.9), ((0.0, 5.0, 9.0, 14.0), 0.8)]))
    assert outcome.lesion.tolist() == [0, 1]
    assert outcome.right.tolist() == [True, True]


def test_centres_within_the_reach_are_hits_in_three_dimensions() -> None:
    outcome = match_centres(
        "p",
        np.array([(0.0, 0, 3), (0, 0, 5.1), (10, 0, 0)]),
        np.array([0.2, 0.9, 0.6]),
        np.array([(0.0, 0, 0), (10, 4, 0)]),
        [5.0, 4.0],
    )
    assert outcome.found_at.tolist() == [0.2, 0.6]
    assert outcome.found_rank.tolist() == [3, 2]
    assert outcome.false.tolist() == [0.9]


@pytest.mark.parametrize("reach", [[0.0], [1.0, 2.0], [math.nan]])
def test_an_impossible_reach_is_refused(reach: list[float]) -> None:
    with pytest.raises(ModelError):
        match_centres("p", np.zeros((1, 3)), np.zeros(1), np.zeros((1, 3)), reach)
