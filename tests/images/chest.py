"""Radiographs made by code, and a restorer that is plain arithmetic: what the tests of the pipeline share."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from models.contract import FloatArray, ModelIdentity, Radiograph, SourceRef
from models.diffusionxray.guard import cap_residual, local_noise_sd
from node.pipelines.models import Progress, Restored, Restorer

IDENTITY = ModelIdentity("filter", "1.0", "cd" * 32, "Trained on nothing: a filter for tests.")
RANGE = (0.0, 4095.0)
NOISE = 20.0


def lungs(side: int = 320, *, seed: int = 5) -> NDArray[np.float64]:
    """Two lungs, ribs, a heart, a spine, an abdomen, about 300 to 3900, without noise and a little blurred."""
    y, x = np.mgrid[:side, :side] / side
    picture = 1500.0 + 700.0 * np.exp(-(((x - 0.5) / 0.07) ** 2)) + 1400.0 / (1 + np.exp((0.85 - y) / 0.03))
    for middle in (0.28, 0.72):
        inside = ((x - middle) / 0.16) ** 2 + ((y - 0.45) / 0.33) ** 2 < 1
        picture -= 800.0 * inside
        picture += 250.0 * inside * (np.sin(60 * y + 12 * (x - middle) ** 2) > 0.6)
    picture += 500.0 * np.exp(-((((x - 0.56) / 0.16) ** 2 + ((y - 0.62) / 0.15) ** 2) ** 2))
    vessels = gaussian_filter(np.random.default_rng(seed).standard_normal((side, side)), 3.0)
    return gaussian_filter(picture + 250.0 * vessels, 0.8)


def radiograph(pixels: NDArray[Any] | None = None, *, noise: float = NOISE, **given: Any) -> Radiograph:
    """0.4 mm pixels, whole stored values of 12 bits, a shutter of zeros around."""
    clean = lungs() if pixels is None else pixels
    noisy = clean + np.random.default_rng(7).normal(0, noise, clean.shape)
    stored = np.clip(np.rint(noisy), *RANGE).astype(np.float32)
    stored[:12], stored[:, :12] = 0, 0
    values = {"pixels": stored, "value_range": RANGE, "source": SourceRef("1.2.3"), "spacing_yx_mm": (0.4, 0.4)}
    return replace(Radiograph(**values), view="PA", **given)


@dataclass(frozen=True, eq=False)
class Filtered:
    """What a restorer says of its result."""

    pixels: FloatArray
    safe: FloatArray
    allowed: FloatArray
    spread: FloatArray | None
    noise_sd: FloatArray
    seed: int = 11
    steps: int = 4


def smoothed(image: Radiograph, on_progress: Progress, with_spread: bool) -> Restored:
    """Where nothing stands out, the mean of the neighbours; held to the received image by the guard."""
    noise = local_noise_sd(image.pixels)
    calm = gaussian_filter(image.pixels, 1.0)
    detail = gaussian_filter(image.pixels, 0.8) - gaussian_filter(image.pixels, 2.5)
    weight = np.exp(-((detail / (1.5 * noise + 1e-3)) ** 2))
    mixed = (image.pixels + weight * (calm - image.pixels)).astype(np.float32)
    safe = np.rint(mixed)
    held = cap_residual(safe, mixed, noise, 3.0)
    on_progress(1, 1)
    pixels = np.clip(np.rint(held), *image.value_range).astype(np.float32)
    return Filtered(pixels, safe, 3 * noise, 0.5 * noise if with_spread else None, noise)


def restorer(run: Any = smoothed) -> Restorer:
    return Restorer(IDENTITY, run)


def adding(extra: NDArray[Any] | float) -> Restorer:
    """The same, with something added to the picture and to what it is held to: the bound does not see it."""

    def run(image: Radiograph, on_progress: Progress, with_spread: bool) -> Restored:
        found = smoothed(image, on_progress, with_spread)
        moved = (np.clip(np.rint(array + extra), *RANGE).astype(np.float32) for array in (found.pixels, found.safe))
        return Filtered(*moved, found.allowed, found.spread, found.noise_sd)

    return restorer(run)


def ignore(done: int, total: int) -> None:
    """Progress that nobody watches."""
