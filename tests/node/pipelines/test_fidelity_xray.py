"""Of what a restorer changes, noise is told from anatomy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from images import chest
from models.contract import FloatArray, Radiograph
from models.diffusionxray.domain import untouchable
from models.diffusionxray.guard import local_noise_sd
from node.pipelines.fidelity_xray import FidelityXray, check

NOISE = 10.0
CLEAN = chest.lungs()
IMAGE = chest.radiograph(noise=NOISE)
KEPT = untouchable(IMAGE)
SPAN = 3000.0


def judged(result: NDArray[np.float64] | FloatArray, image: Radiograph = IMAGE) -> FidelityXray:
    """As if the restorer had stood by what it made."""
    noise = local_noise_sd(image.pixels)
    kept = untouchable(image)
    whole = np.where(kept, image.pixels, np.clip(np.rint(result), *chest.RANGE)).astype(np.float32)
    return check(image, chest.Filtered(whole, whole, 3 * noise, None, noise), whole, kept)


def nodule(diameter_mm: float, contrast: float) -> NDArray[np.float64]:
    """Gaussian of that full width at half its maximum, in the right lung."""
    y, x = np.mgrid[:320, :320] * 0.4
    distance = (y - 60) ** 2 + (x - 36) ** 2
    return contrast * SPAN * np.exp(-distance / (2 * (diameter_mm / 2.355) ** 2))


def test_noise_may_go_and_is_measured() -> None:
    verdict = judged(CLEAN)
    assert verdict.complaint == ""
    assert verdict.noise_out < verdict.noise_in
    assert verdict.noise_out == pytest.approx(float(np.median(local_noise_sd(np.rint(CLEAN))[~KEPT])), rel=0.1)
    assert verdict.mean_change == pytest.approx(NOISE * np.sqrt(2 / np.pi), rel=0.05)
    assert 4 * NOISE < verdict.largest_change < 6 * NOISE
    assert set(verdict.checks) == {
        "within its bound",
        "shift of coarse structure",
        "blobs of 4 to 8 mm",
        "blobs of 8 to 15 mm",
        "blobs of 15 to 30 mm",
        "what was taken away",
        "detail at edges",
    }


def test_nothing_changed_is_nothing_to_complain_of() -> None:
    verdict = judged(IMAGE.pixels)
    assert verdict.complaint == ""
    assert (verdict.mean_change, verdict.largest_change, verdict.changed_share) == (0, 0, 0)
    assert verdict.checks["what was taken away"] == "nothing"
    assert verdict.checks["detail at edges"].startswith("0 %")


def test_the_share_of_changed_pixels_is_that_beyond_the_noise() -> None:
    result = IMAGE.pixels.copy()
    result[100:150, 100:200] += 100
    assert judged(result).changed_share == pytest.approx(5000 / np.count_nonzero(~KEPT), rel=0.01)


@pytest.mark.parametrize(
    ("sigma_px", "words"), [(0.6, "fine detail at edges"), (1.0, "stronger than noise"), (2.0, "blobs of")]
)
def test_a_blur_may_not_leave(sigma_px: float, words: str) -> None:
    assert words in judged(gaussian_filter(IMAGE.pixels, sigma_px)).complaint


def test_sharpening_may_leave_within_limits_and_not_beyond() -> None:
    fine = CLEAN - gaussian_filter(CLEAN, 1.0)
    mild, strong = judged(CLEAN + 0.2 * fine), judged(CLEAN + 3.0 * fine)
    assert mild.complaint == ""
    assert mild.checks["detail at edges"] != "0 % added (limit 50)"
    assert "added (limit 50)" in mild.checks["detail at edges"]
    assert "added (limit 50)" in strong.complaint


def test_a_shift_of_the_grey_scale_may_not_leave() -> None:
    assert "shifts coarse structure" in judged(CLEAN + 0.015 * SPAN).complaint
    assert "shifts coarse structure" not in judged(CLEAN + 0.003 * SPAN).complaint


def test_raised_contrast_may_not_leave() -> None:
    assert "blobs of 15 to 30 mm" in judged(1500 + 1.15 * (CLEAN - 1500)).complaint


@pytest.mark.parametrize(("diameter_mm", "contrast"), [(6.0, 0.06), (10.0, -0.04), (20.0, 0.03)])
def test_a_nodule_that_came_or_went_may_not_leave(diameter_mm: float, contrast: float) -> None:
    complaint = judged(CLEAN + nodule(diameter_mm, contrast)).complaint
    assert "blobs of" in complaint or "coarse structure" in complaint


def test_a_nodule_that_was_received_may_leave() -> None:
    with_nodule = chest.lungs() + nodule(8.0, 0.08)
    assert judged(with_nodule, chest.radiograph(with_nodule, noise=NOISE)).complaint == ""


def test_structure_taken_away_in_many_places_is_more_than_noise() -> None:
    y, x = np.mgrid[:320, :320]
    weave = 4 * NOISE * np.sin(1.3 * x) * np.sin(1.1 * y)
    assert "stronger than noise in" in judged(IMAGE.pixels + weave).complaint


def test_a_result_beyond_its_bound_may_not_leave() -> None:
    noise = local_noise_sd(IMAGE.pixels)
    safe = np.where(KEPT, IMAGE.pixels, np.rint(CLEAN)).astype(np.float32)
    pixels = safe.copy()
    pixels[200, 150] += np.float32(3 * noise[200, 150] + 2)
    verdict = check(IMAGE, chest.Filtered(pixels, safe, 3 * noise, None, noise), pixels, KEPT)
    assert "leaves the bound around the conservative restoration" in verdict.complaint
    pixels[200, 150] -= 2
    verdict = check(IMAGE, chest.Filtered(pixels, safe, 3 * noise, None, noise), pixels, KEPT)
    assert verdict.checks["within its bound"] == "everywhere"


def test_a_smooth_picture_has_no_edges_to_measure() -> None:
    smooth = gaussian_filter(CLEAN, 6.0)
    image = chest.radiograph(smooth, noise=60.0)
    assert "not measurable" in judged(smooth, image).checks["detail at edges"]


def test_noise_three_times_as_strong_may_go_too() -> None:
    image = chest.radiograph(noise=60.0)
    assert judged(CLEAN, image).complaint == ""


def test_spacing_decides_what_a_blob_is() -> None:
    """The same pixels at a third of the size are other blobs, and a third of the millimetres of shift."""
    image = replace(IMAGE, spacing_yx_mm=(0.14, 0.14))
    extra = nodule(6.0, 0.03)
    assert (
        judged(CLEAN + extra).checks["blobs of 4 to 8 mm"] != judged(CLEAN + extra, image).checks["blobs of 4 to 8 mm"]
    )
