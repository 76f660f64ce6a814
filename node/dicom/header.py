"""What intake indexes of an instance: one partial parse of its header, never of its pixels."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset, FileDataset
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from node.dicom.elements import integer, item, items, parse, text, texts, valid_uid
from node.dicom.view import names_no_view, view_of_code
from node.errors import NotUnderstood
from node.settings import MANUFACTURER, MODEL_NAME

SHARED_FUNCTIONAL_GROUPS = 0x52009229
FRAME_ANATOMY = 0x00209071
PER_FRAME_FUNCTIONAL_GROUPS = 0x52009230
"""Where the header's parse stops: all that is indexed comes before it, and it may be megabytes long."""

LOSSY_TRANSFER_SYNTAXES = frozenset(
    {
        "1.2.840.10008.1.2.4.50",
        "1.2.840.10008.1.2.4.51",
        "1.2.840.10008.1.2.4.81",
        "1.2.840.10008.1.2.4.91",
        "1.2.840.10008.1.2.4.203",
    }
)
"""JPEG, JPEG-LS near-lossless, and the JPEG 2000 that does not promise to be lossless: taken for lossy whatever Lossy
Image Compression says."""

_URGENT = {"STAT", "HIGH", "URGENT", "ASAP"}
_LISTS = ("image_type", "patient_orientation", "irradiation_events", "source_images")
_PROJECTIONS = {"CR", "DX"}
_MOST_SOURCES = 16
_MADE_FROM = {"121322", "121358"}
"""Purposes of a reference (PS3.16 CID 7202): source for processing, For Processing predecessor."""
_DATE_TIME = re.compile(r"([0-9]{14})(?:\.([0-9]{1,6}))?(?:[+-][0-9]{4})?")
_PRIORITIES = (0x00401003, 0x0032000C, 0x00741200, 0x00401009)
"""Requested Procedure Priority, Study Priority ID (retired), Scheduled Procedure Step Priority, Reporting Priority."""


@dataclass(frozen=True)
class InstanceHeader:
    """Identity and description of one received object; "" or None where the object does not say."""

    sop_class_uid: str
    sop_instance_uid: str
    study_instance_uid: str
    series_instance_uid: str
    transfer_syntax_uid: str
    modality: str = ""
    patient_id: str = ""
    patient_name: str = ""
    accession_number: str = ""
    study_date: str = ""
    study_description: str = ""
    series_description: str = ""
    series_number: int | None = None
    instance_number: int | None = None
    image_type: tuple[str, ...] = ()
    rows: int | None = None
    columns: int | None = None
    frames: int = 0
    """1 for a single frame, 0 for objects without pixels."""
    manufacturer: str = ""
    manufacturer_model_name: str = ""
    station_name: str = ""
    body_part: str = ""
    """Body Part Examined, else the meaning of the Anatomic Region code."""
    protocol_name: str = ""
    kernel: str = ""
    view_position: str = ""
    """View Position, else what the View Code says."""
    view_code: str = ""
    """The View Code as "AP", "PA", "LL", "RL" …, else its meaning where that names a view."""
    patient_orientation: tuple[str, ...] = ()
    """Where rows and columns of a projection run to, as ("L", "F")."""
    presentation_intent: str = ""
    acquired_at: str = ""
    """Of a radiograph, as "20260102091531.25": the fraction only where one is stated that is not 0."""
    irradiation_events: tuple[str, ...] = ()
    """Of a radiograph: the UIDs of its exposures."""
    source_images: tuple[str, ...] = ()
    """Of a radiograph: SOP Instance UIDs of the images that it names as those it was made from."""
    urgent: bool = False
    own_result: bool = False

    def to_json(self) -> dict[str, Any]:
        """For a JSON column; `from_json` is its inverse."""
        lists = {name: list(getattr(self, name)) for name in _LISTS}
        return {**vars(self), **lists}  # all flat: asdict would copy each value

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> InstanceHeader:
        """Names that this version does not know are passed over: rows outlive releases."""
        known = {field.name for field in dataclasses.fields(cls)}
        given = {name: value for name, value in values.items() if name in known}
        return cls(**{**given, **{name: tuple(values.get(name, ())) for name in _LISTS}})


def read_header(path: Path) -> InstanceHeader:
    """Index entry of one file.

    raises   NotUnderstood   not DICOM, or SOP Class, SOP Instance, Study or Series UID missing or not a UID
             OSError         the file cannot be opened
    """
    dataset = parse(path, stop_at=PER_FRAME_FUNCTIONAL_GROUPS)
    rows, columns = integer(dataset, 0x00280010), integer(dataset, 0x00280011)
    image_type = tuple(value.upper() for value in texts(dataset, 0x00080008)[:16])
    modality = text(dataset, 0x00080060).upper()
    is_projection = modality in _PROJECTIONS
    return InstanceHeader(
        sop_class_uid=_uid(dataset, 0x00080016, "SOP Class UID"),
        sop_instance_uid=_uid(dataset, 0x00080018, "SOP Instance UID"),
        study_instance_uid=_uid(dataset, 0x0020000D, "Study Instance UID"),
        series_instance_uid=_uid(dataset, 0x0020000E, "Series Instance UID"),
        transfer_syntax_uid=transfer_syntax(dataset),
        modality=modality,
        patient_id=text(dataset, 0x00100020),
        patient_name=text(dataset, 0x00100010),
        accession_number=text(dataset, 0x00080050),
        study_date=_date(text(dataset, 0x00080020)),
        study_description=text(dataset, 0x00081030),
        series_description=text(dataset, 0x0008103E),
        series_number=integer(dataset, 0x00200011),
        instance_number=integer(dataset, 0x00200013),
        image_type=image_type,
        rows=rows,
        columns=columns,
        frames=max(1, integer(dataset, 0x00280008) or 1) if rows and columns else 0,
        manufacturer=text(dataset, 0x00080070),
        manufacturer_model_name=text(dataset, 0x00081090),
        station_name=text(dataset, 0x00081010),
        body_part=body_part(dataset, item(item(dataset, SHARED_FUNCTIONAL_GROUPS), FRAME_ANATOMY)),
        protocol_name=text(dataset, 0x00181030),
        kernel=kernel(dataset),
        view_position=view_of(dataset),
        view_code=_view_code(dataset),
        patient_orientation=tuple(value.upper() for value in texts(dataset, 0x00200020)[:2]),
        presentation_intent=text(dataset, 0x00080068).upper(),
        acquired_at=_acquired_at(dataset) if is_projection else "",
        irradiation_events=texts(dataset, 0x00083010)[:_MOST_SOURCES] if is_projection else (),
        source_images=_source_images(dataset) if is_projection else (),
        urgent=_urgent(dataset),
        own_result=_own_result(dataset, image_type),
    )


