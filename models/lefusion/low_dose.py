"""A CT as it would look at a part of its dose: after the lesions are in it, so that their noise is the scan's.

source: dossier 9.7; simulation dossier 3.1. Noise goes into finished images: their resolution stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from models.contract import Acquisition, FloatArray, ModelError
from models.simulation.dose import (
    PLAUSIBLE_MAS,
    REFERENCE_KVP,
    REFERENCE_MAS,
    REFERENCE_THICKNESS_MM,
    insert_noise,
    scanner_of,
)
from models.simulation.geometry import ParallelBeam
from models.simulation.kernels import known_kernel

OnProgress = Callable[[int, int], None]

BEAM = ParallelBeam(views=180)
"""Enough views to shape the noise; a scanner's thousand take five times as long for noise as strong."""
SLICES_AT_ONCE = 4
SQUARE = 0.01
"""Share by which rows and columns of square pixels may lie apart."""


def at_dose(
    voxels: FloatArray,
    spacing_zyx_mm: tuple[float, float, float],
    acquisition: Acquisition,
    fraction: float,
    *,
    seed: int,
    on_progress: OnProgress | None = None,
) -> FloatArray:
    """Slices with the noise that a part of their dose adds, float32 (Z, Y, X), HU; how much, the header decides.

    voxels   padding set to air             fraction    0 < fraction < 1
    raises   ModelError     pixels are not square
    """
    _, row, column = spacing_zyx_mm
    if abs(row / column - 1) > SQUARE:
        raise ModelError(f"low dose is simulated for square pixels, and these are {row:g} x {column:g} mm")
    scanner = scanner_of(acquisition, BEAM)
    noisy = np.empty_like(voxels, np.float32)
    for start in range(0, len(voxels), SLICES_AT_ONCE):
        planes = torch.from_numpy(np.ascontiguousarray(voxels[start : start + SLICES_AT_ONCE], np.float32))
        of_slices = int(np.random.SeedSequence((seed, start)).generate_state(1)[0])
        noisy[start : start + len(planes)] = insert_noise(
            planes, row, scanner, fraction=fraction, seed=of_slices
        ).numpy()
        if on_progress is not None:
            on_progress(start + len(planes), len(voxels))
    return noisy


def assumed(acquisition: Acquisition) -> tuple[str, ...]:
    """What the header does not say, or not believably, and what is taken for it, in words."""
    said = []
    mas = acquisition.exposure_mas
    if not mas or not PLAUSIBLE_MAS[0] <= mas <= PLAUSIBLE_MAS[1]:
        said.append(f"an exposure of {REFERENCE_MAS:g} mAs")
    if not acquisition.kvp:
        said.append(f"a tube voltage of {REFERENCE_KVP:g} kV")
    if not acquisition.slice_thickness_mm:
        said.append(f"slices of {REFERENCE_THICKNESS_MM:g} mm")
    if known_kernel(acquisition.kernel) is None:
        said.append("a standard kernel")
    return tuple(said)
