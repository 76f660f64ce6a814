"""What every result shares: patient and study as received, our equipment, dates of the stamp, deterministic bytes."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable
from datetime import datetime, timedelta, timezone
from typing import Any

import pydicom
from pydicom.config import disable_value_validation
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import ExplicitVRLittleEndian
from pydicom.valuerep import format_number_as_ds

from models.contract import ModelIdentity
from node.dicom.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME, device_uid
from node.dicom.write import codes
from node.dicom.write.charset import choose_character_set, plain
from node.dicom.write.objects import Produced, Stamp
from node.dicom.write.tables import is_unpaired, optional_modules_of
from node.settings import MANUFACTURER, MODEL_NAME, VERSION

_STUDY_KEYWORDS = """
    StudyInstanceUID StudyDate StudyTime ReferringPhysicianName ReferringPhysicianIdentificationSequence
    ConsultingPhysicianName StudyID AccessionNumber IssuerOfAccessionNumberSequence StudyDescription
    PhysiciansOfRecord NameOfPhysiciansReadingStudy RequestingService ReferencedStudySequence ProcedureCodeSequence
    ReasonForPerformedProcedureCodeSequence AdmittingDiagnosesDescription AdmittingDiagnosesCodeSequence
    AdmissionID IssuerOfAdmissionIDSequence ServiceEpisodeID ServiceEpisodeDescription
    IssuerOfServiceEpisodeIDSequence
"""
STUDY_KEYWORDS = frozenset(_STUDY_KEYWORDS.split())
PATIENT_GROUPS = (0x0010, 0x0012)
"""Identification, demography and history of the patient; clinical trial and de-identification."""
SERIES_OF_TRIAL = ("ClinicalTrialSeriesID", "ClinicalTrialSeriesDescription", "ClinicalTrialCoordinatingCenterName")
_EMPTY_IF_UNKNOWN = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex"),
    *("StudyDate", "StudyTime", "ReferringPhysicianName", "StudyID", "AccessionNumber"),
)
_OFFSET = re.compile(r"([+-])([0-9]{2})([0-5][0-9])")
_EARLIEST, _LATEST = timedelta(hours=-12), timedelta(hours=14)


def start(header: Any, sop_class_uid: str, sop_instance_uid: str, stamp: Stamp) -> Any:
    """A data set with patient, study, instance identity and dates, and nothing of series or image yet."""
    ds = Dataset()
    ds.SOPClassUID = sop_class_uid
    ds.SOPInstanceUID = sop_instance_uid
    with disable_value_validation():
        for element in header:
            if element.tag.group in PATIENT_GROUPS or element.keyword in STUDY_KEYWORDS:
                copy_element(element, ds)
    for keyword in SERIES_OF_TRIAL:
        if keyword in ds:
            del ds[keyword]
    ds.StudyInstanceUID = stamp.study_instance_uid
    if header.get("SpecificCharacterSet"):
        ds.SpecificCharacterSet = header.SpecificCharacterSet
    fill_empty(ds, _EMPTY_IF_UNKNOWN)
    made_at = local_time(header, stamp)
    if _time_zone(header) is not None:  # of the dates and times that are copied, too: never a guess
        ds.TimezoneOffsetFromUTC = made_at.strftime("%z")
    ds.InstanceCreationDate, ds.InstanceCreationTime = date_of(made_at), time_of(made_at)
    ds.ContentDate, ds.ContentTime = date_of(made_at), time_of(made_at)
    return ds


def add_series(ds: Any, *, uid: str, number: int, modality: str, description: str) -> None:
    """One series of ours. Its time is the stamp's, so all of its instances agree."""
    ds.SeriesInstanceUID = uid
    ds.SeriesNumber = number
    ds.Modality = modality
    ds.SeriesDescription = description[:64]
    ds.SeriesDate, ds.SeriesTime = ds.ContentDate, ds.ContentTime


def add_laterality(ds: Any, header: Any) -> None:
    """As received; empty where it is unknown and the body part may be one of a pair (type 2C)."""
    if "ImageLaterality" not in ds and not is_unpaired(str(header.get("BodyPartExamined", "") or "")):
        ds.Laterality = header.get("Laterality") or None


def add_equipment(ds: Any, stamp: Stamp) -> None:
    """This node as the equipment that made the object (PS3.3 C.7.5.1 and C.7.5.2)."""
    ds.Manufacturer = MANUFACTURER
    ds.ManufacturerModelName = MODEL_NAME
    ds.DeviceSerialNumber = stamp.station_name[:64]
    ds.StationName = stamp.station_name[:16]
    ds.SoftwareVersions = VERSION
    ds.DeviceUID = device_uid(stamp.station_name)