def transfer_syntax(dataset: FileDataset) -> str:
    """Transfer Syntax UID, from how the data set was found to be encoded where the meta information is silent."""
    stated = text(dataset.file_meta, 0x00020010)
    if valid_uid(stated):
        return stated
    implicit, little_endian = dataset.original_encoding
    if not little_endian:
        return str(ExplicitVRBigEndian)
    return str(ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian)


def kernel(dataset: Dataset) -> str:
    """Convolution kernel, of the image or of the CT Reconstruction group shared by all frames (PS3.3 C.8.15.3.6)."""
    shared = item(item(dataset, SHARED_FUNCTIONAL_GROUPS), 0x00189314)
    return " ".join(texts(dataset, 0x00181210) or texts(shared, 0x00181210))


def body_part(dataset: Dataset, *anatomies: Dataset) -> str:
    """Body Part Examined in capitals, else the meaning of the first Anatomic Region code; "" where nothing is stated.

    anatomies   items of Frame Anatomy, asked after the image itself (PS3.3 C.7.6.16.2.8)
    """
    stated = text(dataset, 0x00180015)
    meanings = (_code_meaning(place, 0x00082218) for place in (dataset, *anatomies))
    return (stated or next(filter(None, meanings), "")).upper()


def _uid(dataset: Dataset, tag: int, name: str) -> str:
    uid = text(dataset, tag)
    if not uid:
        raise NotUnderstood(f"{name} is missing")
    if not valid_uid(uid):
        raise NotUnderstood(f"{name} is not a valid UID")
    return uid


def _date(value: str) -> str:
    digits = value.replace(".", "").replace("-", "")  # ACR-NEMA wrote 1997.04.24
    return digits if re.fullmatch(r"[0-9]{8}", digits, re.ASCII) else ""


def _code_meaning(dataset: Dataset, tag: int) -> str:
    return text(item(dataset, tag), 0x00080104)


def view_of(dataset: Dataset) -> str:
    """View Position, else the View Code in the same words; only how the patient was where neither says more."""
    stated = text(dataset, 0x00185101).upper()
    return (names_no_view(stated) and _view_code(dataset)) or stated


def _view_code(dataset: Dataset) -> str:
    return view_of_code(text(item(dataset, 0x00540220), 0x00080100), _code_meaning(dataset, 0x00540220))


def _acquired_at(dataset: Dataset) -> str:
    """Acquisition DateTime, else Acquisition Date and Time, whichever is the more exact; "" where neither is whole."""
    stated = (text(dataset, 0x0008002A), text(dataset, 0x00080022) + text(dataset, 0x00080032))
    found = [match for value in stated if (match := _DATE_TIME.fullmatch(value))]
    moments = [f"{match[1]}.{(match[2] or '').rstrip('0')}".rstrip(".") for match in found]
    return max(moments, key=lambda moment: "." in moment, default="")


def _source_images(dataset: Dataset) -> tuple[str, ...]:
    """Those of the Source Image Sequence, and those referred to as what the image was made from."""
    referenced = [
        reference
        for reference in items(dataset, 0x00081140)
        if text(item(reference, 0x0040A170), 0x00080100) in _MADE_FROM
    ]
    found = (text(reference, 0x00081155) for reference in (*items(dataset, 0x00082112), *referenced))
    return tuple(dict.fromkeys(filter(None, found)))[:_MOST_SOURCES]


def _urgent(dataset: Dataset) -> bool:
    """Priority as any of the order's attributes states it, at the top or in the Request Attributes.

    Free text is not asked: "Stat." is a ward in German headers and an emergency in American ones.
    """
    places = (dataset, *items(dataset, 0x00400275))
    return any(text(place, tag).upper() in _URGENT for place in places for tag in _PRIORITIES)


def _own_result(dataset: Dataset, image_type: tuple[str, ...]) -> bool:
    """Whether this product made the object: so its results, coming back, are never processed again.

    Contributing equipment alone is not enough for an original image: a router of ours may have been entered there.
    """
    if _ours(dataset):
        return True
    contributed = any(_ours(equipment) for equipment in items(dataset, 0x0018A001))
    return contributed and image_type[:1] != ("ORIGINAL",)


def _ours(equipment: Dataset) -> bool:
    return text(equipment, 0x00080070).lower() == MANUFACTURER or text(equipment, 0x00081090) == MODEL_NAME
