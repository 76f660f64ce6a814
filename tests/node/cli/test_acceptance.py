"""What was put in against what is told: by place, with what says nothing left out."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from models.contract import Findings, Lesion, ModelIdentity, SourceRef, Volume
from models.deeplesion.grouping import Axes
from models.lefusion.insert import Inserted
from node.cli.acceptance import (
    Judged,
    Judgement,
    as_data,
    axes_words,
    change_since,
    judge,
    table_of,
    wilson,
)
from node.errors import ConfigurationError

MODEL = ModelIdentity("detector", "1", "0" * 64)
SHAPE, SPACING = (20, 60, 50), (2.0, 0.5, 0.8)


@pytest.fixture
def volume() -> Volume:
    """Head to feet, turned by a right angle in the plane: a place is right only if it goes through the affine."""
    affine = np.zeros((4, 4))
    affine[:3, 0], affine[:3, 1], affine[:3, 2] = (0, 0, -2.0), (0.5, 0, 0), (0, 0.8, 0)
    affine[:, 3] = (-40, 30, 100, 1)
    origins = np.array([(-40, 30, 100 - 2.0 * k) for k in range(SHAPE[0])])
    sources = tuple(SourceRef(f"1.{k}") for k in range(SHAPE[0]))
    return Volume(np.zeros(SHAPE, np.float32), affine, SPACING, origins, sources)


def put_in(centre: tuple[int, int, int], *, diameter: float = 8.0, contrast: float = 400.0, kind: str = "solid"):
    box = tuple(slice(middle - 2, middle + 3) for middle in centre)
    mask = np.ones((5, 5, 5), bool)
    axes = Axes(centre[0], ((0, 0), (1, 0)), ((0, 0), (0, 1)), diameter, diameter - 1)
    middle = tuple(float(value) for value in centre)
    return Inserted(middle, diameter, (diameter,) * 3, axes, contrast, 0.0, kind, kind, 1, box, mask)


def marked(centre: tuple[int, int, int], *, score: float = 0.8, long: float = 9.0) -> Lesion:
    mask = np.zeros(SHAPE, bool)
    mask[tuple(slice(middle - 1, middle + 2) for middle in centre)] = True
    code = ("1", "SCT", "x")
    line = ((0.0, 0.0), (1.0, 0.0))
    return Lesion("id", code, code, None, mask, centre[0], line, line, long, long - 2, 1.0, score, 0.5, MODEL)


def told(*lesions: Lesion) -> Findings:
    return Findings("p", "1", (), lesions=lesions)


def test_a_mark_on_a_lesion_finds_it_and_others_are_false(volume: Volume) -> None:
    truth = [put_in((5, 20, 20)), put_in((14, 40, 30))]
    after = told(marked((5, 21, 20), score=0.6, long=10.5), marked((5, 20, 21), score=0.9), marked((10, 50, 10)))
    judged = judge(truth, volume, after, told(marked((10, 50, 10))))
    assert [lesion.state for lesion in judged.lesions] == ["found", "missed"]
    first, second = judged.lesions
    assert (first.score, first.found_long_mm, first.found_short_mm) == (0.9, 9.0, 7.0)
    assert (second.score, second.found_long_mm) == (None, None)
    assert (judged.false_before, judged.false_after, judged.share) == (1, 1, 0.5)
    assert first.place_mm == (-40 + 0.5 * 20, 30 + 0.8 * 20, 100 - 2.0 * 5)


def test_what_is_near_is_told_in_millimetres_not_voxels(volume: Volume) -> None:
    """Radius 6 mm: three slices away is on it, four is not; in the plane eleven rows are, thirteen are not."""
    truth = [put_in((8, 30, 25), diameter=12.0)]
    for centre, state in (((11, 30, 25), "found"), ((12, 30, 25), "missed"), ((8, 41, 25), "found"),
                          ((8, 43, 25), "missed")):  # fmt: skip
        assert judge(truth, volume, told(marked(centre)), told()).lesions[0].state == state


def test_what_is_marked_without_the_lesion_is_no_find_and_not_counted(volume: Volume) -> None:
    truth = [put_in((5, 20, 20)), put_in((14, 40, 30))]
    both = marked((5, 20, 20))
    judged = judge(truth, volume, told(both, marked((14, 40, 30))), told(both))
    assert [lesion.state for lesion in judged.lesions] == ["marked without it", "found"]
    assert judged.lesions[0].found_long_mm is None
    assert (len(judged.counted), judged.share, judged.false_after) == (1, 1.0, 0)
    nothing = judge(truth[:1], volume, told(), told(both))
    assert math.isnan(nothing.share)
    assert as_data(nothing)["share"] is None
    assert json.loads(json.dumps(as_data(nothing)))["interval"] == [0, 1]


def test_contrast_kept_is_of_what_the_lesion_added(volume: Volume) -> None:
    lesion = put_in((5, 20, 20), contrast=-40.0)
    change = np.zeros(SHAPE, np.float32)
    change[lesion.box] = 10.0
    [judged] = judge([lesion], volume, told(), told(), lesion_change=change).lesions
    assert judged.contrast_kept == pytest.approx(0.75)
    assert judge([lesion], volume, told(), told()).lesions[0].contrast_kept is None


JUDGED = Judged(1, "solid", (1.0, 2.0, 3.0), 5.0, 300.0, 5.0, 4.0, "found", 0.9, 6.0, 3.5, 0.9)


def test_each_lesion_is_in_one_class_of_size_and_one_of_contrast() -> None:
    lesions = [
        replace(JUDGED, long_mm=long, contrast_hu=contrast, state=state)
        for long, contrast, state in (
            (5.9, 199.0, "missed"), (6.0, -200.0, "found"), (10.0, 500.0, "found"), (30.0, -900.0, "marked without it"),
        )
    ]  # fmt: skip
    rows = table_of(Judgement(tuple(lesions), 0, 0), "lungs")
    counts = {row[0]: tuple(row[1:4]) for row in rows}
    assert counts["all"] == (4, 2, 1)
    assert [counts[name] for name in ("below 6 mm", "6 to 10 mm", "from 10 mm")] == [(1, 0, 1), (1, 1, 0), (2, 1, 0)]
    of_contrast = [counts[name] for name in ("below 200 HU", "200 to 500 HU", "from 500 HU")]
    assert of_contrast == [(1, 0, 1), (1, 1, 0), (2, 1, 0)]
    assert rows[0][4].startswith("67 % [")
    assert rows[0][5] == "90 %"


def test_axes_are_told_less_the_truth() -> None:
    other = replace(JUDGED, found_long_mm=4.0, found_short_mm=4.0)
    assert "long +0.0 mm [-1.0, +1.0], short -0.2 mm [-0.5, +0.0]" in axes_words(Judgement((JUDGED, other), 0, 0))
    assert axes_words(Judgement((replace(JUDGED, state="missed", found_long_mm=None),), 0, 0)) == ""


def test_the_interval_is_wilsons() -> None:
    assert wilson(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-3)
    assert wilson(0, 10)[0] == 0
    assert wilson(10, 10)[1] == pytest.approx(1)
    assert wilson(0, 0) == (0, 1)


def test_lost_and_gained_since_an_earlier_run() -> None:
    def of(*states: str) -> Judgement:
        return Judgement(
            tuple(replace(JUDGED, number=n, place_mm=(n, 0.0, 0.0), state=s) for n, s in enumerate(states, 1)), 0, 0
        )

    earlier = json.loads(json.dumps(as_data(of("found", "missed", "found", "marked without it"))))
    change = change_since(earlier, of("missed", "found", "missed", "found"))
    assert (change.lost, change.gained, change.worse) == ((1, 3), (2,), True)
    assert "lost 1, 3; gained 2" in change.words()
    assert not change_since(earlier, of("found", "missed", "found", "missed")).worse
    for other in (of("found"), replace(of("found"), lesions=(replace(JUDGED, place_mm=(1, 0.0, 0.1)),) * 4)):
        with pytest.raises(ConfigurationError, match="other lesions"):
            change_since(earlier, other)
    for broken in ({}, {"lesions": [{}]}, {"lesions": 3}):
        with pytest.raises(ConfigurationError, match="that `accept` wrote"):
            change_since(broken, of("found"))
