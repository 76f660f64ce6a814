"""Detections to lesions: who belongs together, and axes that are right on known shapes."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.deeplesion.grouping import Region, SliceFinding, Track, axes_of, group, paste, region_of, thickness_of

POSITIONS = np.arange(40) * 2.0
RULES = {"link_iou": 0.3, "gap_mm": 4.5}


def finding(index: int, box=(10.0, 10.0, 30.0, 30.0), score=0.5, categories=(0.5, 0.1), mask=None) -> SliceFinding:
    filled = np.ones((28, 28), np.float32) if mask is None else mask
    return SliceFinding(index, box, score, np.array(categories, np.float32), filled)


def slices_of(tracks: list[Track]) -> list[list[int]]:
    return sorted([one.index for one in track.findings] for track in tracks)


def test_a_lesion_may_be_lost_from_sight_for_one_slice_but_not_for_two():
    assert slices_of(group([finding(k) for k in (3, 4, 6)], POSITIONS, **RULES)) == [[3, 4, 6]]
    assert slices_of(group([finding(k) for k in (3, 4, 7)], POSITIONS, **RULES)) == [[3, 4], [7]]


def test_thick_neighbouring_slices_are_linked_however_far_apart():
    assert slices_of(group([finding(k) for k in (3, 4)], np.arange(40) * 8.0, **RULES)) == [[3, 4]]
    assert slices_of(group([finding(k) for k in (3, 5)], np.arange(40) * 8.0, **RULES)) == [[3], [5]]


def test_two_lesions_side_by_side_stay_two():
    near, far = (10.0, 10.0, 30.0, 30.0), (60.0, 10.0, 80.0, 30.0)
    tracks = group([finding(k, box) for k in (3, 4, 5) for box in (near, far)], POSITIONS, **RULES)
    assert slices_of(tracks) == [[3, 4, 5], [3, 4, 5]]
    assert {track.findings[0].box for track in tracks} == {near, far}
    assert all(len({one.box for one in track.findings}) == 1 for track in tracks)


def test_the_closer_of_two_goes_on_the_other_begins_anew():
    tracks = group(
        [finding(3), finding(4, (18.0, 10.0, 38.0, 30.0)), finding(4, (11.0, 10.0, 31.0, 30.0))], POSITIONS, **RULES
    )
    assert slices_of(tracks) == [[3, 4], [4]]
    long = next(track for track in tracks if len(track.findings) == 2)
    assert long.findings[1].box[0] == 11


@given(st.permutations([(3, 0), (4, 0), (5, 0), (3, 1), (4, 1), (9, 0)]))
def test_the_order_of_detections_does_not_matter(order):
    boxes = [(10.0, 10.0, 30.0, 30.0), (60.0, 10.0, 80.0, 30.0)]
    tracks = group([finding(index, boxes[which]) for index, which in order], POSITIONS, **RULES)
    assert slices_of(tracks) == [[3, 4], [3, 4, 5], [9]]


def test_a_lesion_has_its_surest_slices_score_and_the_category_of_all_slices():
    track = Track([finding(1, score=0.6, categories=(0.5, 0.1)), finding(2, score=0.9, categories=(0.3, 0.6))])
    assert track.score == 0.9
    assert track.category == 0  # 0.8 against 0.7


def test_no_detections_no_lesions():
    assert group([], POSITIONS, **RULES) == []


def test_a_mask_is_laid_into_its_box():
    """Left half of the box: pixels whose centre lies in it, nothing outside."""
    mask = np.zeros((28, 28), np.float32)
    mask[:, :14] = 1
    pasted = paste(finding(0, (2.0, 4.0, 10.0, 8.0), mask=mask), slice(0, 12), slice(0, 12))
    inside = pasted >= 0.5
    assert inside[4:8, 2:6].all()
    assert inside.sum() == 16


def test_slices_between_are_interpolated_and_only_the_largest_piece_is_kept():
    small, large = np.zeros((28, 28), np.float32), np.ones((28, 28), np.float32)
    small[:3, :3] = 1
    small[14:, 14:] = 1
    region = region_of(Track([finding(4, mask=large), finding(6, mask=small)]), (40, 50, 50), range(40))
    assert region.box == (slice(4, 7), slice(10, 30), slice(10, 30))
    assert region.mask[0].all()
    assert region.mask[1].all()  # (1 + 0) / 2 reaches one half
    apart = region_of(Track([finding(6, mask=small)]), (40, 50, 50), range(40))
    assert not apart.mask[0, :5, :5].any()
    assert apart.mask[0, 11:, 11:].all()


def test_a_faint_mask_still_has_voxels():
    region = region_of(Track([finding(4, mask=np.full((28, 28), 0.2, np.float32))]), (40, 50, 50), range(40))
    assert region.mask.any()
    assert region.volume_mm3(POSITIONS, (0.5, 0.5)) == region.mask.sum() * 0.5


def test_each_voxel_is_as_thick_as_the_way_between_its_neighbours():
    region = region_of(Track([finding(k) for k in (1, 2, 3)]), (5, 50, 50), range(5))
    assert region.volume_mm3(np.array([0.0, 1, 2, 7, 12]), (0.5, 0.5)) == 20 * 20 * 0.25 * (1 + 3 + 5)
    assert thickness_of(np.array([0.0, 1, 6])).tolist() == [1, 3, 5]
    assert thickness_of(np.array([3.0])).tolist() == [1]


@pytest.mark.parametrize("step", [1, 2, 3, 4, 5])
def test_a_lesion_reaches_half_the_way_to_the_next_slice_that_was_looked_at(step):
    """Sum of its key slices' areas times their distance, whatever was passed over between them."""
    keys = range(0, 40, step)
    seen = [finding(keys[2]), finding(keys[3])]
    region = region_of(Track(seen), (40, 50, 50), keys)
    assert region.mask.all()
    assert len(region.mask) == 2 * step
    alone = region_of(Track(seen[:1]), (40, 50, 50), keys)
    assert len(alone.mask) == step
    assert region_of(Track([finding(0)]), (40, 50, 50), [0]).box[0] == slice(0, 1)


