"""Lesions as one binary segmentation per pipeline run (PS3.3 A.51), on the grid of the received images."""

from __future__ import annotations

import colorsys
import logging
from collections.abc import Mapping
from typing import Any

import highdicom as hd
import numpy as np
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code as CodedTriple
from pydicom.uid import SegmentationStorage
from pydicom.valuerep import format_number_as_ds

from models.contract import BoolArray, Code, Findings, Lesion, Radiograph, SourceRef, Volume
from node.dicom import uids
from node.dicom.write import copies, headers
from node.dicom.write.charset import plain
from node.dicom.write.derived import origin_of, series_description, series_number
from node.dicom.write.objects import Produced, Stamp
from node.dicom.write.source import SeriesSource
from node.errors import AnalysisFailed
from node.settings import MANUFACTURER, MODEL_NAME, VERSION

LOGGER = logging.getLogger(__name__)
_TISSUE: Code = ("49755003", "SCT", "Morphologically Abnormal Structure")
_STEP_TOLERANCE = 0.01


def lesion_segmentation(
    findings: Findings, grid: Volume | Radiograph, source: SeriesSource, stamp: Stamp
) -> Produced | None:
    """One segment per lesion, in their order; only frames with a lesion in them are kept.

    None where the library refuses the headers, which is logged.
    Raises AnalysisFailed where a mask is empty or off the grid, slices are of two patients or studies, or headers and
    grid disagree about positions: the library would put the masks on other slices without a word.
    """
    shape = grid.voxels.shape if isinstance(grid, Volume) else (1, *grid.pixels.shape)
    masks = [_mask(lesion, shape) for lesion in findings.lesions]
    used = [index for index in range(shape[0]) if any(mask[index].any() for mask in masks)]
    frames = np.stack([[mask[index] for index in used] for mask in masks], axis=-1)  # (used, Y, X, lesions)
    named: dict[str, SourceRef] = {}
    if isinstance(grid, Volume):
        _check_geometry(grid, source)
        images, named = copies.slices(grid, used, source)
    else:
        images = [copies.image(source.of(grid.source))]
    origin = origin_of(findings, source, stamp)
    built = _built(images, frames, findings, origin, stamp)
    if built is None:
        return None
    _name_frames(built, named, source)
    header = source.of(grid.sources[0] if isinstance(grid, Volume) else grid.source)
    ds = _dressed(built, header, findings, origin, stamp)
    if isinstance(grid, Volume):
        _set_step(ds, grid)
    return _produced(ds, findings, source)


def _built(images: list[Any], frames: BoolArray, findings: Findings, origin: uids.Origin, stamp: Stamp) -> Any | None:
    """The library's object; series number and description are not yet ours."""
    segments = [_segment(number, lesion, findings, stamp) for number, lesion in _numbered(findings)]
    try:
        return hd.seg.Segmentation(
            source_images=images,
            pixel_array=frames,
            segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
            segment_descriptions=segments,
            series_instance_uid=uids.series_uid(origin, "seg"),
            series_number=1,
            sop_instance_uid=uids.instance_uid(origin, "seg"),
            instance_number=1,
            manufacturer=MANUFACTURER,
            manufacturer_model_name=MODEL_NAME,
            software_versions=VERSION,
            device_serial_number=stamp.station_name[:64],
            content_description=plain(f"AI lesions, {findings.pipeline}")[:64],
            content_creator_name="NODE^",
            content_label="AI_LESIONS",
            omit_empty_frames=True,
        )
    except copies.REFUSALS as refusal:
        LOGGER.warning("series %s: no segmentation is written: %s", images[0].SeriesInstanceUID, refusal)
        return None


def _numbered(findings: Findings) -> list[tuple[int, Lesion]]:
    return list(enumerate(findings.lesions, start=1))


def _mask(lesion: Lesion, shape: tuple[int, ...]) -> BoolArray:
    mask = lesion.mask if lesion.mask.ndim == 3 else lesion.mask[None]
    if mask.shape != shape:
        raise AnalysisFailed(f"the mask of lesion {lesion.tracking_id} has shape {mask.shape}, its images {shape}")
    if not mask.any():
        raise AnalysisFailed(f"the mask of lesion {lesion.tracking_id} is empty")
    return mask


def _check_geometry(volume: Volume, source: SeriesSource) -> None:
    """A value that is stated nowhere contradicts nothing."""
    frames = [source.frame(ref) for ref in volume.sources]
    for keyword in ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"):
        if len({str(frame.get(keyword) or "") for frame in frames} - {""}) > 1:
            raise AnalysisFailed(f"slices of one volume differ in {keyword}")
    for ref, frame, origin_mm in zip(volume.sources, frames, volume.slice_origins_mm, strict=True):
        position = np.asarray(frame.get("ImagePositionPatient"), dtype=float)
        if not np.allclose(position, origin_mm, atol=_STEP_TOLERANCE):
            raise AnalysisFailed(f"slice position of {ref.instance_uid} differs between header and volume")


