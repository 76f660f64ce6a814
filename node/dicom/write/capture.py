"""Secondary capture: the one-page summary of a series, and the report as a page for peers that take no SR."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.uid import SecondaryCaptureImageStorage

from models.contract import Findings, Image, Radiograph, Volume
from node.dicom import uids
from node.dicom.write import headers, page, sentences
from node.dicom.write.charset import plain
from node.dicom.write.derived import origin_of, series_description, series_number
from node.dicom.write.objects import Produced, Stamp
from node.dicom.write.source import SeriesSource

SOFT_TISSUE_HU = (-160.0, 240.0)
"""Black and white of the CT panels: noise and low contrast show in soft tissue, in a lung window neither does."""
DIFFERENCE_HU = (-50.0, 50.0)
TITLE = "AI results - research use only"


def summary_page(findings: Findings, grid: Volume | Radiograph, source: SeriesSource, stamp: Stamp) -> Produced:
    """What was done to one series, with small pictures of its middle slice before, after and their difference."""
    header = source.first
    origin = origin_of(findings, source, stamp)
    refs = grid.sources if isinstance(grid, Volume) else (grid.source,)
    numbers = source.image_numbers(refs)
    panels = _volume_panels(findings, grid, numbers) if isinstance(grid, Volume) else _radiograph_panels(findings, grid)
    lines = [page.Line(stamp.note, "warning"), *(_line(text) for text in sentences.of_findings(findings, numbers))]
    lines += [page.Line(note, "warning") for note in (*grid.notes, *findings.notes)]
    number = header.get("SeriesNumber")
    name = " ".join(str(header.get("SeriesDescription", "") or "").split())
    made_at = headers.local_time(header, stamp)
    subtitle = (
        f"Series {'without number' if number in (None, '') else number}, {name or 'no description'}, "
        f"{sentences.count(len(refs), 'image')}. {findings.pipeline} {findings.version}, "
        f"revision {stamp.revision}, {made_at:%Y-%m-%d %H:%M} {made_at:%z}"
    )
    pixels = page.summary(TITLE, subtitle, panels, lines)
    return capture(
        pixels,
        header,
        stamp,
        sop_instance_uid=uids.instance_uid(origin, "summary"),
        series=(
            uids.series_uid(origin, "summary"),
            series_number(header, stamp, 1),
            series_description("summary", header, stamp),
        ),
        label="AI summary page",
        group=f"{findings.pipeline}/summary/{source.series_instance_uid}",
    )


def capture(
    pixels: NDArray[np.uint8],
    header: Any,
    stamp: Stamp,
    *,
    sop_instance_uid: str,
    series: tuple[str, int, str],
    label: str,
    group: str,
    fallback: int = 0,
) -> Produced:
    """An RGB secondary capture image of our own making (PS3.3 A.8.1).

    pixels          uint8 (Y, X, 3)
    series          (UID, number, description)
    """
    ds = headers.start(header, str(SecondaryCaptureImageStorage), sop_instance_uid, stamp)
    uid, number, description = series
    headers.add_series(ds, uid=uid, number=number, modality="OT", description=plain(description))
    headers.add_equipment(ds, stamp)
    headers.add_contribution(ds, stamp, None, label)
    body_part = header.get("BodyPartExamined")
    if body_part:
        ds.BodyPartExamined = body_part
    headers.add_laterality(ds, header)
    ds.ConversionType = "WSD"
    ds.DateOfSecondaryCapture, ds.TimeOfSecondaryCapture = ds.ContentDate, ds.ContentTime
    ds.SecondaryCaptureDeviceManufacturer = ds.Manufacturer
    ds.SecondaryCaptureDeviceManufacturerModelName = ds.ManufacturerModelName
    ds.SecondaryCaptureDeviceSoftwareVersions = ds.SoftwareVersions
    ds.ImageType = ["DERIVED", "SECONDARY", "OTHER", "AI_SUMMARY"]
    ds.InstanceNumber = 1
    ds.PatientOrientation = None
    ds.ImageComments = plain(stamp.note)
    ds.BurnedInAnnotation = "NO"
    ds.LossyImageCompression = "00"
    ds.SamplesPerPixel = 3
    ds.PhotometricInterpretation = "RGB"
    ds.PlanarConfiguration = 0
    ds.Rows, ds.Columns = pixels.shape[:2]
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 8, 8, 7, 0
    ds.PixelData = pixels.tobytes() + (b"\0" if pixels.nbytes % 2 else b"")
    ds["PixelData"].VR = "OB"
    return Produced(
        kind="sc",
        sop_class_uid=str(ds.SOPClassUID),
        sop_instance_uid=sop_instance_uid,
        series_instance_uid=uid,
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        data=headers.encode(ds),
        label=label,
        group=group,
        fallback=fallback,
    )


def _line(text: str) -> page.Line:
    return page.Line(text, "warning" if sentences.is_warning(text) else "")


def _volume_panels(findings: Findings, volume: Volume, numbers: Sequence[int]) -> list[page.Panel]:
    middle = volume.voxels.shape[0] // 2
    aspect = volume.spacing_zyx_mm[1] / volume.spacing_zyx_mm[2]
    before = volume.voxels[middle]
    place = f"image {numbers[middle]}"
    panels = [page.Panel(f"Received, {place}", before, aspect, SOFT_TISSUE_HU, "HU")]
    for image in _pictured(findings):
        after = image.array[middle]
        panels.append(page.Panel(f"AI {image.kind}, {place}", after, aspect, SOFT_TISSUE_HU, "HU"))
        panels.append(page.Panel("Difference (AI minus received)", after - before, aspect, DIFFERENCE_HU, "HU"))
    return panels


def _radiograph_panels(findings: Findings, projection: Radiograph) -> list[page.Panel]:
    before = projection.pixels
    vertical, horizontal = projection.spacing_yx_mm or (1.0, 1.0)
    aspect = vertical / horizontal
    window = _radiograph_window(projection)
    panels = [page.Panel("Received", before, aspect, window, "")]
    for image in _pictured(findings):
        difference = image.array - before
        reach = max(1.0, float(np.ceil(np.percentile(np.abs(difference), 99.5))))
        panels.append(page.Panel(f"AI {image.kind}", image.array, aspect, window, ""))
        panels.append(page.Panel("Difference (AI minus received)", difference, aspect, (-reach, reach), ""))
    return panels


def _pictured(findings: Findings) -> tuple[Image, ...]:
    """The first image with pixels: three panels fit."""
    return tuple(image for image in findings.images if image.array.size)[:1]


def _radiograph_window(projection: Radiograph) -> tuple[float, float]:
    if projection.window is not None and projection.window[1] > 1:
        centre, width = projection.window
        return centre - width / 2, centre + width / 2
    low, high = (float(value) for value in np.percentile(projection.pixels, (0.5, 99.5)))
    return low, max(high, low + 1.0)
