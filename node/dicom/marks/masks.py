"""Segments of a segmentation on the slices of the series that it was drawn on (PS3.3 A.51)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from scipy import ndimage

from models.contract import BoolArray
from node.dicom.elements import integer, item, items, number, numbers, parse, raw, text
from node.dicom.header import transfer_syntax
from node.dicom.marks.content_tree import code_of
from node.dicom.marks.lesions import NOT_A_LESION, is_lesion
from node.dicom.marks.mark import About, Document, Origin, Refusal, Segment
from node.dicom.marks.series import CtSeries
from node.dicom.read.codec import Codec
from node.dicom.read.pixels import PixelFile
from node.errors import NotEligible, NotUnderstood

SEGMENTATIONS = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
_SAME_PLACE_MM = 0.1
_NATIVE = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99")


def read_segments(dataset: Dataset) -> Document:
    """Its lesions as claims, each without a report; every other segment refused."""
    uid, series_uid = text(dataset, 0x00080018), text(dataset, 0x0020000E)
    claims: list[Segment] = []
    refusals: list[Refusal] = []
    for segment in items(dataset, 0x00620002):
        category, kind = code_of(item(segment, 0x00620003)), code_of(item(segment, 0x0062000F))
        number = integer(segment, 0x00620004)
        if number is None or not is_lesion(category, kind, text(segment, 0x00620005)):
            refusals.append(Refusal(uid, NOT_A_LESION))
            continue
        about = About(
            Origin.SEGMENTATION,
            uid,
            tracking_uid=text(segment, 0x00620021),
            finding=kind,
            site=code_of(item(segment, 0x00082218)),
            observer="device" if text(segment, 0x00620008).upper() == "AUTOMATIC" else "person",
            institution=text(dataset, 0x00080080),
        )
        claims.append(Segment(about, uid, number))
    return Document(uid, tuple(claims), tuple(refusals), series_of={uid: series_uid})


class Segmentation:
    """One segmentation object. raises NotEligible where it cannot be read"""

    def __init__(self, path: Path, codec: Codec) -> None:
        try:
            self._dataset = parse(path)
        except NotUnderstood as exc:
            raise NotEligible("The segmentation cannot be read.") from exc
        self._path = path
        self._codec = codec
        self._shape = (integer(self._dataset, 0x00280010) or 0, integer(self._dataset, 0x00280011) or 0)

    @property
    def uid(self) -> str:
        return text(self._dataset, 0x00080018)

    @property
    def series_uid(self) -> str:
        """The series that it was drawn on."""
        return text(item(self._dataset, 0x00081115), 0x0020000E)

    def largest_part(self, segment: int, frames: tuple[int, ...], series: CtSeries) -> BoolArray:
        """The largest connected part of a segment, bool (Z, Y, X) on the slices of `series`.

        frames   1-based; () for all of them
        raises   NotEligible   no such segment, empty, or on another grid than the series
        """
        first = series.frames[0]
        if self._shape != (first.rows, first.columns):
            raise NotEligible("The segmentation is on another grid than the images.")
        mask = np.zeros((len(series.frames), *self._shape), dtype=np.bool_)
        for index, drawn in self._drawn(segment, frames):
            if drawn.any():
                mask[self._slice(index, series)] |= drawn
        box = ndimage.find_objects(mask.view(np.uint8))
        if not box:
            raise NotEligible("The segment is empty.")
        labels, _ = ndimage.label(mask[box[0]], structure=np.ones((3, 3, 3)))
        sizes = np.bincount(labels.ravel())[1:]
        largest = np.zeros_like(mask)
        largest[box[0]] = labels == 1 + int(np.argmax(sizes))
        return largest

    def _drawn(self, segment: int, frames: tuple[int, ...]) -> Iterator[tuple[int, BoolArray]]:
        """Index of each frame of a segment, and where it holds it. Frames of other segments, of which there may be
        thousands, are not unpacked."""
        kind = text(self._dataset, 0x00620001).upper()
        chosen = [
            index
            for index in range(integer(self._dataset, 0x00280008) or 1)
            if (not frames or index + 1 in frames)
            and (kind == "LABELMAP" or integer(self._of_frame(index, 0x0062000A), 0x0062000B) == segment)
        ]
        most = (number(self._dataset, 0x0062000E) or 1) if kind == "FRACTIONAL" else 1
        for index, pixels in zip(chosen, self._unpacked(chosen), strict=True):
            yield index, np.asarray(pixels == segment if kind == "LABELMAP" else pixels * 2.0 >= most)

    def _unpacked(self, chosen: Sequence[int]) -> Iterator[NDArray[Any]]:
        """Stored values (Y, X) of these frames. raises NotEligible"""
        if integer(self._dataset, 0x00280100) == 1 and transfer_syntax(self._dataset) in _NATIVE:
            yield from map(self._bits, chosen)
        elif chosen:
            file = PixelFile(self._path, self._codec)
            yield from (file.frame(index)[0] for index in chosen)

    def _bits(self, index: int) -> NDArray[Any]:
        """A frame of one bit a pixel, which need not begin with a byte."""
        first, offset = divmod(index * self._shape[0] * self._shape[1], 8)
        pixels = self._shape[0] * self._shape[1]
        packed = raw(self._dataset, 0x7FE00010)
        needed = (offset + pixels + 7) // 8
        if not isinstance(packed, bytes) or len(packed) < first + needed:
            raise NotEligible("The segmentation is cut off.")
        unpacked = np.unpackbits(np.frombuffer(packed, np.uint8, needed, first), bitorder="little")
        return unpacked[offset : offset + pixels].reshape(self._shape)

    def _slice(self, index: int, series: CtSeries) -> int:
        position = numbers(self._of_frame(index, 0x00209113), 0x00200032)
        orientation = numbers(self._of_frame(index, 0x00209116), 0x00200037)
        spacing = numbers(self._of_frame(index, 0x00289110), 0x00280030)
        if len(position) == 3:
            nearest = series.nearest(position)
            frame = series.frames[nearest]
            same = (
                np.allclose(position, frame.position, atol=_SAME_PLACE_MM)
                and np.allclose(orientation, frame.orientation, atol=1e-3)
                and np.allclose(spacing, frame.spacing, rtol=1e-3)
            )
            if same:
                return nearest
        raise NotEligible("The segmentation is on another grid than the images.")

    def _of_frame(self, index: int, macro: int) -> Any:
        """The first item of a functional group: the frame's own, else the shared one."""
        per_frame = items(self._dataset, 0x52009230)
        own = item(per_frame[index], macro) if index < len(per_frame) else None
        return own if own else item(item(self._dataset, 0x52009229), macro)
