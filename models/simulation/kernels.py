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
"""From these numbers on a Siemens B/H/I kernel is drawn as ramp, Shepp-Logan, Hann; below as soft."""


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
    """The kernel here that comes nearest to a vendor's ConvolutionKernel (0018,1210); "hann" where it says nothing."""
    name = convolution_kernel.upper()
    siemens = re.match(r"[BHIJQ][RVW]?(\d\d)", name)
    if siemens:
        number = int(siemens.group(1))
        if number >= SIEMENS_SHARP:
            return "ramp"
        if number >= SIEMENS_MEDIUM:
            return "shepp-logan"
        return "hann" if number >= SIEMENS_STANDARD else "soft"
    if any(word in name for word in ("BONE", "EDGE", "ULTRA")):
        return "ramp"
    if any(word in name for word in ("LUNG", "DETAIL", "FC5", "FC3", "FC8")):
        return "shepp-logan"
    return "soft" if "SOFT" in name else "hann"
