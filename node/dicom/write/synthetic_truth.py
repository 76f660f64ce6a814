"""The truth of a synthetic CT as DICOM, in the study itself: a segmentation and a report, each in a series of its own.

Read back like a reader's marks (node/dicom/marks), so neither names this product as its equipment: what does so is one
of its results. Both say that they are synthetic, as the images do.

source  PS3.3 A.51 (Segmentation IOD), A.35.13 (Comprehensive 3D SR IOD); PS3.16 TID 1500, 1501, 1411
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
from highdicom.sr.utils import collect_evidence
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code as CodedTriple
from pydicom.uid import Comprehensive3DSRStorage, SegmentationStorage
from pydicom.valuerep import format_number_as_ds

from models.contract import BoolArray, Code
from node.dicom import uids
from node.dicom.write import codes, content, groups, headers
from node.dicom.write.synthetic_ct import PREFIX, Series, SyntheticStudy, percent
from node.settings import VERSION

SEGMENTS, REPORT = Series("truth seg", "SEG", 2, "truth, masks"), Series("truth sr", "SR", 3, "truth, axes")
_TISSUE: Code = ("49755003", "SCT", "Morphologically Abnormal Structure")
_PUT_IN: Code = ("synthetic", codes.PRIVATE_SCHEME, "Synthetic, put in by software")
_MODEL = f"{PREFIX} truth"
_SERIAL = "none"
_COLOURS = ((255, 210, 40), (40, 220, 120), (60, 170, 255), (255, 90, 90), (190, 120, 255))
_END = (
    "The lesions of this study are synthetic: software put them into the images of a scan, and this report tells where."
    " Not a patient's images, not for diagnosis."
)


@dataclass(frozen=True, eq=False)
class Planted:
    """A lesion that was put in.

    words           what it is, for people: "solid, contrast 800 HU"
    box, mask       of the images' grid (Z, Y, X); bool of the box's shape
    slice_index     of the axes; their ends (x, y), pixel centres at whole numbers
    """

    words: str
    finding: Code
    site: Code
    box: tuple[slice, slice, slice]
    mask: BoolArray
    slice_index: int
    long_px: tuple[tuple[float, float], tuple[float, float]]
    short_px: tuple[tuple[float, float], tuple[float, float]]
    long_mm: float
    short_mm: float
    volume_mm3: float


def truth_documents(
    images: Sequence[Any], lesions: Sequence[Planted], study: SyntheticStudy, *, step_mm: float
) -> list[tuple[str, bytes]]:
    """Name and bytes of the segmentation and the report.

    images      headers of the synthetic images, one per slice in the order of the masks
    lesions     at least one, and no two with a voxel in common
    step_mm     between all slices
    """
    masks = _segmentation(images, lesions, study)
    [measures] = masks.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence
    measures.SpacingBetweenSlices = format_number_as_ds(step_mm)  # the library's is of the slices with a lesion
    if not measures.get("SliceThickness"):
        measures.SliceThickness = format_number_as_ds(step_mm)
    report = _report(images, lesions, masks, study)
    return [("truth-seg.dcm", headers.encode(masks)), ("truth-sr.dcm", headers.encode(report))]


def header_of(image: bytes) -> Any:
    """Of one synthetic image, as `truth_documents` takes it: without pixels."""
    return pydicom.dcmread(io.BytesIO(image), stop_before_pixels=True)


def _segmentation(images: Sequence[Any], lesions: Sequence[Planted], study: SyntheticStudy) -> Any:
    used, labels = _labels(images, lesions)
    built = hd.seg.Segmentation(
        source_images=[images[index] for index in used],
        pixel_array=labels,
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[_segment(number, lesion, study) for number, lesion in enumerate(lesions, start=1)],
        series_instance_uid=uids.series_uid(study.origin, SEGMENTS.kind),
        series_number=SEGMENTS.number,
        sop_instance_uid=uids.instance_uid(study.origin, SEGMENTS.kind),
        instance_number=1,
        manufacturer=PREFIX,
        manufacturer_model_name=_MODEL,
        software_versions=VERSION,
        device_serial_number=_SERIAL,
        content_description=f"{PREFIX} lesions, truth",
        content_creator_name=f"{PREFIX}^",
        content_label="SYNTHETIC_TRUTH",
        omit_empty_frames=True,
    )
    for segment, lesion in zip(built.SegmentSequence, lesions, strict=True):
        segment.SegmentDescription = f"{PREFIX}, {lesion.words}"[:1024]
        segment.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = [codes.item(_PUT_IN)]
    ds = study.start(str(SegmentationStorage), SEGMENTS, 0)
    for element in built:  # the library's dates are of now, and one of its UIDs is by chance
        if element.tag.group > 2 and element.tag not in ds and element.keyword != "ContributingEquipmentSequence":
            ds[element.tag] = element
    dimension = uids.dimension_uid(study.origin, SEGMENTS.kind)
    for item in [*ds.DimensionOrganizationSequence, *ds.DimensionIndexSequence]:
        item.DimensionOrganizationUID = dimension
    for keyword in ("InstanceCreationDate", "InstanceCreationTime"):
        ds.pop(keyword, None)
    _name_scheme(ds)
    return ds


def _labels(images: Sequence[Any], lesions: Sequence[Planted]) -> tuple[list[int], NDArray[np.uint8]]:
    """Slices with a lesion, and there the number of each voxel's lesion, (used, Y, X)."""
    drawn = np.zeros(len(images), bool)
    for lesion in lesions:
        drawn[lesion.box[0]] |= lesion.mask.any((1, 2))
    used = np.flatnonzero(drawn)
    place = np.cumsum(drawn) - 1
    labels = np.zeros((len(used), int(images[0].Rows), int(images[0].Columns)), np.uint8)
    for number, lesion in enumerate(lesions, start=1):
        for offset in np.flatnonzero(lesion.mask.any((1, 2))):
            plane = labels[place[lesion.box[0].start + offset]]
            plane[lesion.box[1:]][lesion.mask[offset]] = number
    return used.tolist(), labels


