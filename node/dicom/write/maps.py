"""Numbers per pixel beside their radiograph, in colour: pages to be looked at, with what they show and do not show.

Secondary capture and not a parametric map: hardly a viewer shows one, and nothing should be measured on these.
"""

from __future__ import annotations

from collections.abc import Iterator

from models.contract import Findings, Map, Radiograph, Volume
from node.dicom import uids
from node.dicom.write import capture, headers, page, sentences
from node.dicom.write.derived import origin_of, series_description, series_number
from node.dicom.write.objects import Produced, Stamp
from node.dicom.write.source import SeriesSource
from node.errors import AnalysisFailed

TITLE = "AI map - research use only, no diagnosis"
SIGNED: tuple[page.Colour, ...] = ((120, 200, 255), (30, 90, 220), (0, 0, 0), (215, 45, 35), (255, 190, 120))
UNSIGNED: tuple[page.Colour, ...] = ((0, 0, 0), (130, 40, 90), (240, 130, 40), (255, 245, 200))
_OF_SERIES = 9
"""Place of the maps' series among those of one source (see `series_number`)."""


def map_pages(findings: Findings, grid: Volume | Radiograph, source: SeriesSource, stamp: Stamp) -> Iterator[Produced]:
    """One page per map, all in one series.

    Raises AnalysisFailed where a map lies on no radiograph or not on its grid, or two are of one kind.
    """
    if not isinstance(grid, Radiograph):
        raise AnalysisFailed("maps are drawn of radiographs only")
    if len({one.kind for one in findings.maps}) != len(findings.maps):
        raise AnalysisFailed("two maps of the same kind would get the same UIDs")
    for number, one in enumerate(findings.maps, start=1):
        yield _page(number, one, findings, grid, source, stamp)


def _page(
    number: int, one: Map, findings: Findings, projection: Radiograph, source: SeriesSource, stamp: Stamp
) -> Produced:
    if one.array.shape != projection.pixels.shape:
        raise AnalysisFailed(f"map '{one.kind}' has shape {one.array.shape}, its source {projection.pixels.shape}")
    header = source.first
    origin = origin_of(findings, source, stamp)
    image = f", {source.part.name}" if source.part else ""
    which = capture.Page(
        sop_instance_uid=uids.instance_uid(origin, "map", f"{one.kind}/{source.index}" if source.part else one.kind),
        series_instance_uid=uids.series_uid(origin, "maps"),
        series_number=series_number(header, stamp, _OF_SERIES),
        series_description=series_description("maps", header, stamp),
        label=f"AI {one.kind} map{image}",
        group=f"{findings.pipeline}/map/{one.kind}/{source.key}",
        instance_number=number if source.part is None else source.part.place * len(findings.maps) + number,
        content="AI_MAP",
        burned_in=capture.burned_in(source.of(projection.source)),
    )
    made_at = headers.local_time(header, stamp)
    subtitle = (
        f"{sentences.capital(one.kind)} map{image}. {one.model.name} {one.model.version}. {findings.pipeline} "
        f"{findings.version}, revision {stamp.revision}, {made_at:%Y-%m-%d %H:%M} {made_at:%z}"
    )
    lines = [page.Line(stamp.note, "warning"), page.Line(one.explanation)]
    lines += [page.Line(note, "warning") for note in findings.notes]
    panels = _panels(one, projection, capture.edges(projection, source))
    return capture.capture(page.map_page(TITLE, subtitle, panels, lines), which, header, stamp)


def _panels(one: Map, projection: Radiograph, edges: tuple[str, str]) -> list[page.Panel]:
    """The radiograph as received, and the map."""
    down, across = projection.spacing_yx_mm or (1.0, 1.0)
    aspect = down / across
    colours = SIGNED if one.limits[0] < 0 else UNSIGNED
    window = capture.radiograph_window(projection)
    received = page.Panel("Received", projection.pixels, aspect, window, "", edges=edges)
    return [received, page.Panel(one.title, one.array, aspect, one.limits, one.unit, colours, edges=edges)]
