"""What makes a radiograph worse: blur, fewer photons, electronic noise, a coarser detector, fewer grey levels.

A picture here is float32 (Y, X) in about -1…1, bright = dense: the logarithm of the exposure, upside down and scaled.
Two families. `degrade` is for training. `degrade_unseen` shares nothing with it and is for tests only.
source: simulation dossier 6.2, steps 3 to 5
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import convolve, gaussian_filter, gaussian_filter1d

from models.contract import FloatArray

LEAST_SIGNAL = 0.05
"""Of the expected one: below it the logarithm would turn a dark pixel into a spike."""

Span = tuple[float, float]


@dataclass(frozen=True)
class Degradation:
    """One way in which a picture is worse.

    blur_mm             focal spot and detector together, standard deviation
    photons             per pixel of the coarser detector, where the picture is 0; effective: after the correlation
    contrast_per_unit   natural logarithm of the exposure over one unit of the picture
    electronic          standard deviation over the signal where the picture is 0; white
    correlation_px      of the quantum noise, by the detector's spread of light; standard deviation of a Gaussian
    coarse              pixel of the detector over pixel of the picture, at least 1
    bits                of the grey levels over -1…1; None: not rounded
    noise_first         the picture was blurred after it was taken, so that its noise is as soft as itself
    """

    blur_mm: float = 0.0
    photons: float = math.inf
    contrast_per_unit: float = 1.5
    electronic: float = 0.0
    correlation_px: float = 0.5
    coarse: float = 1.0
    bits: int | None = None
    noise_first: bool = False

    @property
    def noise_sd(self) -> float:
        """Standard deviation of the noise where the picture is 0, before it is brought back to the finer grid."""
        return math.hypot(self.photons**-0.5, self.electronic) / self.contrast_per_unit


@dataclass(frozen=True)
class DegradationRange:
    """From the mildest to the strongest; drawn evenly, noise evenly in its logarithm.

    noise_sd            standard deviation of all noise where the picture is 0
    electronic_share    of the variance of the noise
    native, unrounded   shares of the pictures that keep their grid, and their grey levels
    """

    blur_mm: Span = (0.0, 0.5)
    noise_sd: Span = (0.004, 0.08)
    contrast_per_unit: Span = (1.2, 2.0)
    electronic_share: Span = (0.0, 0.3)
    correlation_px: Span = (0.2, 0.9)
    coarse: Span = (1.0, 3.0)
    bits: tuple[int, int] = (8, 12)
    native: float = 0.5
    unrounded: float = 0.5
    noise_first: float = 0.3


FAINT = DegradationRange(
    blur_mm=(0.0, 0.0),
    noise_sd=(2e-4, 1e-3),
    coarse=(1.0, 1.0),
    native=1.0,
    unrounded=1.0,
    noise_first=0.0,
)
"""Hardly any: a fortieth to an eighth of the step between the grey levels of 8 bits."""


def draw_degradation(rng: np.random.Generator, span: DegradationRange | None = None) -> Degradation:
    """A random degradation within these ranges."""
    of = span or DegradationRange()
    sd = math.exp(rng.uniform(math.log(of.noise_sd[0]), math.log(of.noise_sd[1])))
    contrast = float(rng.uniform(*of.contrast_per_unit))
    share = float(rng.uniform(*of.electronic_share))
    variance = (sd * contrast) ** 2
    coarse, bits = float(rng.uniform(*of.coarse)), int(rng.integers(of.bits[0], of.bits[1] + 1))
    return Degradation(
        blur_mm=float(rng.uniform(*of.blur_mm)),
        photons=1 / (variance * (1 - share)),
        contrast_per_unit=contrast,
        electronic=math.sqrt(variance * share),
        correlation_px=float(rng.uniform(*of.correlation_px)),
        coarse=1.0 if rng.random() < of.native else coarse,
        bits=None if rng.random() < of.unrounded else bits,
        noise_first=bool(rng.random() < of.noise_first),
    )


def degrade(picture: FloatArray, spacing_mm: float, degradation: Degradation, rng: np.random.Generator) -> FloatArray:
    """The same picture on the same grid, worse.

    Blur and wider pixels act on the exposure, noise on what is counted, all else on its logarithm. What the logarithm
    of a noisy count is off by in the mean is taken off, so that noise does not shift the level. Detail that the blur
    takes away darkens its place by half its variance in the logarithm, as in a real exposure.

    picture, returns    float32 (Y, X)
    """
    how = degradation
    blur_px = how.blur_mm / spacing_mm
    exposure = np.exp(picture * np.float32(-how.contrast_per_unit))
    if blur_px > 0:
        exposure = gaussian_filter(exposure, blur_px, mode="nearest")
    if how.coarse > 1:
        rows, columns = (
            _shares(n, m) for n, m in zip(exposure.shape, _coarser(exposure.shape, how.coarse), strict=True)
        )
        exposure = rows @ exposure @ columns.T
    softness = math.hypot(how.correlation_px, blur_px / how.coarse if how.noise_first else 0.0)
    worse = _log_of_counts(exposure, how, softness, rng) / np.float32(-how.contrast_per_unit)
    if how.coarse > 1:
        worse = _resized(worse, picture.shape, Image.Resampling.BICUBIC)
    if how.bits is not None:
        worse = _rounded(worse, how.bits)
    return np.asarray(worse, np.float32)


def bicubic_pair(picture: FloatArray, factor: float) -> FloatArray:
    """Bicubic down by `factor` and up again: what the paper's baseline calls low quality.

    picture, returns    float32 (Y, X)
    """
    small = _resized(picture, _coarser(picture.shape, factor), Image.Resampling.BICUBIC)
    return _resized(small, picture.shape, Image.Resampling.BICUBIC)


def coloured_noise(shape: tuple[int, ...], softness_px: float, rng: np.random.Generator) -> FloatArray:
    """Gaussian noise of standard deviation 1 with the spectrum of a Gaussian point spread, float32."""
    field = rng.standard_normal(shape, dtype=np.float32)
    if softness_px < 0.1:  # narrower than a pixel can show
        return field
    impulse = np.zeros(2 * math.ceil(5 * softness_px) + 1, np.float64)
    impulse[impulse.size // 2] = 1
    loss = float((gaussian_filter1d(impulse, softness_px) ** 2).sum())  # of variance, per axis
    soft = gaussian_filter(field, softness_px, mode="wrap")
    return np.asarray(soft / np.float32(loss), np.float32)


def _log_of_counts(
    exposure: FloatArray, how: Degradation, softness_px: float, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Logarithm of what the detector reads."""
    quantum = exposure**-0.5 * np.float32(how.photons**-0.5)
    error = quantum * coloured_noise(exposure.shape, softness_px, rng)
    variance = quantum**2
    if how.electronic > 0:
        electronic = np.float32(how.electronic) / exposure
        softening = softness_px if how.noise_first else 0.0
        error += electronic * coloured_noise(exposure.shape, softening, rng)
        variance += electronic**2
    read = np.maximum(1 + error, np.float32(LEAST_SIGNAL))
    return np.asarray(np.log(exposure) + np.log(read) - np.interp(variance**0.5, _SD, _MEAN_LOG), np.float32)


