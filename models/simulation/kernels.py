"""Reconstruction kernels: the band-limited ramp, and what vendors' kernel names amount to.

source: Kak & Slaney eq. 3.61 (ramp as a spatial kernel: sampling |f| instead would shift HU); simulation dossier 3.2.
"""

from __future__ import annotations

import math
import re
from typing import Literal

import torch
from torch import Tensor

from models.simulation.geometry import FanBeam, Geometry

Kernel = Literal["ramp", "shepp-logan", "hann", "soft"]
KERNELS: tuple[Kernel, ...] = ("ramp", "shepp-logan", "hann", "soft")

SOFT_CUTOFF = 0.75
"""Where the "soft" Hann window reaches zero, as a part of the Nyquist frequency."""

SIEMENS_SHARP, SIEMENS_MEDIUM, SIEMENS_STANDARD = 60, 46, 36
"""From these numbers on a Siemens kernel is drawn as ramp, Shepp-Logan, Hann; below as soft."""
PHILIPS: dict[str, Kernel] = {
    "A": "soft", "YA": "soft", "B": "hann", "YB": "hann", "C": "hann",
    "D": "shepp-logan", "L": "shepp-logan", "YC": "shepp-logan", "E": "ramp", "YD": "ramp", "YE": "ramp",
}  # fmt: skip
WORDS: tuple[tuple[tuple[str, ...], Kernel], ...] = (
    (("BONE", "EDGE", "ULTRA"), "ramp"),
    (("LUNG", "DETAIL", "SHARP", "FC5", "FC3", "FC8"), "shepp-logan"),
    (("SOFT", "SMOOTH"), "soft"),
    (("STANDARD", "STND", "CHST", "MEDIUM", "BODY"), "hann"),
)
"""Of GE, Canon, United and others; the first that fits."""


def ramp_filter(geometry: Geometry, kernel: Kernel) -> Tensor:
    """Frequency response of ramp times apodisation, scaled for filtering by circular convolution.

    returns  float32 (F,), F = n/2 + 1 with n the power of two ≥ 2 × channels (no wrap-around)
    """
    length = 2 ** math.ceil(math.log2(2 * geometry.channels))
    lag = torch.arange(length, dtype=torch.float64)
    lag = torch.minimum(lag, length - lag)
    spacing = geometry.sampling
    distance = torch.where(lag == 0, torch.ones_like(lag), lag) * spacing
    if isinstance(geometry, FanBeam):
        distance = torch.sin(distance.clamp(max=math.pi / 2))  # (γ / sin γ)² times the flat kernel
    spatial = torch.where(lag % 2 == 1, -1 / (math.pi * distance) ** 2, torch.zeros_like(lag))
    spatial[0] = 1 / (4 * spacing**2)
    response: Tensor = torch.fft.rfft(spatial).real * spacing
    return (response * apodisation(kernel, response.numel())).float()


def apodisation(kernel: Kernel, count: int) -> Tensor:
    """Window over 0…Nyquist, float64 (count,)."""
    f = torch.linspace(0, 1, count, dtype=torch.float64)
    if kernel == "ramp":
        return torch.ones_like(f)
    if kernel == "shepp-logan":
        return torch.sinc(f / 2)
    cutoff = SOFT_CUTOFF if kernel == "soft" else 1.0
    return torch.where(f < cutoff, torch.cos(math.pi / 2 * f / cutoff) ** 2, torch.zeros_like(f))


def nearest_kernel(convolution_kernel: str) -> Kernel:
    """The kernel here that comes nearest to a vendor's ConvolutionKernel (0018,1210); "hann" for an unknown name."""
    return known_kernel(convolution_kernel) or "hann"


def known_kernel(convolution_kernel: str) -> Kernel | None:
    """The kernel here that comes nearest to a vendor's; None for an empty or unknown name.

    source: vendors' naming (Siemens' numbers grow with sharpness, Philips' letters do too)
    """
    name = convolution_kernel.upper().strip()
    if siemens := re.match(r"(?:\d+ \.\d+\.)?A?[BDHIJQSTU][A-Z]?(\d\d)", name):
        number = int(siemens.group(1))
        if number >= SIEMENS_SHARP:
            return "ramp"
        if number >= SIEMENS_MEDIUM:
            return "shepp-logan"
        return "hann" if number >= SIEMENS_STANDARD else "soft"
    if name in PHILIPS:
        return PHILIPS[name]
    for words, kernel in WORDS:
        if any(word in name for word in words):
            return kernel
    return "hann" if re.match(r"F[CL]\d\d", name) else None
