"""The codes that results use, as (value, scheme, meaning); PS3.16 where the scheme is DCM."""

from __future__ import annotations

from typing import Any, Final

from pydicom.dataset import Dataset

from models.contract import Code

PRIVATE_SCHEME: Final = "99PACSNODE"
PRIVATE_SCHEME_NAME: Final = "pacsnode: what a processing node says about its own work"

# document
MEASUREMENT_REPORT: Final[Code] = ("126000", "DCM", "Imaging Measurement Report")
TEXT_REPORT: Final[Code] = ("18782-3", "LN", "Radiology Study observation (findings)")
LANGUAGE: Final[Code] = ("121049", "DCM", "Language of Content Item and Descendants")
ENGLISH: Final[Code] = ("en", "RFC5646", "English")
PROCEDURE_REPORTED: Final[Code] = ("121058", "DCM", "Procedure reported")
IMAGING_PROCEDURE: Final[Code] = ("363679005", "SCT", "Imaging procedure")
IMAGE_LIBRARY: Final[Code] = ("111028", "DCM", "Image Library")
IMAGE_LIBRARY_GROUP: Final[Code] = ("126200", "DCM", "Image Library Group")
MODALITY: Final[Code] = ("121139", "DCM", "Modality")
IMAGING_MEASUREMENTS: Final[Code] = ("126010", "DCM", "Imaging Measurements")
QUALITATIVE_EVALUATIONS: Final[Code] = ("C0034375", "UMLS", "Qualitative Evaluations")

# observer
OBSERVER_TYPE: Final[Code] = ("121005", "DCM", "Observer Type")
DEVICE: Final[Code] = ("121007", "DCM", "Device")
DEVICE_UID: Final[Code] = ("121012", "DCM", "Device Observer UID")
DEVICE_NAME: Final[Code] = ("121013", "DCM", "Device Observer Name")
DEVICE_MANUFACTURER: Final[Code] = ("121014", "DCM", "Device Observer Manufacturer")
DEVICE_MODEL: Final[Code] = ("121015", "DCM", "Device Observer Model Name")
DEVICE_SERIAL: Final[Code] = ("121016", "DCM", "Device Observer Serial Number")

# measurement groups
MEASUREMENT_GROUP: Final[Code] = ("125007", "DCM", "Measurement Group")
TRACKING_IDENTIFIER: Final[Code] = ("112039", "DCM", "Tracking Identifier")
TRACKING_UID: Final[Code] = ("112040", "DCM", "Tracking Unique Identifier")
FINDING: Final[Code] = ("121071", "DCM", "Finding")
FINDING_SITE: Final[Code] = ("363698007", "SCT", "Finding Site")
LATERALITY: Final[Code] = ("272741003", "SCT", "Laterality")
ALGORITHM_NAME: Final[Code] = ("111001", "DCM", "Algorithm Name")
ALGORITHM_VERSION: Final[Code] = ("111003", "DCM", "Algorithm Version")
ALGORITHM_PARAMETERS: Final[Code] = ("111002", "DCM", "Algorithm Parameters")
IMAGE_REGION: Final[Code] = ("111030", "DCM", "Image Region")
SOURCE: Final[Code] = ("260753009", "SCT", "Source")
REFERENCED_SEGMENT: Final[Code] = ("121191", "DCM", "Referenced Segment")
SEGMENTATION_SOURCE_SERIES: Final[Code] = ("121232", "DCM", "Source series for segmentation")
# OHIF finds the axes by these very meanings, capital A included (PS3.16 CID 7470 spells them so too).
LONG_AXIS: Final[Code] = ("103339001", "SCT", "Long Axis")
SHORT_AXIS: Final[Code] = ("103340004", "SCT", "Short Axis")
VOLUME: Final[Code] = ("118565006", "SCT", "Volume")
CERTAINTY: Final[Code] = ("111012", "DCM", "Certainty of Finding")
COMMENT: Final[Code] = ("121106", "DCM", "Comment")
IMAGE_QUALITY: Final[Code] = ("111101", "DCM", "Image Quality")
IMAGES_RECEIVED: Final[Code] = ("images-received", PRIVATE_SCHEME, "Number of images received")

# qualitative evaluations
OUTCOME: Final[Code] = ("111017", "DCM", "CAD Processing and Findings Summary")
ALL_DONE_NOTHING: Final[Code] = ("111241", "DCM", "All algorithms succeeded; without findings")
ALL_DONE_FINDINGS: Final[Code] = ("111242", "DCM", "All algorithms succeeded; with findings")
SOME_DONE_NOTHING: Final[Code] = ("111243", "DCM", "Not all algorithms succeeded; without findings")
SOME_DONE_FINDINGS: Final[Code] = ("111244", "DCM", "Not all algorithms succeeded; with findings")
NONE_DONE: Final[Code] = ("111245", "DCM", "No algorithms succeeded; without findings")
CONCLUSION: Final[Code] = ("121077", "DCM", "Conclusion")
INTENDED_USE: Final[Code] = ("intended-use", PRIVATE_SCHEME, "Intended use")
REVISION: Final[Code] = ("revision", PRIVATE_SCHEME, "Revision")
SERIES_OUTCOME: Final[Code] = ("series-outcome", PRIVATE_SCHEME, "Series")

# units
MILLIMETRE: Final[Code] = ("mm", "UCUM", "mm")
CUBIC_MILLIMETRE: Final[Code] = ("mm3", "UCUM", "cubic millimeter")
PERCENT: Final[Code] = ("%", "UCUM", "Percent")
IMAGES: Final[Code] = ("{images}", "UCUM", "images")
NO_UNITS: Final[Code] = ("1", "UCUM", "no units")

# headers
PROCESSING_EQUIPMENT: Final[Code] = ("109102", "DCM", "Processing Equipment")
SOURCE_OF_PROCESSING: Final[Code] = ("121322", "DCM", "Source image for image processing operation")

MODALITIES: Final[dict[str, Code]] = {
    "CT": ("CT", "DCM", "Computed Tomography"),
    "CR": ("CR", "DCM", "Computed Radiography"),
    "DX": ("DX", "DCM", "Digital Radiography"),
}
"""Of derived images; CID 29, which has none for a page."""


def item(code: Code) -> Any:
    """One item of a code sequence."""
    value, scheme, meaning = code
    ds = Dataset()
    if len(value) > 16:
        ds.LongCodeValue = value
    else:
        ds.CodeValue = value
    ds.CodingSchemeDesignator = scheme
    ds.CodeMeaning = meaning[:64]
    return ds
