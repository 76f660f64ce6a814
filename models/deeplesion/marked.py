"""Training samples from a lesion table: what `pacsnode harvest` brings out of a PACS, and the public DeepLesion.

Boxes are the table's; masks are the ellipses that the RECIST ends suggest (MULAN). What else is on a slice nobody
knows: these samples are never complete.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.contract import BoolArray, FloatArray
from models.deeplesion.config import CATEGORIES, SPACING_MM, UNKNOWN_CATEGORY, DeepLesionConfig
from models.deeplesion.resample import positions_of, resize, resized_shape, slab
from models.deeplesion.samples import OnProgress, Sample, save_sample
from models.deeplesion.table import LesionRow, LesionType, Points, Split, image_path, read_image, read_table

TABLE, IMAGES = "DL_info.csv", "Images_png"
FAMILY = "marks"
FOLDERS = {Split.TRAIN: "train", Split.VALIDATION: "validation", Split.TEST: "test"}
CATEGORY_OF = {
    LesionType.LUNG: "lung",
    LesionType.LIVER: "liver",
    LesionType.KIDNEY: "kidney",
    LesionType.MEDIASTINUM: "lymph node",
    LesionType.BONE: "soft tissue",
    LesionType.ABDOMEN: "soft tissue",
    LesionType.SOFT_TISSUE: "soft tissue",
    LesionType.PELVIS: "soft tissue",
}
"""The coarse type as one of ours; a type of its own for each is what the mining finds."""


def make_marked_samples(
    folder: Path, out: Path, config: DeepLesionConfig, *, on_progress: OnProgress | None = None
) -> list[Path]:
    """One sample per marked key slice, in `out`/<split of the table>/; rows that are possibly noisy are left out.

    Where derived marks are no targets, key slices that have no others are left out too.

    Samples of an earlier time are kept where image and boxes are still the table's, made anew where they are not, and
    removed where the table has lost them: a harvest drops rows that were replaced or rejected.

    folder   DL_info.csv and Images_png/
    raises   ModelError     table or a key slice missing or damaged
    """
    rows: dict[str, list[LesionRow]] = {}
    for row in read_table(folder / TABLE):
        if not row.noisy:
            rows.setdefault(row.file_name, []).append(row)
    derived = config.data.derived_marks
    rows = {name: some for name, some in rows.items() if derived or any(row.measured for row in some)}
    made = []
    for done, (name, on_slice) in enumerate(sorted(rows.items())):
        target = out / FOLDERS[on_slice[0].split] / f"{FAMILY}.{Path(name).stem}-00.npz"
        if not _is_current(target, folder / IMAGES / image_path(name), *_sorted(on_slice, config)):
            target.parent.mkdir(parents=True, exist_ok=True)
            save_sample(target, marked_sample(folder, on_slice, config))
        made.append(target)
        if on_progress is not None:
            on_progress(done + 1, len(rows))
    for stale in set(out.glob(f"*/{FAMILY}.*.npz")) - set(made):
        stale.unlink()
    return made


def _sorted(rows: Sequence[LesionRow], config: DeepLesionConfig) -> tuple[list[LesionRow], list[LesionRow]]:
    """Targets, and what is to be ignored."""
    derived = config.data.derived_marks
    return [row for row in rows if derived or row.measured], [row for row in rows if not (derived or row.measured)]


def _is_current(sample: Path, image: Path, rows: Sequence[LesionRow], ignored: Sequence[LesionRow]) -> bool:
    if not sample.exists() or (image.exists() and image.stat().st_mtime_ns > sample.stat().st_mtime_ns):
        return False
    first = rows[0]
    full = (first.image_size[1], first.image_size[0])
    shape = _resized(full, first)
    with np.load(sample) as arrays:
        boxes, ignore, category = arrays["boxes"], arrays["ignore"], arrays["category"]
    same = category.tolist() == [_category(row.lesion_type) for row in rows]
    there = np.array_equal(boxes, _boxes(rows, full, shape)) and np.array_equal(ignore, _boxes(ignored, full, shape))
    return same and there


def marked_sample(folder: Path, rows: Sequence[LesionRow], config: DeepLesionConfig) -> Sample:
    """The sample of one key slice and all that is marked on it.

    raises   ModelError     the key slice is missing or damaged
    """
    rows, ignored = _sorted(rows, config)
    first = rows[0]
    planes = _planes(folder / IMAGES, first, config)
    full = (planes.shape[1], planes.shape[2])
    shape = _resized(full, first)
    scale = np.array([shape[1] / full[1], shape[0] / full[0]])
    labels = np.zeros(shape, np.uint8)
    for number, row in enumerate(rows):
        points = (np.array(row.points_px) + 0.5) * scale - 0.5
        labels[ellipse(points, shape)] = number + 1
    return Sample(
        hu=resize(planes, shape),
        labels=labels,
        boxes=_boxes(rows, full, shape),
        category=np.array([_category(row.lesion_type) for row in rows], np.int64),
        annotated=np.ones(len(rows), np.bool_),
        ignore=_boxes(ignored, full, shape),
        patient=f"{FAMILY}.{first.patient:06d}",
        family=FAMILY,
    )


def _resized(full: tuple[int, int], row: LesionRow) -> tuple[int, int]:
    return resized_shape(full, (row.spacing_mm[1], row.spacing_mm[0]), SPACING_MM)


def _boxes(rows: Sequence[LesionRow], full: tuple[int, int], shape: tuple[int, int]) -> FloatArray:
    """float32 (N, 4): from pixel centres at whole numbers to pixel i covering i to i + 1, within the image."""
    scale = np.array([shape[1] / full[1], shape[0] / full[0]] * 2)
    boxes = (np.array([row.box_px for row in rows], np.float64).reshape(-1, 4) + 0.5) * scale
    inside: FloatArray = np.clip(boxes, 0, [shape[1], shape[0]] * 2).astype(np.float32)
    return inside


def ellipse(points: NDArray[np.float64] | Points, shape: tuple[int, int]) -> BoolArray:
    """Four quarter ellipses through the ends of both axes, around where these cross, bool (Y, X).

    points   (4, 2), x and y, pixel centres at whole numbers: ends of the long axis, then of the short one
    """
    ends = np.asarray(points, np.float64)
    long, short = ends[1] - ends[0], ends[3] - ends[2]
    axes = np.stack([long, -short], 1)
    if abs(np.linalg.det(axes)) < 1e-6:
        return np.zeros(shape, np.bool_)
    share = np.linalg.solve(axes, ends[2] - ends[0])
    along, beside = (float(value) for value in np.clip(share, 0.02, 0.98))  # ends of real marks may miss each other
    centre = ends[0] + along * long
    y, x = np.mgrid[: shape[0], : shape[1]]
    u, v = np.linalg.solve(np.stack([long, short], 1), np.stack([x.ravel() - centre[0], y.ravel() - centre[1]]))
    u = u / np.where(u > 0, 1 - along, along)
    v = v / np.where(v > 0, 1 - beside, beside)
    inside: BoolArray = (u**2 + v**2 <= 1).reshape(shape)
    return inside


def _planes(images: Path, row: LesionRow, config: DeepLesionConfig) -> FloatArray:
    """The key slice and its neighbours, feet to head, float32 (M, Y, X); a missing file is stood in for by the nearest
    towards the key slice."""
    interval = row.spacing_mm[2]
    offsets = config.network.offsets_mm
    reach = math.ceil(max(abs(offset) for offset in offsets) / interval) if interval > 0 else 0
    stack = [read_image(images / image_path(row.file_name)).astype(np.float32)]
    for step in (1, -1):
        for away in range(1, reach + 1):
            neighbour = _neighbour(images, row, row.key_slice + step * away)
            nearest = stack[0] if step == 1 else stack[-1]
            found = nearest if neighbour is None or neighbour.shape != nearest.shape else neighbour
            # The table's index rises towards the feet, ours towards the head.
            stack = [found, *stack] if step == 1 else [*stack, found]
    return slab(np.stack(stack), reach, positions_of(len(stack), interval), offsets)


def _neighbour(images: Path, row: LesionRow, index: int) -> FloatArray | None:
    first, last = row.slice_range
    path = images / image_path(f"{row.file_name.rpartition('_')[0]}_{index:03d}.png")
    if not first <= index <= last or not path.is_file():
        return None
    return read_image(path).astype(np.float32)


def _category(lesion_type: LesionType) -> int:
    """Index into CATEGORIES; unknown where the table does not say."""
    name = CATEGORY_OF.get(lesion_type)
    return UNKNOWN_CATEGORY if name is None else CATEGORIES.index(name)