def ellipse(a_mm: float, b_mm: float, angle: float, spacing: tuple[float, float]) -> Region:
    """One slice, (mm, mm) half axes; the probability falls from 1 to 0 over two pixels around the rim."""
    down, across = spacing
    y, x = np.mgrid[:120, :120].astype(np.float64)
    v, u = (y - 60.3) * down, (x - 58.8) * across
    along, beside = u * math.cos(angle) + v * math.sin(angle), v * math.cos(angle) - u * math.sin(angle)
    level = np.hypot(along / a_mm, beside / b_mm)
    soft = np.clip(0.5 + (1 - level) * min(a_mm, b_mm) / (2 * max(spacing)), 0, 1).astype(np.float32)
    return Region((slice(7, 8), slice(100, 220), slice(30, 150)), (soft >= 0.5)[None], soft[None], 0.5)


@pytest.mark.parametrize("spacing", [(0.8, 0.8), (0.6, 0.9)])
@pytest.mark.parametrize("angle", [0.0, 0.4, 1.2, math.pi / 2])
@pytest.mark.parametrize(("a", "b"), [(20.0, 12.0), (9.0, 6.0), (15.0, 14.0)])
def test_axes_of_an_ellipse(a, b, angle, spacing):
    axes = axes_of(ellipse(a, b, angle, spacing), (3.0, *spacing))
    assert axes.index == 7
    assert axes.long_mm == pytest.approx(2 * a, abs=0.15)
    assert axes.short_mm == pytest.approx(2 * b, abs=0.25)
    (x1, y1), (x2, y2) = axes.long_px
    assert ((x1 + x2) / 2, (y1 + y2) / 2) == pytest.approx((88.8, 160.3), abs=0.6)
    scale = np.array([spacing[1], spacing[0]])
    long, short = ((np.subtract(*ends)) * scale for ends in (axes.long_px, axes.short_px))
    assert np.linalg.norm(long) == pytest.approx(axes.long_mm)
    assert np.linalg.norm(short) == pytest.approx(axes.short_mm)
    assert long @ short == pytest.approx(0, abs=1e-6)


def test_axes_of_pixels_reach_from_edge_to_edge():
    """A bar of 7 by 3 pixels: outlines lie half a pixel beyond the outermost centres."""
    soft = np.zeros((1, 10, 12), np.float32)
    soft[0, 4:7, 2:9] = 1
    axes = axes_of(Region((slice(0, 1), slice(0, 10), slice(0, 12)), soft > 0, soft, 0.5), (1.0, 1.0, 1.0))
    assert axes.long_mm == pytest.approx(math.hypot(7, 2))  # corners are cut: from (1.5, 4) to (8.5, 6)
    one = np.zeros((1, 5, 5), np.float32)
    one[0, 2, 2] = 1
    alone = axes_of(Region((slice(3, 4), slice(0, 5), slice(0, 5)), one > 0, one, 0.5), (1.0, 2.0, 2.0))
    assert (alone.long_mm, alone.short_mm) == pytest.approx((2.0, 2.0))


def test_the_slice_with_the_largest_diameter_is_measured():
    soft = np.zeros((3, 20, 20), np.float32)
    soft[0, 5:10, 5:10] = 1
    soft[1, 5:10, 5:15] = 1
    soft[2, 5:9, 5:9] = 1
    axes = axes_of(Region((slice(8, 11), slice(0, 20), slice(0, 20)), soft > 0, soft, 0.5), (1.0, 1.0, 1.0))
    assert axes.index == 9


@pytest.mark.parametrize(
    ("places", "long_mm", "short_mm"),
    [([(2, 2)], 1, 1), ([(2, 2), (2, 3), (2, 4)], 3, 1), ([(1, 1), (2, 2), (3, 3)], math.hypot(3, 3), 1)],
)
def test_voxels_exactly_at_the_level_have_axes_too(places, long_mm, short_mm):
    """Their outline runs through their centres: a point or a line, of which no hull can be made."""
    soft = np.zeros((1, 6, 6), np.float32)
    for y, x in places:
        soft[0, y, x] = 0.5
    axes = axes_of(Region((slice(0, 1), slice(0, 6), slice(0, 6)), soft >= 0.5, soft, 0.5), (1.0, 1.0, 1.0))
    assert axes.long_mm == pytest.approx(long_mm, rel=0.35)
    assert 0 < axes.short_mm <= axes.long_mm
    assert axes.short_mm == pytest.approx(short_mm, rel=0.5)