def _segment(number: int, lesion: Planted, study: SyntheticStudy) -> Any:
    return hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=f"{PREFIX} lesion {number}",
        segmented_property_category=CodedTriple(*_TISSUE),
        segmented_property_type=CodedTriple(*lesion.finding),
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name=f"{PREFIX} lesions by {study.making.by}",
            family=CodedTriple("113076", "DCM", "Segmentation"),
            version=VERSION,
        ),
        tracking_uid=_tracking_uid(number, study),
        tracking_id=f"synthetic-{number}",
        anatomic_regions=[CodedTriple(*lesion.site)],
        display_color=hd.color.CIELabColor.from_rgb(*_COLOURS[(number - 1) % len(_COLOURS)]),
    )


def _report(images: Sequence[Any], lesions: Sequence[Planted], masks: Any, study: SyntheticStudy) -> Any:
    measured: list[Any] = []
    for number, lesion in enumerate(lesions, start=1):
        measured += [_axes(number, lesion, images, study), _volume(number, lesion, masks, images, study)]
    said = [
        content.text(codes.CONCLUSION, f"{len(lesions)} {PREFIX} lesions by {study.making.by}."),
        content.text(codes.COMMENT, _END),
    ]
    if study.making.dose is not None:
        words = f"Noise was added as at {percent(study.making.dose)} of the scan's dose, after the lesions."
        said.append(content.text(codes.COMMENT, words))
    tree = content.container(
        codes.MEASUREMENT_REPORT,
        [
            content.code(codes.LANGUAGE, codes.ENGLISH, relationship="HAS CONCEPT MOD"),
            content.code(codes.OBSERVER_TYPE, codes.DEVICE, relationship="HAS OBS CONTEXT"),
            content.uid_reference(codes.DEVICE_UID, uids.device_uid(_MODEL), relationship="HAS OBS CONTEXT"),
            content.text(codes.DEVICE_NAME, _MODEL, relationship="HAS OBS CONTEXT"),
            content.code(codes.PROCEDURE_REPORTED, codes.IMAGING_PROCEDURE, relationship="HAS CONCEPT MOD"),
            content.container(codes.IMAGING_MEASUREMENTS, measured),
            content.container(codes.QUALITATIVE_EVALUATIONS, said),
        ],
        template="1500",
    )
    del tree.RelationshipType
    ds = study.start(str(Comprehensive3DSRStorage), REPORT, 0)
    ds.update(tree)
    ds.Manufacturer, ds.ManufacturerModelName = PREFIX, _MODEL
    ds.DeviceSerialNumber, ds.SoftwareVersions = _SERIAL, VERSION
    ds.CompletionFlag, ds.VerificationFlag = "COMPLETE", "UNVERIFIED"
    ds.ReferencedPerformedProcedureStepSequence = []
    ds.PerformedProcedureCodeSequence = []
    shown = {lesion.slice_index: images[lesion.slice_index] for lesion in lesions}
    ds.CurrentRequestedProcedureEvidenceSequence, _ = collect_evidence([*shown.values(), masks], tree)
    _name_scheme(ds)
    return ds


