"""Does the denoiser eat low contrast? The detectability of faint discs before and after it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, label

from models.contract import Acquisition, FloatArray
from models.evaluation.bootstrap import Interval
from models.evaluation.observer import (
    Statistics,
    detectability,
    detectability_interval,
    gabor_channels,
    hotelling_responses,
    template_responses,
)
from models.evaluation.table import Row, Table
from models.lidnet.run import BATCH, denoise
from models.lidnet.socket import PluggedIn
from models.simulation.dose import noise_fields, scanner_of
from models.simulation.geometry import FanBeam

BODY_MM, SPACING_MM, FIELD_PX, REGION_PX = 300.0, 0.8, 128, 48
POINT_SPREAD_MM = 0.8
VIEWS = 400


@dataclass(frozen=True)
class Disc:
    """A faint disc in water."""

    diameter_mm: float
    contrast_hu: float


DISCS = (Disc(4.0, 60.0), Disc(6.0, 35.0), Disc(10.0, 20.0), Disc(15.0, 12.0))


def simulated_discs(
    network: PluggedIn, *, fractions: tuple[float, ...] = (1.0, 0.25, 0.1), pairs: int = 200, seed: int = 0
) -> Table:
    """d′ of the channelised Hotelling observer for discs in 30 cm of water, and the contrast that is left.

    pairs    images with and without the disc; half of them train the observer, half test it
    """
    noise = {fraction: water_noise(fraction, 2 * pairs, seed) for fraction in fractions}
    rows = []
    for fraction, fields in noise.items():
        absent = fields[:pairs]
        for disc in DISCS:
            signal = _drawn(disc)
            present = fields[pairs:] + signal
            condition = f"{100 * fraction:.0f} % dose, {disc.diameter_mm:.0f} mm, {disc.contrast_hu:.0f} HU"
            for method, apply in methods_of(network):
                shown = (apply(present), apply(absent))
                responses = _hotelling(shown)
                kept = _contrast(shown, signal)
                rows.append(Row(condition, method, {"d′": _d_prime(responses, pairs // 2), "contrast kept": kept}))
    notes = (
        f"Simulated: 30 cm of water, {pairs} pairs, {SPACING_MM} mm pixels; observer with 32 Gabor channels over "
        f"{REGION_PX} pixels, trained on one half of the pairs and tested on the other; 95 % bootstrap over images.",
        "Contrast kept: mean difference with and without the disc, projected on the disc, over the true one.",
    )
    return Table("Detectability of faint discs", tuple(rows), notes)


def phantom_inserts(network: PluggedIn, images: Mapping[str, NDArray[np.generic]]) -> Table:
    """d′ of a non-prewhitening observer for the inserts of the FDA's simulated low-contrast phantom (MITA-LCD).

    images   the arrays ground_truth and dose_<100|010>_signal_<present|absent>, HU + 1000
    """
    truth = images["ground_truth"].astype(np.float32) - 1000
    signal = np.where((truth > 0) & (truth < 50), truth, 0).astype(np.float32)
    pieces, count = label(signal)
    rows = []
    for dose, name in (("100", "100 % dose"), ("010", "10 % dose")):
        pair = tuple(images[f"dose_{dose}_signal_{what}"].astype(np.float32) - 1000 for what in ("present", "absent"))
        for method, apply in methods_of(network):
            shown = tuple(apply(stack) for stack in pair)
            for piece in range(1, count + 1):
                template = np.where(pieces == piece, signal, 0).astype(np.float32)
                region = _around(template)
                responses = tuple(template_responses(stack[:, *region], template[region]) for stack in shown)
                kept = _contrast((shown[0][:, *region], shown[1][:, *region]), template[region])
                values = {"d′": _d_prime((responses[0], responses[1]), len(responses[0])), "contrast kept": kept}
                rows.append(Row(f"{name}, {template.max():.0f} HU", method, values))
    notes = (
        "Made by another simulator (FDA DIDSR, LCD_CT), 10 noise realisations: the intervals are wide.",
        "Non-prewhitening observer with the true signal as its template, 95 % bootstrap over images.",
    )
    return Table("Inserts of the MITA low-contrast phantom", tuple(rows), notes)


def methods_of(network: PluggedIn) -> tuple[tuple[str, Callable[[FloatArray], FloatArray]], ...]:
    """No processing and the denoiser, each on a stack of slices."""

    def denoised(stack: FloatArray) -> FloatArray:
        parts = [denoise(network, stack[start : start + BATCH]) for start in range(0, len(stack), BATCH)]
        return np.concatenate(parts)

    return ("no processing", lambda stack: stack), ("this model", denoised)


def water_noise(fraction: float, count: int, seed: int) -> FloatArray:
    """All noise of a scan at this part of the full dose in the middle of the water, (count, FIELD_PX, FIELD_PX), HU."""
    side = int(1.1 * BODY_MM / SPACING_MM)
    axis = (torch.arange(side) - (side - 1) / 2) * SPACING_MM
    water = torch.where(torch.hypot(axis[:, None], axis) < BODY_MM / 2, 0.0, -1000.0)
    scanner = scanner_of(Acquisition(), FanBeam(views=VIEWS))
    batch = 20
    parts = []
    for start in range(0, count, batch):
        fields = noise_fields(
            water[None],
            SPACING_MM,
            scanner,
            seed=seed + start,
            field_px=(FIELD_PX, FIELD_PX),
            repeats=min(batch, count - start),
        )
        parts.append(fields.whole(fraction).numpy())
    return np.concatenate(parts)


def _drawn(disc: Disc) -> FloatArray:
    axis = (np.arange(FIELD_PX) - (FIELD_PX - 1) / 2) * SPACING_MM
    distance = np.hypot(axis[:, None], axis)
    sharp = disc.contrast_hu * np.clip(0.5 - (distance - disc.diameter_mm / 2) / SPACING_MM, 0, 1)
    blurred: FloatArray = gaussian_filter(sharp, POINT_SPREAD_MM / SPACING_MM).astype(np.float32)
    return blurred


def _hotelling(images: tuple[FloatArray, FloatArray]) -> tuple[Statistics, Statistics]:
    start = (FIELD_PX - REGION_PX) // 2
    region = (slice(None), slice(start, start + REGION_PX), slice(start, start + REGION_PX))
    present, absent = (stack[region] for stack in images)
    half = len(present) // 2
    channels = gabor_channels(REGION_PX)
    training = (present[:half], absent[:half])
    return hotelling_responses(training, present[half:], channels), hotelling_responses(
        training, absent[half:], channels
    )


def _d_prime(responses: tuple[Statistics, Statistics], count: int) -> Interval:
    low, high = detectability_interval(*responses)
    return Interval(detectability(*responses), low, high, count)


def _contrast(images: tuple[FloatArray, FloatArray], signal: FloatArray) -> Interval:
    """Part of the signal that is left, with an interval over the images."""
    power = float(np.sum(signal.astype(np.float64) ** 2))
    present, absent = (
        np.tensordot(stack.astype(np.float64), signal.astype(np.float64), axes=2) / power for stack in images
    )
    rng = np.random.default_rng(0)
    count = len(present)
    drawn = present[rng.integers(count, size=(2000, count))].mean(1) - absent[
        rng.integers(count, size=(2000, count))
    ].mean(1)
    low, high = np.percentile(drawn, (2.5, 97.5))
    return Interval(float(present.mean() - absent.mean()), float(low), float(high), count)


def _around(template: FloatArray) -> tuple[slice, slice]:
    rows, columns = np.nonzero(template)
    reach = 16
    y, x = round(float(rows.mean())), round(float(columns.mean()))
    return slice(y - reach, y + reach), slice(x - reach, x + reach)
