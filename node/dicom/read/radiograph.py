"""One CR or DX image to a `Radiograph`: linear in its stored units, bright = dense, not windowed."""

from __future__ import annotations

import re
from datetime import date, datetime
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset

from models.contract import Acquisition, BoolArray, FloatArray, Radiograph, SourceRef
from node.dicom.elements import integer, item, items, number, numbers, text, texts
from node.dicom.exposure import is_for_processing
from node.dicom.header import view_of
from node.dicom.read.codec import Codec
from node.dicom.read.pixels import IntArray, PixelFile
from node.dicom.view import names_no_view, view_in
from node.errors import NotEligible

_MODALITIES = {"CR", "DX"}
_MOST_BITS = 16
"""More no digital radiograph has (PS3.3 C.8.11.3), and no result could hold them."""
_AGE = re.compile(r"(\d{1,3})([DWMY])")
_PER_YEAR = {"D": 365.25, "W": 52.18, "M": 12.0, "Y": 1.0}
"""Units of an age string (PS3.5 6.2)."""


def read_radiograph(path: Path) -> Radiograph:
    """Pixels after the modality LUT. A window or VOI LUT is for the viewer: it is carried or noted, never applied.

    raises   NotEligible   no greyscale radiograph with one frame, or not decodable; the reason is for the reader
    """
    with Codec() as codec:
        return _radiograph(PixelFile(path, codec))


def _radiograph(file: PixelFile) -> Radiograph:
    dataset = file.dataset
    modality = text(dataset, 0x00080060).upper()
    if modality not in _MODALITIES:
        raise NotEligible(f"The modality says {modality or 'nothing'}, not a plain radiograph.")
    if file.format.frames > 1:
        raise NotEligible("A moving picture of several frames, not a single radiograph.")
    if file.format.bits_stored > _MOST_BITS:
        raise NotEligible(f"Pixels of {file.format.bits_stored} bits; a radiograph has at most {_MOST_BITS}.")
    stored, padding = file.frame(0)
    pixels, value_range, value_step, notes = _modality_values(stored, file)
    pixels = pixels.clip(*value_range)  # padding may lie beyond the stored bits
    for_processing = is_for_processing(text(dataset, 0x00080068), text(dataset, 0x00080016))
    inverted = _bright_is_air(dataset, file.format.photometric, for_processing=for_processing)
    if inverted:
        pixels = np.float32(value_range[0] + value_range[1]) - pixels
    spacing, spacing_notes = _spacing(dataset)
    if float(pixels.min()) == float(pixels.max()):
        raise NotEligible("All pixels have the same value: an empty picture.")
    if file.lossy:
        notes.append("The image was compressed with loss before it came here.")
    return Radiograph(
        pixels=pixels,
        value_range=value_range,
        value_step=value_step,
        source=SourceRef(text(dataset, 0x00080018)),
        spacing_yx_mm=spacing,
        acquisition=_acquisition(dataset, modality),
        padding=_outside(padding),
        inverted=inverted,
        window=_window(dataset, value_range, inverted=inverted),
        view=_view(dataset),
        for_presentation=not for_processing,
        intensity=text(dataset, 0x00281040).upper(),
        notes=(*notes, *spacing_notes, *_voi_notes(dataset)),
    )


def _modality_values(stored: IntArray, file: PixelFile) -> tuple[FloatArray, tuple[float, float], float, list[str]]:
    """Values after the modality LUT (PS3.3 C.11.1) float32 (Y, X), the range that the stored bits allow, its step."""
    table = item(file.dataset, 0x00283000)
    if len(table):
        pixels, value_range = _through_table(stored, table, signed=file.format.signed)
        return pixels, value_range, 1.0, ["Values are those after the modality look-up table of the file."]
    slope, intercept = number(file.dataset, 0x00281053), number(file.dataset, 0x00281052)
    if slope is None or intercept is None:
        slope, intercept = 1.0, 0.0
    if slope == 0:
        raise NotEligible("The rescale slope is zero; no values can come of it.")
    ends = sorted(end * slope + intercept for end in file.format.range)
    return (stored * slope + intercept).astype(np.float32), (ends[0], ends[1]), abs(slope), []


def _through_table(stored: IntArray, table: Dataset, *, signed: bool) -> tuple[FloatArray, tuple[float, float]]:
    """Modality LUT Sequence: values below or above the table take its first or last entry (PS3.3 C.11.1.1)."""
    descriptor = [int(value) for value in numbers(table, 0x00283002)]
    if len(descriptor) != 3 or not 1 <= descriptor[2] <= 16:
        raise NotEligible("The modality look-up table of the image is damaged.")
    count = descriptor[0] % 65536 or 65536
    entries = _lut_data(table, count, bits=descriptor[2])[:count]
    first = descriptor[1] % 65536
    if signed and first >= 32768:
        first -= 65536
    if len(entries) < count:
        raise NotEligible("The modality look-up table of the image is shorter than it says.")
    most = float((1 << descriptor[2]) - 1)
    if float(entries.max()) > most:
        raise NotEligible("The modality look-up table of the image holds larger values than it says.")
    return entries[np.clip(stored - first, 0, count - 1)], (0.0, most)


