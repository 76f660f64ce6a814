"""Derived images: the result of a network as proper CT, CR or DX images beside the received ones.

Geometry, rescale and scanner are the source's, per slice, and so is the window where one can be used; identity, series
and derivation are ours.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    CTImageStorage,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
)

from models.contract import Findings, Image, Radiograph, SourceRef, Volume
from node.dicom import uids
from node.dicom.write import codes, display, headers, numbers
from node.dicom.write.charset import plain
from node.dicom.write.objects import Produced, Stamp
from node.dicom.write.sentences import capital
from node.dicom.write.source import SeriesSource
from node.dicom.write.tables import (
    anatomic_region,
    attributes_of,
    is_unpaired,
    may_be_empty_of,
    optional_modules_of,
    required_of,
)
from node.errors import AnalysisFailed

_STALE_KEYWORDS = """
    PixelData FloatPixelData DoubleFloatPixelData PixelDataProviderURL SmallestImagePixelValue
    LargestImagePixelValue SmallestPixelValueInSeries LargestPixelValueInSeries IconImageSequence NumberOfFrames
    RedPaletteColorLookupTableDescriptor GreenPaletteColorLookupTableDescriptor
    BluePaletteColorLookupTableDescriptor ICCProfile ColorSpace ExtendedOffsetTable ExtendedOffsetTableLengths
    PixelAspectRatio PlanarConfiguration ImageComments HistogramSequence
    SOPClassUID SOPInstanceUID SeriesInstanceUID SeriesNumber SeriesDescription SeriesDescriptionCodeSequence
    SeriesDate SeriesTime InstanceCreationDate InstanceCreationTime InstanceCreatorUID InstanceCoercionDateTime
    ContentDate ContentTime RelatedSeriesSequence RelatedGeneralSOPClassUID OriginalSpecializedSOPClassUID
    TimezoneOffsetFromUTC SpecificCharacterSet
    ReferencedImageSequence ReferencedInstanceSequence SourceImageSequence DerivationDescription
    DerivationCodeSequence ReferencedSeriesSequence StudiesContainingOtherReferencedInstancesSequence
    ReferencedWaveformSequence ReferencedPresentationStateSequence SourceInstanceSequence
    ImageQualityIndicatorType RealWorldValueMappingSequence
    ReferencedPerformedProcedureStepSequence PerformedProcedureStepID PerformedProcedureStepStartDate
    PerformedProcedureStepStartTime PerformedProcedureStepEndDate PerformedProcedureStepEndTime
    PerformedProcedureStepDescription PerformedProtocolCodeSequence CommentsOnThePerformedProcedureStep
    OperatorsName OperatorIdentificationSequence
    DigitalSignaturesSequence MACParametersSequence EncryptedAttributesSequence OriginalAttributesSequence
    HL7StructuredDocumentReferenceSequence SOPInstanceStatus SOPAuthorizationDateTime SOPAuthorizationComment
    AuthorizationEquipmentCertificationNumber ConversionSourceAttributesSequence InstanceOriginStatus
    DataSetTrailingPadding BarcodeValue LongitudinalTemporalInformationModified QueryRetrieveView
"""
"""Of the received pixels and file; of the received instance and series; references to what is perhaps not in the study;
the procedure step, which was the scanner's and not ours; statements about the received bytes."""
STALE = frozenset((*_STALE_KEYWORDS.split(), *headers.SERIES_OF_TRIAL))
_DX = (DigitalXRayImageStorageForPresentation, DigitalXRayImageStorageForProcessing)
_TEXT_OF_DESCRIPTION = 1024
_MORE = ". More in the report."
_EMPTY_IF_UNKNOWN = {
    CTImageStorage: frozenset({"PatientPosition"}),
    ComputedRadiographyImageStorage: frozenset({"PatientOrientation"}),
}
"""Type 2C, by class."""


