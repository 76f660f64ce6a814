"""CT series in a folder of DICOM files, as trainings and acceptance tests take them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from node.errors import NotEligible, NotUnderstood

if TYPE_CHECKING:
    from models.contract import FloatArray, Volume

LEAST_SLICES = 20
AIR_HU = -1000.0


def ct_series(folder: Path) -> dict[str, dict[str, list[Path]]]:
    """Patient ID → Series Instance UID → files, of all CT below a folder; what is no DICOM is passed over."""
    from node.dicom.header import read_header

    series: dict[str, dict[str, list[Path]]] = {}
    for path in sorted(one for one in folder.rglob("*") if one.is_file()):
        try:
            header = read_header(path)
        except NotUnderstood:
            continue
        if header.modality == "CT":
            series.setdefault(header.patient_id, {}).setdefault(header.series_instance_uid, []).append(path)
    return series


def longest_series(folder: Path) -> Iterator[tuple[str, list[Path]]]:
    """Key of each patient, and the files of the CT series with the most images; those of a few slices are left out."""
    for patient_id, found in ct_series(folder).items():
        longest = max(found.values(), key=len)
        if len(longest) >= LEAST_SLICES:
            yield short_digest(patient_id), longest


def short_digest(text: str) -> str:
    """As node/dicom/slices.py makes its keys: one patient has one key in both."""
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def in_air(volume: Volume) -> FloatArray:
    """Voxels with air where there is padding; a view where there is none."""
    import numpy as np

    if volume.padding is None:
        return volume.voxels
    filled: FloatArray = np.where(volume.padding, np.float32(AIR_HU), volume.voxels)
    return filled


def upright_voxels(volume: Volume) -> FloatArray:
    """Voxels from feet to head, anterior to posterior, the patient's right to left; padding is air.

    raises   NotEligible    not axial, or uneven
    """
    import numpy as np

    directions = volume.affine[:3, :3]  # column: axis of the array; row: L, P, S
    if [int(axis) for axis in np.abs(directions).argmax(0)] != [2, 1, 0] or not volume.even_steps:
        raise NotEligible("Its slices are not axial, or uneven.")
    backwards = tuple(axis for axis, row in enumerate((2, 1, 0)) if directions[row, axis] < 0)
    upright: FloatArray = np.ascontiguousarray(np.flip(in_air(volume), backwards), np.float32)
    return upright