def _lut_data(table: Dataset, count: int, *, bits: int) -> FloatArray:
    """LUT Data, which may be US or OW: the latter is handed out as bytes in the order of the file.

    Entries of eight bits are two to a word, though many write each as a word (PS3.3 C.11.1.1.1): the length tells.
    """
    value = table.get_item(0x00283006)
    raw = value.value if value is not None else None
    if value is not None and value.VR == "OW" and isinstance(raw, bytes):
        order = ">" if table.original_encoding[1] is False else "<"
        entries = np.frombuffer(raw[: len(raw) // 2 * 2], dtype=f"{order}u2")
        packed = bits == 8 and len(entries) == (count + 1) // 2
        return (entries.astype("<u2").view(np.uint8) if packed else entries).astype(np.float32)
    return np.array(numbers(table, 0x00283006), dtype=np.float32)


def _bright_is_air(dataset: Dataset, photometric: str, *, for_processing: bool) -> bool:
    """Whether high values are thin tissue, so that the image must be turned round.

    FOR PROCESSING images say so by Pixel Intensity Relationship Sign (PS3.3 C.8.11.3.1.2): 1 is more signal behind less
    tissue. For all others the photometric interpretation decides: the viewer shows dense tissue bright.
    """
    sign = integer(dataset, 0x00281041)
    if for_processing and sign in {1, -1}:
        return sign == 1
    return photometric == "MONOCHROME1"


def _spacing(dataset: Dataset) -> tuple[tuple[float, float] | None, list[str]]:
    """Pixel Spacing where there is one; else that of the imager, brought to the patient by the magnification stated."""
    at_patient, at_imager = numbers(dataset, 0x00280030), numbers(dataset, 0x00181164)
    if len(at_patient) == 2 and min(at_patient) > 0:
        return (at_patient[0], at_patient[1]), []
    if len(at_imager) != 2 or min(at_imager) <= 0:
        aspect = numbers(dataset, 0x00280034)
        if len(aspect) == 2 and aspect[0] != aspect[1]:
            raise NotEligible("The header does not say how large a pixel is, only that it is not square.")
        return None, ["The header does not say how large a pixel is."]
    magnification = number(dataset, 0x00181114)
    if magnification is not None and magnification >= 1:
        return (at_imager[0] / magnification, at_imager[1] / magnification), []
    return (at_imager[0], at_imager[1]), ["Pixel spacing is that at the detector: lengths in the patient are shorter."]


def _window(dataset: Dataset, value_range: tuple[float, float], *, inverted: bool) -> tuple[float, float] | None:
    """First window of the header, in the units of the pixels, turned round with them."""
    centre, width = number(dataset, 0x00281050), number(dataset, 0x00281051)
    if centre is None or width is None or width <= 0:
        return None
    return (value_range[0] + value_range[1] - centre if inverted else centre), width


def _voi_notes(dataset: Dataset) -> list[str]:
    if items(dataset, 0x00283010):
        return ["The image has a VOI look-up table; it is for display and was not applied."]
    return []


def _view(dataset: Dataset) -> str:
    """One word for a plain frontal view, "" where only posture or place is stated; anything else as it stands."""
    stated = view_of(dataset)
    named = view_in(stated)
    if named.plain_frontal:
        return named.frontal
    return "" if names_no_view(stated) else stated


def _outside(padding: BoolArray | None) -> BoolArray | None:
    """Padding that covers all is no padding."""
    return None if padding is None or bool(padding.all()) else padding


def _acquisition(dataset: Dataset, modality: str) -> Acquisition:
    exposure, micro = number(dataset, 0x00181152), number(dataset, 0x00181153)
    if exposure is None and micro is not None:
        exposure = micro / 1000
    return Acquisition(
        modality=modality,
        manufacturer=text(dataset, 0x00080070),
        scanner=text(dataset, 0x00081090),
        kvp=number(dataset, 0x00180060),
        exposure_mas=exposure,
        body_part=text(dataset, 0x00180015).upper(),
        image_type=tuple(part.upper() for part in texts(dataset, 0x00080008)),
        patient_age_years=_age_years(dataset),
    )


def _age_years(dataset: Dataset) -> float | None:
    """Patient's Age, else from birth to study; None where neither can be read, or the birth date is the later one.

    An age of nothing is what devices write that were told none: there the birth date speaks, where it can.
    """
    stated = _AGE.fullmatch(text(dataset, 0x00101010).upper())
    years = None if stated is None else int(stated[1]) / _PER_YEAR[stated[2]]
    if years:
        return years
    born, taken = (_date(text(dataset, tag)) for tag in (0x00100030, 0x00080020))
    if born is None or taken is None or taken < born:
        return years
    return (taken - born).days / _PER_YEAR["D"]


def _date(value: str) -> date | None:
    try:
        return datetime.strptime(value, "%Y%m%d").date()
    except ValueError:
        return None
