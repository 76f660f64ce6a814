"""Pictures of known truth: what a nodule adds is what was put into the chest, and nothing else differs."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, map_coordinates

from models.simulation.drr import View, areal_densities
from models.simulation.radiograph import Exposure
from models.simulation.radiograph_cases import (
    Patient,
    body,
    drr_case,
    fitted,
    nodule_case,
    phantom_drr_case,
    scanned,
)

VIEW = Exposure(
    detector_px=(112, 112),
    pixel_mm=2.4,
    scatter_per_g_cm2=0.0,
    focal_spot_mm=0.0,
    mtf_half_lp_mm=np.inf,
)
"""Coarse, with the primary only."""
SMALL = {"nodules": 2, "view": VIEW, "diameter_mm": (12.0, 25.0), "voxel_zyx_mm": (2.4, 3.0, 2.4)}


@pytest.fixture(scope="module")
def case():
    return nodule_case(4, **SMALL)


@pytest.fixture(scope="module")
def pair():
    """Bare voxels, voxels with nodules, spacing, and each nodule with what it is said to add along the rays."""
    patient = Patient(4, VIEW, SMALL["voxel_zyx_mm"])
    bare = patient.voxels.copy()
    planted = patient.plant(2, SMALL["diameter_mm"])
    return bare, patient.voxels, SMALL["voxel_zyx_mm"], planted


def along_a_ray(density: np.ndarray, spacing_zyx_mm, pixel: tuple[int, int]) -> float:
    """Line integral from the source to a pixel by many points, g/cm²: shares nothing with the projector."""
    v = ((VIEW.detector_px[0] - 1) / 2 - pixel[0]) * VIEW.pixel_mm
    u = (pixel[1] - (VIEW.detector_px[1] - 1) / 2) * VIEW.pixel_mm
    part = np.linspace(0.7, 1.0, 4001)
    y = (VIEW.source_mm - VIEW.gap_mm) - part * VIEW.source_mm
    at = [
        position / step + (n - 1) / 2
        for position, step, n in zip((part * v, y, part * u), spacing_zyx_mm, density.shape, strict=True)
    ]
    step_cm = 0.3 * np.sqrt(VIEW.source_mm**2 + u**2 + v**2) / 4000 / 10
    return float(map_coordinates(density, at, order=1).sum() * step_cm)


def test_what_a_nodule_adds_is_the_line_integral_of_what_was_put_in(pair):
    bare, full, spacing, planted = pair
    more = (full - bare) / 1000
    assert len(planted) == 2
    for nodule, added, bone in planted:
        assert not bone.any()
        row, column, _ = VIEW.shadow(nodule.centre_mm)
        pixel = (round(row), round(column))
        assert added[pixel] > 0.3
        assert added[pixel] == pytest.approx(along_a_ray(more, spacing, pixel), rel=0.02)


def test_planting_adds_up_to_projecting_the_chest_again(pair):
    bare, full, spacing, planted = pair
    before, after = (areal_densities(voxels, spacing, VIEW)[0].numpy() for voxels in (bare, full))
    np.testing.assert_allclose(sum(added for _, added, _ in planted), after - before, atol=2e-4)


def test_the_contrast_of_a_nodule_is_that_of_its_thickness(case):
    """Through the attenuation of water between 50 and 80 keV and the scale of the pictures."""
    per_unit = (case.density_span[1] - case.density_span[0]) / 2
    for truth in case.nodules:
        per_g = truth.contrast * per_unit / truth.areal_g_cm2
        assert 0.18 < per_g < 0.227


def test_nothing_differs_but_the_nodules(case):
    difference = case.picture - case.without
    rows, columns = np.mgrid[:112, :112]
    near = np.zeros(difference.shape, bool)
    for truth in case.nodules:
        away = np.hypot(rows - truth.row, columns - truth.column)
        near |= away < truth.diameter_px + 4
        peak = np.unravel_index(np.argmax(np.where(away < truth.diameter_px, difference, 0)), near.shape)
        assert np.hypot(peak[0] - truth.row, peak[1] - truth.column) < truth.diameter_px / 2
    assert np.abs(difference[~near]).max() < 1e-5
    assert difference[near].max() > 0.02
    assert difference.min() > -1e-5


def test_the_stated_contrast_is_found_at_the_stated_place(case):
    for truth in case.nodules:
        at = map_coordinates(case.picture - case.without, [[truth.row], [truth.column]], order=1)[0]
        assert at == pytest.approx(truth.contrast, rel=0.15)
        assert truth.diameter_px == pytest.approx(truth.nodule.diameter_mm / case.spacing_mm, rel=0.08)


def test_pictures_fill_the_range_and_keep_what_is_beyond(case):
    assert case.without.dtype == case.picture.dtype == np.float32
    assert np.percentile(case.without, 0.5) == pytest.approx(-1.0, abs=1e-3)
    assert np.percentile(case.without, 99.5) == pytest.approx(1.0, abs=1e-3)
    assert case.spacing_mm == pytest.approx(2.4 * 0.9)


def test_same_seed_same_patient_other_seed_another(case):
    again = nodule_case(4, **SMALL)
    np.testing.assert_array_equal(again.picture, case.picture)
    np.testing.assert_array_equal(again.without, case.without)
    assert again.nodules == case.nodules
    other = nodule_case(5, **SMALL)
    assert not np.array_equal(other.without, case.without)


def test_without_nodules_both_pictures_are_one():
    empty = nodule_case(6, **(SMALL | {"nodules": 0}))
    np.testing.assert_array_equal(empty.picture, empty.without)
    assert empty.nodules == ()


def test_scatter_and_focal_spot_lower_the_contrast(case):
    real = nodule_case(4, **(SMALL | {"view": replace(VIEW, scatter_per_g_cm2=0.06, grid_factor=1.0)}))
    for with_scatter, primary in zip(real.nodules, case.nodules, strict=True):
        unit, other = (c.density_span[1] - c.density_span[0] for c in (real, case))
        assert with_scatter.contrast * unit < 0.8 * primary.contrast * other
        assert with_scatter.areal_g_cm2 == primary.areal_g_cm2


def test_the_drr_of_a_phantom_is_softer_and_in_the_same_place():
    """Both with the primary only: scatter would change the greys, and so move the ruler."""
    case = phantom_drr_case(4, **SMALL, ct_spacing_zyx_mm=(6.0, 3.0, 3.0))
    detail = [picture - gaussian_filter(picture, 1.5) for picture in (case.low, case.high)]
    assert detail[0].std() < 0.9 * detail[1].std()
    assert len(case.nodules) == 2
    soft = [gaussian_filter(np.float64(picture), 3)[12:-12, 12:-12] for picture in (case.low, case.high)]
    slopes = np.stack([*(slope.ravel() for slope in np.gradient(soft[1])), soft[1].ravel(), np.ones(soft[1].size)], 1)
    shift = -np.linalg.lstsq(slopes, soft[0].ravel(), rcond=None)[0][:2]
    assert np.abs(shift).max() < 0.1
    assert np.corrcoef(case.low.ravel(), case.high.ravel())[0, 1] > 0.97


def test_a_scan_keeps_the_middle_and_has_the_stated_noise():
    fine = np.full((60, 61, 80), -1000, np.float32)
    fine[20:40, 15:30, 30:60] = 0
    coarse = scanned(fine, (1.0, 2.0, 1.0), (3.0, 1.0, 1.0), np.random.default_rng(2))
    assert coarse.shape == (20, 122, 80)
    density = np.where(gaussian_filter(coarse, 1) > -900, coarse + 1000, 0)
    found = [(density * axis).sum() / density.sum() for axis in np.mgrid[:20, :122, :80]]
    middle = [(n - 1) / 2 for n in coarse.shape]
    placed = [(at - centre) * step for at, centre, step in zip(found, middle, (3.0, 1.0, 1.0), strict=True)]
    assert placed == pytest.approx([29.5 - 29.5, (22.0 - 30.0) * 2, 44.5 - 39.5], abs=0.3)
    assert coarse[:, 80:, :].std() == pytest.approx(30.0, rel=0.02)


def test_the_table_is_not_the_body():
    volume = np.full((12, 96, 96), -1000, np.float32)
    rows, columns = np.mgrid[:96, :96]
    volume[:, np.hypot(rows - 40, columns - 48) < 30] = 40
    volume[:, np.hypot(rows - 40, columns - 48) < 15] = -850
    volume[:, 84:88] = 100
    inside = body(volume)
    assert inside[:, np.hypot(rows - 40, columns - 48) < 30].all()
    assert not inside[:, 80:].any()
    with_table, masked = (drr_case(volume, (4.0, 4.0, 4.0), masked=mask, view=VIEW).low for mask in (False, True))
    assert not np.allclose(with_table, masked)
    assert body(np.full((4, 16, 16), -1000, np.float32)).all()


def test_a_fitted_view_sees_no_ray_that_leaves_by_the_top():
    shape, spacing = (40, 60, 50), (5.0, 4.0, 5.0)
    view = fitted(View(pixel_mm=2.0), shape, spacing)
    soft, _ = areal_densities(np.zeros(shape, np.float32), spacing, view)
    assert 24.0 * 0.995 < soft.min() < soft.max() < 24.0 * 1.02
    larger = replace(view, detector_px=(view.detector_px[0] + 8, view.detector_px[1]))
    assert areal_densities(np.zeros(shape, np.float32), spacing, larger)[0].min() < 23.0


def test_a_small_field_gets_no_more_nodules_than_fit():
    tiny = replace(VIEW, detector_px=(40, 40))
    case = nodule_case(3, nodules=30, view=tiny, diameter_mm=(10.0, 25.0), voxel_zyx_mm=(3.0, 3.0, 3.0))
    assert len(case.nodules) < 30
    for number, one in enumerate(case.nodules):
        for other in case.nodules[:number]:
            assert np.hypot(one.row - other.row, one.column - other.column) > (one.diameter_px + other.diameter_px) / 2
