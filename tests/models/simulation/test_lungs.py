"""Lungs are found, with their vessels and without the airways, and the sharpness of a volume is measured."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from models.simulation.lungs import find_lungs, point_spread_mm

SPACING = (3.0, 1.0, 1.0)


@pytest.fixture(scope="module")
def chest():
    """Two lungs of 32 x 45 mm joined by a bronchus, a trachea, a vessel of 4 mm, gas in the bowel, air around."""
    z, y, x = np.ogrid[-9:10:3, -80:80, -110:110]
    volume = np.where((x / 100) ** 2 + (y / 70) ** 2 < 1, 40, -1000) + 0 * z
    for side in (-1, 1):
        volume = np.where(((x - side * 50) / 32) ** 2 + (y / 45) ** 2 < 1, -850, volume)
    volume = np.where((np.abs(y) < 4) & (np.abs(x) < 30), -1000, volume)
    volume = np.where(x**2 + y**2 < 81, -1000, volume)
    volume = np.where((x - 50) ** 2 + (y - 10) ** 2 < 4, 40, volume)
    volume = np.where((x - 5) ** 2 + (y + 50) ** 2 < 120, -990, volume)
    return volume.astype(np.float32)


@pytest.fixture(scope="module")
def lungs(chest):
    return find_lungs(chest, SPACING)


@pytest.mark.parametrize(
    ("y", "x", "inside"),
    [(0, 50, True), (0, -50, True), (10, 50, True), (0, 0, False), (-50, 5, False), (-79, -109, False), (60, 0, False)],
)
def test_finds_lungs_with_their_vessels_and_no_other_air(lungs, y, x, inside):
    assert lungs.host[3, 80 + y, 110 + x] == inside


def test_distances_are_those_of_the_ellipse(lungs):
    _, y, x = lungs.grid.axes()
    row, column = np.abs(y).argmin(), np.abs(x + 50).argmin()
    assert lungs.pleura_mm[3, row, column] == pytest.approx(32, abs=2.5)
    vessel = np.abs(x - 56).argmin()  # 6 mm beside the middle of the vessel, whose radius is 2
    assert lungs.dense_mm[3, np.abs(y - 10).argmin(), vessel] == pytest.approx(4, abs=2.1)
    assert lungs.pleura_mm[3, np.abs(y - 10).argmin(), vessel] > 15


@pytest.mark.parametrize("sigma", [0.7, 1.0])
def test_measures_the_blur_of_the_volume(chest, sigma):
    """Finely sampled edges of 890 HU blurred by a known Gaussian, with noise."""
    fine = chest.repeat(2, 1).repeat(2, 2)
    spacing = (3.0, 0.5, 0.5)
    blurred = gaussian_filter(fine, (0, sigma / 0.5, sigma / 0.5))
    noisy = blurred + np.random.default_rng(1).normal(0, 8, fine.shape).astype(np.float32)
    assert point_spread_mm(noisy, find_lungs(noisy, spacing), spacing) == pytest.approx(sigma, rel=0.2)


def test_a_phantom_of_water_has_no_lungs():
    assert find_lungs(np.zeros((4, 40, 40), np.float32), SPACING) is None
