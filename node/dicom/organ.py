"""An organ's mask on the slices of a volume, from a segmentation that somebody made of the same series (PS3.3 A.51)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset

from models.contract import BoolArray, Volume
from node.dicom.elements import integer, item, items, parse, text
from node.dicom.marks.masks import SEGMENTATIONS, Segmentation
from node.dicom.marks.series import CtSeries
from node.dicom.read.codec import Codec
from node.errors import ConfigurationError, NotEligible, NotUnderstood

LIVER = frozenset({"10200004", "T-62000"})
"""SNOMED CT, and RT of older segmentations."""
_LIVER_WORD = "liver"


def liver_mask(path: Path, volume: Volume, paths: Sequence[Path], *, segment: int | None = None) -> BoolArray:
    """The largest connected part of the liver's segment, bool (Z, Y, X) on the grid of `volume`.

    paths       the files that the volume was read from         segment     which; None: the one that is called liver
    raises      ConfigurationError  no segmentation, or no single segment of the liver
    raises      NotEligible         of another series, or on another grid
    """
    try:
        dataset = parse(path)
    except (NotUnderstood, OSError) as exc:
        raise ConfigurationError(f"{path}: no DICOM file that can be read") from exc
    if text(dataset, 0x00080016) not in SEGMENTATIONS:
        raise ConfigurationError(f"{path}: no DICOM segmentation")
    number = _liver_of(dataset, path) if segment is None else segment
    with Codec() as codec:
        series = CtSeries.load(paths, codec)
        drawn = Segmentation(path, codec)
        if drawn.series_uid not in ("", series.uid):
            raise NotEligible("The segmentation was drawn on another series than this one.")
        part = drawn.largest_part(number, (), series)
    mask = np.zeros(volume.voxels.shape, np.bool_)
    for index, source in enumerate(volume.sources):
        place = series.index_of(source)
        if place is not None:
            mask[index] = part[place]
    return mask


def _liver_of(dataset: Dataset, path: Path) -> int:
    called: dict[int, str] = {}
    livers = []
    for one in items(dataset, 0x00620002):
        number, label = integer(one, 0x00620004), text(one, 0x00620005)
        if number is None:
            continue
        called[number] = label
        if text(item(one, 0x0062000F), 0x00080100) in LIVER or label.strip().lower() == _LIVER_WORD:
            livers.append(number)
    if len(livers) != 1:
        known = ", ".join(f"{number} ({label})" for number, label in list(called.items())[:12])
        raise ConfigurationError(f"{path}: name the liver's segment by --segment; there are {known or 'none'}")
    return livers[0]
