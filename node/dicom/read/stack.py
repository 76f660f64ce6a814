"""Which frames of a series make one stack: one scan, one plane, one image at each position, in order.

Nothing here depends on the order of files or on Instance Number. What is left out is noted in words; where leaving
out would be a guess, the series is refused.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from statistics import median

import numpy as np

from node.dicom.read.frames import (
    ACQUISITION_NUMBER,
    ACQUISITION_TIME,
    CARDIAC_PHASE,
    IMAGE_COMMENTS,
    RESPIRATORY_PHASE,
    TEMPORAL_POSITION,
    TRIGGER_TIME,
    Frame,
    stated_steps_mm,
)
from node.dicom.read.geometry import ANGLE_TOLERANCE, SAME_PLACE_MM, Plane, distances, plane_of, rounded_grid
from node.dicom.read.interleaved import by_order, grouped, interleaved
from node.dicom.select import reworked
from node.errors import NotEligible

Fingerprint = Callable[[Frame], bytes]

_HU_TYPES = {"", "HU", "US"}
"""Rescale Types taken as HU: absent means so for CT (PS3.3 C.8.2.1.1.2); US (unspecified) is often written."""
_ALONE = 3
"""A single image beside at least so many others of another size or angle is taken for an unlabelled localiser."""
_MOST_PARTS = 3
_LEAST_OF_PART = 3
"""Slices: fewer are a repeat, and which of them counts would be a guess."""
_MOST_PHASES = 6
"""Of contrast agent in one place: native, early and late arterial, portal venous, nephrographic, delayed."""
_MOST_LOCATIONS = 2
"""Slice locations of one position, since a table never comes back exactly: with more, positions are not believed."""
_LONGEST_BEAT_MS = 2000.0
_TIME = re.compile(r"(?:[0-9]{8})?([0-9]{2})([0-9]{2})([0-9]{2}(?:\.[0-9]+)?)(?:[+-][0-9]{4})?")
_OF_TIME = {ACQUISITION_NUMBER, TEMPORAL_POSITION, TRIGGER_TIME}
_MOST_ODD = 2
"""Localisers of a scan: one from the front, one from the side."""


def one_stack(frames: Sequence[Frame], fingerprint: Fingerprint) -> tuple[list[Frame], Plane, list[str]]:
    """The slices of one stack in order along the normal, their plane, and notes.

    fingerprint   equal bytes for frames with equal pixels; asked only of frames that share a position
    raises        NotEligible
    """
    notes: list[str] = []
    kept = _cross_sections(sorted(frames, key=lambda frame: frame.order), notes)
    _demand_one_scan(kept)
    kept = _one_shape(kept, notes)
    for frame in kept:
        _demand_hu(frame)
    if any(frame.rescale_type == "US" for frame in kept):
        notes.append("The header does not name the unit of the values (Rescale Type US); they are taken as HU.")
    plane = plane_of([frame.orientation for frame in kept])
    kept = _one_per_position(kept, plane, fingerprint, notes)
    return kept, plane, notes


def _cross_sections(frames: list[Frame], notes: list[str]) -> list[Frame]:
    kept = [frame for frame in frames if not frame.is_localiser]
    if not kept:
        raise NotEligible("Only localisers (scout images), no cross-sections.")
    if len(kept) < len(frames):
        notes.append(f"Localiser images left out: {len(frames) - len(kept)}.")
    kept = _with_place(_in_grey(_originals(kept, notes), notes), notes)
    for frame in kept:
        if frame.modality != "CT":
            raise NotEligible(f"The modality says {frame.modality or 'nothing'}, not CT.")
        if len(frame.position) != 3 or len(frame.orientation) != 6:
            raise NotEligible("The header does not say where in space the image is (no position or orientation).")
        if len(frame.spacing) != 2 or min(frame.spacing) <= 0:
            raise NotEligible("The header does not say how large a pixel is (no pixel spacing).")
    return kept


def _in_grey(frames: list[Frame], notes: list[str]) -> list[Frame]:
    """Without pages in colour, such as dose reports, that lie among the slices."""
    kept = [frame for frame in frames if frame.samples == 1]
    if not kept:
        raise NotEligible("Images in colour; only greyscale images carry measured values.")
    if len(kept) < len(frames):
        notes.append(f"Images in colour left out: {len(frames) - len(kept)}.")
    return kept


def _with_place(frames: list[Frame], notes: list[str]) -> list[Frame]:
    """Without one or two images that do not say where they are, such as a page of the protocol, beside several."""
    kept = [frame for frame in frames if len(frame.position) == 3 and len(frame.orientation) == 6]
    odd = len(frames) - len(kept)
    if odd == 0 or odd > _MOST_ODD or len(kept) < _ALONE * odd:
        return frames
    notes.append(f"Images that do not say where in space they are, left out: {odd}.")
    return kept


def _originals(frames: list[Frame], notes: list[str]) -> list[Frame]:
    """Without the frames of a multi-frame image that say of themselves that they were computed, whatever it says.

    Of images of one frame the plan has judged what the header says; our own results are read, too.
    """
    kept = [frame for frame in frames if not frame.is_of_several or not reworked(frame.image_type)]
    if not kept:
        raise NotEligible(reworked(frames[0].image_type))
    if len(kept) < len(frames):
        notes.append(f"Reformatted or computed frames left out, by their own type: {len(frames) - len(kept)}.")
    return kept


def _demand_one_scan(frames: Sequence[Frame]) -> None:
    if len({frame.series_instance_uid for frame in frames}) > 1:
        raise NotEligible("Images of more than one series.")
    if len({frame.patient_id for frame in frames} - {""}) > 1:
        raise NotEligible("Images with more than one patient ID in one series.")
    if len({frame.frame_of_reference_uid for frame in frames} - {""}) > 1:
        raise NotEligible("Images in more than one frame of reference: their positions cannot be compared.")


def _one_shape(frames: list[Frame], notes: list[str]) -> list[Frame]:
    """All of one size, spacing and orientation; one or two odd ones beside several are left out."""
    groups: list[list[Frame]] = []
    for frame in frames:
        home = next((group for group in groups if _alike(group[0], frame)), None)
        if home is None:
            groups.append([frame])
        else:
            home.append(frame)
    if len(groups) == 1:
        return frames
    groups.sort(key=len, reverse=True)
    odd = len(groups) - 1
    if odd <= _MOST_ODD and len(groups[1]) == 1 and len(groups[0]) >= _ALONE * odd:
        notes.append(f"Images of another size or angle left out, probably localisers: {odd}.")
        return groups[0]
    first, second = groups[0][0], groups[1][0]
    if not _parallel(first, second):
        raise NotEligible("Images at two or more angles in one series: they do not make one volume.")
    what = "sizes" if (first.rows, first.columns) != (second.rows, second.columns) else "pixel spacings"
    raise NotEligible(f"Images of different {what} in one series: they do not make one volume.")


def _alike(one: Frame, other: Frame) -> bool:
    same_size = (one.rows, one.columns) == (other.rows, other.columns)
    return same_size and np.allclose(one.spacing, other.spacing, rtol=1e-4, atol=0) and _parallel(one, other)


def _parallel(one: Frame, other: Frame) -> bool:
    return bool(np.allclose(one.orientation, other.orientation, rtol=0, atol=ANGLE_TOLERANCE))


def _demand_hu(frame: Frame) -> None:
    if frame.rescale_type not in _HU_TYPES:
        raise NotEligible(f"The values are not Hounsfield units (Rescale Type {frame.rescale_type}).")
    if frame.slope is None or frame.intercept is None:
        raise NotEligible(
            "No usable rescale slope and intercept, so the values cannot be turned into Hounsfield units."
        )
    if frame.slope <= 0:
        raise NotEligible("The rescale slope is zero or negative; no Hounsfield units can come of it.")


def _one_per_position(frames: list[Frame], plane: Plane, fingerprint: Fingerprint, notes: list[str]) -> list[Frame]:
    places = [_without_copies(place, fingerprint) for place in _by_position(frames, plane)]
    left = [frame for place in places for frame in place]
    if len(left) < len(frames):
        notes.append(f"Exact copies of images at the same position left out: {len(frames) - len(left)}.")
    _demand_one_moment(left, plane, places)
    if len(left) > len(places):
        if finer := _rounded_together(left, plane, places):
            return finer
        return _one_phase(left, plane, places, notes)
    scans = interleaved(left, plane)
    return left if scans is None else _most_complete(*scans, plane, notes)


def _rounded_together(frames: Sequence[Frame], plane: Plane, places: Sequence[Sequence[Frame]]) -> list[Frame]:
    """Slices closer than the whole millimetres of their positions, in order by slice location or number; else []."""
    stated = stated_steps_mm(frames)
    counts = {len(place) for place in places[1:-1]}
    numbers = [None if frame.instance_number is None else float(frame.instance_number) for frame in frames]
    for known in ([frame.slice_location_mm for frame in frames], numbers):
        given = [value for value in known if value is not None]
        if len(set(given)) < len(frames):
            continue
        ordered = [frames[index] for index in np.argsort(given)]
        positions = np.array([frame.position for frame in ordered], dtype=np.float64)
        along = distances(plane, positions)
        if along[-1] < along[0]:
            ordered, positions, along = ordered[::-1], positions[::-1], along[::-1]
        grid = rounded_grid(plane, positions, stated) if np.diff(along).min() >= 0 else None
        # As many at each place may be as many phases, unless the step is stated.
        if grid is not None and (len(counts) > 1 or _is_stated(float(grid[0] @ plane.normal), stated)):
            return ordered
    return []


def _is_stated(step_mm: float, stated: Sequence[float]) -> bool:
    return any(abs(step_mm - one) < SAME_PLACE_MM for one in stated)


def _by_position(frames: Sequence[Frame], plane: Plane) -> list[list[Frame]]:
    """Frames that lie at one distance along the normal, in order of distance, and of UID within."""
    along = distances(plane, np.array([frame.position for frame in frames], dtype=np.float64))
    order = sorted(range(len(frames)), key=lambda index: (along[index], frames[index].order))
    places: list[list[Frame]] = []
    last = -np.inf
    for index in order:
        if along[index] - last > SAME_PLACE_MM:
            places.append([])
            last = along[index]
        places[-1].append(frames[index])
    return [sorted(place, key=lambda frame: frame.order) for place in places]


def _without_copies(place: list[Frame], fingerprint: Fingerprint) -> list[Frame]:
    if len(place) == 1:
        return place
    kept: dict[bytes, Frame] = {}
    for frame in place:
        kept.setdefault(fingerprint(frame), frame)
    return list(kept.values())


def _one_phase(frames: list[Frame], plane: Plane, places: Sequence[Sequence[Frame]], notes: list[str]) -> list[Frame]:
    """The most complete phase, where one attribute tells them apart: no place twice in one, half of all in the best.

    Where none does, the order in which the images came may. Parts of one scan that overlap are joined instead.
    """
    for number, (words, _) in enumerate(frames[0].phases):
        phases = grouped(frames, number)
        if len(phases) < 2 or any(len(_by_position(phase, plane)) < len(phase) for phase in phases.values()):
            continue
        if joined := _joined(words, phases, places, notes):
            return joined
        if 2 * max(map(len, phases.values())) >= len(places):
            return _most_complete(words, phases, plane, notes)
    if scans := by_order(places):
        if joined := _joined(*scans, places, notes):
            return joined
        if _of_one_region(scans[1], places):
            return _most_complete(*scans, plane, notes)
    raise NotEligible("Different images at the same position, and nothing in the headers says which belong together.")


def _of_a_cycle(frames: Sequence[Frame]) -> bool:
    """Whether the images say which phase of a heartbeat or a breath they are of: one scan has ten and more of these."""
    said: dict[str, set[str]] = defaultdict(set)
    for frame in frames:
        for words, value in frame.phases:
            said[words].add(value)
    beats = [ms for value in said[TRIGGER_TIME] if (ms := _in_order(value)[1]) > 0]
    return (
        any(len(said[words]) > 1 for words in (CARDIAC_PHASE, RESPIRATORY_PHASE))
        or len([comment for comment in said[IMAGE_COMMENTS] if "%" in comment]) > 1
        or (len(beats) > 1 and max(beats) - min(beats) < _LONGEST_BEAT_MS)
    )


def _within_a_beat(places: Sequence[Sequence[Frame]]) -> bool:
    """Whether images of one place are of one acquisition and within the time of a heartbeat, and all of them say so."""
    crowded = [place for place in places if len(place) > _MOST_PHASES]
    for place in crowded:
        said = [dict(frame.phases) for frame in place]
        seconds = [_seconds(one.get(ACQUISITION_TIME, "")) for one in said]
        known = [value for value in seconds if value is not None]
        if len(known) < len(place) or 1000 * (max(known) - min(known)) > _LONGEST_BEAT_MS:
            return False
        if len({one.get(ACQUISITION_NUMBER, "") for one in said}) > 1:
            return False
    return bool(crowded)


def _seconds(time: str) -> float | None:
    """Of HHMMSS.FFFFFF, since midnight, with or without the date before it."""
    match = _TIME.fullmatch(time)
    return None if match is None else 3600 * int(match[1]) + 60 * int(match[2]) + float(match[3])


def _demand_one_moment(frames: Sequence[Frame], plane: Plane, places: Sequence[Sequence[Frame]]) -> None:
    """Of a contrast phase, a heartbeat or a breath there may be several."""
    times = max(round(median(len(place) for place in places)), _labelled_times(frames, plane))
    if times <= _MOST_PHASES:
        return
    if len({frame.slice_location_mm for frame in frames}) > _MOST_LOCATIONS * len(places):
        raise NotEligible("The headers contradict each other: one position, but several slice locations.")
    if not _of_a_cycle(frames) and not _within_a_beat(places):
        raise NotEligible(
            f"A dynamic series, such as perfusion, contrast monitoring or fluoroscopy: about {len(frames) / times:.0f} "
            f"places, each imaged about {times} times. It was not analysed: the networks were made for scans of one "
            "moment, and one moment of a dynamic series is no scan to find disease on."
        )


def _labelled_times(frames: Sequence[Frame], plane: Plane) -> int:
    """How many groups of one label have a slice where the largest one has, though not exactly there."""
    most = 0
    for number, (words, _) in enumerate(frames[0].phases):
        if words not in _OF_TIME:
            continue
        groups = [
            np.sort(distances(plane, np.array([frame.position for frame in group], dtype=np.float64)))
            for group in grouped(frames, number).values()
        ]
        largest = max(groups, key=len)
        if len(largest) > 1:
            middle, close = largest[len(largest) // 2], float(np.median(np.diff(largest))) / 2
            most = max(most, sum(bool(np.abs(group - middle).min() <= close) for group in groups))
    return most


def _joined(
    words: str, parts: Mapping[str, list[Frame]], places: Sequence[Sequence[Frame]], notes: list[str]
) -> list[Frame]:
    """Parts of one scan that share places at their ends, as chest and abdomen; [] where they are phases of one region.

    Of two images at one place that of the larger part counts.
    """
    place_of = _numbered(places)
    ordered = sorted((parts[value] for value in sorted(parts, key=_in_order)), key=len, reverse=True)
    if len(parts) > _MOST_PARTS or len(ordered[-1]) < _LEAST_OF_PART:
        return []
    kept: dict[int, Frame] = {}
    for part in ordered:
        own = {place_of[frame.order]: frame for frame in part}
        new = own.keys() - kept.keys()
        beyond = not kept or (new and (min(new) > max(kept) or max(new) < min(kept)))
        if not beyond or 2 * len(new) < len(own):
            return []
        kept |= {number: own[number] for number in new}
    notes.append(
        f"{len(parts)} parts of one scan overlap, told apart by {words}; they were joined, and of two images at one "
        f"place one is read ({len(kept)} of {len(place_of)} images)."
    )
    return [kept[number] for number in sorted(kept)]


def _of_one_region(phases: Mapping[str, list[Frame]], places: Sequence[Sequence[Frame]]) -> bool:
    """Whether each is more than a repeat, and shares more than half of its places with the most complete one."""
    place_of = _numbered(places)
    covered = [{place_of[frame.order] for frame in phase} for phase in phases.values()]
    most = max(covered, key=len)
    return all(len(one) >= _LEAST_OF_PART and 2 * len(one & most) > len(one) for one in covered)


def _numbered(places: Sequence[Sequence[Frame]]) -> dict[tuple[str, int], int]:
    """The place of each frame, by the frame's `order`."""
    return {frame.order: number for number, place in enumerate(places) for frame in place}


def _most_complete(words: str, phases: Mapping[str, list[Frame]], plane: Plane, notes: list[str]) -> list[Frame]:
    """Between equally complete phases the lower value counts (the earlier acquisition)."""
    best = max(sorted(phases, key=_in_order), key=lambda value: len(phases[value]))
    notes.append(
        f"{len(phases)} phases of the same region are in this series, told apart by {words}; the most complete one "
        f"is read ({len(phases[best])} of {sum(map(len, phases.values()))} images)."
    )
    return [place[0] for place in _by_position(phases[best], plane)]


def _in_order(value: str) -> tuple[int, float, str]:
    try:
        return 0, float(value), value
    except ValueError:
        return 1, 0.0, value
