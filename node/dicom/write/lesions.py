"""Lesions as pictures: each on its image with its axes, for readers whose viewer shows neither SR, SEG nor GSPS."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from models.contract import Findings, Lesion, Volume
from node.dicom import uids
from node.dicom.write import capture, display, page, sentences
from node.dicom.write.derived import origin_of, series_description, series_number
from node.dicom.write.objects import Produced, Stamp
from node.dicom.write.source import SeriesSource

TITLE = "AI lesion candidates - research use only"
LUNG_HU = (-1350.0, 150.0)
_MOSTLY_AIR_HU = -300.0
"""Surroundings whose median is below are shown in a lung window: in soft tissue a nodule in lung has no edge."""
_SURROUNDINGS_MM = 10.0
"""Around the lesion: more would show a nodule near the chest wall in the window of the wall."""
_LEGEND = "Each pair of marks points at the ends of the long or of the short axis."
_LEAST_SIDE_MM = 80.0
_TIMES_LONG_AXIS = 4.0


def lesion_pages(findings: Findings, volume: Volume, source: SeriesSource, stamp: Stamp) -> Iterator[Produced]:
    """Pages of up to six lesions, behind the summary in its series. Images with words burned in are left out."""
    numbers = source.image_numbers(volume.sources)
    shown = [
        (number, lesion)
        for number, lesion in enumerate(findings.lesions, start=1)
        if _burned_in(lesion, volume, source) != "YES"
    ]
    most = page.MOST_SMALL_PANELS
    for place, start in enumerate(range(0, len(shown), most)):
        yield _page(place, shown[start : start + most], numbers, findings, volume, source, stamp)


def _page(
    place: int,
    shown: list[tuple[int, Lesion]],
    numbers: list[int],
    findings: Findings,
    volume: Volume,
    source: SeriesSource,
    stamp: Stamp,
) -> Produced:
    header = source.first
    origin = origin_of(findings, source, stamp)
    subtitle = capture.subtitle(sentences.count(len(findings.lesions), "candidate"), findings, source, stamp)
    sides = capture.edges(volume, source)
    panels = [
        replace(panel(number, lesion, numbers[lesion.slice_index], volume), edges=sides) for number, lesion in shown
    ]
    lines = [page.Line(text, "warning") for text in (stamp.note, *findings.notes)] + [page.Line(_LEGEND)]
    stated = {_burned_in(lesion, volume, source) for _, lesion in shown}
    which = capture.Page(
        sop_instance_uid=uids.instance_uid(origin, "lesions", place),
        series_instance_uid=uids.series_uid(origin, "summary"),
        series_number=series_number(header, stamp, 1),
        series_description=series_description("summary", header, stamp),
        label="AI lesions page",
        group=f"{findings.pipeline}/lesions/{place}/{source.key}",
        instance_number=place + 2,
        content="AI_LESIONS",
        burned_in=None if None in stated else "NO",
    )
    return capture.capture(page.small_panels(TITLE, subtitle, panels, lines), which, header, stamp)


def _burned_in(lesion: Lesion, volume: Volume, source: SeriesSource) -> str | None:
    return capture.burned_in(source.frame(volume.sources[lesion.slice_index]))


def panel(number: int, lesion: Lesion, image_number: int, volume: Volume) -> page.Panel:
    """The surroundings of the lesion as the image has them, never turned."""
    _, down, across = volume.spacing_zyx_mm
    ends = np.array([*lesion.long_axis_px, *lesion.short_axis_px])  # (4, 2), x and y
    middle = ends.mean(axis=0)
    half_mm = max(_LEAST_SIDE_MM, _TIMES_LONG_AXIS * lesion.long_axis_mm) / 2
    rows, columns = volume.voxels.shape[1:]
    left, right = _part(middle[0], half_mm / across, columns)
    top, bottom = _part(middle[1], half_mm / down, rows)
    pixels = volume.voxels[lesion.slice_index, top:bottom, left:right]
    corner = np.array([left, top])
    axes = tuple(
        ((float(x0), float(y0)), (float(x1), float(y1)))
        for (x0, y0), (x1, y1) in (np.array(axis) - corner for axis in (lesion.long_axis_px, lesion.short_axis_px))
    )
    title = f"Lesion {number}, image {image_number}: {lesion.long_axis_mm:.1f} x {lesion.short_axis_mm:.1f} mm"
    return page.Panel(title, pixels, down / across, _window(lesion, volume), "HU", axes=axes)


def _part(middle: float, half: float, size: int) -> tuple[int, int]:
    """(first, end) of a stretch around the middle, inside the image."""
    return max(0, round(middle - half)), min(size, round(middle + half) + 1)


def _window(lesion: Lesion, volume: Volume) -> tuple[float, float]:
    """By what lies around the lesion, which itself is left out."""
    _, down, across = volume.spacing_zyx_mm
    ends = np.array([*lesion.long_axis_px, *lesion.short_axis_px])  # (4, 2), x and y
    middle, half = (ends.max(0) + ends.min(0)) / 2, (ends.max(0) - ends.min(0)) / 2
    rows, columns = volume.voxels.shape[1:]
    left, right = _part(middle[0], half[0] + _SURROUNDINGS_MM / across, columns)
    top, bottom = _part(middle[1], half[1] + _SURROUNDINGS_MM / down, rows)
    near = volume.voxels[lesion.slice_index, top:bottom, left:right]
    around = near[~lesion.mask[lesion.slice_index, top:bottom, left:right]]
    return LUNG_HU if around.size and float(np.median(around)) < _MOSTLY_AIR_HU else display.SOFT_TISSUE_HU
