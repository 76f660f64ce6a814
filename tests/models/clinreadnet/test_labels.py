"""From physics to grades: detectability by hand, monotone, and five readers."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.clinreadnet.config import ObserverConfig
from models.clinreadnet.degrade import Ingredients
from models.clinreadnet.labels import (
    Latent,
    blurred_disc,
    grades,
    latent,
    level,
    observer_places,
    physics_of,
    quality,
    soft_tissue,
)
from models.simulation.dose import Scanner
from models.simulation.geometry import FanBeam, ParallelBeam

OBSERVER = ObserverConfig()
SCANNER = Scanner(geometry=ParallelBeam(views=96))


def test_detectability_in_white_noise_is_contrast_over_noise():
    """d′ of a matched filter in white noise of deviation σ: the template's length, mean taken out, over σ."""
    rng = np.random.default_rng(1)
    base = np.full((256, 256), 40, np.float32)
    white = rng.normal(0, 10, (1, 256, 256)).astype(np.float32)
    nothing = np.zeros_like(white)
    parts = Ingredients(base, nothing, white, nothing, 0.0, (1,))
    physics = physics_of(parts, SCANNER, 0.7, OBSERVER)
    disc = blurred_disc(SCANNER, 0.7, OBSERVER)
    length = float(np.sqrt(np.square(disc - disc.mean()).sum()))
    full = latent(physics, 0, 1.0)
    assert full.noise_hu == pytest.approx(10, rel=0.02)
    assert full.streak_hu == 0
    assert full.d_prime == pytest.approx(length / 10, rel=0.12)
    quarter = latent(physics, 0, 0.25)
    assert quarter.noise_hu == pytest.approx(2 * full.noise_hu)
    assert quarter.d_prime == pytest.approx(full.d_prime / 2)


def test_streaks_hide_the_disc_too():
    rng = np.random.default_rng(1)
    base = np.full((128, 128), 40, np.float32)
    white, streaks = rng.normal(0, 10, (2, 1, 128, 128)).astype(np.float32)
    nothing = np.zeros_like(white)
    alone = physics_of(Ingredients(base, nothing, white, nothing, 0.0, (1,)), SCANNER, 0.7, OBSERVER)
    both = physics_of(Ingredients(base, streaks, white, nothing, 0.0, (1,)), SCANNER, 0.7, OBSERVER)
    assert latent(both, 0, 1.0).d_prime == pytest.approx(latent(alone, 0, 1.0).d_prime / 2**0.5, rel=0.2)
    assert latent(both, 0, 1.0).streak_hu == pytest.approx(10, rel=0.05)


def steepest(disc: np.ndarray) -> float:
    return float(np.abs(np.diff(disc, axis=0)).max())


def test_a_kernel_blurs_the_disc_and_keeps_its_mass():
    mass = OBSERVER.disc_hu * np.pi * (OBSERVER.disc_mm / 2) ** 2 / 0.7**2
    slopes = []
    for kernel in ("ramp", "shepp-logan", "hann", "soft"):
        disc = blurred_disc(replace(SCANNER, kernel=kernel), 0.7, OBSERVER)
        assert disc.shape == (OBSERVER.roi_px,) * 2
        assert float(disc.sum()) == pytest.approx(mass, rel=0.03)
        assert np.allclose(disc[1:, 1:], disc[:0:-1, :0:-1], atol=1e-3)
        slopes.append(steepest(disc))
    assert slopes == sorted(slopes, reverse=True)


def test_a_wider_channel_at_the_centre_blurs_more():
    fan = replace(SCANNER, geometry=FanBeam())
    wide = replace(SCANNER, geometry=FanBeam(pitch_mm=2.0))
    assert steepest(blurred_disc(fan, 0.7, OBSERVER)) > steepest(blurred_disc(wide, 0.7, OBSERVER))


@given(st.floats(1, 300), st.floats(0, 100), st.floats(0.05, 30), st.floats(1.01, 3))
def test_quality_falls_with_noise_and_streaks_and_rises_with_detectability(noise, streak, d_prime, factor):
    here = quality(Latent(noise, streak, d_prime), OBSERVER)
    assert 0 <= here <= 4
    assert quality(Latent(noise * factor, streak, d_prime), OBSERVER) < here
    assert quality(Latent(noise, (streak + 1) * factor, d_prime), OBSERVER) < here
    assert quality(Latent(noise, streak, d_prime * factor), OBSERVER) > here


def test_readers_differ_by_their_bias():
    sure = replace(OBSERVER, reader_jitter=0.0)
    assert grades(2.0, sure, np.random.default_rng(1)) == [2, 2, 2, 2, 2]
    assert grades(2.4, sure, np.random.default_rng(1)) == [2, 2, 2, 3, 3]
    assert level(2.4, sure, np.random.default_rng(1)) == 12
    assert grades(-1.0, sure, np.random.default_rng(1)) == [0] * 5
    assert level(9.0, sure, np.random.default_rng(1)) == 20


def test_readers_are_right_on_average():
    rng = np.random.default_rng(1)
    for value in (1.0, 2.2, 3.1):
        assert np.mean([level(value, OBSERVER, rng) / 5 for _ in range(2000)]) == pytest.approx(value, abs=0.03)


def test_the_observer_looks_at_soft_tissue():
    hu = np.full((200, 200), -1000, np.float32)
    hu[60:140, 60:140] = 40
    hu[90:110, 90:110] = 900
    where = soft_tissue(hu)
    assert not where[:62].any()
    assert not where[92:108, 92:108].any()
    assert where[70, 70]
    places = observer_places(where, OBSERVER)
    assert all(where[y + 24, x + 24] for y, x in places)
    assert len(places) >= 12


def test_an_image_without_a_body_is_looked_at_everywhere():
    air = np.full((96, 96), -1000, np.float32)
    assert soft_tissue(air).all()
    assert observer_places(soft_tissue(air), OBSERVER)[0] == (0, 0)
