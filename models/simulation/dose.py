"""What a dose does: photon and electronic noise in the projections, and its insertion into reconstructed images.

source: simulation dossier 3.1. Below about 100 detected photons per ray the logarithm shifts HU and draws streaks;
`measure` shows this, the insertion into reconstructed images does not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional

from models.contract import Acquisition
from models.simulation.geometry import FanBeam, Geometry, ParallelBeam
from models.simulation.kernels import Kernel, nearest_kernel
from models.simulation.projection import (
    MU_WATER_PER_MM,
    attenuation,
    filtered_back_project,
    forward_project,
    hounsfield,
)

REFERENCE_PHOTONS_PER_MM = 1.4e9
"""Photons per mm of detector at the centre and per scan at 200 mAs, 3 mm, 120 kV: 14 HU in 32 cm of water (Hann)."""
ELECTRONIC_SIGMA = 10.0
"""In photons, of one reading of a real detector: one of so many views, a channel of so many mm at the centre."""
REFERENCE_VIEWS, REFERENCE_CHANNEL_MM = 1000, 0.57
REFERENCE_MAS, REFERENCE_THICKNESS_MM, REFERENCE_KVP = 200.0, 3.0, 120.0
PLAUSIBLE_MAS = (20.0, 1000.0)
"""Outside this range an Exposure is not in the unit that the standard asks for (seen in real headers): not believed."""
KVP_EXPONENT = 2.5
"""Detected photons grow about so with the tube voltage."""

LEAST_SIGNAL = 0.1
"""Photons to which a reading of nothing is raised before the logarithm."""
LEAST_EXPECTED_AT_INSERTION = 50.0
"""Full-dose photons below which a ray gets no further noise: the Gaussian form of the noise ends there."""


@dataclass(frozen=True)
class Scanner:
    """How a scan is made and reconstructed.

    photons             detected photons per ray through air at full dose
    electronic_sigma    electronic noise, in photons
    crosstalk           part of a channel's signal that each neighbour receives
    bowtie_radius_mm    radius of the water cylinder that the bowtie flattens; None for no bowtie
    """

    geometry: Geometry = field(default_factory=FanBeam)
    kernel: Kernel = "hann"
    photons: float = 1e6
    electronic_sigma: float = 10.0
    crosstalk: float = 0.015
    bowtie_radius_mm: float | None = None


def scanner_of(acquisition: Acquisition, geometry: Geometry) -> Scanner:
    """The scanner that would have made such images, as far as the header says.

    Fewer views or wider channels than a scanner has stand for several of its readings each: their photons add up, and
    the variances of their electronic noise do. So the noise of an image does not depend on how finely it is simulated.
    """
    mas = acquisition.exposure_mas or REFERENCE_MAS
    if not PLAUSIBLE_MAS[0] <= mas <= PLAUSIBLE_MAS[1]:
        mas = REFERENCE_MAS
    thickness_mm = acquisition.slice_thickness_mm or REFERENCE_THICKNESS_MM
    kvp = acquisition.kvp or REFERENCE_KVP
    exposure = mas / REFERENCE_MAS * thickness_mm / REFERENCE_THICKNESS_MM * (kvp / REFERENCE_KVP) ** KVP_EXPONENT
    width_mm = geometry.pitch_mm
    if isinstance(geometry, FanBeam):
        width_mm *= geometry.source_mm / geometry.detector_mm
    readings = REFERENCE_VIEWS / geometry.views * width_mm / REFERENCE_CHANNEL_MM
    return Scanner(
        geometry=geometry,
        kernel=nearest_kernel(acquisition.kernel),
        photons=REFERENCE_PHOTONS_PER_MM * exposure * width_mm / geometry.views,
        electronic_sigma=ELECTRONIC_SIGMA * math.sqrt(readings),
    )


def expected_photons(line_integrals: Tensor, scanner: Scanner, fraction: float = 1.0) -> Tensor:
    """Mean detected photons of each ray."""
    return fraction * scanner.photons * bowtie(scanner).to(line_integrals) * torch.exp(-line_integrals)


def bowtie(scanner: Scanner) -> Tensor:
    """Transmission of the bowtie filter per channel (channels,); ones without a bowtie."""
    offset, _ = scanner.geometry.rays()
    if scanner.bowtie_radius_mm is None:
        return torch.ones_like(offset)
    radius = scanner.bowtie_radius_mm
    chord = 2 * (radius**2 - offset.square()).clamp_min((0.3 * radius) ** 2).sqrt()
    return torch.exp(-MU_WATER_PER_MM * (2 * radius - chord))


def measure(line_integrals: Tensor, scanner: Scanner, *, fraction: float, seed: int) -> Tensor:
    """Line integrals as a detector reads them at a part of the full dose.

    line_integrals  float (B, views, channels), true values
    """
    generator = torch.Generator().manual_seed(seed)
    air = fraction * scanner.photons * bowtie(scanner).to(line_integrals)
    expected = (air * torch.exp(-line_integrals)).cpu()
    signal = torch.poisson(expected, generator=generator)
    signal += scanner.electronic_sigma * torch.randn(expected.shape, generator=generator)
    signal = _crosstalk(signal, scanner.crosstalk).clamp_min(LEAST_SIGNAL)
    return -torch.log(signal.to(line_integrals) / air)


@dataclass(frozen=True)
class NoiseFields:
    """Images of the noise that a lower dose would add, apart by origin since they grow differently as the dose falls.

    quantum, electronic     float (B, H, W), HU
    """

    quantum: Tensor
    electronic: Tensor

    def at(self, fraction: float | Tensor) -> Tensor:
        """The noise to add for this part of the full dose (dossier 3.1, last formula), HU."""
        a = torch.as_tensor(fraction, dtype=self.quantum.dtype, device=self.quantum.device)
        return ((1 - a) / a).sqrt() * self.quantum + (1 - a.square()).sqrt() / a * self.electronic

    def whole(self, fraction: float) -> Tensor:
        """All noise of a scan at this part of the full dose, for images that have none yet, HU."""
        return self.quantum / math.sqrt(fraction) + self.electronic / fraction


def noise_fields(
    slices: Tensor,
    spacing_mm: float,
    scanner: Scanner,
    *,
    seed: int,
    field_px: tuple[int, int] | None = None,
    repeats: int = 1,
) -> NoiseFields:
    """Noise of a scan of these slices, reconstructed alone: the anatomy keeps its own resolution.

    slices   float (B, H, W), HU, padding already set to air     field_px  reconstruct only the middle, (rows, columns)
    repeats  scans of every slice: the fields are (repeats × B, …)
    """
    expected = expected_photons(_coarse_line_integrals(slices, spacing_mm, scanner.geometry), scanner)
    expected = expected.clamp_min(LEAST_EXPECTED_AT_INSERTION).repeat(repeats, 1, 1)
    generator = torch.Generator().manual_seed(seed)
    parts = []
    for weight in (expected.rsqrt(), scanner.electronic_sigma / expected):
        xi = torch.randn(weight.shape, generator=generator).to(weight)
        parts.append(_crosstalk(xi * weight, scanner.crosstalk))
    shape = field_px or (slices.shape[-2], slices.shape[-1])
    images = filtered_back_project(
        torch.cat(parts), scanner.geometry, shape=shape, spacing_mm=spacing_mm, kernel=scanner.kernel
    )
    quantum, electronic = (images * (1000 / MU_WATER_PER_MM)).chunk(2)
    return NoiseFields(quantum, electronic)


def insert_noise(slices: Tensor, spacing_mm: float, scanner: Scanner, *, fraction: float, seed: int) -> Tensor:
    """Reconstructed slices as they would look at a part of their dose.

    slices   float (B, H, W), HU, padding set to air     fraction  0 < fraction ≤ 1
    """
    return slices + noise_fields(slices, spacing_mm, scanner, seed=seed).at(fraction)


def scan(slices: Tensor, spacing_mm: float, scanner: Scanner, *, fraction: float, seed: int) -> Tensor:
    """Slices scanned and reconstructed from end to end (slow, and with the scanner's resolution), HU."""
    lines = forward_project(attenuation(slices), spacing_mm, scanner.geometry)
    lines = measure(lines, scanner, fraction=fraction, seed=seed)
    shape = (slices.shape[-2], slices.shape[-1])
    return hounsfield(
        filtered_back_project(lines, scanner.geometry, shape=shape, spacing_mm=spacing_mm, kernel=scanner.kernel)
    )


COARSENING = 4


def _coarse_line_integrals(slices: Tensor, spacing_mm: float, geometry: Geometry) -> Tensor:
    """Line integrals good enough to weigh noise: projected four times coarser, then interpolated."""
    if geometry.views % (4 * COARSENING) or geometry.channels % COARSENING:
        return forward_project(attenuation(slices), spacing_mm, geometry)
    height, width = slices.shape[-2:]
    even = functional.pad(attenuation(slices)[:, None], (0, width % 2, 0, height % 2))
    image = functional.avg_pool2d(even, 2)[:, 0]
    coarse = forward_project(image, 2 * spacing_mm, geometry.coarser(COARSENING))  # (B, V/4, D/4)
    first = coarse[:, :1]
    following = first.flip(-1) if isinstance(geometry, ParallelBeam) else first
    ring = torch.cat([coarse, following], 1).transpose(1, 2)  # (B, D/4, V/4 + 1)
    views = functional.interpolate(ring, size=geometry.views + 1, mode="linear", align_corners=True)[..., :-1]
    return functional.interpolate(views.transpose(1, 2), size=geometry.channels, mode="linear")


def _crosstalk(signal: Tensor, share: float) -> Tensor:
    weights = torch.tensor([share, 1 - 2 * share, share]).to(signal)
    views = signal.flatten(0, -2)[:, None]
    padded = functional.pad(views, (1, 1), mode="replicate")
    return functional.conv1d(padded, weights[None, None]).reshape(signal.shape)