def _axes(number: int, lesion: Planted, images: Sequence[Any], study: SyntheticStudy) -> Any:
    image = images[lesion.slice_index]
    on = groups.Place(str(image.SOPClassUID), str(image.SOPInstanceUID), None, int(image.Rows), int(image.Columns))
    items = _head(number, lesion, study)
    for name, ends, length in (
        (codes.LONG_AXIS, lesion.long_px, lesion.long_mm),
        (codes.SHORT_AXIS, lesion.short_px, lesion.short_mm),
    ):
        line = content.polyline(ends, on.image())
        items.append(content.numeric(name, round(length, 3), codes.MILLIMETRE, [line]))
    items.append(content.text(codes.COMMENT, f"{PREFIX} lesion {number}, {lesion.words}"))
    return content.container(codes.MEASUREMENT_GROUP, items, template="1501")


def _volume(number: int, lesion: Planted, masks: Any, images: Sequence[Any], study: SyntheticStudy) -> Any:
    items = [
        *_head(number, lesion, study),
        content.image(str(masks.SOPClassUID), str(masks.SOPInstanceUID), name=codes.REFERENCED_SEGMENT, segment=number),
        content.uid_reference(codes.SEGMENTATION_SOURCE_SERIES, str(images[0].SeriesInstanceUID)),
        content.numeric(codes.VOLUME, round(lesion.volume_mm3, 2), codes.CUBIC_MILLIMETRE),
    ]
    return content.container(codes.MEASUREMENT_GROUP, items, template="1411")


def _head(number: int, lesion: Planted, study: SyntheticStudy) -> list[Any]:
    """The name before the colon is what some viewers show measurements by (see `groups.BIDIRECTIONAL`)."""
    name = f"{groups.BIDIRECTIONAL}:{PREFIX} lesion {number}"
    return [
        content.text(codes.TRACKING_IDENTIFIER, name, relationship="HAS OBS CONTEXT"),
        content.uid_reference(codes.TRACKING_UID, _tracking_uid(number, study), relationship="HAS OBS CONTEXT"),
        content.code(codes.FINDING, lesion.finding),
        content.code(codes.FINDING_SITE, lesion.site, relationship="HAS CONCEPT MOD"),
    ]


def _tracking_uid(number: int, study: SyntheticStudy) -> str:
    return uids.tracking_uid(study.study_instance_uid, "", f"synthetic-{number}")


def _name_scheme(ds: Any) -> None:
    scheme = Dataset()
    scheme.CodingSchemeDesignator = codes.PRIVATE_SCHEME
    scheme.CodingSchemeName = codes.PRIVATE_SCHEME_NAME
    ds.CodingSchemeIdentificationSequence = [scheme]
