"""The evaluation: on those held out alone, with every baseline, and fair to all."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from models.lidnet.evaluate import (
    EvaluationConfig,
    compare,
    compared_methods,
    evaluate,
    full_dose,
    low_dose,
    most_changed,
    noise_of,
)
from models.lidnet.network import build
from models.lidnet.redcnn import build_redcnn
from models.lidnet.run import prepare
from models.lidnet.slices import load_slice, slice_files, split

QUICK = EvaluationConfig(fractions=(0.1,), slices_per_patient=1, tuning_slices=1, views=160)


@pytest.fixture(scope="module")
def table(slices, small):
    return measured(prepare(build(small.network), torch.device("cpu"), half=False), slices, small)


def measured(network, slices, small):
    methods = compared_methods(network, slices, small, what=QUICK)
    return evaluate(slices, small, methods, what=QUICK)


def test_every_method_has_its_row(table):
    assert [(row.condition, row.method) for row in table.rows] == [
        ("10 % dose", method)
        for method in ("no processing", "this model", "Gaussian", "bilateral", "non-local means", "full dose")
    ]
    measured_in = {name: value.patients for name, value in table.rows[0].values.items()}
    assert measured_in.pop("bias fat (HU)") == 0  # the drawn patients have none
    assert set(measured_in.values()) == {1}


def test_an_untrained_network_scores_as_no_processing(table):
    before, after = ({name: str(value) for name, value in row.values.items()} for row in table.rows[:2])
    assert before == after


def test_the_full_dose_is_the_ceiling(table):
    values = table.rows[-1].values
    assert values["RMSE (HU)"].mean == 0
    assert values["SSIM soft"].mean == pytest.approx(1)
    assert np.isnan(values["PSNR soft (dB)"].mean)
    assert values["noise (HU)"].mean < table.rows[0].values["noise (HU)"].mean


def test_a_filter_beats_doing_nothing_on_noise(table):
    errors = {row.method: row.values["RMSE (HU)"].mean for row in table.rows}
    assert errors["non-local means"] < errors["no processing"]


def test_the_noise_does_not_depend_on_the_order_of_the_work(slices):
    image = load_slice(slice_files(slices)[2])
    first, again, other = (low_dose(image, noise_of(image, views=160, seed=seed), 0.1) for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_bias_and_error_of_a_shifted_slice_are_the_shift(slices):
    image = load_slice(slice_files(slices)[2])
    metrics = compare(image.hu + 5, image)
    for name in ("RMSE (HU)", "bias soft (HU)", "bias lung (HU)"):
        assert metrics[name] == pytest.approx(5, abs=1e-3)


def test_fat_is_measured_where_there_is_some(slices):
    image = load_slice(slice_files(slices)[2])
    fat = replace(image, hu=np.where(image.hu > -30, np.float32(-100), image.hu))
    assert compare(fat.hu - 3, fat)["bias fat (HU)"] == pytest.approx(-3, abs=1e-3)


def test_what_changes_at_full_dose_is_told(slices, small):
    """An untrained network removes nothing."""
    table = full_dose(prepare(build(small.network), torch.device("cpu"), half=False), slices, small)
    [row] = table.rows
    assert row.values["change, RMS (HU)"].mean == 0
    assert row.values["noise before (HU)"] == row.values["noise after (HU)"]


def test_the_slice_shown_is_one_of_those_held_out(slices, small):
    shown = most_changed(prepare(build(small.network), torch.device("cpu"), half=False), slices, small, what=QUICK)
    held_out = [load_slice(path) for path in split(slice_files(slices), small.held_out)[1]]
    assert any(np.array_equal(shown.reference, image.hu) for image in held_out)
    assert shown.fraction == 0.1
    assert np.array_equal(shown.low, shown.result)


def test_red_cnn_is_measured_in_the_same_way(slices, small):
    network = prepare(build_redcnn(), torch.device("cpu"))
    rows = measured(network, slices, small).rows
    assert np.isfinite(rows[1].values["RMSE (HU)"].mean)
    assert rows[1].values != rows[0].values
