"""Headers of received images: what results copy from, pixels left on disk."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom.config import disable_value_validation
from pydicom.datadict import dictionary_has_tag, dictionary_VM
from pydicom.dataset import Dataset

from models.contract import SourceRef
from node.dicom.elements import UNREADABLE, parse, text
from node.dicom.header import LOSSY_TRANSFER_SYNTAXES, PER_FRAME_FUNCTIONAL_GROUPS
from node.dicom.write.headers import PATIENT_GROUPS, STUDY_KEYWORDS
from node.errors import AnalysisFailed, NotUnderstood

_FIRST_COUNTS = frozenset({"IS", "DS", "US", "SS", "UL", "SL", "FL", "FD", "CS", "UI", "DA", "TM", "DT", "AS"})
_WORDS = frozenset({"LO", "SH"})
"""Free text of one value, in which a backslash is a slip of the pen."""
_SOP_INSTANCE_UID = 0x00080018
_UIDS = (0x00080016, _SOP_INSTANCE_UID, 0x0020000D, 0x0020000E)
"""SOP Class, SOP Instance, Study and Series Instance UID."""
_PIXEL_DATA = 0x7FE00008
"""Float Pixel Data: the lowest of the three pixel data tags."""
_TIMES = ((0x0008002A, 8), (0x00080032, 0), (0x00080033, 0))
"""Acquisition DateTime, Acquisition Time and Content Time, and where in them the hour begins."""
_IDENTITY = (
    "SpecificCharacterSet",
    "TimezoneOffsetFromUTC",
    "PatientName",
    "PatientID",
    "IssuerOfPatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyInstanceUID",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "StudyDescription",
    "AccessionNumber",
    "ReferringPhysicianName",
    "SeriesInstanceUID",
    "SeriesNumber",
    "SeriesDescription",
    "Modality",
    "SOPClassUID",
    "Rows",
    "Columns",
    "NumberOfFrames",
    "SOPInstanceUID",
)


@dataclass(frozen=True)
class Part:
    """Which image it is, of several of one series that are each analysed by itself.

    place           0-based
    name            for the reader: "image 2 at 09:15:31"
    """

    place: int
    name: str


@dataclass(frozen=True, eq=False)
class SeriesSource:
    """Headers of one received series by SOP Instance UID, in the order of arrival, without pixels and private tags.

    part            given where this is one image of a series that is analysed image by image
    """

    headers: dict[str, Any]
    part: Part | None = None

    @classmethod
    def load(cls, paths: Sequence[Path]) -> SeriesSource:
        """Raises NotUnderstood when one is not DICOM or names no instance."""
        headers: dict[str, Any] = {}
        with disable_value_validation():
            for path in paths:
                header = _read(path)
                headers[str(header.SOPInstanceUID)] = header
        return cls(headers)

    def bare(self) -> SeriesSource:
        """Only what says whose images these are, for a report that the full headers stood in the way of."""
        bare: dict[str, Any] = {}
        for uid, header in self.headers.items():
            bare[uid] = Dataset()
            for keyword in _IDENTITY:
                if keyword in header:
                    bare[uid][keyword] = header[keyword]
        return SeriesSource(bare)

    def one_by_one(self) -> list[SeriesSource]:
        """Each image by itself, with a name that no other of them has."""
        refs = [SourceRef(uid) for uid in self.headers]
        found = []
        for place, (ref, number) in enumerate(zip(refs, self.image_numbers(refs), strict=True)):
            at = _time_of(self.of(ref))
            name = f"image {number} at {at}" if at else f"image {number}"
            found.append(SeriesSource({ref.instance_uid: self.of(ref)}, Part(place, name)))
        return found

    @property
    def first(self) -> Any:
        """The header that study and series attributes are taken from."""
        if not self.headers:
            raise AnalysisFailed("a series without images has no headers to copy")
        return next(iter(self.headers.values()))

    @property
    def series_instance_uid(self) -> str:
        return str(self.first.SeriesInstanceUID)

    @property
    def index(self) -> int | str:
        """For UIDs of objects of which a source has one: 0, or what tells an image from the others of its series."""
        return 0 if self.part is None else str(self.first.SOPInstanceUID)

    @property
    def key(self) -> str:
        """For groups of alternatives: the series, or the one image of it."""
        return self.series_instance_uid if self.part is None else f"{self.series_instance_uid}/{self.index}"

    def of(self, ref: SourceRef) -> Any:
        """The header of the image that a slice came from."""
        try:
            return self.headers[ref.instance_uid]
        except KeyError:
            raise AnalysisFailed(f"no header of source image {ref.instance_uid}") from None

    def frame(self, ref: SourceRef) -> Any:
        """The same as if the frame were a single-frame image: functional groups laid flat (PS3.3 C.7.6.16)."""
        header = self.of(ref)
        return header if ref.frame is None else flatten(header, ref.frame)

    def image_numbers(self, refs: Sequence[SourceRef]) -> list[int]:
        """Of each slice as a viewer shows it; 1, 2, 3… where the headers do not tell the slices apart."""
        received = [ref.frame if ref.frame is not None else self.of(ref).get("InstanceNumber") for ref in refs]
        numbers = [int(number) for number in received if number not in (None, "")]
        return numbers if len(set(numbers)) == len(refs) else list(range(1, len(refs) + 1))

    def images(self) -> Iterator[Any]:
        """Headers of those that are pictures."""
        return (header for header in self.headers.values() if "Rows" in header and "Columns" in header)


def flatten(header: Any, frame: int) -> Any:
    """One frame of a multi-frame header with the attributes of its functional groups on the top level.

    frame           1-based
    """
    flat = Dataset()
    for element in header:
        if element.keyword not in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
            flat[element.tag] = element
    shared = header.get("SharedFunctionalGroupsSequence") or []
    per_frame = header.get("PerFrameFunctionalGroupsSequence") or []
    groups = [*shared[:1], *per_frame[frame - 1 : frame]]
    for group in groups:
        for macro in group:
            for inner in (macro.value or [])[:1] if macro.VR == "SQ" else []:
                for element in inner:
                    flat[element.tag] = element
    if "FrameType" in flat:
        flat.ImageType = flat.FrameType
    flat.InstanceNumber = frame
    return flat


def _time_of(header: Any) -> str:
    """When it was taken, "09:15:31"; "" where the header says no time to the second."""
    for tag, hour in _TIMES:
        found = re.match(r"([0-9]{2})([0-9]{2})([0-9]{2})", text(header, tag)[hour:])
        if found is not None:
            return ":".join(found.groups())
    return ""


def _read(path: Path) -> Any:
    """All that comes before the pixels; of a file that breaks off in the frames' groups, what comes before those."""
    try:
        header = _parsed(path)
    except OSError as exc:
        raise NotUnderstood(f"a source file cannot be read again ({type(exc).__name__})") from exc
    identity = {tag: text(header, tag) for tag in _UIDS}
    if not identity[_SOP_INSTANCE_UID]:
        raise NotUnderstood("a source file has no SOP Instance UID")
    lossy = text(header.file_meta, 0x00020010) in LOSSY_TRANSFER_SYNTAXES
    _keep_readable(header)
    for tag, uid in identity.items():
        if uid and tag not in header:
            header.add_new(tag, "UI", uid)  # its VR was not one, or not that of a UID
    if lossy:
        header.LossyImageCompression = "01"
    return header