def ct_images(
    findings: Findings, image: Image, volume: Volume, source: SeriesSource, stamp: Stamp
) -> Iterator[Produced]:
    """One CT image per slice, at exactly the place of its source slice; single-frame also from a multi-frame source.

    Raises AnalysisFailed when the array is not on the grid of the volume or not finite.
    """
    _check(image, volume.voxels.shape)
    origin = origin_of(findings, source, stamp)
    image_numbers = source.image_numbers(volume.sources)
    frames = [source.frame(ref) for ref in volume.sources]
    shown = [display.voi(header) for header in frames]
    usual = next(filter(None, shown), None) or display.window(*display.SOFT_TISSUE_HU)
    for index, (header, ref) in enumerate(zip(frames, volume.sources, strict=True)):
        padding = None if volume.padding is None else volume.padding[index]
        coding = numbers.Coding.of_ct(header, padded=volume.padding is not None)
        stored = coding.store(image.array[index], padding, volume.voxels[index])
        ds = _start(header, str(CTImageStorage), uids.instance_uid(origin, image.kind, index), stamp)
        _describe(ds, header, image, ref, stamp, pipeline=findings.pipeline)
        _add_series(ds, header, image, stamp, origin=origin, place=findings.images.index(image))
        ds.InstanceNumber = image_numbers[index]
        ds.Modality = "CT"
        if not ds.get("FrameOfReferenceUID"):
            ds.FrameOfReferenceUID = uids.frame_of_reference_uid(source.series_instance_uid)
        # The mean position of slice and volume agree only where the reader took it from this header.
        ds.ImagePositionPatient = _position(header, volume.slice_origins_mm[index])
        display.show(ds, shown[index] or usual)
        coding.describe(ds, stored)
        yield _produced(ds, image, findings, f"{index + 1}/{len(volume.sources)}")


def radiograph(
    findings: Findings, image: Image, projection: Radiograph, source: SeriesSource, stamp: Stamp
) -> Iterator[Produced]:
    """One image of the source's own class, its photometric interpretation and window kept.

    Raises AnalysisFailed when the array is not on the grid of the radiograph or not finite.
    """
    _check(image, projection.pixels.shape)
    header = source.frame(projection.source)
    origin = origin_of(findings, source, stamp)
    array = image.array
    before = projection.pixels
    if projection.inverted:
        low, high = projection.value_range
        array, before = low + high - array, low + high - before
    coding = numbers.Coding.of_radiograph(header, padded=projection.padding is not None)
    stored = coding.store(array, projection.padding, before)
    index = projection.source.instance_uid + (f"/{projection.source.frame}" if projection.source.frame else "")
    ds = _start(header, str(header.SOPClassUID), uids.instance_uid(origin, image.kind, index), stamp)
    _describe(ds, header, image, projection.source, stamp, pipeline=findings.pipeline)
    _add_series(ds, header, image, stamp, origin=origin, place=findings.images.index(image))
    ds.InstanceNumber = header.get("InstanceNumber") or 1
    made = display.window(*display.span(before)) if projection.for_presentation else {}
    display.show(ds, display.voi(header) or made)  # what is for processing has no window of its own (PS3.3 C.8.11.3)
    coding.describe(ds, stored)
    yield _produced(ds, image, findings, "")


def origin_of(findings: Findings, source: SeriesSource, stamp: Stamp) -> uids.Origin:
    """What the UIDs of these results are made from."""
    return uids.Origin(
        stamp.study_instance_uid,
        source.series_instance_uid,
        stamp.revision,
        findings.pipeline,
        findings.version,
        findings.weights_digest,
        stamp.made_at.astimezone(dt.UTC).isoformat(timespec="microseconds"),
    )


def series_number(header: Any, stamp: Stamp, output: int) -> int:
    """base + 10 × source number + output: after the originals, and the source can be read from it.

    output          0 presentation state, 1 summary page, 2 segmentation, 3 to 8 derived images, 9 maps
    """
    number = header.get("SeriesNumber")
    return stamp.series_number_base + 10 * (abs(int(number)) % 1_000_000 if number not in (None, "") else 0) + output


