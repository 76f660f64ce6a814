"""Grades by an observer model: detectability of a faint disc, noise and streaks, seen by five pseudo-readers.

No radiologist stands behind these labels. The map from physics to grades is monotone in each quantity and otherwise a
choice of ours (`ObserverConfig`): it ranks simulated quality and nothing more.
source: ClinReadNet dossier 6; detectability by a non-prewhitening observer, models/evaluation/observer.py
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import binary_erosion

from models.clinreadnet.config import HIGHEST, ObserverConfig
from models.clinreadnet.degrade import Ingredients, total_noise
from models.contract import BoolArray, FloatArray
from models.evaluation.noise import body_mask
from models.evaluation.observer import template_responses
from models.simulation.dose import Scanner
from models.simulation.geometry import FanBeam
from models.simulation.kernels import apodisation

SOFT_HU = (-200.0, 250.0)
LEAST_PLACES = 12
PADDING_ROIS = 4
"""The disc is blurred on a grid so many times the observer's field: the blur must not wrap round."""


@dataclass(frozen=True)
class Physics:
    """What full current looks like at each thinning; every part of it follows (V numbers each).

    noise           standard deviation of quantum and electronic noise, HU
    streaks         root mean square, HU
    responses       variances of the observer's response to quantum noise, electronic noise and streaks
    signal          his response to the disc
    """

    quantum: tuple[float, ...]
    electronic: tuple[float, ...]
    streaks: tuple[float, ...]
    responses: tuple[tuple[float, float, float], ...]
    signal: float
    own_noise: float


@dataclass(frozen=True)
class Latent:
    """The physics of one image: HU, HU, and the disc's detectability."""

    noise_hu: float
    streak_hu: float
    d_prime: float


def physics_of(parts: Ingredients, scanner: Scanner, spacing_mm: float, config: ObserverConfig) -> Physics:
    """Measured where tissue is soft, or in the whole body where little is."""
    disc = blurred_disc(scanner, spacing_mm, config)
    where = soft_tissue(parts.base)
    places = observer_places(where, config)
    responses, deviations = [], []
    for planes in zip(parts.quantum, parts.electronic, parts.streaks, strict=True):
        responses.append(
            tuple(float(template_responses(fields_at(plane, places, config), disc).var()) for plane in planes)
        )
        deviations.append([float(plane[where].std()) for plane in planes])
    quantum, electronic, streaks = zip(*deviations, strict=True)
    signal = float(template_responses(disc[None], disc)[0])
    return Physics(
        quantum, electronic, streaks, tuple((q, e, s) for q, e, s in responses), signal, parts.own_noise
    )  # fmt: skip


def latent(physics: Physics, view: int, fraction: float) -> Latent:
    """The image at this thinning (its index) and part of the full current."""
    quantum, electronic = total_noise(physics.own_noise, fraction)
    noise = math.sqrt(quantum * physics.quantum[view] ** 2 + electronic * physics.electronic[view] ** 2)
    by_quantum, by_electronic, by_streaks = physics.responses[view]
    spread = math.sqrt(quantum * by_quantum + electronic * by_electronic + by_streaks)
    return Latent(noise, physics.streaks[view], physics.signal / spread)


def quality(seen: Latent, config: ObserverConfig) -> float:
    """Quality 0 … 4 before readers round it: rises with detectability, falls with noise and with streaks."""
    evidence = (
        config.by_d_prime * math.log(seen.d_prime / config.half_d_prime)
        - seen.noise_hu / config.noise_hu
        - seen.streak_hu / config.streak_hu
    )
    return HIGHEST / (1 + math.exp(-evidence))


def grades(value: float, config: ObserverConfig, rng: np.random.Generator) -> list[int]:
    """What the pseudo-readers say of it: each has a bias, none is sure, all say whole numbers."""
    said = value + np.array(config.reader_bias) + config.reader_jitter * rng.standard_normal(len(config.reader_bias))
    return [int(grade) for grade in np.clip(np.floor(said + 0.5), 0, HIGHEST)]


def level(value: float, config: ObserverConfig, rng: np.random.Generator) -> int:
    """Level 0 … 20: the sum of five grades, five times their mean."""
    return sum(grades(value, config, rng))


def soft_tissue(hu: FloatArray) -> BoolArray:
    """Where the observer looks, bool (Y, X): soft tissue in the body; the whole image where there is none."""
    body = binary_erosion(body_mask(hu), iterations=3)
    soft: BoolArray = body & (hu > SOFT_HU[0]) & (hu < SOFT_HU[1])
    if soft.any():
        return soft
    return np.ones(hu.shape, np.bool_)


def observer_places(where: BoolArray, config: ObserverConfig) -> list[tuple[int, int]]:
    """Corners of the observer's fields: centres on a grid, on soft tissue; a plain grid where that gives too few."""
    half = config.roi_px // 2
    height, width = where.shape
    grid = [
        (y, x)
        for y in range(half, height - half + 1, config.step_px)
        for x in range(half, width - half + 1, config.step_px)
    ]
    chosen = [(y, x) for y, x in grid if y < height and x < width and where[y, x]]
    return [(y - half, x - half) for y, x in (chosen if len(chosen) >= LEAST_PLACES else grid)]


def fields_at(plane: FloatArray, places: Sequence[tuple[int, int]], config: ObserverConfig) -> FloatArray:
    """The observer's fields, (N, roi, roi)."""
    side = config.roi_px
    return np.stack([plane[y : y + side, x : x + side] for y, x in places])


def blurred_disc(scanner: Scanner, spacing_mm: float, config: ObserverConfig) -> FloatArray:
    """The disc as this kernel shows it, float32 (roi, roi), HU."""
    side = PADDING_ROIS * config.roi_px
    axis = (np.arange(side) - side // 2) * spacing_mm
    distance = np.hypot(axis[:, None], axis)
    disc = config.disc_hu * np.clip((config.disc_mm / 2 - distance) / spacing_mm + 0.5, 0, 1)
    frequency = np.fft.fftfreq(side, spacing_mm)
    radius = np.hypot(frequency[:, None], frequency)
    window = apodisation(scanner.kernel, 257).numpy()
    passed = np.interp(radius * 2 * pitch_mm(scanner), np.linspace(0, 1, 257), window, right=0.0)
    blurred = np.fft.ifft2(np.fft.fft2(disc) * passed).real
    first = side // 2 - config.roi_px // 2
    return blurred[first : first + config.roi_px, first : first + config.roi_px].astype(np.float32)


def pitch_mm(scanner: Scanner) -> float:
    """Width of a detector channel at the centre of rotation."""
    geometry = scanner.geometry
    if isinstance(geometry, FanBeam):
        return geometry.pitch_mm * geometry.source_mm / geometry.detector_mm
    return geometry.pitch_mm
