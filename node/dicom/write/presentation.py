"""Lesion axes as a greyscale softcopy presentation state (PS3.3 A.33.1): lines and a text on the received images.

For viewers that show neither SR nor SEG. What it says of window and display is what the images say themselves.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import highdicom as hd
import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import GrayscaleSoftcopyPresentationStateStorage
from pydicom.valuerep import format_number_as_ds

from models.contract import Findings, Lesion, Radiograph, SourceRef, Volume
from node.dicom import uids
from node.dicom.write import copies, display, headers
from node.dicom.write.charset import plain
from node.dicom.write.derived import origin_of, series_description, series_number
from node.dicom.write.objects import Produced, Stamp
from node.dicom.write.source import SeriesSource
from node.errors import AnalysisFailed
from node.settings import MANUFACTURER, MODEL_NAME, VERSION

LOGGER = logging.getLogger(__name__)
LAYER = "AI"
_YELLOW = (255, 214, 0)
_OF_SERIES = 0
"""Place of the state's series among those of one source (see `series_number`)."""

Marked = tuple[int, Lesion, SourceRef]


def lesion_presentations(
    findings: Findings, grid: Volume | Radiograph, source: SeriesSource, stamp: Stamp
) -> list[Produced]:
    """One state with the axes of all lesions; one for each rescale where the marked images differ in theirs.

    None at all where the library refuses the headers, which is logged.
    Raises AnalysisFailed where an axis lies off the grid.
    """
    refs = grid.sources if isinstance(grid, Volume) else (grid.source,)
    marked: dict[tuple[Any, ...], list[Marked]] = {}
    for number, lesion in enumerate(findings.lesions, start=1):
        if not 0 <= lesion.slice_index < len(refs):
            raise AnalysisFailed(f"the axes of lesion {lesion.tracking_id} lie on no slice")
        ref = refs[lesion.slice_index]
        of_one_file = "" if ref.frame is None else ref.instance_uid  # a state shows one multi-frame image
        marked.setdefault((of_one_file, display.rescale(source.frame(ref))), []).append((number, lesion, ref))
    states = [_state(index, each, findings, source, stamp) for index, each in enumerate(marked.values())]
    written = [state for state in states if state is not None]
    return written if len(written) == len(states) else []


def _state(
    index: int, marked: Sequence[Marked], findings: Findings, source: SeriesSource, stamp: Stamp
) -> Produced | None:
    header = source.of(marked[0][2])
    built = _built(index, marked, findings, source, stamp)
    if built is None:
        return None
    ds = _dressed(built, header, findings, stamp)
    _set_values(ds, marked, source)
    _show_whole(ds, source.frame(marked[0][2]))
    return headers.produced(
        ds, "gsps", label=f"AI lesion axes ({len(marked)})", group=f"{findings.pipeline}/gsps/{ds.SOPInstanceUID}"
    )


def _built(index: int, marked: Sequence[Marked], findings: Findings, source: SeriesSource, stamp: Stamp) -> Any | None:
    """The library's object, without rescale and windows."""
    origin = origin_of(findings, source, stamp)
    images = {ref.instance_uid: _image(source.of(ref)) for _, _, ref in marked}
    layer = hd.pr.GraphicLayer(
        LAYER, order=1, description="AI, research use only", display_color=hd.color.CIELabColor.from_rgb(*_YELLOW)
    )
    annotations = [_annotation(each, images[each[2].instance_uid], layer, stamp) for each in marked]
    try:
        return hd.pr.GrayscaleSoftcopyPresentationState(
            referenced_images=list(images.values()),
            series_instance_uid=uids.series_uid(origin, "gsps"),
            series_number=series_number(source.of(marked[0][2]), stamp, _OF_SERIES),
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
            graphic_annotations=annotations,
        )
    except copies.REFUSALS as refusal:
        LOGGER.warning("series %s: no presentation state is written: %s", source.series_instance_uid, refusal)
        return None


def _image(header: Any) -> Any:
    """With empty functional groups: what stands in them is taken from the marked frames."""
    image = copies.image(header)
    if "PerFrameFunctionalGroupsSequence" in header or "SharedFunctionalGroupsSequence" in header:
        image.NumberOfFrames = header.get("NumberOfFrames") or 1
        image.SharedFunctionalGroupsSequence, image.PerFrameFunctionalGroupsSequence = [Dataset()], []
    return image


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


def _set_values(ds: Any, marked: Sequence[Marked], source: SeriesSource) -> None:
    """Rescale and windows of the marked images, and of multi-frame images the marked frames as all that is shown."""
    refs = list(dict.fromkeys(ref for _, _, ref in marked))
    if refs[0].frame is not None:
        [series] = ds.ReferencedSeriesSequence
        series.ReferencedImageSequence = _references(refs, source)
    rescale = display.rescale(source.frame(refs[0]))
    if rescale is not None:
        ds.RescaleSlope, ds.RescaleIntercept, ds.RescaleType = rescale
    shown: list[tuple[Any, list[SourceRef]]] = []
    for ref in refs:
        stated = display.voi(source.frame(ref))
        voi = None if stated is None else display.one_view(stated)
        alike = next((together for item, together in shown if item == voi), None)
        if alike is not None:
            alike.append(ref)
        elif voi is not None:
            shown.append((voi, [ref]))
    for item, together in shown:
        if len(together) < len(refs):
            item.ReferencedImageSequence = _references(together, source)
    if shown:
        ds.SoftcopyVOILUTSequence = [item for item, _ in shown]


def _references(refs: Sequence[SourceRef], source: SeriesSource) -> list[Any]:
    """One item per image, with its frames where it has several."""
    frames: dict[str, list[int]] = {}
    for ref in refs:
        frames.setdefault(ref.instance_uid, []).extend([] if ref.frame is None else [ref.frame])
    items = []
    for uid, numbers in frames.items():
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = source.headers[uid].SOPClassUID, uid
        if numbers:
            item.ReferencedFrameNumber = sorted(numbers)
        items.append(item)
    return items


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
