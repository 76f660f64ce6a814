"""Cases: what is planted is where, as large and as dense as the truth says, and nothing else has changed."""

import numpy as np
import pytest
from scipy import ndimage

from models.contract import ModelError
from models.simulation.cases import SCENES, draw_case, plant_in

SMALL = {"shape_zyx": (10, 192, 192), "spacing_zyx_mm": (3.0, 2.0, 2.0)}


@pytest.fixture(scope="module", params=SCENES)
def cases(request):
    return [draw_case(request.param, seed=seed, lesions=5, **SMALL) for seed in range(2)]


@pytest.fixture(scope="module")
def healthy(cases):
    """The same patients without lesions."""
    return [draw_case(case.family, seed=seed, lesions=0, **SMALL) for seed, case in enumerate(cases)]


def test_the_truth_lies_in_the_volume_and_is_not_empty(cases):
    for case in cases:
        assert case.voxels.dtype == np.float32
        assert np.isfinite(case.voxels).all()
        for lesion in case.lesions:
            assert lesion.mask.shape == case.voxels[lesion.box].shape
            assert lesion.mask.sum() >= 4
            index = [round(mm / step) for mm, step in zip(lesion.centre_mm, case.spacing_zyx_mm, strict=True)]
            assert all(part.start <= i < part.stop for part, i in zip(lesion.box, index, strict=True))
    assert sum(len(case.lesions) for case in cases) >= 8


def test_the_mask_has_about_the_volume_of_the_stated_diameter(cases):
    voxel = np.prod(SMALL["spacing_zyx_mm"])
    for lesion in (lesion for case in cases for lesion in case.lesions if lesion.diameter_mm > 14):
        assert lesion.mask.sum() * voxel == pytest.approx(np.pi / 6 * lesion.diameter_mm**3, rel=0.3)


def test_a_lesion_differs_from_its_surroundings_by_its_contrast(cases, healthy):
    """Against the same patient without lesions; the core, which the blur leaves alone."""
    seen = 0
    for case, patient in zip(cases, healthy, strict=True):
        for lesion in case.lesions:
            before = patient.voxels[lesion.box]
            core = ndimage.binary_erosion(lesion.mask, iterations=2)
            core &= np.abs(before - np.median(before[lesion.mask])) < 40  # beside the vessels that run through it
            if core.sum() < 6:
                continue
            change = np.median((case.voxels - patient.voxels)[lesion.box][core])
            assert change == pytest.approx(lesion.contrast_hu, abs=max(12.0, 0.2 * abs(lesion.contrast_hu)))
            seen += 1
    assert seen >= 1


def test_outside_the_lesions_the_patient_is_the_same(cases, healthy):
    case, patient = cases[0], healthy[0]
    untouched = np.ones(case.voxels.shape, bool)
    for lesion in case.lesions:
        untouched[tuple(slice(max(part.start - 3, 0), part.stop + 3) for part in lesion.box)] = False
    assert untouched.mean() > 0.5
    assert np.array_equal(case.voxels[untouched], patient.voxels[untouched])
    assert patient.lesions == ()


def test_same_seed_same_case_other_seed_another(cases):
    again = draw_case(cases[1].family, seed=1, lesions=5, **SMALL)
    assert np.array_equal(again.voxels, cases[1].voxels)
    assert [lesion.centre_mm for lesion in again.lesions] == [lesion.centre_mm for lesion in cases[1].lesions]
    assert not np.array_equal(again.voxels, cases[0].voxels)


def test_lesions_keep_apart(cases):
    for case in cases:
        taken = np.zeros(case.voxels.shape, int)
        for lesion in case.lesions:
            taken[lesion.box] += lesion.mask
        assert taken.max() <= 1


@pytest.fixture(scope="module")
def real():
    """A chest with noise, as a scanner would give it."""
    chest = draw_case("anthropomorphic-chest", seed=11, lesions=0, **SMALL).voxels
    return chest + np.random.default_rng(3).normal(0, 15, chest.shape).astype(np.float32)


def test_plants_nodules_in_the_lungs_of_a_given_volume(real):
    before = real.copy()
    image, lesions = plant_in(real, SMALL["spacing_zyx_mm"], seed=2, lesions=5)
    assert np.array_equal(real, before)
    assert len(lesions) == 5
    for lesion in lesions:
        assert lesion.category == "lung"
        assert np.median(real[lesion.box][lesion.mask]) < -500
    change = [(image - real)[lesion.box][lesion.mask].mean() for lesion in lesions]
    assert min(change) > 30
    assert max(change) > 300


def test_a_planted_nodule_erases_nothing(real):
    """No voxel becomes darker: vessels that run through it and the wall beside it stay."""
    image, _ = plant_in(real, SMALL["spacing_zyx_mm"], seed=2, lesions=5)
    assert (image >= real).all()
    assert (image - real).max() > 500


def test_a_volume_without_lungs_is_refused():
    with pytest.raises(ModelError, match="lungs"):
        plant_in(np.zeros((6, 40, 40), np.float32), (3.0, 2.0, 2.0), seed=1, lesions=1)
