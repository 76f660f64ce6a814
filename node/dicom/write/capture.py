"""Secondary capture: the one-page summary of a series, and the report as a page for peers that take no SR."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.uid import SecondaryCaptureImageStorage

from models.contract import Findings, Image, Radiograph, Volume
from node.dicom import uids
from node.dicom.write import display, headers, page, sentences
from node.dicom.write.charset import plain
from node.dicom.write.derived import origin_of, series_description, series_number
from node.dicom.write.objects import Produced, Stamp
from node.dicom.write.source import SeriesSource

DIFFERENCE_HU = (-50.0, 50.0)
TITLE = "AI results - research use only"
_SIDES = ("RL", "AP", "FH")
"""Of the axes of LPS: towards lower values, towards higher ones."""
_OPPOSITE = dict(zip("RLAPFH", "LRPAHF", strict=True))
_NO_PICTURES = "No pictures here: the images say that words which may name the patient are burned into them."


@dataclass(frozen=True)
class Page:
    """Which object a page becomes, and of which series."""

    sop_instance_uid: str
    series_instance_uid: str
    series_number: int
    series_description: str
    label: str
    group: str
    fallback: int = 0
    instance_number: int = 1
    content: str = "AI_SUMMARY"
    """Fourth value of Image Type."""
    burned_in: str | None = "NO"
    """Burned In Annotation: what `burned_in` says of the pictures on the page; "NO" where there are none."""


def summary_page(findings: Findings, grid: Volume | Radiograph, source: SeriesSource, stamp: Stamp) -> Produced:
    """What was done to one series, with small pictures of its middle slice before, after and their difference."""
    header = source.first
    origin = origin_of(findings, source, stamp)
    refs = grid.sources if isinstance(grid, Volume) else (grid.source,)
    numbers = source.image_numbers(refs)
    burnt = burned_in(source.frame(refs[len(refs) // 2]))
    panels = _panels(findings, grid, numbers, edges(grid, source)) if burnt != "YES" else []
    always = [stamp.note, _NO_PICTURES] if burnt == "YES" else [stamp.note]
    lines = [*(page.Line(text, "warning") for text in always), *summary_lines(findings, grid.notes, numbers)]
    images = source.part.name if source.part else sentences.count(len(refs), "image")
    pixels = page.summary(TITLE, subtitle(images, findings, source, stamp), panels, lines, _strip(findings, numbers))
    page_of_series = Page(
        sop_instance_uid=uids.instance_uid(origin, "summary", source.index),
        series_instance_uid=uids.series_uid(origin, "summary"),
        series_number=series_number(header, stamp, 1),
        series_description=series_description("summary", header, stamp),
        label=f"AI summary page, {source.part.name}" if source.part else "AI summary page",
        group=f"{findings.pipeline}/summary/{source.key}",
        instance_number=source.part.place + 1 if source.part else 1,
        burned_in=burnt if panels else "NO",
    )
    return capture(pixels, page_of_series, header, stamp)


def subtitle(what: str, findings: Findings, source: SeriesSource, stamp: Stamp) -> str:
    """Of which series a page is, by what and when it was made."""
    number = source.first.get("SeriesNumber")
    name = " ".join(str(source.first.get("SeriesDescription", "") or "").split())
    made_at = headers.local_time(source.first, stamp)
    return (
        f"Series {'without number' if number in (None, '') else number}, {name or 'no description'}, "
        f"{what}. {findings.pipeline} {findings.version}, "
        f"revision {stamp.revision}, {made_at:%Y-%m-%d %H:%M} {made_at:%z}"
    )


def summary_lines(findings: Findings, notes: Sequence[str], numbers: Sequence[int]) -> list[page.Line]:
    """The most important first, since a page may not hold all: lesions, what was not done, cautions, what was done.

    notes           of the reading
    numbers         of each slice, as a viewer shows them
    """
    must, told, rest = sentences.for_page(findings, numbers)
    lines = [_line(text) for text in must]
    lines += [page.Line(note, "warning") for note in (*findings.notes, *notes)]
    return lines + [_line(text) for text in (*told, *rest, *sentences.of_checks(findings))]


def burned_in(header: Any) -> str | None:
    """What a picture of this image says of annotation that tells who the patient is; None where the image is silent."""
    stated = str(header.get("BurnedInAnnotation") or "").strip().upper()
    return stated if stated in ("YES", "NO") else None


def capture(pixels: NDArray[np.uint8], which: Page, header: Any, stamp: Stamp) -> Produced:
    """An RGB secondary capture image of our own making (PS3.3 A.8.1).

    pixels          uint8 (Y, X, 3)
    """
    ds = headers.start(header, str(SecondaryCaptureImageStorage), which.sop_instance_uid, stamp)
    headers.add_series(
        ds,
        uid=which.series_instance_uid,
        number=which.series_number,
        modality="OT",
        description=plain(which.series_description),
    )
    headers.add_equipment(ds, stamp)
    headers.add_contribution(ds, stamp, None, which.label)
    if header.get("BodyPartExamined"):
        ds.BodyPartExamined = header.BodyPartExamined
    headers.add_laterality(ds, header)
    ds.ConversionType = "WSD"
    ds.DateOfSecondaryCapture, ds.TimeOfSecondaryCapture = ds.ContentDate, ds.ContentTime
    ds.SecondaryCaptureDeviceManufacturer = ds.Manufacturer
    ds.SecondaryCaptureDeviceManufacturerModelName = ds.ManufacturerModelName
    ds.SecondaryCaptureDeviceSoftwareVersions = ds.SoftwareVersions
    ds.ImageComments = plain(stamp.note)
    _add_picture(ds, pixels, which)
    return headers.produced(ds, "sc", label=which.label, group=which.group, fallback=which.fallback)


def _add_picture(ds: Any, pixels: NDArray[np.uint8], which: Page) -> None:
    ds.ImageType = ["DERIVED", "SECONDARY", "OTHER", which.content]
    ds.InstanceNumber = which.instance_number
    ds.PatientOrientation = None
    if which.burned_in is not None:
        ds.BurnedInAnnotation = which.burned_in
    ds.LossyImageCompression = "00"
    ds.SamplesPerPixel = 3
    ds.PhotometricInterpretation = "RGB"
    ds.PlanarConfiguration = 0
    ds.Rows, ds.Columns = pixels.shape[:2]
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 8, 8, 7, 0
    ds.PixelData = pixels.tobytes() + (b"\0" if pixels.nbytes % 2 else b"")
    ds["PixelData"].VR = "OB"


def _strip(findings: Findings, numbers: Sequence[int]) -> page.Strip | None:
    """The first score that has a value for every slice."""
    score = next((score for score in findings.scores if len(score.per_slice) > 1), None)
    if score is None or len(score.per_slice) != len(numbers):
        return None
    limit = "" if score.poor_below is None else f", poor below {score.poor_below:g}"
    title = f"Image quality of each image as received (from {score.scale[0]:g} to {score.scale[1]:g}{limit})"
    return page.Strip(title, score.per_slice, score.scale, score.poor_below, (numbers[0], numbers[-1]))


def _line(text: str) -> page.Line:
    return page.Line(text, "warning" if sentences.is_warning(text) else "")


def edges(grid: Volume | Radiograph, source: SeriesSource) -> tuple[str, str]:
    """What of the patient lies at the left and at the top edge: "R", "A"; "" where the header does not say."""
    if isinstance(grid, Volume):
        across, down = _towards(-grid.affine[:3, 2]), _towards(-grid.affine[:3, 1])
        return across, down
    stated = source.frame(grid.source).get("PatientOrientation") or ()
    if isinstance(stated, str) or len(stated) != 2:
        return "", ""
    across, down = ("".join(_OPPOSITE.get(letter, "") for letter in str(value)) for value in stated)
    return across, down


def _towards(direction: NDArray[np.float64]) -> str:
    """The side of the patient that a direction in LPS leads to, of the axis nearest to it."""
    axis = int(np.argmax(np.abs(direction)))
    return _SIDES[axis][int(direction[axis] > 0)]


def _panels(
    findings: Findings, grid: Volume | Radiograph, numbers: Sequence[int], sides: tuple[str, str]
) -> list[page.Panel]:
    drawn = _volume_panels(findings, grid, numbers) if isinstance(grid, Volume) else _radiograph_panels(findings, grid)
    return [replace(panel, edges=sides) for panel in drawn]


def _volume_panels(findings: Findings, volume: Volume, numbers: Sequence[int]) -> list[page.Panel]:
    middle = volume.voxels.shape[0] // 2
    aspect = volume.spacing_zyx_mm[1] / volume.spacing_zyx_mm[2]
    before = volume.voxels[middle]
    place = f"image {numbers[middle]}"
    panels = [page.Panel(f"Received, {place}", before, aspect, display.SOFT_TISSUE_HU, "HU")]
    for image in _pictured(findings):
        after = image.array[middle]
        panels.append(page.Panel(f"AI {image.kind}, {place}", after, aspect, display.SOFT_TISSUE_HU, "HU"))
        panels.append(page.Panel("Difference (AI minus received)", after - before, aspect, DIFFERENCE_HU, "HU"))
    return panels


def _radiograph_panels(findings: Findings, projection: Radiograph) -> list[page.Panel]:
    before = projection.pixels
    vertical, horizontal = projection.spacing_yx_mm or (1.0, 1.0)
    aspect = vertical / horizontal
    window = radiograph_window(projection)
    panels = [page.Panel("Received", before, aspect, window, "")]
    for image in _pictured(findings):
        difference = image.array - before
        step = projection.value_step
        reach = step * max(1.0, float(np.ceil(np.percentile(np.abs(difference), 99.5) / step)))
        panels.append(page.Panel(f"AI {image.kind}", image.array, aspect, window, ""))
        panels.append(page.Panel("Difference (AI minus received)", difference, aspect, (-reach, reach), ""))
    return panels


def _pictured(findings: Findings) -> tuple[Image, ...]:
    """The first image with pixels: three panels fit."""
    return tuple(image for image in findings.images if image.array.size)[:1]


def radiograph_window(projection: Radiograph) -> tuple[float, float]:
    """What a panel draws black and white: the header's window if it shows anything, else all but the extreme pixels."""
    pixels = projection.pixels
    if projection.window is not None and projection.window[1] > 0:
        centre, width = projection.window
        black, white = centre - width / 2, centre + width / 2
        if black < pixels.max() and white > pixels.min():
            return black, white
    return display.span(pixels)
