"""What is not restored, each with its reason, and what is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from images import chest
from models.contract import Acquisition, ModelError, Radiograph
from models.diffusionxray.domain import (
    DARK_MIDDLE,
    LEAST_METAL_CM2,
    block_mean,
    metal_cm2,
    middle_over_sides,
    relative_noise,
    robust_range,
    unfit,
    untouchable,
)


def with_box(area_cm2: float, value: float, *, soft_px: float = 0.0, at: tuple[int, int] = (150, 90)) -> Radiograph:
    """A chest with one dense square in a lung."""
    side = round(np.sqrt(100 * area_cm2) / 0.4)
    box = np.zeros((320, 320))
    box[at[0] : at[0] + side, at[1] : at[1] + side] = 1.0
    weight = gaussian_filter(box, soft_px) if soft_px else box
    return chest.radiograph(chest.lungs() * (1 - weight) + value * weight)


@pytest.mark.parametrize("view", ["PA", "AP", "FRONTAL", ""])
def test_a_frontal_radiograph_of_an_adult_is_fit(view: str) -> None:
    image = replace(chest.radiograph(), view=view)
    assert unfit(image) == ""
    assert unfit(replace(image, acquisition=Acquisition(patient_age_years=18.0))) == ""


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"view": "LL"}, "frontal views (PA or AP), and this one is LL"),
        ({"view": "LATERAL"}, "this one is LATERAL"),
        ({"acquisition": Acquisition(patient_age_years=17.9)}, "younger than 18 years"),
        ({"for_presentation": False, "intensity": "LIN"}, "linear in exposure"),
        ({"for_presentation": False}, "no stated relation to exposure"),
        ({"spacing_yx_mm": None}, "does not say how large a pixel is"),
        ({"spacing_yx_mm": (0.4, 0.41)}, "square pixels, and these are 0.410 x 0.400 mm"),
        ({"spacing_yx_mm": (0.09, 0.09)}, "0.1 to 0.45 mm, and these have 0.09"),
        ({"spacing_yx_mm": (0.5, 0.5)}, "0.1 to 0.45 mm, and these have 0.50"),
        ({"pixels": np.zeros((255, 400), np.float32)}, "256 to 4500 pixels, and this image has 400 x 255"),
        ({"pixels": np.zeros((300, 4501), np.float32)}, "this image has 4501 x 300"),
        ({"pixels": np.zeros((300, 300), np.float32)}, "only 1 different values"),
    ],
)
def test_what_was_not_in_the_training_is_not_restored(changes: dict[str, Any], words: str) -> None:
    assert words in unfit(replace(chest.radiograph(), **changes))


@pytest.mark.parametrize("intensity", ["LOG", "DISP"])
def test_images_for_processing_whose_values_follow_tissue_are_fit(intensity: str) -> None:
    assert unfit(replace(chest.radiograph(), for_presentation=False, intensity=intensity)) == ""


def test_linear_values_of_an_image_for_presentation_are_no_obstacle() -> None:
    assert unfit(replace(chest.radiograph(), intensity="LIN")) == ""


def test_one_percent_of_anisotropy_is_square_enough() -> None:
    assert unfit(replace(chest.radiograph(), spacing_yx_mm=(0.4, 0.4035))) == ""


@pytest.mark.parametrize(("noise", "words"), [(0.0, "more than it gives"), (400.0, "stronger than in the training")])
def test_noise_outside_the_training_is_not_restored(noise: float, words: str) -> None:
    clean = gaussian_filter(chest.lungs(), 8.0)
    assert words in unfit(chest.radiograph(clean, noise=noise))


def test_eight_bits_are_enough_and_five_are_not() -> None:
    image = chest.radiograph()
    eight, five = (
        replace(image, pixels=np.floor(image.pixels / step), value_range=(0, 4095 // step)) for step in (16, 128)
    )
    assert unfit(eight) == ""
    assert "different values, too few" in unfit(five)


def test_a_fine_scale_of_small_numbers_would_be_lost_in_whole_values() -> None:
    image = chest.radiograph()
    assert "different values" in unfit(replace(image, pixels=image.pixels / 1000, value_range=(0.0, 4.095)))


def test_a_fine_scale_that_is_stored_in_fine_steps_loses_nothing() -> None:
    image = chest.radiograph()
    assert unfit(replace(image, pixels=image.pixels / 1000, value_range=(0.0, 4.095), value_step=0.001)) == ""


@pytest.mark.parametrize("turned", [lambda pixels: 4095 - pixels, np.rot90])
def test_a_negative_or_a_chest_on_its_side_is_not_restored(turned: Any) -> None:
    clean = chest.lungs()
    assert middle_over_sides(clean, np.zeros(clean.shape, np.bool_)) > DARK_MIDDLE
    assert "Its middle is darker than both sides" in unfit(chest.radiograph(turned(clean)))


def test_a_chest_that_is_off_centre_is_fit() -> None:
    assert unfit(chest.radiograph(chest.lungs(400)[:, 80:])) == ""


def test_refuses_what_is_not_finite() -> None:
    image = chest.radiograph()
    pixels = image.pixels.copy()
    pixels[100, 100] = np.nan
    with pytest.raises(ModelError, match="not finite"):
        unfit(replace(image, pixels=pixels))


def test_a_large_implant_is_seen_and_measured() -> None:
    image = with_box(4.0, 4090.0)
    assert metal_cm2(image) == pytest.approx(4.0, rel=0.2)
    assert unfit(image).startswith("The image shows 4 cm² of very dense material")


def test_wires_and_small_clips_are_no_reason() -> None:
    clean = chest.lungs()
    clean[60:260, 100:105] = 4090.0
    clean[150:165, 220:235] = 4090.0  # 0.36 cm²
    assert metal_cm2(chest.radiograph(clean)) == 0


def test_dense_tissue_that_fades_is_no_implant() -> None:
    assert metal_cm2(with_box(4.0, 4000.0, soft_px=12.0)) < LEAST_METAL_CM2


@pytest.mark.parametrize("at", [(14, 100), (150, 12)])
def test_markers_and_shutters_at_the_edge_are_no_implants(at: tuple[int, int]) -> None:
    assert metal_cm2(with_box(1.2, 4090.0, at=at)) == 0


def test_padding_ends_of_the_range_and_the_shutter_are_not_touched() -> None:
    image = chest.radiograph()
    pixels = image.pixels.copy()
    pixels[200, 200], pixels[201, 200] = 4095, 0
    pixels[-20:] = 777  # a shutter that is neither black nor white
    padding = np.zeros(pixels.shape, np.bool_)
    padding[100:110, 100:110] = True
    kept = untouchable(replace(image, pixels=pixels, padding=padding))
    assert kept[200, 200]
    assert kept[201, 200]
    assert kept[100:110, 100:110].all()
    assert kept[-20:].all()
    assert kept[:12].all()
    inner = np.ones(pixels.shape, np.bool_)
    inner[:14] = inner[:, :14] = inner[-21:] = inner[100:110, 100:110] = False
    assert kept[inner].mean() < 0.01


def test_a_flat_area_inside_the_picture_may_be_restored() -> None:
    pixels = chest.radiograph().pixels.copy()
    pixels[100:140, 100:140] = 1000
    assert not untouchable(replace(chest.radiograph(), pixels=pixels))[110:130, 110:130].any()


def test_noise_is_told_of_the_robust_range() -> None:
    clean = np.repeat(np.linspace(500, 3500, 400)[None], 400, 0)
    image = chest.radiograph(clean, noise=30.0)
    kept = untouchable(image)
    low, high = robust_range(image.pixels, kept)
    assert relative_noise(image.pixels, kept) == pytest.approx(30 / (high - low), rel=0.1)
    assert high - low == pytest.approx(2900, rel=0.05)


def test_block_means_keep_the_mean_and_say_their_width() -> None:
    pixels = np.arange(35.0, dtype=np.float32).reshape(5, 7)
    blocks, width = block_mean(pixels, 0.3, 0.7)
    assert width == 0.6
    np.testing.assert_allclose(blocks, [[4, 6, 8], [18, 20, 22]])
