"""A slice through fewer views and less tube current: its ingredients, from which every combination is mixed.

The anatomy keeps its own resolution: what fewer views and another kernel change is reconstructed twice and the
difference added, as noise is. Full current of a real slice is what its header says.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from models.contract import Acquisition, FloatArray
from models.evaluation.noise import SOFT_TISSUE_HU, local_statistics, noise_sd
from models.simulation.dose import Scanner, noise_fields
from models.simulation.kernels import Kernel, nearest_kernel
from models.simulation.projection import attenuation, filtered_back_project, forward_project, hounsfield

OWN_NOISE = (0.2, 6.0)
"""Least and most own noise of a slice, over what its header promises: beyond, one of the two is not believed."""
QUIET_PERCENTILE = 30.0
CPU = torch.device("cpu")


@dataclass(frozen=True, eq=False)
class Source:
    """A slice before it is degraded.

    hu              float32 (Y, X), HU, padding set to air
    noise_free      drawn, not scanned
    patient         a key that stands for the patient
    """

    name: str
    hu: FloatArray
    spacing_mm: float
    patient: str
    family: str
    noise_free: bool
    acquisition: Acquisition


@dataclass(frozen=True, eq=False)
class Ingredients:
    """What an image of some views and some current is mixed of, HU.

    base                    float32 (Y, X): all views, full current, with its kernel
    streaks                 float32 (V, Y, X): what each thinning of the views adds; none for the first
    quantum, electronic     float32 (V, Y, X): noise of full current at each thinning
    own_noise               of `base`, as a part of `quantum` at all views: 0 where it was drawn
    thinning                one view in so many, (V,)
    """

    base: FloatArray
    streaks: FloatArray
    quantum: FloatArray
    electronic: FloatArray
    own_noise: float
    thinning: tuple[int, ...]

    def mixed(self, view: int, fraction: float, *, signs: tuple[int, int] = (1, 1)) -> FloatArray:
        """The image at this thinning (its index) and part of the full current, float32 (Y, X), HU.

        signs    of the two noises: either is as likely as the other
        """
        quantum, electronic = np.sqrt(self.added(view, fraction))
        image: FloatArray = (
            self.base
            + self.streaks[view]
            + np.float32(signs[0] * quantum) * self.quantum[view]
            + np.float32(signs[1] * electronic) * self.electronic[view]
        )
        return image

    def added(self, view: int, fraction: float) -> tuple[float, float]:
        """Variances of the noise that is added, over those of `quantum` and `electronic`."""
        return added_noise(self.own_noise, self.thinning[view], fraction)


def added_noise(own_noise: float, thinning: int, fraction: float) -> tuple[float, float]:
    """Variances to add, over those of full current at this thinning (quantum, electronic).

    Own noise was made by all views: where only some are left it counts for more than the image shows.
    """
    if own_noise == 0:
        return 1 / fraction, 1 / fraction**2
    return (1 - fraction) / fraction + own_noise**2 * (1 - 1 / thinning), (1 - fraction**2) / fraction**2


def total_noise(own_noise: float, fraction: float) -> tuple[float, float]:
    """Variances of all noise in the image, over those of full current at its thinning (quantum, electronic)."""
    if own_noise == 0:
        return 1 / fraction, 1 / fraction**2
    return (1 - fraction) / fraction + own_noise**2, (1 - fraction**2) / fraction**2


def ingredients_of(
    source: Source, scanner: Scanner, thinning: tuple[int, ...], *, seed: int, device: torch.device = CPU
) -> Ingredients:
    """Scan a slice with all views and with fewer.

    scanner  with all views and the kernel of the result     thinning  one view in so many; the first must be 1
    device   that projects and reconstructs; the noise is drawn alike for every one
    """
    image = torch.from_numpy(np.ascontiguousarray(source.hu, np.float32))[None].to(device)
    lines = forward_project(attenuation(image), source.spacing_mm, scanner.geometry)

    def reconstructed(every: int, kernel: Kernel) -> FloatArray:
        geometry = scanner.geometry.sparser(every)
        found = filtered_back_project(
            lines[:, ::every], geometry, shape=source.hu.shape, spacing_mm=source.spacing_mm, kernel=kernel
        )
        array: FloatArray = hounsfield(found)[0].cpu().numpy()
        return array

    whole = reconstructed(1, scanner.kernel)
    own_kernel = nearest_kernel(source.acquisition.kernel)
    base = source.hu if own_kernel == scanner.kernel else source.hu + whole - reconstructed(1, own_kernel)
    streaks, quantum, electronic = [], [], []
    for number, every in enumerate(thinning):
        streaks.append(reconstructed(every, scanner.kernel) - whole if every > 1 else np.zeros_like(whole))
        thinned = replace(scanner, geometry=scanner.geometry.sparser(every))
        fields = noise_fields(image, source.spacing_mm, thinned, seed=seed + number)
        quantum.append(fields.quantum[0].cpu().numpy())
        electronic.append(fields.electronic[0].cpu().numpy())
    own = 0.0 if source.noise_free else own_noise(base, quantum[0])
    return Ingredients(base, np.stack(streaks), np.stack(quantum), np.stack(electronic), own, thinning)


def own_noise(hu: FloatArray, quantum: FloatArray) -> float:
    """Noise of a slice over that of full current, both where tissue is soft and quiet; 1 where there is too little."""
    measured = noise_sd(hu)
    if not np.isfinite(measured):
        return 1.0
    mean, _ = local_statistics(hu)
    soft = (mean > SOFT_TISSUE_HU[0]) & (mean < SOFT_TISSUE_HU[1])
    expected = float(np.percentile(local_statistics(quantum)[1][soft], QUIET_PERCENTILE))
    return float(np.clip(measured / expected, *OWN_NOISE))
