"""What the demonstration sends: a low-dose chest CT and a chest radiograph of a phantom made by code.

Imports torch (the physics of models/simulation); only `pacsnode demo` comes here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from models.contract import Acquisition, FloatArray
from models.simulation.dose import insert_noise, scanner_of
from models.simulation.geometry import ParallelBeam
from models.simulation.phantom import chest_phantom
from models.simulation.radiograph import Exposure, chest_radiograph, spacing_at_patient_mm
from node.dicom.synthetic import Labels, Technique, write_ct_series, write_dx

OnProgress = Callable[[int, int], None]

SPACING_MM = (1.5, 0.75, 0.75)
SIDE_PX = 512
FULL_DOSE_MAS = 200.0
DOSE = 0.1
_COARSE_SHAPE, _COARSE_SPACING_MM = (120, 160, 200), (3.0, 2.25, 2.1)
_BEAM = ParallelBeam(views=180)
"""Enough views to shape the noise; a scanner's thousand would take minutes and look the same."""
_TOGETHER = 4


@dataclass(frozen=True, eq=False)
class PhantomStudies:
    """The files, and what the CT would be without noise: float32 (Z, Y, X), HU."""

    files: list[Path]
    truth: FloatArray


def make_studies(folder: Path, *, slices: int, seed: int, on_progress: OnProgress) -> PhantomStudies:
    """Two studies of one phantom patient: CT at a tenth of the usual dose, and a PA radiograph."""
    phantom = chest_phantom(seed=seed, shape_zyx=(slices, SIDE_PX, SIDE_PX), spacing_zyx_mm=SPACING_MM, nodules=2)
    low_dose = _low_dose(phantom.voxels, seed=seed, on_progress=on_progress)
    patient = f"PHANTOM-{seed}"
    ct = Labels(
        patient_id=patient,
        study=f"ct-{slices}",
        series_number=2,
        accession_number=f"SIM{seed}CT",
        study_description="Chest CT, simulated",
        series_description="SIMULATED LOW DOSE CHEST",
    )
    files = write_ct_series(
        folder / "ct", low_dose, SPACING_MM, labels=ct, technique=Technique(exposure_mas=FULL_DOSE_MAS * DOSE)
    )
    files.append(_radiograph(folder / "dx", patient, seed))
    on_progress(slices + 1, slices + 1)
    return PhantomStudies(files, phantom.voxels)


def _low_dose(voxels: FloatArray, *, seed: int, on_progress: OnProgress) -> FloatArray:
    made_at = Acquisition(
        modality="CT", kvp=120.0, exposure_mas=FULL_DOSE_MAS, slice_thickness_mm=SPACING_MM[0], kernel="STANDARD"
    )
    scanner = scanner_of(made_at, _BEAM)
    noisy = np.empty_like(voxels)
    for start in range(0, len(voxels), _TOGETHER):
        plane = torch.from_numpy(voxels[start : start + _TOGETHER])
        noisy[start : start + _TOGETHER] = insert_noise(
            plane, SPACING_MM[1], scanner, fraction=DOSE, seed=seed + start
        ).numpy()
        on_progress(min(start + _TOGETHER, len(voxels)), len(voxels) + 1)
    return noisy


def _radiograph(folder: Path, patient: str, seed: int) -> Path:
    whole_chest = chest_phantom(seed=seed, shape_zyx=_COARSE_SHAPE, spacing_zyx_mm=_COARSE_SPACING_MM, nodules=2)
    exposure = Exposure(detector_px=(768, 768), pixel_mm=0.47, photons=2700.0)
    labels = Labels(
        patient_id=patient,
        study="dx",
        accession_number=f"SIM{seed}DX",
        study_description="Chest radiograph, simulated",
        series_description="SIMULATED CHEST PA",
    )
    pixels = chest_radiograph(whole_chest, seed=seed, exposure=exposure)
    magnification = exposure.pixel_mm / spacing_at_patient_mm(exposure)
    return write_dx(folder, pixels, exposure.pixel_mm, labels=labels, magnification=magnification)
