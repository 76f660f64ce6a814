"""Prepared CT slices as the training reads them: one .npz each, patients kept apart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from models.contract import Acquisition, BoolArray, FloatArray, ModelError

AIR_HU = -1000.0


@dataclass(frozen=True, eq=False)
class Slice:
    """One reconstructed CT image.

    hu          float32 (Y, X), padding set to air
    padding     bool (Y, X)
    patient     a key that stands for the patient, not an identity
    """

    name: str
    hu: FloatArray
    padding: BoolArray
    spacing_mm: float
    patient: str
    collection: str
    acquisition: Acquisition


def slice_files(folder: Path) -> list[Path]:
    """All prepared slices below a folder, in a fixed order.

    raises   ModelError     there are none
    """
    files = sorted(folder.rglob("*.npz"))
    if not files:
        raise ModelError(f"no prepared slices (*.npz) in {folder.name}")
    return files


def load_slice(path: Path) -> Slice:
    """One prepared slice (arrays as node/dicom/slices.py writes them).

    raises   ModelError     an array is missing
    """
    with np.load(path, allow_pickle=False) as arrays:
        try:
            padding = arrays["padding"].astype(bool)
            hu = np.where(padding, AIR_HU, arrays["hu"]).astype(np.float32)
            acquisition = Acquisition(
                modality="CT",
                manufacturer=str(arrays["manufacturer"]),
                kernel=str(arrays["kernel"]),
                kvp=_number(arrays["kvp"]),
                exposure_mas=_number(arrays["exposure_mas"]),
                slice_thickness_mm=_number(arrays["slice_thickness_mm"]),
            )
            return Slice(
                name=path.stem,
                hu=hu,
                padding=padding,
                spacing_mm=float(arrays["spacing_mm"]),
                patient=str(arrays["patient"]),
                collection=str(arrays["collection"]),
                acquisition=acquisition,
            )
        except KeyError as error:
            raise ModelError(f"{path.name} is not a prepared slice: {error}") from error


def patient_of(path: Path) -> str:
    """The patient key of a prepared slice, read without its image."""
    with np.load(path, allow_pickle=False) as arrays:
        return str(arrays["patient"])


def split(files: Sequence[Path], held_out: Sequence[str]) -> tuple[list[Path], list[Path]]:
    """Files to train on and files held out: patients stay whole.

    raises   ModelError     a patient to hold out is not there
    """
    patients = {path: patient_of(path) for path in files}
    missing = set(held_out) - set(patients.values())
    if missing:
        raise ModelError(f"{len(missing)} of the patients to hold out are not among the slices")
    kept = [path for path in files if patients[path] not in held_out]
    return kept, [path for path in files if patients[path] in held_out]


def _number(array: np.ndarray[tuple[()], np.dtype[np.float64]]) -> float | None:
    value = float(array)
    return None if math.isnan(value) or value <= 0 else value
