"""Tumours drawn for radiotherapy: closed contours of a structure set (PS3.3 A.19)."""

from __future__ import annotations

from collections.abc import Iterator

from pydicom.dataset import Dataset

from models.contract import SourceRef
from node.dicom.elements import integer, item, items, numbers, text
from node.dicom.marks.content_tree import code_of
from node.dicom.marks.lesions import NOT_A_LESION, is_gross_tumour
from node.dicom.marks.mark import About, Contour, Document, Origin, Outline, Refusal

STRUCTURE_SETS = "1.2.840.10008.5.1.4.1.1.481.3"
_CLOSED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")
_LEAST_CORNERS = 3


def read_structures(dataset: Dataset) -> Document:
    """Its gross tumours as outlines in the patient; every other structure refused."""
    uid = text(dataset, 0x00080018)
    contours = {integer(roi, 0x30060084): items(roi, 0x30060040) for roi in items(dataset, 0x30060039)}
    observations = {integer(it, 0x30060084): it for it in items(dataset, 0x30060080)}
    rejected = text(dataset, 0x300E0002).upper() == "REJECTED"
    claims: list[Outline] = []
    refusals: list[Refusal] = []
    for roi in items(dataset, 0x30060020):
        number = integer(roi, 0x30060022)
        observed = observations.get(number, Dataset())
        drawn = [it for it in contours.get(number, ()) if text(it, 0x30060042).upper() in _CLOSED]
        identified_as = code_of(item(observed, 0x30060086))
        if not is_gross_tumour(text(observed, 0x300600A4), identified_as, text(roi, 0x30060026)):
            refusals.append(Refusal(uid, NOT_A_LESION))
        elif rejected:
            refusals.append(Refusal(uid, "a structure set that was rejected (Approval Status)"))
        elif outline := _outline(roi, drawn):
            observer = "device" if text(roi, 0x30060036).upper() == "AUTOMATIC" else "person"
            tracking_uid, institution = text(observed, 0x00620021), text(dataset, 0x00080080)
            about = About(Origin.CONTOUR, uid, tracking_uid, identified_as, None, observer, institution)
            claims.append(Outline(about, *outline))
        else:
            refusals.append(Refusal(uid, "a tumour without closed contours"))
    referred = list(_referred(dataset))
    return Document(
        uid,
        tuple(claims),
        tuple(refusals),
        series_of={image: series for _, series, image in referred},
        elsewhere=frozenset(image for study, _, image in referred if study not in ("", text(dataset, 0x0020000D))),
        supersedes=frozenset(text(it, 0x00081155) for it in items(dataset, 0x30060018)) - {""},
    )


def _outline(roi: Dataset, drawn: list[Dataset]) -> tuple[tuple[Contour, ...], tuple[SourceRef, ...]] | None:
    """Contours in mm, and the images that they name."""
    frame_of_reference = text(roi, 0x30060024)
    found = []
    for contour in drawn:
        data = numbers(contour, 0x30060050)
        points = tuple(tuple(data[start : start + 3]) for start in range(0, len(data) - len(data) % 3, 3))
        if len(set(points)) >= _LEAST_CORNERS:
            found.append(Contour(None, points, frame_of_reference))
    named = (text(image, 0x00081155) for contour in drawn for image in items(contour, 0x30060016))
    images = tuple(SourceRef(uid, None) for uid in dict.fromkeys(filter(None, named)))
    return (tuple(found), images) if found else None


def _referred(dataset: Dataset) -> Iterator[tuple[str, str, str]]:
    """Study, series and instance of each image that it was drawn on."""
    for frame_of_reference in items(dataset, 0x30060010):
        for study in items(frame_of_reference, 0x30060012):
            for series in items(study, 0x30060014):
                for image in items(series, 0x30060016):
                    yield text(study, 0x00081155), text(series, 0x0020000E), text(image, 0x00081155)