def series_description(what: str, header: Any, stamp: Stamp) -> str:
    """ "AI" first: many viewers cut a description at twenty characters."""
    again = f" (rev {stamp.revision})" if stamp.revision > 1 else ""
    source = " ".join(str(header.get("SeriesDescription", "") or "").split())
    return f"AI {what}{again} {source}".strip()[:64].strip()


def _start(header: Any, sop_class_uid: str, sop_instance_uid: str, stamp: Stamp) -> Any:
    ds = headers.start(header, sop_class_uid, sop_instance_uid, stamp)
    allowed = attributes_of(sop_class_uid) - STALE - frozenset(display.KEYWORDS)
    with disable_value_validation():
        for element in header:
            if (
                element.keyword in allowed
                and element.keyword not in ds
                and element.tag.group & 0xFF00 not in (0x5000, 0x6000)
            ):
                headers.copy_element(element, ds)
    for keyword in ("PixelSpacing", "ImagerPixelSpacing"):
        if keyword in ds and any(float(size) <= 0 for size in ds[keyword].value or []):
            del ds[keyword]  # a pixel of no size says nothing, and is an error in a new object
    _drop_halves(ds)
    headers.fill_empty(ds, may_be_empty_of(sop_class_uid) | _EMPTY_IF_UNKNOWN.get(sop_class_uid, frozenset()))
    _say_where(ds)
    if sop_class_uid in _DX:
        _complete_dx(ds)
    if ds.get("ImageLaterality") or not ds.get("Laterality"):
        ds.pop("Laterality", None)
        headers.add_laterality(ds, header)
    return ds


def _drop_halves(ds: Any) -> None:
    """What says nothing without a value that is missing: edges of a shutter of no shape, a plane of no frame."""
    for module in optional_modules_of(str(ds.SOPClassUID)):
        identity = any(Tag(keyword).group in headers.PATIENT_GROUPS for keyword in module.own)
        if not identity and not all(ds.get(keyword) for keyword in module.must_have_value):
            for keyword in module.own:
                ds.pop(keyword, None)


def _complete_dx(ds: Any) -> None:
    """What a DX image must say and its source does not, as far as the rest of it leaves one answer (PS3.3 C.8.11).

    Not to be had by thought: Imager Pixel Spacing, Patient Orientation, how values follow exposure, a paired side.
    """
    for_processing = ds.SOPClassUID == DigitalXRayImageStorageForProcessing
    inverse = ds.get("PhotometricInterpretation") == "MONOCHROME1"
    answers = {
        "PresentationIntentType": "FOR PROCESSING" if for_processing else "FOR PRESENTATION",
        "PresentationLUTShape": "INVERSE" if inverse else "IDENTITY",
        "RescaleIntercept": "0",
        "RescaleSlope": "1",
        "RescaleType": "US",
    }
    if ds.get("Laterality") in ("L", "R"):
        answers["ImageLaterality"] = ds.Laterality
    elif is_unpaired(str(ds.get("BodyPartExamined") or "")):
        answers["ImageLaterality"] = "U"
    if ds.get("PixelSpacingCalibrationType"):
        answers["PixelSpacingCalibrationDescription"] = "not described in the source image"
    else:
        ds.pop("PixelSpacingCalibrationDescription", None)
    for keyword, answer in answers.items():
        if ds.get(keyword) in (None, ""):
            setattr(ds, keyword, answer)


def _say_where(ds: Any) -> None:
    """The code of the body part, which may be empty only where that is unknown (PS3.3 C.8.11.2)."""
    region = anatomic_region(str(ds.get("BodyPartExamined") or ""))
    if region is not None and "AnatomicRegionSequence" in ds and not ds.AnatomicRegionSequence:
        ds.AnatomicRegionSequence = [codes.item(region)]


