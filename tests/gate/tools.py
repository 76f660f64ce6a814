"""Checks by programs that others wrote: dicom3tools, DCMTK, dcmqi, highdicom, and pydicom in its strict mode."""

from __future__ import annotations

import copy
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import highdicom as hd
import pydicom
from pydicom import config
from pydicom.valuerep import STR_VR, validate_value

from gate.files import Case, Complaint, groups, run

HARMLESS_IOD = (
    # dicom3tools of 2022 does not know this body part (PS3.16 Annex L: unpaired) and asks for a laterality.
    ("BodyPartExamined=THORAX", "</Laterality(0020,0060)> - Missing attribute for Type 2C Conditional"),
)
"""(what the file must hold, error that then is none)"""
MENDABLE = "Missing attribute for Type 2 Required"
"""Needs no value, so that a source without it is no excuse."""
HARMLESS_TREE = ("VR checker does not support", "Reading unknown/unsupported SpecificCharacterSet (\\ISO 2022 IR")
"""DCMTK 3.6.7 shows reports in ISO 2022 without decoding them; the source is written in it too."""


def iod(case: Case) -> Iterator[Complaint]:
    """dciodvfy finds no error that the source image does not have too; what may be empty is never missing."""
    inherited: dict[str, set[str]] = {}
    for path, ds in case.produced.items():
        for error in _iod_errors(path):
            source = _source_path(case, ds)
            if source is not None and str(source) not in inherited:
                inherited[str(source)] = set(_iod_errors(source))
            if source is not None and error in inherited[str(source)] and MENDABLE not in error:
                continue
            if not _harmless(ds, error):
                yield Complaint("iod", path.name, error)


def entity(case: Case) -> Iterator[Complaint]:
    """dcentvfy over sources and results together: one study, one patient, series that agree with themselves."""
    received = _entity_errors(list(case.sources))
    for error in _entity_errors([*case.sources, *case.produced]):
        if error not in received:
            yield Complaint("entity", "study", error)


def _entity_errors(paths: list[Path]) -> list[str]:
    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf8") as listing:
        listing.write("\n".join(str(path) for path in paths))
        listing.flush()
        _, said = run("dcentvfy", "-f", listing.name)
    return [line for line in said.splitlines() if line.startswith("Error")]


def srtree(case: Case) -> Iterator[Complaint]:
    """dsrdump reads every report without error and without warning."""
    for path, _ in case.of_modality("SR"):
        status, said = run("dsrdump", path)
        bad = _bad_lines(said)
        if status or bad:
            yield Complaint("srtree", path.name, "; ".join(bad) or f"exit {status}")


def ps(case: Case) -> Iterator[Complaint]:
    """DCMTK can apply every presentation state. The program says so in words only.

    It takes some bytes of UTF-8 for control characters: letters beyond ASCII are not shown to it.
    """
    for path, ds in case.of_modality("PR"):
        with tempfile.TemporaryDirectory() as folder:
            plain = Path(folder) / path.name
            _in_ascii(ds).save_as(plain)
            _, said = run("dcmpschk", plain)
        if "Test passed." not in said:
            yield Complaint("ps", path.name, "; ".join(_bad_lines(said)) or said.strip()[-200:])


def _in_ascii(ds: pydicom.Dataset) -> pydicom.Dataset:
    """A copy with a question mark for each letter beyond ASCII."""
    plain = copy.deepcopy(ds)
    plain.walk(_without_letters)
    return plain


def _without_letters(_: pydicom.Dataset, element: pydicom.DataElement) -> None:
    if element.VR in STR_VR and not str(element.value).isascii():
        texts = element.value if element.VM > 1 else [element.value]
        element.value = [str(text).encode("ascii", "replace").decode() for text in texts]


def tid1500(case: Case) -> Iterator[Complaint]:
    """dcmqi reads every measurement report, every group of it, and finds nothing strange."""
    for path, ds in case.of_modality("SR"):
        if not _is_measurement_report(ds):
            continue
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder) / "report.json"
            status, said = run(_program("tid1500reader"), "--inputDICOM", path, "--outputMetadata", target)
            bad = _bad_lines(said)
            if status or bad or not target.exists():
                yield Complaint("tid1500", path.name, "; ".join(bad) or f"exit {status}: {said.strip()[-200:]}")
            elif len(json.loads(target.read_text())["Measurements"] or []) != len(list(groups(ds))):
                yield Complaint("tid1500", path.name, "not every measurement group was read")


def segread(case: Case) -> Iterator[Complaint]:
    """dcmqi turns every segmentation into volumes. It cannot of radiographs, nor of slices of a tilted gantry."""
    for path, ds in case.of_modality("SEG"):
        if "SegmentSequence" in ds and not _is_volume(path, ds):
            continue
        with tempfile.TemporaryDirectory() as folder:
            command = [_program("segimage2itkimage"), "--inputDICOM", path, "--outputDirectory", folder]
            status, said = run(*command, "--outputType", "nii")
            if status or not list(Path(folder).glob("*.nii*")):
                yield Complaint("segread", path.name, said.strip()[-300:] or f"exit {status}")