def _parsed(path: Path) -> Any:
    try:
        return parse(path, stop_at=_PIXEL_DATA)
    except NotUnderstood:
        return parse(path, stop_at=PER_FRAME_FUNCTIONAL_GROUPS)  # as far as it was read when it was taken


def _keep_readable(dataset: Any) -> None:
    """Leaves out private elements and those whose value is not what their VR says; makes one value of several."""
    for tag in list(dataset.keys()):
        try:
            element = None if tag.is_private else dataset[tag]
        except (*UNREADABLE, OSError):  # from memory here: no disk can fail
            element = None
        if element is None or not _says_numbers(element):
            del dataset[tag]
        elif element.VR == "SQ":
            for item in element.value:
                _keep_readable(item)
        elif element.VM > 1 and not _says_whose(element) and dictionary_has_tag(tag) and dictionary_VM(tag) == "1":
            _make_one(element)


def _says_whose(element: Any) -> bool:
    """Patient and study stay as received: archives look up what stands there."""
    return element.tag.group in PATIENT_GROUPS or element.keyword in STUDY_KEYWORDS


def _make_one(element: Any) -> None:
    """Of several values where one belongs: the first, as the reader takes it; of words all, each once."""
    if element.VR in _FIRST_COUNTS:
        element.value = element.value[0]
    elif element.VR in _WORDS:
        element.value = " ".join(dict.fromkeys(filter(None, map(str, element.value))))


def _says_numbers(element: Any) -> bool:
    """False for a number in text that is none: it is handed out as it stands."""
    if element.VR not in ("IS", "DS") or element.value in (None, ""):
        return True
    values = element.value if element.VM > 1 else [element.value]
    return all(isinstance(value, int | float) or value in (None, "") for value in values)
