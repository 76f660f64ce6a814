"""Content items of structured reports (PS3.3 C.17.3), one small function per value type."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from pydicom.dataset import Dataset
from pydicom.valuerep import format_number_as_ds

from models.contract import Code
from node.dicom.write import codes
from node.dicom.write.charset import plain


def container(name: Code, items: Iterable[Any], *, relationship: str = "CONTAINS", template: str = "") -> Any:
    """A container. With `template` it says which template of PS3.16 it follows."""
    ds = _item("CONTAINER", name, relationship)
    ds.ContinuityOfContent = "SEPARATE"
    if template:
        which = Dataset()
        which.MappingResource = "DCMR"
        which.TemplateIdentifier = template
        ds.ContentTemplateSequence = [which]
    children = list(items)
    if children:
        ds.ContentSequence = children
    return ds


def text(name: Code, value: str, *, relationship: str = "CONTAINS") -> Any:
    ds = _item("TEXT", name, relationship)
    ds.TextValue = plain(value)
    return ds


def code(name: Code, value: Code, *, relationship: str = "CONTAINS", items: Sequence[Any] = ()) -> Any:
    ds = _item("CODE", name, relationship)
    ds.ConceptCodeSequence = [codes.item(value)]
    if items:
        ds.ContentSequence = list(items)
    return ds


def uid_reference(name: Code, value: str, *, relationship: str = "CONTAINS") -> Any:
    ds = _item("UIDREF", name, relationship)
    ds.UID = value
    return ds


def numeric(name: Code, value: float, unit: Code, items: Sequence[Any] = ()) -> Any:
    """A number with its unit. Raises OverflowError or ValueError for one that is not finite."""
    ds = _item("NUM", name, "CONTAINS")
    measured = Dataset()
    measured.NumericValue = format_number_as_ds(float(value))
    measured.FloatingPointValue = float(value)
    measured.MeasurementUnitsCodeSequence = [codes.item(unit)]
    ds.MeasuredValueSequence = [measured]
    if items:
        ds.ContentSequence = list(items)
    return ds


def image(
    class_uid: str,
    instance_uid: str,
    *,
    name: Code | None = None,
    relationship: str = "CONTAINS",
    frame: int | None = None,
    segment: int | None = None,
) -> Any:
    """A reference to an image, to one of its frames, or to one segment of a segmentation."""
    ds = _item("IMAGE", name, relationship)
    reference = Dataset()
    reference.ReferencedSOPClassUID = class_uid
    reference.ReferencedSOPInstanceUID = instance_uid
    if frame is not None:
        reference.ReferencedFrameNumber = frame
    if segment is not None:
        reference.ReferencedSegmentNumber = segment
    ds.ReferencedSOPSequence = [reference]
    return ds


def polyline(points_px: Sequence[tuple[float, float]], on: Any) -> Any:
    """A line on an image, as what a number was inferred from.

    points_px       (x, y), column first, pixel centres at whole numbers. SCOORD counts from the corner of the first
                    pixel (PS3.3 C.18.6.1.1), so half a pixel is added here, and nowhere else.
    on              the image() it was drawn on, related by SELECTED FROM
    """
    ds = _item("SCOORD", codes.IMAGE_REGION, "INFERRED FROM")
    ds.GraphicType = "POLYLINE"
    ds.GraphicData = [value + 0.5 for point in points_px for value in point]
    ds.ContentSequence = [on]
    return ds


def outline(rows: int, columns: int, on: Any) -> Any:
    """A closed line along the border of the whole image."""
    right, bottom = columns - 1.0, rows - 1.0
    return polyline([(0.0, 0.0), (right, 0.0), (right, bottom), (0.0, bottom), (0.0, 0.0)], on)


def _item(value_type: str, name: Code | None, relationship: str) -> Any:
    ds = Dataset()
    ds.RelationshipType = relationship
    ds.ValueType = value_type
    if name is not None:
        ds.ConceptNameCodeSequence = [codes.item(name)]
    return ds
