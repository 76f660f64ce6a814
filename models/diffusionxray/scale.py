"""From stored values to the picture that networks see, and back. Detectors use their bits differently: an image that
fills a tenth of its range would have a tenth of the contrast, and of the noise, of what a network was trained on.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from models.contract import BoolArray, FloatArray, ModelError, Radiograph

GREYS_PERCENT = (0.5, 99.5)
"""Of the pixels that are neither padding nor a flat border: what becomes −1 and 1. The rest lies beyond, uncut."""
FLAT_SHARE = 0.01
"""A lowest or highest value that so many pixels share is collimation, lettering or saturation."""


@dataclass(frozen=True)
class Scale:
    """Stored values that become −1 and 1; bright is dense."""

    low: float
    high: float

    @property
    def half(self) -> float:
        """Stored units per unit of the picture."""
        return (self.high - self.low) / 2

    def unit(self, pixels: FloatArray, value_range: tuple[float, float]) -> FloatArray:
        """Stored values to a picture, float32: 24 bits, so that 16 pass.

        raises   ModelError     a value is outside the range of stored values or not finite
        """
        low, high = value_range
        if not (np.isfinite(pixels).all() and (pixels >= low).all() and (pixels <= high).all()):
            raise ModelError("pixels are outside the range of stored values")
        unit: FloatArray = ((pixels.astype(np.float64) - self.low) / self.half - 1).astype(np.float32)
        return unit

    def stored(self, unit: FloatArray, value_range: tuple[float, float], step: float = 1.0) -> FloatArray:
        """A picture to the nearest stored values, float32; what is beyond their range is cut.

        step     between neighbouring stored values
        """
        low, high = value_range
        values = (unit.astype(np.float64) + 1) * self.half + self.low
        steps = np.rint((values.clip(low, high) - low) / step)
        stored: FloatArray = (low + step * steps).astype(np.float32)
        return stored


def scale_of(pixels: FloatArray, padding: BoolArray | None = None) -> Scale:
    """The scale of one image, from its own grey values.

    pixels   float32 (Y, X)         padding   bool (Y, X), left out
    raises   ModelError     fewer than two grey values
    """
    shown = pixels.ravel() if padding is None else pixels[~padding]
    if not shown.size or not np.isfinite(shown).all():
        raise ModelError("the image has no pixels, or some that are not finite")
    inner = shown
    for end in (shown.min(), shown.max()):
        if (shown == end).mean() >= FLAT_SHARE:
            inner = inner[inner != end]
    if not inner.size:
        inner = shown
    low, high = (float(value) for value in np.percentile(inner, GREYS_PERCENT))
    if not high > low:
        low, high = float(shown.min()), float(shown.max())
    if not high > low:
        raise ModelError("all pixels have the same value")
    return Scale(low, high)


def scale_of_radiograph(radiograph: Radiograph) -> Scale:
    """The scale of a radiograph. raises   ModelError   as `scale_of`"""
    return scale_of(radiograph.pixels, radiograph.padding)
