from __future__ import annotations

import numpy as np
import pytest

from node.dicom.marks.diameters import axes_of_mask, axes_of_polygon
from node.dicom.marks.plane import length_mm


def lengths(axes: object, spacing: tuple[float, float]) -> tuple[float, float]:
    long, short = axes  # type: ignore[misc]
    return length_mm(long, spacing), length_mm(short, spacing)


def test_a_rhombus_has_its_diagonals() -> None:
    """Unequal spacing: 10 columns of .5 mm, 6 rows of 2 mm, so the upright one is the long axis."""
    axes = axes_of_polygon([(0, 3), (5, 0), (10, 3), (5, 6)], (2.0, 0.5))
    assert axes is not None
    assert lengths(axes, (2.0, 0.5)) == pytest.approx((12.0, 5.0))
    assert axes[0] == ((5.0, 0.0), (5.0, 6.0))


def test_the_short_axis_ends_at_the_edge_of_a_hollow() -> None:
    """A notch from above down to y = 2 splits the chord at x = 5; beside it the region is 3 high, the arms are 5."""
    notched = [(0, 0), (4, 5), (4, 2), (6, 2), (6, 5), (10, 0), (10, -1), (0, -1)]
    axes = axes_of_polygon(notched, (1.0, 1.0))
    assert axes is not None
    long, short = axes
    assert sorted(x for x, _ in long) == [0.0, 10.0]
    middle = [(a + b) / 2 for a, b in zip(*short, strict=True)]
    assert not 4.05 < middle[0] < 5.95


@pytest.mark.parametrize("shape", [[(1, 1), (5, 5), (9, 9)], [(1, 1), (5, 1)]])
def test_without_area_there_are_no_axes(shape: list[tuple[float, float]]) -> None:
    assert axes_of_polygon(shape, (1.0, 1.0)) is None


def test_a_block_is_measured_between_the_centres_of_its_pixels() -> None:
    """9 × 5 pixels: the diagonal is √(8² + 4²) long; across it lies 2 · 4 · 8 / diagonal at most of a 8 × 4 block."""
    mask = np.zeros((20, 30), dtype=bool)
    mask[10:15, 5:14] = True
    axes = axes_of_mask(mask, (1.0, 1.0))
    assert axes is not None
    long_mm, short_mm = lengths(axes, (1.0, 1.0))
    assert long_mm == pytest.approx(np.hypot(8, 4))
    assert short_mm == pytest.approx(4 / np.cos(np.arctan(4 / 8)), abs=0.5)


def test_a_disc_has_its_diameter_twice() -> None:
    y, x = np.mgrid[:101, :101]
    mask = (x - 50) ** 2 + (y - 48) ** 2 <= 30**2
    axes = axes_of_mask(mask, (0.5, 0.5))
    assert axes is not None
    assert lengths(axes, (0.5, 0.5)) == pytest.approx((30.0, 30.0), abs=0.5)


@pytest.mark.parametrize("pixels", [[], [(4, 4)], [(4, 4), (4, 5), (4, 6)]], ids=["none", "one", "a line"])
def test_a_mask_no_wider_than_a_line_has_no_axes(pixels: list[tuple[int, int]]) -> None:
    mask = np.zeros((9, 9), dtype=bool)
    for y, x in pixels:
        mask[y, x] = True
    assert axes_of_mask(mask, (1.0, 1.0)) is None
