"""Lesion axes as a greyscale softcopy presentation state (PS3.3 A.33.1): lines and a text on the received images.

For viewers that show neither SR nor SEG. What it says of window and display is what the images say themselves.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import highdicom as hd
import numpy as np
from pydicom.uid import GrayscaleSoftcopyPresentationStateStorage
from pydicom.valuerep import format_number_as_ds

from models.contract import Findings, Lesion, Radiograph, SourceRef, Volume
from node.dicom import uids
from node.dicom.write import headers
from node.dicom.write.charset import plain
from node.dicom.write.derived import origin_of, series_description, series_number
from node.dicom.write.objects import Produced, Stamp
from node.dicom.write.segmentation import completed
from node.dicom.write.source import SeriesSource
from node.errors import AnalysisFailed
from node.settings import MANUFACTURER, MODEL_NAME, VERSION

LAYER = "AI"
_YELLOW = (255, 214, 0)
_OF_SERIES = 0
"""Place of the state's series among those of one source (see `series_number`)."""

Marked = tuple[int, Lesion, SourceRef]


def lesion_presentations(
    findings: Findings, grid: Volume | Radiograph, source: SeriesSource, stamp: Stamp
) -> Iterator[Produced]:
    """One state with the axes of all lesions; one for each rescale where the marked images differ in theirs.

    Raises AnalysisFailed where an axis lies off the grid.
    """
    refs = grid.sources if isinstance(grid, Volume) else (grid.source,)
    marked: dict[tuple[str, ...], list[Marked]] = {}
    for number, lesion in enumerate(findings.lesions, start=1):
        if not 0 <= lesion.slice_index < len(refs):
            raise AnalysisFailed(f"the axes of lesion {lesion.tracking_id} lie on no slice")
        ref = refs[lesion.slice_index]
        marked.setdefault(_rescale(source.frame(ref)), []).append((number, lesion, ref))
    for index, together in enumerate(marked.values()):
        yield _state(index, together, findings, source, stamp)


def _state(index: int, marked: Sequence[Marked], findings: Findings, source: SeriesSource, stamp: Stamp) -> Produced:
    header = source.of(marked[0][2])
    origin = origin_of(findings, source, stamp)
    images = {ref.instance_uid: completed(source.of(ref)) for _, _, ref in marked}
    layer = hd.pr.GraphicLayer(
        LAYER, order=1, description="AI, research use only", display_color=hd.color.CIELabColor.from_rgb(*_YELLOW)
    )
    built = hd.pr.GrayscaleSoftcopyPresentationState(
        referenced_images=list(images.values()),
        series_instance_uid=uids.series_uid(origin, "gsps"),
        series_number=series_number(header, stamp, _OF_SERIES),
        sop_instance_uid=uids.instance_uid(origin, "gsps", index),
        instance_number=index + 1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=MODEL_NAME,
        software_versions=VERSION,
        device_serial_number=stamp.station_name[:64],
        content_label="AI_LESIONS",
        content_description=plain(f"AI lesions, research use only, {findings.pipeline}")[:64],
        content_creator_name="NODE^",
        graphic_layers=[layer],
        graphic_annotations=[_annotation(each, images[each[2].instance_uid], layer, stamp) for each in marked],
    )
    ds = _dressed(built, header, findings, stamp)
    _show_whole(ds, source.frame(marked[0][2]))
    return Produced(
        kind="gsps",
        sop_class_uid=str(ds.SOPClassUID),
        sop_instance_uid=str(ds.SOPInstanceUID),
        series_instance_uid=str(ds.SeriesInstanceUID),
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        data=headers.encode(ds),
        label=f"AI lesion axes ({len(marked)})",
        group=f"{findings.pipeline}/gsps/{ds.SOPInstanceUID}",
    )


def _annotation(marked: Marked, image: Any, layer: Any, stamp: Stamp) -> Any:
    number, lesion, ref = marked
    tracking = {
        "tracking_id": lesion.tracking_id,
        "tracking_uid": uids.tracking_uid(stamp.study_instance_uid, "", lesion.tracking_id),
    }
    lines = [_in_corner_units(lesion, axis, image) for axis in (lesion.long_axis_px, lesion.short_axis_px)]
    words = f"AI lesion {number}: {lesion.long_axis_mm:.1f} x {lesion.short_axis_mm:.1f} mm, score {lesion.score:.2f}"
    anchor = max(lines[0].tolist())  # the end farther right: texts grow to the right
    return hd.pr.GraphicAnnotation(
        referenced_images=[image],
        graphic_layer=layer,
        referenced_frame_number=ref.frame,
        graphic_objects=[hd.pr.GraphicObject("POLYLINE", line, units="PIXEL", **tracking) for line in lines],
        text_objects=[
            hd.pr.TextObject(
                f"{words}, research use only",
                units="PIXEL",
                anchor_point=(anchor[0], anchor[1]),
                anchor_point_visible=False,
                **tracking,
            )
        ],
    )


def _in_corner_units(lesion: Lesion, axis: Any, image: Any) -> Any:
    """Float64 (2, 2) from the outer corner of the first pixel, whose centre is .5\\.5 (PS3.3 C.10.5)."""
    points = np.asarray(axis, np.float64) + 0.5
    if not np.isfinite(points).all() or points.min() < 0 or (points > (int(image.Columns), int(image.Rows))).any():
        raise AnalysisFailed(f"an axis of lesion {lesion.tracking_id} lies outside of its image")
    return points


def _rescale(header: Any) -> tuple[str, ...]:
    return tuple(str(header.get(word, "")) for word in ("RescaleSlope", "RescaleIntercept", "RescaleType"))


def _dressed(built: Any, header: Any, findings: Findings, stamp: Stamp) -> Any:
    """Our headers in place of the library's, whose dates are of now."""
    ds = headers.start(header, str(GrayscaleSoftcopyPresentationStateStorage), str(built.SOPInstanceUID), stamp)
    for element in built:
        if element.tag.group > 2 and element.tag not in ds and element.keyword != "ContributingEquipmentSequence":
            ds[element.tag] = element
    headers.add_series(
        ds,
        uid=str(built.SeriesInstanceUID),
        number=int(built.SeriesNumber),
        modality="PR",
        description=series_description("lesion axes", header, stamp),
    )
    ds.PresentationCreationDate, ds.PresentationCreationTime = ds.ContentDate, ds.ContentTime
    del ds.ContentDate, ds.ContentTime
    headers.add_equipment(ds, stamp)
    headers.add_contribution(ds, stamp, findings.lesions[0].model, findings.pipeline)
    if header.get("BodyPartExamined"):
        ds.BodyPartExamined = header.BodyPartExamined
    headers.add_laterality(ds, header)
    return ds


def _show_whole(ds: Any, header: Any) -> None:
    """Pixels as wide and high as they are, and MONOCHROME1 the right way round; the library assumes neither."""
    for area in ds.DisplayedAreaSelectionSequence:
        del area.PixelOriginInterpretation  # of tiled images
        stated = (header.get(keyword) or () for keyword in ("PixelSpacing", "ImagerPixelSpacing"))
        spacing = next((values for values in stated if len(values) == 2 and min(map(float, values)) > 0), None)
        if spacing is not None:
            del area.PresentationPixelAspectRatio
            area.PresentationPixelSpacing = [format_number_as_ds(float(value)) for value in spacing]
    if str(header.get("PhotometricInterpretation", "")) == "MONOCHROME1":
        ds.PresentationLUTShape = "INVERSE"
