"""One lesion in three forms: report, segmentation and presentation state must say the same of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gate.files import Case, Complaint, groups, name

WORDS = re.compile(r"AI lesion ([0-9]+): ([0-9.]+) x ([0-9.]+) mm, score ([0-9.]+), .+")
PIXELS = 1e-3
"""Coordinates are float32."""


@dataclass(frozen=True)
class Told:
    """What a report tells of a lesion.

    image       SOP Instance UID and frame, 0 where the image has one
    lines       long and short axis, (2, 2) from the corner of the image
    numbers     long axis in mm, short axis in mm, certainty in %
    """

    number: int
    image: tuple[str, int]
    lines: tuple[NDArray[np.float64], ...]
    numbers: tuple[float, ...]


def forms(case: Case) -> Iterator[Complaint]:
    """Number, image, end points, lengths and score of each lesion are those of the report, whatever shows it."""
    for path, report in case.of_modality("SR"):
        told = dict(_told(report))
        if not told:
            continue
        for kind, shown in (("PR", _states), ("SEG", _segments)):
            for other, ds in case.of_modality(kind):
                for uid, differences in shown(ds, told):
                    for difference in differences:
                        yield Complaint("forms", other.name, f"{uid}: {difference} than in {path.name}")


def _told(report: Any) -> Iterator[tuple[str, Told]]:
    for group in groups(report):
        found = {name(item): item for item in group.ContentSequence}
        if "Long Axis" not in found:
            continue
        axes = [found["Long Axis"], found["Short Axis"]]
        lines = [axis.ContentSequence[0] for axis in axes]
        reference = lines[0].ContentSequence[0].ReferencedSOPSequence[0]
        called = re.search(r":Lesion ([0-9]+)", str(found["Tracking Identifier"].TextValue))
        yield (
            str(found["Tracking Unique Identifier"].UID),
            Told(
                number=int(called[1]) if called else 0,
                image=(str(reference.ReferencedSOPInstanceUID), int(reference.get("ReferencedFrameNumber") or 0)),
                lines=tuple(_points(line) for line in lines),
                numbers=tuple(_number(item) for item in (*axes, found["Certainty of Finding"])),
            ),
        )


def _states(state: Any, told: dict[str, Told]) -> Iterator[tuple[str, list[str]]]:
    for annotation in state.GraphicAnnotationSequence:
        uid = str(annotation.GraphicObjectSequence[0].TrackingUID)
        lesion = told.get(uid)
        yield uid, ["another lesion"] if lesion is None else list(_against_state(annotation, lesion))


def _against_state(annotation: Any, lesion: Told) -> Iterator[str]:
    [reference] = annotation.ReferencedImageSequence
    if (str(reference.ReferencedSOPInstanceUID), int(reference.get("ReferencedFrameNumber") or 0)) != lesion.image:
        yield "another image"
    drawn = [_points(line) for line in annotation.GraphicObjectSequence]
    if len(drawn) != len(lesion.lines) or not all(
        np.allclose(one, other, atol=PIXELS) for one, other in zip(drawn, lesion.lines, strict=True)
    ):
        yield "other end points"
    words = WORDS.fullmatch(str(annotation.TextObjectSequence[0].UnformattedTextValue))
    if words is None:
        yield "other words"
        return
    if int(words[1]) != lesion.number:
        yield "another number"
    said = float(words[2]), float(words[3]), 100 * float(words[4])
    if not np.allclose(said, lesion.numbers, rtol=1e-9, atol=1e-6):
        yield "other measures"


def _segments(segmentation: Any, told: dict[str, Told]) -> Iterator[tuple[str, list[str]]]:
    for segment in segmentation.SegmentSequence:
        uid = str(segment.TrackingUID)
        lesion = told.get(uid)
        if lesion is None:
            yield uid, ["another lesion"]
        elif (int(segment.SegmentNumber), segment.SegmentLabel) != (lesion.number, f"AI lesion {lesion.number}"):
            yield uid, ["another number"]


def _points(line: Any) -> NDArray[np.float64]:
    return np.array(line.GraphicData, float).reshape(-1, 2)


def _number(item: Any) -> float:
    return float(item.MeasuredValueSequence[0].NumericValue)
