"""One chest taken in several ways: what the detector reads, and what it would read without noise.

For tests of a restoration under physics that it was not trained on. The chest is projected once.
source: DiffusionXRay dossier 12; simulation dossier 6
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from models.contract import FloatArray
from models.simulation.drr import BEAM_80_KV, BEAM_140_KV, transmitted
from models.simulation.radiograph import Exposure, arriving, counted_alike, density_of, seen, spacing_at_patient_mm
from models.simulation.radiograph_cases import Patient, scaled, span_of

VIEW = Exposure(detector_px=(320, 320), pixel_mm=0.4)
"""The middle of a chest, 12 cm wide: a whole one takes six times as long."""
VOXEL_ZYX_MM = (0.8, 1.6, 0.8)
DIAMETER_MM = (5.0, 20.0)

USUAL = "120 kV, grid"
WAYS: Mapping[str, Mapping[str, Any]] = {
    USUAL: {},
    "80 kV": {"beam": BEAM_80_KV},
    "140 kV": {"beam": BEAM_140_KV},
    "no grid": {"grid_factor": 1.0},
    "soft detector, wide focal spot": {"mtf_half_lp_mm": 1.0, "focal_spot_mm": 2.0},
    "a quarter of the photons": {"photons": VIEW.photons / 4},
}
"""What is other than in `VIEW`. The same photons in air: a softer beam leaves fewer of them behind the patient.
A sharper detector is no other way: pixels of this size show nothing of it."""


@dataclass(frozen=True, eq=False)
class Rays:
    """A chest along the rays of a view, without nodules and with them.

    soft, bone      float32 (2, rows, columns), g/cm²
    nodules         row, column and diameter of each shadow, float64 (n, 3), px
    view            the detector that they fall on
    """

    soft: FloatArray
    bone: FloatArray
    nodules: NDArray[np.float64]
    view: Exposure

    @property
    def spacing_mm(self) -> float:
        """In the patient's middle plane."""
        return spacing_at_patient_mm(self.view)


@dataclass(frozen=True, eq=False)
class Exposed:
    """Four pictures float32 (rows, columns), aligned and scaled alike, bright = dense, about -1…1.

    truth       without nodules and with them, without noise
    read        the same as the detector reads them, with the same noise
    """

    truth: tuple[FloatArray, FloatArray]
    read: tuple[FloatArray, FloatArray]


def draw_rays(
    seed: int,
    *,
    view: Exposure = VIEW,
    nodules: int = 2,
    voxel_zyx_mm: tuple[float, float, float] = VOXEL_ZYX_MM,
) -> Rays:
    """A random chest; fewer nodules where the field has no room for more."""
    patient = Patient(seed, view, voxel_zyx_mm)
    planted = patient.plant(nodules, DIAMETER_MM)
    soft = [patient.soft.numpy(), *(added for _, added, _ in planted)]
    bone = [patient.bone.numpy(), *(added for _, _, added in planted)]
    shadows = [(*view.shadow(one.centre_mm), one.diameter_mm) for one, _, _ in planted]
    places = [(row, column, diameter * larger / view.pixel_mm) for row, column, larger, diameter in shadows]
    both = [np.stack([parts[0], np.sum(parts, 0)]).astype(np.float32) for parts in (soft, bone)]
    return Rays(both[0], both[1], np.array(places, np.float64).reshape(-1, 3), view)


def exposed(rays: Rays, way: Mapping[str, Any], *, seed: int) -> Exposed:
    """The chest taken in this way, one of `WAYS`; the same again for the same seed."""
    how, arrived = _arrived(rays, way)
    read = [density_of(signal) for signal in counted_alike(arrived, how, seed)]
    bare, full, read_bare, read_full = _alike([*_without_noise(arrived, how), *read])
    return Exposed((bare, full), (read_bare, read_full))


def truth_of(rays: Rays, way: Mapping[str, Any]) -> tuple[FloatArray, FloatArray]:
    """As `exposed`, without the readings: without nodules and with them."""
    how, arrived = _arrived(rays, way)
    bare, full = _alike(_without_noise(arrived, how))
    return bare, full


def _arrived(rays: Rays, way: Mapping[str, Any]) -> tuple[Exposure, list[FloatArray]]:
    how = replace(rays.view, **way)
    return how, [
        arriving(transmitted(torch.from_numpy(soft), torch.from_numpy(bone), how.beam), how)
        for soft, bone in zip(rays.soft, rays.bone, strict=True)
    ]


def _without_noise(arrived: list[FloatArray], how: Exposure) -> list[FloatArray]:
    return [density_of(seen(signal, how)) for signal in arrived]


def _alike(densities: list[FloatArray]) -> list[FloatArray]:
    """Scaled to the range of the first."""
    span = span_of(densities[0])
    return [scaled(one, span) for one in densities]