def hdread(case: Case) -> Iterator[Complaint]:
    """highdicom parses reports and segmentations."""
    for path, ds in case.produced.items():
        try:
            if ds.get("Modality") == "SR" and _is_measurement_report(ds):
                _read_groups(path)
            elif ds.get("Modality") == "SEG":
                hd.seg.segread(path)
                if _is_volume(path, ds):
                    hd.seg.segread(path).get_volume(combine_segments=False)
        except (ValueError, TypeError, AttributeError, KeyError, RuntimeError, IndexError) as exc:
            yield Complaint("hdread", path.name, f"{type(exc).__name__}: {exc}")


def _read_groups(path: Path) -> None:
    """Groups of images, and of segments with the images that these are of (TID 1411, rows 7, 11 and 12)."""
    content = hd.sr.srread(path).content
    content.get_image_measurement_groups()
    for group in content.get_volumetric_roi_measurement_groups():
        _ = group.referenced_segment


def strict(case: Case) -> Iterator[Complaint]:
    """pydicom's own rules hold for every value that was not taken over from the source as it was."""
    taken_over = {text for ds in case.sources.values() for element in ds.iterall() for text in _texts(element)}
    kept = config.settings.reading_validation_mode
    for path in case.produced:
        config.settings.reading_validation_mode = config.RAISE
        try:
            ds = pydicom.dcmread(path)
            for element in ds.iterall():
                for text in set(_texts(element)) - taken_over:
                    validate_value(element.VR, text, config.RAISE)
        except (ValueError, TypeError, LookupError) as exc:
            yield Complaint("strict", path.name, f"{type(exc).__name__}: {exc}")
            continue
        finally:
            config.settings.reading_validation_mode = kept
        yield from _file_meta(path, ds)
        yield from _pixels(path, ds)


def _texts(element: Any) -> list[str]:
    """Values as they stand in the file, of representations that are text."""
    if element.VR not in STR_VR or element.value in (None, ""):
        return []
    values = element.value if element.VM > 1 else [element.value]
    return [str(getattr(value, "original_string", value)) for value in values]


def _bad_lines(said: str) -> list[str]:
    """Errors and warnings of DCMTK, and of what is built upon it."""
    bad = [line for line in said.splitlines() if line.startswith(("E:", "W:", "F:", "warning:"))]
    return [line for line in bad if not any(harmless in line for harmless in HARMLESS_TREE)]


def _file_meta(path: Path, ds: Any) -> Iterator[Complaint]:
    meta = ds.file_meta
    if meta.MediaStorageSOPInstanceUID != ds.SOPInstanceUID or meta.MediaStorageSOPClassUID != ds.SOPClassUID:
        yield Complaint("strict", path.name, "file meta information names another object")
    if meta.TransferSyntaxUID != "1.2.840.10008.1.2.1":
        yield Complaint("strict", path.name, f"transfer syntax {meta.TransferSyntaxUID}, not Explicit VR Little Endian")
    if not str(meta.ImplementationClassUID).startswith("2.25."):
        yield Complaint("strict", path.name, "an implementation class UID of somebody else")
    if path.read_bytes()[128:132] != b"DICM":
        yield Complaint("strict", path.name, "no DICM prefix")


def _pixels(path: Path, ds: Any) -> Iterator[Complaint]:
    if "PixelData" not in ds:
        return
    frames = int(ds.get("NumberOfFrames") or 1)
    bits = ds.Rows * ds.Columns * ds.SamplesPerPixel * ds.BitsAllocated * frames
    length = (bits + 7) // 8
    if len(ds.PixelData) != length + length % 2:
        yield Complaint("strict", path.name, f"pixel data of {len(ds.PixelData)} bytes, {length + length % 2} expected")
        return
    if ds.HighBit != ds.BitsStored - 1:
        yield Complaint("strict", path.name, "high bit is not bits stored - 1")
    values = ds.pixel_array
    if ds.BitsAllocated > 1 and ds.BitsStored < ds.BitsAllocated:
        low = -(1 << (ds.BitsStored - 1)) if ds.PixelRepresentation else 0
        high = (1 << (ds.BitsStored - ds.PixelRepresentation)) - 1
        if values.min() < low or values.max() > high:
            yield Complaint("strict", path.name, f"values {values.min()} to {values.max()} do not fit the bits stored")


def _iod_errors(path: Path) -> list[str]:
    _, said = run("dciodvfy", "-new", path)
    return [line for line in said.splitlines() if line.startswith("Error")]


def _harmless(ds: Any, error: str) -> bool:
    for condition, text in HARMLESS_IOD:
        keyword, value = condition.split("=")
        if str(ds.get(keyword, "")) == value and text in error:
            return True
    return False


def _source_path(case: Case, ds: Any) -> Path | None:
    """The first source image of the same study that the object could have inherited from."""
    named = {str(item.ReferencedSOPInstanceUID) for item in ds.get("SourceImageSequence") or []}
    for path, source in case.sources.items():
        if not named or str(source.SOPInstanceUID) in named:
            return path
    return None


def _is_measurement_report(ds: Any) -> bool:
    template = ds.get("ContentTemplateSequence") or []
    return bool(template) and template[0].TemplateIdentifier == "1500"


def _is_volume(path: Path, ds: Any) -> bool:
    """Whether the slices are a straight stack."""
    return bool(ds.get("FrameOfReferenceUID")) and hd.seg.segread(path).get_volume_geometry() is not None


def _program(name: str) -> Path:
    return Path(sys.executable).parent / name
