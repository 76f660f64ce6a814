"""What an observer can detect: the detectability index d′ of a known signal in images with and without it.

source: Barrett & Myers, Foundations of Image Science, ch. 13; Gabor channels as in Wunderlich & Noo 2008.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from models.contract import FloatArray

Statistics = NDArray[np.float64]

CHANNEL_CYCLES_PER_PX = (3 / 128, 6 / 128, 12 / 128, 24 / 128)
CHANNEL_ORIENTATIONS = 4


def template_responses(images: FloatArray, template: FloatArray) -> Statistics:
    """Non-prewhitening matched filter: inner product with the expected signal, mean of the image taken out.

    images   (N, Y, X)     template   (Y, X)     returns  (N,)
    """
    centred = template - template.mean()
    product: Statistics = np.tensordot(images.astype(np.float64), centred.astype(np.float64), axes=2)
    return product


def gabor_channels(side: int) -> Statistics:
    """Gabor functions over a square of so many pixels, (32, side, side): 4 octaves, 4 orientations, 2 phases."""
    axis = np.arange(side) - (side - 1) / 2
    y, x = np.meshgrid(axis, axis, indexing="ij")
    channels = []
    for frequency in CHANNEL_CYCLES_PER_PX:
        width = 0.5 / frequency  # one octave between half maxima
        envelope = np.exp(-4 * np.log(2) * (x**2 + y**2) / width**2)
        for turn in range(CHANNEL_ORIENTATIONS):
            angle = np.pi * turn / CHANNEL_ORIENTATIONS
            wave = 2 * np.pi * frequency * (x * np.cos(angle) + y * np.sin(angle))
            channels += [envelope * np.cos(wave), envelope * np.sin(wave)]
    return np.stack(channels)


def hotelling_responses(
    training: tuple[FloatArray, FloatArray], images: FloatArray, channels: Statistics
) -> Statistics:
    """Responses of a channelised Hotelling observer to images that it was not trained on.

    training     images with and without the signal, (N, Y, X) each     images  (M, Y, X)     channels  (C, Y, X)
    returns      (M,)
    """
    present, absent, tested = (_channel_outputs(stack, channels) for stack in (*training, images))
    covariance = (np.cov(present.T) + np.cov(absent.T)) / 2
    template = np.linalg.solve(covariance, present.mean(0) - absent.mean(0))
    responses: Statistics = tested @ template
    return responses


def _channel_outputs(images: FloatArray, channels: Statistics) -> Statistics:
    outputs: Statistics = np.tensordot(images.astype(np.float64), channels, axes=([1, 2], [1, 2]))
    return outputs


def detectability(present: Statistics, absent: Statistics) -> float:
    """d′ of one observer's responses: distance of the means in units of their common spread."""
    spread = np.sqrt((present.var(ddof=1) + absent.var(ddof=1)) / 2)
    return float((present.mean() - absent.mean()) / spread)


def detectability_interval(
    present: Statistics, absent: Statistics, *, resamples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """95 % percentile bootstrap interval of `detectability` over the images."""
    rng = np.random.default_rng(seed)
    values = [
        detectability(
            present[rng.integers(len(present), size=len(present))], absent[rng.integers(len(absent), size=len(absent))]
        )
        for _ in range(resamples)
    ]
    low, high = np.percentile(values, (2.5, 97.5))
    return float(low), float(high)
