"""CT files to training slices: one .npz per image, in HU, without a name in it.

A bundle for research, apart from the clinical path (node/dicom/read builds whole volumes and refuses more).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.errors import InvalidDicomError
from pydicom.uid import CTImageStorage

BELOW_AIR_HU = -1500
"""No tissue and no air is below this: what is, was written outside the reconstruction circle."""
LEAST_SIDE_PX = 256


def prepare_slices(folder: Path, out: Path, *, collection: str) -> list[Path]:
    """Every usable CT image below `folder` as `out`/<patient key>-<digest of the instance UID>.npz.

    Arrays in each file: hu int16 (Y, X); padding bool (Y, X); spacing_mm, kvp, exposure_mas, slice_thickness_mm float
    (NaN where the header does not say); patient, collection, kernel, manufacturer str. The patient is a digest of the
    PatientID: enough to keep patients whole when data are split, and no more.
    """
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        dataset = _read_ct(path)
        if dataset is None:
            continue
        target = out / f"{patient_key(dataset)}-{_digest(str(dataset.SOPInstanceUID))}.npz"
        hu, padding = _hounsfield(dataset)
        arrays: dict[str, Any] = dict(_facts(dataset, collection))
        np.savez_compressed(target, hu=hu, padding=padding, **arrays)
        written.append(target)
    return written


def patient_key(dataset: pydicom.Dataset) -> str:
    """Ten hexadecimal digits that stand for the patient."""
    return _digest(str(dataset.get("PatientID", "")))


def _read_ct(path: Path) -> pydicom.Dataset | None:
    """The data set, or None for anything but an axial, square-pixelled CT image."""
    try:
        dataset = pydicom.dcmread(path)
    except InvalidDicomError:
        return None
    image_type = [str(word).upper() for word in dataset.get("ImageType") or []]
    usable = (
        dataset.get("SOPClassUID") == CTImageStorage
        and dataset.get("Modality") == "CT"
        and "LOCALIZER" not in image_type
        and "PixelData" in dataset
        and "PixelSpacing" in dataset
        and min(int(dataset.Rows), int(dataset.Columns)) >= LEAST_SIDE_PX
        and float(dataset.PixelSpacing[0]) == float(dataset.PixelSpacing[1])
    )
    return dataset if usable else None


def _hounsfield(dataset: pydicom.Dataset) -> tuple[NDArray[np.int16], NDArray[np.bool_]]:
    stored = dataset.pixel_array
    hu = stored.astype(np.float32) * float(dataset.RescaleSlope) + float(dataset.RescaleIntercept)
    padding = hu < BELOW_AIR_HU
    value = dataset.get("PixelPaddingValue")
    if value is not None:
        padding |= stored == int(value)
    info = np.iinfo(np.int16)
    return np.clip(np.rint(hu), info.min, info.max).astype(np.int16), padding


def _facts(dataset: pydicom.Dataset, collection: str) -> Iterator[tuple[str, NDArray[np.generic]]]:
    yield "spacing_mm", np.array(float(dataset.PixelSpacing[0]))
    yield "patient", np.array(patient_key(dataset))
    yield "collection", np.array(collection)
    yield "kernel", np.array(str(dataset.get("ConvolutionKernel") or ""))
    yield "manufacturer", np.array(str(dataset.get("Manufacturer") or ""))
    for name, keyword in (("kvp", "KVP"), ("exposure_mas", "Exposure"), ("slice_thickness_mm", "SliceThickness")):
        value = dataset.get(keyword)
        yield name, np.array(np.nan if value in (None, "") else float(value))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:10]
