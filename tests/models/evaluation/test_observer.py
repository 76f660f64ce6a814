"""Observers on white noise, where the best d′ is known."""

import numpy as np
import pytest

from models.evaluation.observer import (
    detectability,
    detectability_interval,
    gabor_channels,
    hotelling_responses,
    template_responses,
)

SIDE, COUNT, SIGMA = 32, 400, 20.0


@pytest.fixture
def signal():
    axis = np.arange(SIDE) - (SIDE - 1) / 2
    return (12 * np.exp(-(np.hypot(axis[:, None], axis) ** 2) / 18)).astype(np.float32)


@pytest.fixture
def images(signal):
    rng = np.random.default_rng(0)
    present, absent = SIGMA * rng.standard_normal((2, COUNT, SIDE, SIDE)).astype(np.float32)
    return present + signal, absent


def test_the_matched_filter_reaches_the_best_there_is_in_white_noise(images, signal):
    responses = [template_responses(stack, signal) for stack in images]
    best = np.sqrt(np.sum((signal - signal.mean()) ** 2)) / SIGMA
    assert detectability(*responses) == pytest.approx(best, rel=0.12)


def test_the_channelised_observer_comes_close_to_it(images, signal):
    half = COUNT // 2
    training = (images[0][:half], images[1][:half])
    channels = gabor_channels(SIDE)
    tested = [hotelling_responses(training, stack[half:], channels) for stack in images]
    assert 0.5 * np.linalg.norm(signal) / SIGMA < detectability(*tested) < 1.15 * np.linalg.norm(signal) / SIGMA


def test_nothing_cannot_be_detected(images, signal):
    half = COUNT // 2
    first, second = images[1][:half], images[1][half:]
    low, high = detectability_interval(
        template_responses(first, signal), template_responses(second, signal), resamples=300
    )
    assert low < 0 < high
