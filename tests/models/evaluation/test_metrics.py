"""Metrics against values that can be worked out by hand."""

import json

import numpy as np
import pytest

from models.evaluation.bootstrap import over_patients
from models.evaluation.metrics import LUNG, SOFT_TISSUE, psnr, rmse, ssim
from models.evaluation.noise import body_mask, homogeneous, noise_sd
from models.evaluation.table import Measured, Row, Table

EVERYWHERE = np.ones((64, 64), bool)


@pytest.fixture
def image():
    rng = np.random.default_rng(0)
    return rng.uniform(-100, 200, (64, 64)).astype(np.float32)


def test_a_shift_is_its_own_rmse(image):
    assert rmse(image + 7, image, where=EVERYWHERE) == pytest.approx(7, rel=1e-5)


def test_psnr_counts_from_the_window_not_from_the_image(image):
    assert psnr(image + 4, image, window=LUNG, where=EVERYWHERE & (image < 140)) == pytest.approx(
        20 * np.log10(1500 / 4), abs=0.01
    )
    assert psnr(image, image, window=SOFT_TISSUE, where=EVERYWHERE) == float("inf")


def test_what_lies_beyond_the_window_does_not_count(image):
    high = image + 5000
    assert rmse(high, high + 300, window=SOFT_TISSUE, where=EVERYWHERE) == 0


def test_ssim_is_one_for_equals_and_falls_with_noise(image):
    rng = np.random.default_rng(1)
    noise = rng.standard_normal(image.shape).astype(np.float32)
    values = [ssim(image + sd * noise, image, window=SOFT_TISSUE, where=EVERYWHERE) for sd in (0, 20, 60)]
    assert values[0] == pytest.approx(1)
    assert values[0] > values[1] > values[2] > 0


def test_ssim_of_flat_images_is_the_luminance_term():
    a, b = np.full((64, 64), 40, np.float32), np.full((64, 64), 60, np.float32)
    c1 = (0.01 * 400) ** 2
    assert ssim(a, b, window=SOFT_TISSUE, where=EVERYWHERE) == pytest.approx((2 * 40 * 60 + c1) / (40**2 + 60**2 + c1))


def test_the_interval_is_over_patients_not_slices():
    """A hundred slices of one patient are one patient."""
    one = over_patients({"a": [1.0] * 100, "b": [3.0]})
    assert one.mean == 2.0
    assert (one.low, one.high) == (1.0, 3.0)
    assert one.patients == 2
    assert over_patients({"a": [np.nan, 1.0], "b": [np.nan]}).patients == 1


def test_the_interval_holds_the_mean_about_95_times_in_a_hundred():
    rng = np.random.default_rng(0)
    hits = 0
    for trial in range(200):
        interval = over_patients({str(k): [value] for k, value in enumerate(rng.normal(5, 2, 30))}, seed=trial)
        hits += interval.low < 5 < interval.high
    assert 0.88 < hits / 200 <= 0.99


def test_measures_the_noise_of_tissue_not_its_edges():
    rng = np.random.default_rng(0)
    image = np.where(np.hypot(*np.mgrid[-64:64, -64:64]) < 50, 50, -1000) + 12 * rng.standard_normal((128, 128))
    assert noise_sd(image.astype(np.float32)) == pytest.approx(12, rel=0.1)
    assert np.isnan(noise_sd(np.full((64, 64), -1000, np.float32)))
    assert not homogeneous(np.full((64, 64), -1000, np.float32), (0, 100)).any()


def test_the_body_is_the_largest_piece_with_its_lungs():
    image = np.full((64, 64), -1000, np.float32)
    image[10:40, 10:50] = 40
    image[20:30, 20:30] = -850
    image[55:58, 5:60] = 100
    mask = body_mask(image)
    assert mask[25, 25]
    assert not mask[56, 30]
    assert mask.sum() == 30 * 40
    assert not body_mask(np.full((8, 8), -1000, np.float32)).any()


def test_tables_say_the_same_to_readers_and_programs():
    interval = over_patients({"a": [1.0], "b": [3.0]})
    table = Table("T", (Row("10 % dose", "this", {"RMSE": interval}),), ("a note",))
    assert "| 10 % dose | this | 2 [1, 3] |" in table.markdown()
    assert "- a note" in table.markdown()
    told = json.loads(Measured("ab" * 32, {}, (table,)).json())["tables"][0]["rows"][0]["values"]["RMSE"]
    assert told == {"mean": 2.0, "low": 1.0, "high": 3.0, "patients": 2}


def test_what_could_not_be_measured_is_null_and_not_a_word_that_json_lacks():
    nothing = over_patients({"a": [float("nan")]})
    text = Measured("ab" * 32, {}, (Table("T", (Row("c", "m", {"RMSE": nothing}),)),)).json()
    assert json.loads(text, parse_constant=pytest.fail)["tables"][0]["rows"][0]["values"]["RMSE"]["mean"] is None
