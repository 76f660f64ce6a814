"""Lesions as one binary segmentation per pipeline run (PS3.3 A.51), on the grid of the received images."""

from __future__ import annotations

import colorsys
from copy import deepcopy
from typing import Any

import highdicom as hd
import numpy as np
from pydicom.sr.coding import Code as CodedTriple
from pydicom.uid import SegmentationStorage
from pydicom.valuerep import format_number_as_ds

from models.contract import BoolArray, Code, Findings, Lesion, Radiograph, Volume
from node.dicom import uids
from node.dicom.write import headers
from node.dicom.write.charset import UTF8, plain
from node.dicom.write.derived import origin_of, series_description, series_number
from node.dicom.write.objects import Produced, Stamp
from node.dicom.write.source import SeriesSource
from node.errors import AnalysisFailed
from node.settings import MANUFACTURER, MODEL_NAME, VERSION

_TISSUE: Code = ("49755003", "SCT", "Morphologically Abnormal Structure")
_STEP_TOLERANCE = 0.01
_OF_NO_USE_TO_THE_LIBRARY = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate"),
    *("StudyTime", "ReferringPhysicianName"),
)
_NEEDED = ("PositionReferenceIndicator", "Manufacturer", "SeriesNumber")


def lesion_segmentation(findings: Findings, grid: Volume | Radiograph, source: SeriesSource, stamp: Stamp) -> Produced:
    """One segment per lesion, in their order; only frames with a lesion in them are kept.

    Raises AnalysisFailed where a mask is empty or off the grid, slices are of two patients or studies, or headers and
    grid disagree about positions: the library would put the masks on other slices without a word.
    """
    shape = grid.voxels.shape if isinstance(grid, Volume) else (1, *grid.pixels.shape)
    masks = [_mask(lesion, shape) for lesion in findings.lesions]
    refs = grid.sources if isinstance(grid, Volume) else (grid.source,)
    if isinstance(grid, Volume):
        _check_geometry(grid, source)
    used = [index for index in range(shape[0]) if any(mask[index].any() for mask in masks)]
    if refs[0].frame is not None:
        images, frames = _multi_frame(refs, masks, source)
    else:
        images = [completed(source.of(refs[index])) for index in used]
        frames = np.stack([[mask[index] for index in used] for mask in masks], axis=-1)  # (used, Y, X, lesions)
    header = source.of(refs[0])
    origin = origin_of(findings, source, stamp)
    built = hd.seg.Segmentation(
        source_images=images,
        pixel_array=frames,
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[_segment(number, lesion, findings, stamp) for number, lesion in _numbered(findings)],
        series_instance_uid=uids.series_uid(origin, "seg"),
        series_number=series_number(header, stamp, 2),
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
    ds = _dressed(built, header, findings, origin, stamp)
    _set_measures(ds, grid, header)
    return _produced(ds, findings, source)


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
    first = source.frame(volume.sources[0])
    for index, ref in enumerate(volume.sources):
        header = source.frame(ref)
        for keyword in ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"):
            if str(header.get(keyword, "")) != str(first.get(keyword, "")):
                raise AnalysisFailed(f"slices of one volume differ in {keyword}")
        position = np.asarray(header.get("ImagePositionPatient"), dtype=float)
        if not np.allclose(position, volume.slice_origins_mm[index], atol=_STEP_TOLERANCE):
            raise AnalysisFailed(f"slice position of {ref.instance_uid} differs between header and volume")


def _multi_frame(refs: Any, masks: list[BoolArray], source: SeriesSource) -> tuple[list[Any], Any]:
    """Masks in the order of the frames of the one multi-frame image that they came from."""
    if len({ref.instance_uid for ref in refs}) != 1:
        raise AnalysisFailed("a volume from several multi-frame images cannot be segmented in one object")
    header = source.of(refs[0])
    frames = np.zeros((int(header.NumberOfFrames), *masks[0].shape[1:], len(masks)), dtype=bool)
    for index, ref in enumerate(refs):
        for number, mask in enumerate(masks):
            frames[ref.frame - 1, ..., number] = mask[index]
    return [completed(header)], frames


def completed(header: Any) -> Any:
    """A copy with what the library asks for, and without the patient: it warns of odd names, in words that hold them.

    Patient and study come from the source again when the object is dressed.
    """
    completed = deepcopy(header)
    for keyword in _OF_NO_USE_TO_THE_LIBRARY:
        setattr(completed, keyword, None)
    completed.SpecificCharacterSet = UTF8
    headers.fill_empty(completed, _NEEDED)
    if "ImagePositionPatient" in completed and not completed.get("FrameOfReferenceUID"):
        completed.FrameOfReferenceUID = uids.frame_of_reference_uid(str(header.SeriesInstanceUID))
    return completed


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
        number=int(built.SeriesNumber),
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


def _set_measures(ds: Any, grid: Volume | Radiograph, header: Any) -> None:
    """Step and thickness of the whole stack: from the slices with a lesion alone the library takes a wrong step.

    Of a radiograph the library writes measures without a thickness, and then refuses to read them: there are none.
    """
    shared = ds.SharedFunctionalGroupsSequence[0]
    if isinstance(grid, Radiograph):
        if "PixelMeasuresSequence" in shared:
            del shared.PixelMeasuresSequence
        return
    step = grid.spacing_zyx_mm[0]
    thickness = header.get("SliceThickness")
    measures = shared.PixelMeasuresSequence[0]
    measures.SliceThickness = format_number_as_ds(step if thickness in (None, "") else float(thickness))
    measures.SpacingBetweenSlices = format_number_as_ds(step)


def _produced(ds: Any, findings: Findings, source: SeriesSource) -> Produced:
    return Produced(
        kind="seg",
        sop_class_uid=str(ds.SOPClassUID),
        sop_instance_uid=str(ds.SOPInstanceUID),
        series_instance_uid=str(ds.SeriesInstanceUID),
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        data=headers.encode(ds),
        label=f"AI lesions ({len(findings.lesions)})",
        group=f"{findings.pipeline}/seg/{source.series_instance_uid}",
    )