def add_contribution(ds: Any, stamp: Stamp, model: ModelIdentity | None, pipeline: str) -> None:
    """This node among the equipment that had a part in the object; what the source named stays before it."""
    item = Dataset()
    item.PurposeOfReferenceCodeSequence = [codes.item(codes.PROCESSING_EQUIPMENT)]
    item.Manufacturer = MANUFACTURER
    item.ManufacturerModelName = MODEL_NAME
    item.StationName = stamp.station_name[:16]
    item.DeviceSerialNumber = stamp.station_name[:64]
    item.SoftwareVersions = VERSION if model is None else [VERSION, f"{model.name} {model.version}"[:64]]
    item.ContributionDateTime = stamp.made_at.strftime("%Y%m%d%H%M%S%z")
    network = "" if model is None else f" {identity_of(model)}."
    item.ContributionDescription = plain(f"{pipeline}.{network} {stamp.note}")[:1024]
    ds.ContributingEquipmentSequence = [*(ds.get("ContributingEquipmentSequence") or []), item]


def identity_of(model: ModelIdentity) -> str:
    """The network in words that find it again."""
    return f"Network {model.name} {model.version}, weights SHA-256 {model.weights_sha256}"


def fill_empty(ds: Any, keywords: Iterable[str]) -> None:
    """Absent attributes that must be there, if only empty (type 2)."""
    for keyword in sorted(keywords):
        if keyword not in ds:
            setattr(ds, keyword, [] if pydicom.datadict.dictionary_VR(keyword) == "SQ" else None)


def fill_optional_modules(ds: Any) -> None:
    """Type 2 attributes of optional modules of which the object carries something."""
    for module in optional_modules_of(str(ds.SOPClassUID)):
        if any(keyword in ds for keyword in module.keywords):
            fill_empty(ds, module.may_be_empty)


def copy_element(element: Any, target: Any) -> None:
    """A deep copy, with what the standard forbids put right: numbers too long for their field, private tags."""
    if element.VR == "SQ":
        items = []
        for inner in element.value or []:
            copied = Dataset()
            for child in inner:
                if not child.tag.is_private and child.keyword != "SpecificCharacterSet":
                    copy_element(child, copied)
            items.append(copied)
        target[element.tag] = DataElement(element.tag, "SQ", DicomSequence(items))
        return
    value = element.value
    if element.VR == "DS" and value not in (None, ""):
        value = [decimal(v) for v in value] if element.VM > 1 else decimal(value)
    elif element.VR == "PN" and value:
        value = [str(v) for v in value] if element.VM > 1 else str(value)
    target[element.tag] = DataElement(element.tag, element.VR, value)


def local_time(header: Any, stamp: Stamp) -> datetime:
    """The stamp's moment on the clock of the source; in the stamp's own time zone where the source names none."""
    return stamp.made_at.astimezone(_time_zone(header) or stamp.made_at.tzinfo)


def _time_zone(header: Any) -> timezone | None:
    """None where the header names none that there is (PS3.3 C.12.1.1.8)."""
    stated = _OFFSET.fullmatch(str(header.get("TimezoneOffsetFromUTC", "") or "").strip())
    if stated is None:
        return None
    sign, hours, minutes = stated.groups()
    offset = timedelta(hours=int(hours), minutes=int(minutes)) * (-1 if sign == "-" else 1)
    return timezone(offset) if _EARLIEST <= offset <= _LATEST else None


def date_of(moment: datetime) -> str:
    return moment.strftime("%Y%m%d")


def time_of(moment: datetime) -> str:
    return moment.strftime("%H%M%S.%f")


def encode(ds: Any) -> bytes:
    """The Part 10 file in Explicit VR Little Endian; the same data set gives the same bytes."""
    fill_optional_modules(ds)
    choose_character_set(ds)
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\x00\x01"
    meta.MediaStorageSOPClassUID = ds.SOPClassUID
    meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = IMPLEMENTATION_CLASS_UID
    meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
    ds.file_meta = meta
    buffer = io.BytesIO()
    with disable_value_validation():
        pydicom.dcmwrite(buffer, ds, enforce_file_format=True)
    return buffer.getvalue()


def produced(ds: Any, kind: str, *, label: str, group: str, fallback: int = 0) -> Produced:
    """The finished data set as an object to be kept and sent; label, group and fallback as `Produced` has them."""
    return Produced(
        kind=kind,
        sop_class_uid=str(ds.SOPClassUID),
        sop_instance_uid=str(ds.SOPInstanceUID),
        series_instance_uid=str(ds.SeriesInstanceUID),
        transfer_syntax_uid=str(ExplicitVRLittleEndian),
        data=encode(ds),
        label=label,
        group=group,
        fallback=fallback,
    )


def content_bytes(ds: Any) -> bytes:
    """A data set without file meta, to be digested."""
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    with disable_value_validation():
        write_dataset(buffer, ds, parent_encoding="utf8")
    return bytes(buffer.getvalue())


def decimal(value: Any) -> Any:
    """As received where it fits into the 16 characters of a DS, else the nearest number that does."""
    text = getattr(value, "original_string", None) or str(value)
    return value if len(text.strip()) <= 16 else format_number_as_ds(float(value))
