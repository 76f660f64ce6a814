"""Scans of one region whose slices lie between each other: told apart, or one even grid of half the step comes of them.

Cardiac and respiratory phases are often moved by half a slice step. What tells them apart is what alternates from slice
to slice, or what was made one scan after the other. Overlapping slices of one scan do neither.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import pairwise
from statistics import median

import numpy as np
from numpy.typing import NDArray

from node.dicom.read.frames import (
    ACQUISITION_NUMBER,
    ACQUISITION_TIME,
    CARDIAC_PHASE,
    CONTENT_TIME,
    DESCRIPTION,
    IMAGE_TYPE,
    RESPIRATORY_PHASE,
    TEMPORAL_POSITION,
    Frame,
    stated_steps_mm,
)
from node.dicom.read.geometry import STEP_TOLERANCE, Array, Plane, distances, evenly_spaced

Scans = tuple[str, dict[str, list[Frame]]]
"""(what tells them apart, {its value: frames})"""

INSTANCE_NUMBER = "the order of instance numbers"
OVERLAP = 0.95
"""Slices at least so many steps of their own scan thick leave no gap between them: so they overlap those of others."""
_LABELS = {ACQUISITION_NUMBER, TEMPORAL_POSITION, CARDIAC_PHASE, RESPIRATORY_PHASE, DESCRIPTION}
"""What is believed where steps are uneven: the same for all slices of a scan."""
_MOST_SCANS = 8
_MOST_GAP = 2.5
"""Steps of a scan between two of its slices that are still neighbours: one may be missing."""
_LEAST_SLICES = 3
"""Of each scan: fewer are in some order by chance."""


def interleaved(frames: Sequence[Frame], plane: Plane) -> Scans | None:
    """The scans that lie between each other, of frames in order along the normal; None where it is one scan."""
    positions = np.array([frame.position for frame in frames], dtype=np.float64)
    along = distances(plane, positions)
    if not evenly_spaced(plane, positions, stated_steps_mm(frames)):
        return _by_label(frames, along) or _in_two_runs(frames, plane, positions)
    return (_by_turns(frames, along) or _one_after_the_other(frames, along)) if _most(frames) > 1 else None


def by_order(places: Sequence[Sequence[Frame]]) -> Scans | None:
    """Scans that share places, by the order in which their images came: scan after scan, or place by place.

    None where no order tells them apart.

    places      frames by distance along the normal
    """
    frames = [frame for place in places for frame in place]
    spots = np.repeat(np.arange(len(places)), [len(place) for place in places])
    count = max(len(place) for place in places)
    for words, known in _orders(frames):
        came = np.argsort(known)
        turns = _rounds(spots[came], count) if words == ACQUISITION_TIME else []  # else perhaps sorted by somebody
        for scans in (_runs(spots[came]), turns):
            if len(set(known)) == len(known) and max(scans, default=0) == count - 1:
                groups: dict[str, list[Frame]] = defaultdict(list)
                for index, scan in zip(came, scans, strict=True):
                    groups[str(scan)].append(frames[index])
                return words, dict(groups)
    return None


def _runs(spots: NDArray[np.int64]) -> list[int]:
    """Of each image the number of its run: the next begins where a place comes again."""
    run, seen, runs = 0, set[int](), []
    for spot in spots.tolist():
        if spot in seen:
            run, seen = run + 1, set()
        seen.add(spot)
        runs.append(run)
    return runs


def _rounds(spots: NDArray[np.int64], count: int) -> list[int]:
    """Of each image which one of its place it is, where all images of a place came together; else nothing."""
    turns = [spots[turn::count] for turn in range(count)]
    together = all(len(turn) == len(turns[0]) and (turn == turns[0]).all() for turn in turns)
    return [index % count for index in range(len(spots))] if together else []


def grouped(frames: Sequence[Frame], number: int) -> dict[str, list[Frame]]:
    """Frames by the value of one of their `phases`."""
    groups: dict[str, list[Frame]] = defaultdict(list)
    for frame in frames:
        groups[frame.phases[number][1]].append(frame)
    return dict(groups)


def _by_label(frames: Sequence[Frame], along: Array) -> Scans | None:
    """Uneven steps. Two parts of one scan (chest, then abdomen) may overlap by a few slices.

    What is not read must lie between the slices of what is: of the other scans at least half must. Numbers that go
    round over slices of one grid (some are missing) are none of scans, unless slices overlap.
    """
    for number, (words, _) in enumerate(frames[0].phases):
        if words not in _LABELS:
            continue
        values = np.array([frame.phases[number][1] for frame in frames])
        if words == ACQUISITION_NUMBER and _has_gaps(along) and not overlap(frames, along, len(set(values))):
            continue
        scans = sorted((along[values == value] for value in set(values)), key=len)
        most = len(scans[-1])
        if most < _LEAST_SLICES or most == len(along):
            continue
        if any(_between(along, one) for one in scans if len(one) == most):
            return words, grouped(frames, number)
    return None


def _between(along: Array, one: Array) -> bool:
    """Whether at least half of the distances that are not of this scan lie between neighbouring slices of it."""
    others = np.setdiff1d(along, one)
    behind = np.searchsorted(one, others)
    inside = (behind > 0) & (behind < len(one))
    gaps = np.diff(one)
    close = gaps[np.clip(behind - 1, 0, len(gaps) - 1)] <= _MOST_GAP * float(np.median(gaps))
    return bool(2 * np.count_nonzero(inside & close) >= len(others))


def _has_gaps(along: Array) -> bool:
    """Whether most steps are equal, and the others whole multiples of them: an even grid that lacks some slices."""
    steps = np.diff(along) / float(np.diff(along).min())
    whole = np.round(steps)
    return bool(np.abs(steps - whole).max() <= STEP_TOLERANCE and 3 * np.count_nonzero(whole == 1) > 2 * len(steps))


def _within(one: Array, other: Array) -> bool:
    """Whether at least half of the distances of one scan lie in the range of the other."""
    return bool(2 * np.count_nonzero((one > other.min()) & (one < other.max())) >= len(one))


def _by_turns(frames: Sequence[Frame], along: Array) -> Scans | None:
    """Even steps, and some attribute that goes round: A B A B.

    Acquisition numbers alone are believed only where slices overlap: else they make one whole stack, by turns. What is
    called derived beside originals is no other scan.
    """
    for number, (words, _) in enumerate(frames[0].phases):
        if words == IMAGE_TYPE:
            continue
        values = [frame.phases[number][1] for frame in frames]
        count = len(set(values))
        if not 2 <= count <= _most(frames) or values != (values[:count] * len(values))[: len(values)]:
            continue
        if words != ACQUISITION_NUMBER or overlap(frames, along, count):
            return words, grouped(frames, number)
    return None


def _one_after_the_other(frames: Sequence[Frame], along: Array) -> Scans | None:
    """Even steps, and every second (third…) slice came before all others.

    That the scanner was there twice is believed at once; that images were made or numbered so, where slices overlap.
    """
    for words, known in _ranks(frames, along):
        for count in range(2, _most(frames) + 1):
            turns = sorted(range(count), key=lambda turn: known[turn])
            parts = [known[turn::count] for turn in turns]
            if all(max(one) < min(other) for one, other in pairwise(parts)):
                return words, {str(rank): list(frames[turn::count]) for rank, turn in enumerate(turns)}
    return None


def _in_two_runs(frames: Sequence[Frame], plane: Plane, positions: Array) -> Scans | None:
    """Uneven steps, since one of two scans reaches farther: each is even by itself, and came before or after the other.

    Where the second begins, the way jumps back to the start, or turns at an end.
    """
    along = distances(plane, positions)
    for words, known in _ranks(frames, along):
        order = np.argsort(known, kind="stable")
        way = along[order]
        jump, top, bottom = int(np.abs(np.diff(way)).argmax()) + 1, int(way.argmax()), int(way.argmin())
        for cut in (jump, top, top + 1, bottom, bottom + 1):
            one, other = np.sort(order[:cut]), np.sort(order[cut:])
            if min(len(one), len(other)) < _LEAST_SLICES or known[order[cut - 1]] == known[order[cut]]:
                continue
            apart = not (_within(along[one], along[other]) or _within(along[other], along[one]))
            if not apart and evenly_spaced(plane, positions[one]) and evenly_spaced(plane, positions[other]):
                return words, {"0": [frames[index] for index in one], "1": [frames[index] for index in other]}
    return None


def _ranks(frames: Sequence[Frame], along: Array) -> Iterator[tuple[str, list[float]]]:
    """In which order the slices came, where all of them say so; images and numbers only where slices overlap."""
    any_order = overlap(frames, along)
    return ((words, known) for words, known in _orders(frames) if any_order or words == ACQUISITION_TIME)


def _orders(frames: Sequence[Frame]) -> Iterator[tuple[str, list[float]]]:
    """In which order the images came, where all of them say so, the most telling first."""
    numbers = [None if frame.instance_number is None else float(frame.instance_number) for frame in frames]
    times = ((words, _times(frames, words)) for words in (ACQUISITION_TIME, CONTENT_TIME))
    for words, given in (*times, (INSTANCE_NUMBER, numbers)):
        known = [value for value in given if value is not None]
        if len(known) == len(frames):
            yield words, known


def _most(frames: Sequence[Frame]) -> int:
    return min(_MOST_SCANS, len(frames) // _LEAST_SLICES)


def overlap(frames: Sequence[Frame], along: Array, scans: int = 2) -> bool:
    """Whether each of so many scans would be without gaps; yes where no header says how thick slices are."""
    stated = [frame.slice_thickness_mm for frame in frames if frame.slice_thickness_mm]
    return not stated or median(stated) >= OVERLAP * scans * float(np.median(np.diff(along)))


def _times(frames: Sequence[Frame], words: str) -> list[float | None]:
    """As numbers in order of time: HHMMSS.FFFFFF, or with the date before it."""
    return [_number(dict(frame.phases).get(words, "")) for frame in frames]


def _number(text: str) -> float | None:
    try:
        return float(text.replace(":", ""))
    except ValueError:
        return None
