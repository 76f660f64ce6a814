"""A CT series to a `Volume` in Hounsfield units: here DICOM ends."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from models.contract import Acquisition, BoolArray, FloatArray, Volume
from node.dicom.read.brightness import alternation_hu
from node.dicom.read.codec import Codec
from node.dicom.read.frames import Frame, described, frames_of, stated_steps_mm
from node.dicom.read.geometry import Plane, distances, evenly_spaced, place
from node.dicom.read.interleaved import overlap
from node.dicom.read.pixels import IntArray, PixelFile
from node.dicom.read.stack import one_stack
from node.errors import NotEligible

Progress = Callable[[int, int], None]
"""(slices done, slices in all)"""

FILL_VALUES_HU = (-2000.0, -2048.0, -3024.0)
"""What manufacturers write outside the reconstruction circle without declaring it as padding."""
BELOW_AIR_HU = -1500.0
"""Neither air nor tissue is below; a corner of the image that is holds a fill value."""
LOWEST_TISSUE_HU = -900.0
"""A declared padding value above this would mark tissue; such a declaration is not believed."""
ABOVE_METAL_HU = 31_000.0
"""The extended CT scale ends below. Unsigned pixels have their fill values up here: 63536 for -2000, 65535 for -1."""
HIGHEST_HU = 70_000.0
_MOST_BITS = 16
LARGEST_VOLUME_VOXELS = 1 << 30


def read_volume(paths: Sequence[Path], *, on_progress: Progress | None = None) -> Volume:
    """The slices of one CT series, wherever and in whatever order its files are.

    Voxels in padding keep the value that the file gives them; `Volume.padding` says where they are. Slices are decoded
    one by one into the array: memory is that of the volume, its padding mask and one file.

    raises   NotEligible   these images do not honestly make one volume in HU; the reason is for the reader
    """
    with Codec() as codec:
        return _read_volume(paths, codec, on_progress)


def _read_volume(paths: Sequence[Path], codec: Codec, on_progress: Progress | None) -> Volume:
    frames, acquisitions = _headers(paths)
    kept, plane, notes = one_stack(frames, partial(_fingerprint, codec))
    if len(kept) * kept[0].rows * kept[0].columns > LARGEST_VOLUME_VOXELS:
        raise NotEligible("The series is too large to be held in memory as one volume.")
    voxels, padding, value_notes = _voxels(kept, codec, on_progress)
    if step_hu := _alternation_hu(kept, plane, voxels):
        overlap = _overlap(kept, plane)
        notes.append(_of_two_phases(step_hu, len(kept)) if overlap else _of_uneven_brightness(step_hu))
        if overlap:
            kept, voxels = kept[::2], voxels[::2].copy()  # no view, which would hold the other half in memory
            padding = None if padding is None else padding[::2].copy()
    origins = np.array([frame.position for frame in kept], dtype=np.float64)  # (Z, 3)
    spacing = (kept[0].spacing[0], kept[0].spacing[1])
    thickness = kept[0].slice_thickness_mm or kept[0].spacing_between_slices_mm
    placement = place(plane, origins, spacing, thickness_mm=thickness, stated_mm=stated_steps_mm(kept))
    return Volume(
        voxels=voxels,
        affine=placement.affine,
        spacing_zyx_mm=placement.spacing_zyx_mm,
        slice_origins_mm=origins,
        sources=tuple(frame.source for frame in kept),
        acquisition=described(acquisitions[kept[0].path], kept),
        padding=padding,
        even_steps=placement.even_steps,
        gantry_tilt_deg=placement.gantry_tilt_deg,
        notes=(*notes, *placement.notes, *value_notes),
    )


def _alternation_hu(frames: Sequence[Frame], plane: Plane, voxels: FloatArray) -> float:
    """Step in brightness from each slice to the next and back; 0 where there is none, or the steps in space differ."""
    positions = np.array([frame.position for frame in frames], dtype=np.float64)
    return alternation_hu(voxels) if evenly_spaced(plane, positions, stated_steps_mm(frames)) else 0.0


def _overlap(frames: Sequence[Frame], plane: Plane) -> bool:
    """Whether every second slice alone would be a scan without gaps, and a header says so."""
    along = distances(plane, np.array([frame.position for frame in frames], dtype=np.float64))
    return any(frame.slice_thickness_mm for frame in frames) and overlap(frames, along)


def _of_two_phases(step_hu: float, slices: int) -> str:
    return (
        f"Soft tissue differs by {step_hu:.0f} HU from each slice to the next and back, as in two contrast phases that "
        "lie between each other, though nothing in the headers says so; that of the first slice is read "
        f"({(slices + 1) // 2} of {slices} images)."
    )


def _of_uneven_brightness(step_hu: float) -> str:
    return (
        f"Soft tissue differs by {step_hu:.0f} HU from each slice to the next and back. All slices were read as one "
        "scan, since nothing says that they overlap; they may be of two contrast phases."
    )


def _headers(paths: Sequence[Path]) -> tuple[list[Frame], dict[Path, Acquisition]]:
    frames: list[Frame] = []
    acquisitions: dict[Path, Acquisition] = {}
    for path in paths:
        found, acquisitions[path] = frames_of(path)
        frames.extend(found)
    if not frames:
        raise NotEligible("The series has no images.")
    return frames, acquisitions


def _fingerprint(codec: Codec, frame: Frame) -> bytes:
    stored, _ = PixelFile(frame.path, codec).frame(frame.index)
    digest = hashlib.sha256(repr((frame.position, frame.slope, frame.intercept)).encode())
    digest.update(stored.tobytes())
    return digest.digest()


def _voxels(
    frames: Sequence[Frame], codec: Codec, on_progress: Progress | None
) -> tuple[FloatArray, BoolArray | None, list[str]]:
    """HU of all slices float32 (Z, Y, X), padding bool (Z, Y, X) or None, and notes."""
    shape = (len(frames), frames[0].rows, frames[0].columns)
    voxels: FloatArray = np.empty(shape, dtype=np.float32)
    padding: BoolArray | None = None
    values = _Values()
    done = 0
    slices_of: dict[Path, list[int]] = {}
    for z, frame in enumerate(frames):
        slices_of.setdefault(frame.path, []).append(z)
    for path, slices in slices_of.items():
        file = PixelFile(path, codec)
        values.lossy += file.lossy
        for z in slices:
            stored, declared = file.frame(frames[z].index)
            _demand_storable(stored)
            voxels[z] = stored * _known(frames[z].slope) + _known(frames[z].intercept)
            outside = values.take(voxels[z], declared)
            if outside is not None:
                padding = np.zeros(shape, dtype=np.bool_) if padding is None else padding
                padding[z] = outside
            done += 1
            if on_progress is not None:
                on_progress(done, len(frames))
    return voxels, padding, values.notes()


def _demand_storable(stored: IntArray) -> None:
    """Of stored values int64 (Y, X). A CT image has 16 bits at most (PS3.3 C.8.2.1.1.4), and so have the results."""
    lowest, highest = int(stored.min()), int(stored.max())
    if highest - lowest >= 1 << _MOST_BITS or lowest < -(1 << (_MOST_BITS - 1)) or highest >= 1 << _MOST_BITS:
        raise NotEligible("The pixels hold values of more than 16 bits, and no CT image has more.")


def _known(value: float | None) -> float:
    if value is None:
        raise NotEligible(
            "No usable rescale slope and intercept, so the values cannot be turned into Hounsfield units."
        )
    return value


def _filled(hu: FloatArray) -> BoolArray:
    """Where a slice float32 (Y, X) holds an undeclared fill value: a known one, or one that nothing has in a corner."""
    corners = hu[[0, 0, -1, -1], [0, -1, 0, -1]]
    fills = {float(corner) for corner in corners if not BELOW_AIR_HU <= corner <= ABOVE_METAL_HU}
    filled: BoolArray = np.zeros(hu.shape, dtype=np.bool_)
    for fill in fills.union(FILL_VALUES_HU):
        filled |= hu == np.float32(fill)
    return filled


class _Values:
    """What the values of a volume say about themselves, gathered slice by slice."""

    def __init__(self) -> None:
        self.lowest = np.inf
        self.highest = -np.inf
        self.first_distinct: set[float] = set()
        self.lossy = 0
        self.disbelieved = 0

    def take(self, hu: FloatArray, declared: BoolArray | None) -> BoolArray | None:
        """Note the values of one slice float32 (Y, X); returns where it is padding, or None."""
        outside = self._believed(hu, declared)
        if hu.min() < BELOW_AIR_HU or hu.max() > ABOVE_METAL_HU:
            filled = _filled(hu)
            outside = filled if outside is None else outside | filled
        if outside is not None and not outside.any():
            outside = None
        inside = hu if outside is None else hu[~outside]
        if inside.size:
            self.lowest = min(self.lowest, float(inside.min()))
            self.highest = max(self.highest, float(inside.max()))
            if len(self.first_distinct) < 3:
                self.first_distinct.update(np.unique(inside)[:3].tolist())
        return outside

    def _believed(self, hu: FloatArray, declared: BoolArray | None) -> BoolArray | None:
        if declared is None:
            return None
        if ((hu[declared] > LOWEST_TISSUE_HU) & (hu[declared] <= ABOVE_METAL_HU)).any():
            self.disbelieved += 1
            return None
        return declared

    def notes(self) -> list[str]:
        """raises NotEligible where the values cannot be HU of a patient."""
        if len(self.first_distinct) < 3:
            raise NotEligible(
                "The images hold no more than two different values: a mask or an empty picture, not a CT image."
            )
        if self.lowest >= 0:
            raise NotEligible("No value is below that of water anywhere, so the values are not Hounsfield units.")
        if self.highest > HIGHEST_HU or self.lowest < -HIGHEST_HU:
            raise NotEligible("The values lie far outside of what Hounsfield units can be.")
        found = []
        if self.lossy:
            found.append(f"Images compressed with loss before they came here: {self.lossy}.")
        if self.disbelieved:
            found.append("The declared padding value is one of tissue; it was not taken as padding.")
        return found
