"""The evaluation: on those held out alone, with every baseline, and fair to all."""

import numpy as np
import pytest
import torch

from models.lidnet.evaluate import EvaluationConfig, compare, evaluate, low_dose, noise_of
from models.lidnet.network import build
from models.lidnet.run import prepare
from models.lidnet.slices import load_slice, slice_files

QUICK = EvaluationConfig(fractions=(0.1,), slices_per_patient=1, tuning_slices=1, views=160)


@pytest.fixture(scope="module")
def table(slices, small):
    return evaluate(prepare(build(small.network), torch.device("cpu"), half=False), slices, small, what=QUICK)


def test_every_method_has_its_row(table):
    assert [(row.condition, row.method) for row in table.rows] == [
        ("10 % dose", method) for method in ("no processing", "this model", "Gaussian", "bilateral", "non-local means")
    ]
    assert all(value.patients == 1 for value in table.rows[0].values.values())


def test_an_untrained_network_scores_as_no_processing(table):
    assert table.rows[0].values == table.rows[1].values


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