def _name_frames(built: Any, named: Mapping[str, SourceRef], source: SeriesSource) -> None:
    """The frames of multi-frame images in place of the images that the library took them for.

    Segments of one slice share what the library says of it.
    """
    frames = {uid: ref for uid, ref in named.items() if ref.frame is not None}
    if not frames:
        return
    groups = built.PerFrameFunctionalGroupsSequence
    items = [item for group in groups for item in group.DerivationImageSequence[0].SourceImageSequence]
    for item in {id(item): item for item in items}.values():
        ref = frames[str(item.ReferencedSOPInstanceUID)]
        item.ReferencedSOPClassUID = source.of(ref).SOPClassUID
        item.ReferencedSOPInstanceUID = ref.instance_uid
        item.ReferencedFrameNumber = ref.frame
    images = []
    for uid in dict.fromkeys(ref.instance_uid for ref in frames.values()):
        image = Dataset()
        image.ReferencedSOPClassUID = source.headers[uid].SOPClassUID
        image.ReferencedSOPInstanceUID = uid
        images.append(image)
    built.SourceImageSequence = images
    built.ReferencedSeriesSequence[0].ReferencedInstanceSequence = images


def _segment(number: int, lesion: Lesion, findings: Findings, stamp: Stamp) -> Any:
    algorithm = hd.AlgorithmIdentificationSequence(
        name=lesion.model.name,
        family=CodedTriple("123110", "DCM", "Artificial Intelligence"),
        version=lesion.model.version,
        parameters={"weights SHA-256": lesion.model.weights_sha256},
    )
    description = hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=plain(f"AI lesion {number}")[:64],
        segmented_property_category=CodedTriple(*_TISSUE),
        segmented_property_type=CodedTriple(*lesion.category),
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=algorithm,
        tracking_uid=uids.tracking_uid(stamp.study_instance_uid, "", lesion.tracking_id),
        tracking_id=lesion.tracking_id,
        anatomic_regions=[CodedTriple(*lesion.site)],
        display_color=_colour(number),
    )
    description.SegmentDescription = plain(f"{findings.pipeline}: {lesion.category[2]}, research use only")[:1024]
    return description


def _colour(number: int) -> Any:
    """Hues far apart, whatever the number of lesions."""
    red, green, blue = colorsys.hsv_to_rgb((0.13 + 0.381966 * (number - 1)) % 1.0, 0.85, 1.0)
    return hd.color.CIELabColor.from_rgb(round(255 * red), round(255 * green), round(255 * blue))


def _dressed(built: Any, header: Any, findings: Findings, origin: uids.Origin, stamp: Stamp) -> Any:
    """Our headers in place of the library's: its dates are of now, and one of its UIDs is by chance."""
    ds = headers.start(header, str(SegmentationStorage), str(built.SOPInstanceUID), stamp)
    for element in built:
        if element.tag.group > 2 and element.tag not in ds and element.keyword != "ContributingEquipmentSequence":
            ds[element.tag] = element
    headers.add_series(
        ds,
        uid=str(built.SeriesInstanceUID),
        number=series_number(header, stamp, 2),
        modality="SEG",
        description=series_description("lesions", header, stamp),
    )
    headers.add_equipment(ds, stamp)
    headers.add_contribution(ds, stamp, findings.lesions[0].model, findings.pipeline)
    if "Laterality" in ds:  # the anatomic region of each segment says it (PS3.3 C.8.20.2)
        del ds.Laterality
    for keyword in ("BodyPartExamined", "PatientOrientation"):
        if header.get(keyword) and keyword not in ds:
            setattr(ds, keyword, header[keyword].value)
    dimension = uids.dimension_uid(origin, "seg")
    for item in [*ds.DimensionOrganizationSequence, *ds.DimensionIndexSequence]:
        item.DimensionOrganizationUID = dimension
    return ds


def _set_step(ds: Any, volume: Volume) -> None:
    """That of the whole stack, not of the slices with a lesion as the library has it; none where steps are uneven."""
    [measures] = ds.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence
    if volume.even_steps:
        measures.SpacingBetweenSlices = format_number_as_ds(volume.spacing_zyx_mm[0])
        return
    for item, keyword in ((measures, "SpacingBetweenSlices"), (ds, "DimensionOrganizationType")):
        if keyword in item:
            del item[keyword]


def _produced(ds: Any, findings: Findings, source: SeriesSource) -> Produced:
    return headers.produced(
        ds,
        "seg",
        label=f"AI lesions ({len(findings.lesions)})",
        group=f"{findings.pipeline}/seg/{source.series_instance_uid}",
    )
