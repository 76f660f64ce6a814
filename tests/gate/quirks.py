"""Harmless faults of headers as scanners write them, planted in series that were fine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from pydicom import dcmread

Fault = Callable[[Any, int], None]
"""(data set, its place in the series) → None: changes the data set."""


def plant(fault: Fault, paths: Sequence[Path]) -> list[Path]:
    for index, path in enumerate(paths):
        ds = dcmread(path)
        fault(ds, index)
        ds.save_as(path)
    return list(paths)


def says(**elements: Any) -> Fault:
    """None takes the element away."""

    def fault(ds: Any, _index: int) -> None:
        for keyword, value in elements.items():
            if value is None:
                del ds[keyword]
            else:
                setattr(ds, keyword, value)

    return fault


def on_one(slice_index: int, fault: Fault) -> Fault:
    return lambda ds, index: fault(ds, index) if index == slice_index else None


def every_other(keyword: str, first: Any, second: Any) -> Fault:
    return lambda ds, index: setattr(ds, keyword, second if index % 2 else first)


def per_frame(*sequences: str, change: Fault = lambda _item, _index: None) -> Fault:
    """Shared functional groups as per-frame ones, each changed by its place."""

    def fault(ds: Any, _index: int) -> None:
        [shared] = ds.SharedFunctionalGroupsSequence
        for keyword in sequences:
            value = shared[keyword].value
            del shared[keyword]
            for index, frame in enumerate(ds.PerFrameFunctionalGroupsSequence):
                setattr(frame, keyword, deepcopy(value))
                change(frame[keyword].value[0], index)

    return fault


def without_thickness(ds: Any, _index: int) -> None:
    del ds.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SliceThickness


SINGLE_FRAME: dict[str, Fault] = {
    "window empty": says(WindowCenter="", WindowWidth=""),
    "window of width 0": says(WindowCenter=0, WindowWidth=0),
    "window of negative width": says(WindowCenter=0, WindowWidth=-1),
    "width without centre": says(WindowCenter=None),
    "centre without width": says(WindowWidth=None),
    "two centres, one width": says(WindowCenter=[40, 50], WindowWidth=400),
    "two windows, one explanation": says(WindowCenterWidthExplanation="SOFT"),
    "empty function": says(VOILUTFunction=""),
    "unknown function": says(VOILUTFunction="CURVED"),
    "no thickness": says(SliceThickness=None),
    "thickness 0": says(SliceThickness=0),
    "orientation differs by 1e-7": every_other(
        "ImageOrientationPatient", [1, 0, 0, 0, 1, 0], [0.9999999, 0, 0, 0, 1, 0]
    ),
    "orientation differs by 5e-4": every_other("ImageOrientationPatient", [1, 0, 0, 0, 1, 0], [1, 0, 0, 0, 1, 5e-4]),
    "one slice without frame of reference": on_one(2, says(FrameOfReferenceUID=None)),
    "no frame of reference": says(FrameOfReferenceUID=None),
    "one slice without patient ID": on_one(2, says(PatientID="")),
}
MULTI_FRAME: dict[str, Fault] = {
    "rescale per frame": per_frame("PixelValueTransformationSequence"),
    "another rescale per frame": per_frame(
        "PixelValueTransformationSequence",
        change=lambda item, index: setattr(item, "RescaleIntercept", -1024 - index),
    ),
    "measures per frame": per_frame("PixelMeasuresSequence"),
    "orientation per frame": per_frame("PlaneOrientationSequence"),
    "window per frame, empty": per_frame(
        "FrameVOILUTSequence", change=lambda item, _index: setattr(item, "WindowWidth", "")
    ),
    "no thickness": without_thickness,
}
