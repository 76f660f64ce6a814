"""All images that one run of a pipeline makes of one series."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace

from models.contract import Findings, Radiograph, Volume
from node.dicom.write import capture, derived, lesions, maps
from node.dicom.write.objects import Produced, Stamp
from node.dicom.write.presentation import lesion_presentations
from node.dicom.write.segmentation import lesion_segmentation
from node.dicom.write.source import SeriesSource
from node.errors import AnalysisFailed

_MISSING = {
    "seg": "There is no segmentation of the lesions: the headers of the images do not allow one.",
    "gsps": "There is no presentation state with the axes of the lesions: the headers of the images do not allow one.",
}


def write_images(
    findings: Findings, grid: Volume | Radiograph, source: SeriesSource, stamp: Stamp
) -> Iterator[Produced]:
    """Derived images, for lesions a segmentation and presentation states, maps, a summary page, lesions as pictures.

    One object at a time.

    Where headers do not allow a segmentation or presentation states, only these are left out (see `noted`).
    Raises AnalysisFailed where the findings do not lie on the grid, or grid and headers do not belong together.
    """
    if str(source.first.StudyInstanceUID) != stamp.study_instance_uid:
        raise AnalysisFailed("the stamp is of another study than the images")
    if len({image.kind for image in findings.images}) != len(findings.images):
        raise AnalysisFailed("two images of the same kind would get the same UIDs")
    for image in findings.images:
        if isinstance(grid, Volume):
            yield from derived.ct_images(findings, image, grid, source, stamp)
        else:
            yield from derived.radiograph(findings, image, grid, source, stamp)
    if findings.lesions:
        segmentation = lesion_segmentation(findings, grid, source, stamp)
        of_lesions = [] if segmentation is None else [segmentation]
        of_lesions += lesion_presentations(findings, grid, source, stamp)
        yield from of_lesions
        findings = noted(findings, {result.kind for result in of_lesions})
    if findings.maps:
        yield from maps.map_pages(findings, grid, source, stamp)
    yield capture.summary_page(findings, grid, source, stamp)
    if isinstance(grid, Volume):
        yield from lesions.lesion_pages(findings, grid, source, stamp)


def noted(findings: Findings, kinds: Collection[str]) -> Findings:
    """Findings with notes for the reader on what is missing among the kinds of their results."""
    missing = [note for kind, note in _MISSING.items() if findings.lesions and kind not in kinds]
    return replace(findings, notes=(*findings.notes, *missing))
