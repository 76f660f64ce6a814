"""Marks as radiologists' workstations write them: presentation states and measurement reports about made images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from images import phantom

GSPS = "1.2.840.10008.5.1.4.1.1.11.1"
COMPREHENSIVE_SR = "1.2.840.10008.5.1.4.1.1.88.33"
SHAPE = (130, 260)
TABLE_POINTS = ((233.537, 95.0204), (234.057, 106.977), (231.169, 101.605), (236.252, 101.143))
"""Of a real row of DeepLesion, 1-based: long axis, short axis."""
TABLE_BOX = (226.169, 90.0204, 241.252, 111.977)

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Scan:
    """Files of one series, and its headers in the order of files."""

    paths: list[Path]
    headers: list[Dataset]

    @property
    def key(self) -> Dataset:
        """The image that marks are put on: not in the middle, so that turned orders show."""
        return self.headers[1]


def centred() -> list[tuple[float, float]]:
    """The points of the table, 0-based, pixel centres at whole numbers."""
    return [(x - 1, y - 1) for x, y in TABLE_POINTS]


def scan(folder: Path, *, slices: int = 5, step: float = 2.5, **elements: Any) -> Scan:
    """Axial CT, head first by number or not at all, as `elements` have it."""
    headers = []
    for number in range(1, slices + 1):
        orientation = elements.get("ImageOrientationPatient", list(phantom.AXIAL))
        normal = np.cross(orientation[:3], orientation[3:])
        position = np.array([-10.0, -20.0, 0.0]) + step * number * normal
        ds = phantom.ct(
            number, phantom.stored_values(number, SHAPE), ImagePositionPatient=position.tolist(), **elements
        )
        ds.PatientAge, ds.PatientSex, ds.WindowCenter, ds.WindowWidth = "061Y", "F", 50, 450
        headers.append(ds)
    return Scan([phantom.save(ds, folder / f"{ds.SOPInstanceUID}.dcm") for ds in headers], headers)


def item(**elements: Any) -> Dataset:
    return phantom.change(Dataset(), **elements)


def code(value: str, scheme: str = "DCM", meaning: str = "x") -> Dataset:
    return item(CodeValue=value, CodingSchemeDesignator=scheme, CodeMeaning=meaning)


def reference(image: Dataset, frame: int | None = None) -> Dataset:
    named = item(ReferencedSOPClassUID=image.SOPClassUID, ReferencedSOPInstanceUID=image.SOPInstanceUID)
    if frame is not None:
        named.ReferencedFrameNumber = frame
    return named


def document(sop_class: str, uid: str, image: Dataset) -> Dataset:
    ds = item(SOPClassUID=sop_class, SOPInstanceUID=uid, SeriesInstanceUID=f"{uid}.0")
    ds.StudyInstanceUID, ds.PatientID, ds.PatientName = image.StudyInstanceUID, image.PatientID, image.PatientName
    ds.Modality = "PR" if sop_class == GSPS else "SR"
    ds.file_meta = Dataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return ds


def polyline(points: Points, units: str = "PIXEL", **elements: Any) -> Dataset:
    """Points as they are to be stored."""
    graphic = item(GraphicAnnotationUnits=units, GraphicDimensions=2, NumberOfGraphicPoints=len(points))
    graphic.GraphicData = [float(np.float32(value)) for point in points for value in point]
    graphic.GraphicType, graphic.GraphicFilled = "POLYLINE", "N"
    return phantom.change(graphic, **elements)


def axes(points: Points, units: str = "PIXEL", **elements: Any) -> list[Dataset]:
    """Two lines through points whose pixel centres are at whole numbers."""
    shifted = [(x + 0.5, y + 0.5) for x, y in points]
    return [polyline(shifted[:2], units, **elements), polyline(shifted[2:], units, **elements)]


def gsps(
    image: Dataset,
    graphics: Sequence[Dataset],
    *,
    uid: str = "1.2.3.11.1",
    frame: int | None = None,
    texts: Sequence[Dataset] = (),
    compounds: Sequence[Dataset] = (),
    **elements: Any,
) -> Dataset:
    """One annotation on one image."""
    ds = document(GSPS, uid, image)
    series = item(SeriesInstanceUID=image.SeriesInstanceUID, ReferencedImageSequence=[reference(image)])
    ds.ReferencedSeriesSequence = [series]
    annotation = item(ReferencedImageSequence=[reference(image, frame)], GraphicLayer="L")
    annotation.GraphicObjectSequence = list(graphics)
    annotation.TextObjectSequence = list(texts)
    annotation.CompoundGraphicSequence = list(compounds)
    ds.GraphicAnnotationSequence = [annotation]
    area = item(DisplayedAreaTopLeftHandCorner=[1, 1])
    area.DisplayedAreaBottomRightHandCorner = [int(image.Columns), int(image.Rows)]
    ds.DisplayedAreaSelectionSequence = [area]
    return phantom.change(ds, **elements)


def node(kind: str, name: Dataset, *below: Dataset, relationship: str = "CONTAINS", **elements: Any) -> Dataset:
    """A content item."""
    ds = item(RelationshipType=relationship, ValueType=kind, ConceptNameCodeSequence=[name])
    if below:
        ds.ContentSequence = list(below)
    return phantom.change(ds, **elements)


LONG, SHORT = code("103339001", "SCT", "Long Axis"), code("103340004", "SCT", "Short Axis")
MM = code("mm", "UCUM", "millimeter")


def source(image: Dataset, frame: int | None = None) -> Dataset:
    named = item(RelationshipType="SELECTED FROM", ValueType="IMAGE")  # no concept name, as dcmjs writes it
    named.ReferencedSOPSequence = [reference(image, frame)]
    return named


def scoord(image: Dataset, points: Points, *, frame: int | None = None, kind: str = "POLYLINE") -> Dataset:
    """From points whose pixel centres are at whole numbers."""
    ds = item(RelationshipType="INFERRED FROM", ValueType="SCOORD", GraphicType=kind)
    ds.GraphicData = [float(np.float32(value + 0.5)) for point in points for value in point]
    ds.ContentSequence = [source(image, frame)]
    return ds


def scoord3d(points_mm: Sequence[Sequence[float]], for_uid: str, kind: str = "POLYLINE") -> Dataset:
    ds = item(RelationshipType="INFERRED FROM", ValueType="SCOORD3D", GraphicType=kind)
    ds.GraphicData = [float(value) for point in points_mm for value in point]
    ds.ReferencedFrameOfReferenceUID = for_uid
    return ds


def number(name: Dataset, value: float, *below: Dataset, unit: Dataset = MM) -> Dataset:
    measured = item(NumericValue=f"{value:.6g}", MeasurementUnitsCodeSequence=[unit])
    return node("NUM", name, *below, MeasuredValueSequence=[measured])


def group(*below: Dataset, tracking_uid: str = "1.2.3.99.1", template: str = "1501") -> Dataset:
    observed = {"relationship": "HAS OBS CONTEXT"}
    return node(
        "CONTAINER",
        code("125007", "DCM", "Measurement Group"),
        node("TEXT", code("112039"), TextValue="Lesion of Mrs Smith", **observed),
        node("UIDREF", code("112040"), UID=tracking_uid, **observed),
        node("CODE", code("121071"), ConceptCodeSequence=[code("4147007", "SCT", "Mass")]),
        node("CODE", code("363698007", "SCT"), ConceptCodeSequence=[code("39607008", "SCT", "Lung")]),
        *below,
        ContentTemplateSequence=[item(TemplateIdentifier=template, MappingResource="DCMR")],
    )


def report(images: Sequence[Dataset], *groups: Dataset, uid: str = "1.2.3.88.1", person: bool = True) -> Dataset:
    """TID 1500 in as many words as its readers need."""
    ds = document(COMPREHENSIVE_SR, uid, images[0])
    ds.ValueType, ds.ConceptNameCodeSequence = "CONTAINER", [code("126000")]
    observer = code("121006" if person else "121007")
    context = {"relationship": "HAS OBS CONTEXT"}
    ds.ContentSequence = [
        node("CODE", code("121005"), ConceptCodeSequence=[observer], **context),
        node("PNAME", code("121008"), PersonName="Reader^Rita", **context),
        node("TEXT", code("121009"), TextValue="General Hospital", **context),
        node("CONTAINER", code("126010"), *groups),
    ]
    by_series: dict[str, list[Dataset]] = {}
    for image in images:
        by_series.setdefault(str(image.SeriesInstanceUID), []).append(reference(image))
    listed = [item(SeriesInstanceUID=uid, ReferencedSOPSequence=refs) for uid, refs in by_series.items()]
    evidence = item(StudyInstanceUID=images[0].StudyInstanceUID, ReferencedSeriesSequence=listed)
    ds.CurrentRequestedProcedureEvidenceSequence = [evidence]
    return ds


def supersede(document: Dataset, *uids: str) -> Dataset:
    """The same document, replacing those."""
    series = item(ReferencedSOPSequence=[item(ReferencedSOPInstanceUID=uid) for uid in uids])
    document.PredecessorDocumentsSequence = [item(ReferencedSeriesSequence=[series])]
    return document


KEY_OBJECTS = "1.2.840.10008.5.1.4.1.1.88.59"


def key_objects(*objects: Dataset, title: str = "113001", uid: str = "1.2.3.59.1") -> Dataset:
    """A key object selection: by its title a rejection (IOCM), or only what is of interest (113000)."""
    ds = document(KEY_OBJECTS, uid, objects[0])
    ds.Modality, ds.ValueType, ds.ConceptNameCodeSequence = "KO", "CONTAINER", [code(title)]
    ds.ContentSequence = [
        item(
            RelationshipType="CONTAINS",
            ValueType="COMPOSITE" if it.Modality in ("SR", "PR") else "IMAGE",
            ReferencedSOPSequence=[reference(it)],
        )
        for it in objects
    ]
    return ds


STRUCTURE_SET = "1.2.840.10008.5.1.4.1.1.481.3"


def structure(
    name: str, *contours: tuple[Dataset, Sequence[Sequence[float]]], interpreted: str = "", kind: str = "CLOSED_PLANAR"
) -> dict[str, Any]:
    """A region of interest from polygons in mm, each with the image that it names."""
    return {"name": name, "contours": contours, "interpreted": interpreted, "kind": kind}


def structure_set(
    images: Sequence[Dataset], *regions: dict[str, Any], uid: str = "1.2.3.481.1", **elements: Any
) -> Dataset:
    """RTSTRUCT as a planning system writes it."""
    ds = document(STRUCTURE_SET, uid, images[0])
    ds.Modality = "RTSTRUCT"
    frame_of_reference = images[0].FrameOfReferenceUID
    series = item(SeriesInstanceUID=images[0].SeriesInstanceUID, ContourImageSequence=[reference(it) for it in images])
    study = item(ReferencedSOPInstanceUID=images[0].StudyInstanceUID, RTReferencedSeriesSequence=[series])
    referred = item(FrameOfReferenceUID=frame_of_reference, RTReferencedStudySequence=[study])
    ds.ReferencedFrameOfReferenceSequence = [referred]
    ds.StructureSetROISequence, ds.ROIContourSequence, ds.RTROIObservationsSequence = [], [], []
    for number, region in enumerate(regions, start=1):
        roi = item(ROINumber=number, ROIName=region["name"], ReferencedFrameOfReferenceUID=frame_of_reference)
        roi.ROIGenerationAlgorithm = "MANUAL"
        ds.StructureSetROISequence.append(roi)
        drawn = item(ReferencedROINumber=number)
        drawn.ContourSequence = [
            item(
                ContourImageSequence=[reference(image)],
                ContourGeometricType=region["kind"],
                NumberOfContourPoints=len(points),
                ContourData=[f"{value:.8g}" for point in points for value in point],
            )
            for image, points in region["contours"]
        ]
        ds.ROIContourSequence.append(drawn)
        ds.RTROIObservationsSequence.append(
            item(ObservationNumber=number, ReferencedROINumber=number, RTROIInterpretedType=region["interpreted"])
        )
    return phantom.change(ds, **elements)


def lengths_mm(points: Points, image: Dataset) -> tuple[float, float]:
    """Of both axes, by the image's own spacing."""
    row, column = (float(value) for value in image.PixelSpacing)
    (a, b), (c, d) = points[:2], points[2:]
    return tuple(float(np.hypot((q[0] - p[0]) * column, (q[1] - p[1]) * row)) for p, q in ((a, b), (c, d)))  # type: ignore[return-value]


def bidirectional(image: Dataset, points: Points, *, frame: int | None = None, **given: Any) -> Dataset:
    """A TID 1501 group as OHIF writes it."""
    long, short = lengths_mm(points, image)
    return group(
        number(LONG, long, scoord(image, points[:2], frame=frame)),
        number(SHORT, short, scoord(image, points[2:], frame=frame)),
        **given,
    )