def _mean_log(sd: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean of log(max(1 + noise, floor)) over Gaussian noise of each standard deviation: about -sd²/2."""
    at = np.linspace(-6, 6, 2001)
    weight = np.exp(-(at**2) / 2)
    return np.asarray(np.log(np.maximum(1 + sd[:, None] * at, LEAST_SIGNAL)) @ (weight / weight.sum()))


_SD = np.linspace(0, 3, 301)
_MEAN_LOG = _mean_log(_SD)
"""Beyond the last one there is no signal left to be right about."""


def _coarser(shape: tuple[int, ...], factor: float) -> tuple[int, int]:
    return max(1, round(shape[0] / factor)), max(1, round(shape[1] / factor))


def _shares(fine: int, coarse: int) -> NDArray[np.float32]:
    """Share of each fine pixel in each coarse one, (coarse, fine), rows of sum 1: exact where neither divides."""
    wide = fine / coarse
    low, high = np.arange(coarse)[:, None] * wide, (np.arange(coarse)[:, None] + 1) * wide
    left = np.arange(fine)
    overlap = np.minimum(high, left + 1) - np.maximum(low, left)
    return np.asarray(np.clip(overlap, 0, None) / wide, np.float32)


def _resized(picture: FloatArray, shape: tuple[int, ...], how: Image.Resampling) -> FloatArray:
    """Both grids share their outer edges, so nothing moves."""
    image = Image.fromarray(np.ascontiguousarray(picture, np.float32))
    return np.asarray(image.resize((shape[1], shape[0]), how), np.float32)


def _rounded(picture: FloatArray, bits: int) -> FloatArray:
    step = np.float32(2 / (2**bits - 1))
    return np.asarray(np.rint((picture + 1) / step) * step - 1, np.float32)


@dataclass(frozen=True)
class UnseenDegradation:
    """A way to be worse that no network is trained on.

    motion_mm, motion_deg       length and direction of a movement during the exposure
    row_sd, column_sd           standard deviation of an offset that a whole row or column has
    cloud_sd, cloud_mm          uneven background, and its size
    grain_sd                    white noise, the same everywhere
    dead_share                  of pixels that the detector fills from their neighbours
    jpeg_quality                of Pillow
    """

    motion_mm: float = 0.0
    motion_deg: float = 0.0
    row_sd: float = 0.0
    column_sd: float = 0.0
    cloud_sd: float = 0.0
    cloud_mm: float = 20.0
    grain_sd: float = 0.0
    dead_share: float = 0.0
    jpeg_quality: int | None = None


def draw_unseen(rng: np.random.Generator) -> UnseenDegradation:
    """A random degradation of the family for tests."""
    return UnseenDegradation(
        motion_mm=float(rng.uniform(0.0, 1.5)),
        motion_deg=float(rng.uniform(0.0, 180.0)),
        row_sd=float(rng.uniform(0.0, 0.02)),
        column_sd=float(rng.uniform(0.0, 0.02)),
        cloud_sd=float(rng.uniform(0.0, 0.03)),
        cloud_mm=float(rng.uniform(8.0, 40.0)),
        grain_sd=float(rng.uniform(0.005, 0.04)),
        dead_share=float(rng.uniform(0.0, 0.01)),
        jpeg_quality=int(rng.integers(50, 81)),
    )


def degrade_unseen(
    picture: FloatArray, spacing_mm: float, degradation: UnseenDegradation, rng: np.random.Generator
) -> FloatArray:
    """The same picture on the same grid: moved, structured noise, dead pixels filled, JPEG.

    picture, returns    float32 (Y, X)
    """
    how = degradation
    worse = convolve(picture, _movement(how.motion_mm / spacing_mm, how.motion_deg), mode="nearest")
    worse += _centred(rng.standard_normal((picture.shape[0], 1), dtype=np.float32)) * np.float32(how.row_sd)
    worse += _centred(rng.standard_normal((1, picture.shape[1]), dtype=np.float32)) * np.float32(how.column_sd)
    worse += rng.standard_normal(picture.shape, dtype=np.float32) * np.float32(how.grain_sd)
    cloud = _centred(gaussian_filter(rng.standard_normal(picture.shape), how.cloud_mm / 2.355 / spacing_mm))
    worse += (cloud / max(float(cloud.std()), 1e-9) * how.cloud_sd).astype(np.float32)
    worse = _filled(worse, rng.random(picture.shape) < how.dead_share)
    return worse if how.jpeg_quality is None else _through_jpeg(worse, how.jpeg_quality)


def _centred(noise: FloatArray) -> FloatArray:
    return np.asarray(noise - noise.mean())


def _movement(length_px: float, angle_deg: float) -> NDArray[np.float32]:
    """A line through the middle of a small odd square, sum 1, its centre of mass in the middle."""
    reach = math.ceil(length_px / 2) + 1
    way = np.linspace(-length_px / 2, length_px / 2, 201)
    row, column = way * math.sin(math.radians(angle_deg)), way * math.cos(math.radians(angle_deg))
    axis = np.arange(-reach, reach + 1)
    near_row = np.clip(1 - np.abs(axis[:, None] - row), 0, None)
    near_column = np.clip(1 - np.abs(axis[:, None] - column), 0, None)
    line = near_row @ near_column.T
    return np.asarray(line / line.sum(), np.float32)


def _filled(picture: FloatArray, dead: NDArray[np.bool_]) -> FloatArray:
    """Dead pixels from the living ones around them."""
    ring = np.ones((5, 5), np.float32)
    alive = (~dead).astype(np.float32)
    around = convolve(picture * alive, ring, mode="nearest") / np.maximum(convolve(alive, ring, mode="nearest"), 1)
    return np.where(dead, around, picture).astype(np.float32)


def _through_jpeg(picture: FloatArray, quality: int) -> FloatArray:
    """8 bits over -1…1, or over what the picture needs beyond it."""
    low, high = min(-1.0, float(picture.min())), max(1.0, float(picture.max()))
    stored = np.rint((picture - low) * (255 / (high - low))).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(stored).save(file, "JPEG", quality=quality)
    read = np.asarray(Image.open(file), np.float32)
    return np.asarray(read * np.float32((high - low) / 255) + np.float32(low), np.float32)