def _describe(ds: Any, header: Any, image: Image, ref: SourceRef, stamp: Stamp, *, pipeline: str) -> None:
    stated = header.get("ImageType") or []
    kept = str(stated[2]) if not isinstance(stated, str) and len(stated) > 2 else ""
    if ds.SOPClassUID == CTImageStorage:
        kept = kept or "AXIAL"  # a CT image says one of two, and localisers are not analysed (PS3.3 C.8.2.1.1.1)
    local = "AI_" + re.sub(r"[^A-Z0-9_]", "_", image.kind.upper())
    ds.ImageType = ["DERIVED", "SECONDARY", kept, local[:16]]
    checks = "".join(f" {capital(name)}: {words}." for name, words in image.checks.items())
    words = f"{image.description.rstrip('.')}. {headers.identity_of(image.model)}.{checks}"
    if ref.frame is not None:
        words = f"Single-frame image of frame {ref.frame} of a multi-frame source. {words}"
    ds.DerivationDescription = _within(plain(words), plain(stamp.note))
    ds.DerivationCodeSequence = [codes.item(image.derivation)]
    item = Dataset()
    item.ReferencedSOPClassUID = header.SOPClassUID
    item.ReferencedSOPInstanceUID = header.SOPInstanceUID
    if ref.frame is not None:
        item.ReferencedFrameNumber = ref.frame
    item.PurposeOfReferenceCodeSequence = [codes.item(codes.SOURCE_OF_PROCESSING)]
    item.SpatialLocationsPreserved = "YES"
    ds.SourceImageSequence = [item]
    ds.ImageComments = plain(f"AI {image.kind}. {stamp.note}")
    _say_what_is_burned_in(ds)
    ds.LossyImageCompression = header.get("LossyImageCompression") or "00"
    if ds.LossyImageCompression != "01":
        for keyword in ("LossyImageCompressionRatio", "LossyImageCompressionMethod"):
            if keyword in ds:
                del ds[keyword]
    headers.add_contribution(ds, stamp, image.model, pipeline)


def _within(words: str, note: str) -> str:
    """As many whole sentences as the element holds, and the note always."""
    room = _TEXT_OF_DESCRIPTION - len(note) - 1
    if len(words) > room:
        words = words[: room - len(_MORE)].rpartition(". ")[0] + _MORE
    return f"{words} {note}"


def _say_what_is_burned_in(ds: Any) -> None:
    """As received. Where the source is silent, so is this; where the class asks for a value, it is the cautious one."""
    if ds.get("BurnedInAnnotation"):
        return
    ds.pop("BurnedInAnnotation", None)
    if "BurnedInAnnotation" in required_of(str(ds.SOPClassUID)):
        ds.BurnedInAnnotation = "YES"
        ds.ImageComments += " Burned In Annotation is YES because the source does not say."


def _add_series(ds: Any, header: Any, image: Image, stamp: Stamp, *, origin: uids.Origin, place: int) -> None:
    headers.add_series(
        ds,
        uid=uids.series_uid(origin, image.kind),
        number=series_number(header, stamp, 3 + place),
        modality=str(header.get("Modality", "") or ""),
        description=series_description(image.kind, header, stamp),
    )


def _produced(ds: Any, image: Image, findings: Findings, place: str) -> Produced:
    return headers.produced(
        ds,
        "derived",
        label=f"AI {image.kind} {place}".strip(),
        group=f"{findings.pipeline}/{image.kind}/{ds.SOPInstanceUID}",
    )


def _check(image: Image, shape: tuple[int, ...]) -> None:
    if image.array.shape != shape:
        raise AnalysisFailed(f"image '{image.kind}' has shape {image.array.shape}, its source {shape}")
    if not bool(np.isfinite(image.array).all()):
        raise AnalysisFailed(f"image '{image.kind}' holds values that are not finite")


def _position(header: Any, origin_mm: NDArray[np.float64]) -> Any:
    """The header's own, digit by digit; where it disagrees with the volume, something is mixed up."""
    position = header.get("ImagePositionPatient")
    if position is None or not np.allclose(np.asarray(position, dtype=float), origin_mm, atol=0.01):
        raise AnalysisFailed(f"slice position of {header.SOPInstanceUID} differs between header and volume")
    return [headers.decimal(value) for value in position]
