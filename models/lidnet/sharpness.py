"""What the denoiser does to frequencies: the noise that it leaves, and the edges of discs from faint to bright."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from models.contract import FloatArray
from models.evaluation.bootstrap import Interval, over_patients
from models.evaluation.spectra import edge_transfer, noise_power_spectrum
from models.evaluation.table import Row, Table
from models.lidnet.detectability import (
    FIELD_PX,
    POINT_SPREAD_MM,
    REGION_PX,
    SPACING_MM,
    methods_of,
    water_noise,
)
from models.lidnet.socket import PluggedIn

RADIUS_MM = 20.0
CONTRASTS_HU = (-800.0, 100.0, 300.0, 900.0)
"""Lung in soft tissue, vessel with contrast medium, calcium, bone. Fainter edges drown in noise: see d′ for those."""
GROUPS = 8


@dataclass(frozen=True)
class _Measured:
    noise_hu: Interval
    frequency: Interval


def spectra(
    network: PluggedIn, *, fractions: tuple[float, ...] = (1.0, 0.25, 0.1), images: int = 160, seed: int = 0
) -> tuple[Table, Table]:
    """Noise in water (standard deviation, mean frequency) and the transfer of edges, before and after.

    images   repeats of each; they are split into `GROUPS`, whose spread gives the intervals
    """
    noises, edges = [], []
    for fraction in fractions:
        fields = water_noise(fraction, images, seed)
        for method, apply in methods_of(network):
            left = _noise(apply(fields))
            values = {"noise (HU)": left.noise_hu, "mean frequency (1/mm)": left.frequency}
            noises.append(Row(f"{100 * fraction:.0f} % dose", method, values))
        for contrast in CONTRASTS_HU:
            disc = _disc(contrast)
            for method, apply in methods_of(network):
                shown = apply(fields + disc)
                halves = [edge_transfer(part.mean(0), SPACING_MM, RADIUS_MM).half for part in _groups(shown)]
                condition = f"{100 * fraction:.0f} % dose, {contrast:+.0f} HU"
                edges.append(Row(condition, method, {"half transfer (1/mm)": _interval(halves)}))
    said = (
        f"Simulated: 30 cm of water, {images} images, {SPACING_MM} mm pixels; intervals over {GROUPS} groups of them.",
    )
    return (
        Table("Noise in water", tuple(noises), said),
        Table(
            "Edges of discs of 40 mm",
            tuple(edges),
            (*said, "Half transfer: the frequency of which half is left, in the mean image of a group."),
        ),
    )


def _noise(images: FloatArray) -> _Measured:
    start = (FIELD_PX - REGION_PX) // 2
    region = images[:, start : start + REGION_PX, start : start + REGION_PX]
    found = [noise_power_spectrum(part, SPACING_MM).mean_frequency for part in _groups(region)]
    return _Measured(_interval([float(part.std(0, ddof=1).mean()) for part in _groups(region)]), _interval(found))


def _groups(images: FloatArray) -> list[FloatArray]:
    return np.array_split(images, GROUPS)


def _interval(values: list[float]) -> Interval:
    return over_patients({str(number): [value] for number, value in enumerate(values)})


def _disc(contrast_hu: float) -> FloatArray:
    fine = 4 * FIELD_PX
    axis = (np.arange(fine) - (fine - 1) / 2) * SPACING_MM / 4
    sharp = contrast_hu * (np.hypot(axis[:, None], axis) < RADIUS_MM)
    blurred = gaussian_filter(sharp, 4 * POINT_SPREAD_MM / SPACING_MM)
    averaged: FloatArray = blurred.reshape(FIELD_PX, 4, FIELD_PX, 4).mean((1, 3)).astype(np.float32)
    return averaged
