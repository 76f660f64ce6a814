"""Prepared pictures as training and evaluation read them: one .npz each, patients kept apart.

High quality ("hq"): radiographs and finely projected phantoms. Low quality ("lq"): radiographs computed from CT. They
are not paired: pairs are what the degraders make of the first (`pairs`).
"""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.contract import FloatArray, ModelError, Radiograph
from models.diffusionxray.domain import LEAST_LEVELS, MOST_ANISOTROPY
from models.diffusionxray.scale import scale_of, scale_of_radiograph
from models.diffusionxray.stored import read_arrays, write_arrays

Domain = Literal["hq", "lq"]
Split = Literal["train", "validation", "test"]
OnProgress = Callable[[int, int], None]

MOST = 2.0
"""Pictures are kept as 16 bits over ±`MOST`; the little beyond is cut."""
SHARES: tuple[tuple[Split, int], ...] = (("test", 20), ("validation", 32))
"""Of 100 patients: the first 20 are for the evaluation, the next 12 for validation, the others for training."""
_KEY = re.compile(r"patient\D?\d+|(?=[a-f]*\d)[0-9a-f]{6,}", re.IGNORECASE)
LEAST_SIDE_PX = 256
GREY_MODES = ("L", "I;16", "I;16B", "I", "F")
COLOUR_STEP, COLOUR_SHARE = 8, 0.01
"""By so many grey levels the channels of a pixel differ that has a colour, and of so many pixels an image that has."""
LeftOut = Callable[[str, str], None]
"""Called with a file and why it is left out."""


@dataclass(frozen=True, eq=False)
class Picture:
    """One radiograph as networks see it.

    key         stands for the patient, not an identity
    unit        float32 (Y, X), about −1 to 1, bright = dense
    """

    key: str
    collection: str
    unit: FloatArray
    spacing_mm: float
    domain: Domain = "hq"
    split: Split = "train"


def split_of(key: str) -> Split:
    """Where a patient belongs, from the key alone: the same in every run."""
    place = zlib.crc32(key.encode()) % 100
    return next((split for split, below in SHARES if place < below), "train")


def save_picture(picture: Picture, folder: Path) -> Path:
    """Write it; the name says domain, split, collection and patient."""
    content = quantised(picture.unit)
    name = hashlib.sha1(content.tobytes(), usedforsecurity=False).hexdigest()[:8]
    path = folder / picture.domain / picture.split / f"{picture.collection}-{picture.key}-{name}.npz"
    write_arrays(path, unit=content, spacing_mm=picture.spacing_mm, key=picture.key, collection=picture.collection)
    return path


def load_pictures(folder: Path, *, domain: Domain = "hq", split: Split | None = None) -> list[Picture]:
    """Prepared pictures in a fixed order.

    raises   ModelError     there are none, or a file is not one
    """
    files = sorted((folder / domain).glob(f"{split or '*'}/*.npz"))
    if not files:
        raise ModelError(f"no prepared pictures ({domain}, {split or 'any split'}) in {folder}")
    return [_loaded(path, domain) for path in files]


def prepare_images(
    folder: Path,
    out: Path,
    *,
    spacing_mm: float,
    split: Split | None = None,
    left_out: LeftOut | None = None,
    on_progress: OnProgress | None = None,
) -> int:
    """Grey PNG or JPEG radiographs of a folder, bright = dense; how many were written.

    spacing_mm      of a pixel; such files do not say it
    split           of all of them, where the whole collection is kept for one use; else by patient
    left_out        told which file is none, and why
    raises   ModelError     there is not one
    """
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in {".png", ".jpg", ".jpeg"})
    written = 0
    for done, path in enumerate(files, start=1):
        name = path.relative_to(folder)
        try:
            pixels = _grey(path)
            spread = _spread(pixels, 1.0, path.name)
            unit = scale_of(pixels).unit(spread, _range(spread))
        except ModelError as error:
            if left_out is not None:
                left_out(str(name), str(error))
            continue
        key = patient_of(name)
        collection = folder.resolve().name
        save_picture(Picture(key, collection, unit, spacing_mm, "hq", split or split_of(key)), out)
        written += 1
        if on_progress is not None:
            on_progress(done, len(files))
    if not written:
        raise ModelError(f"no PNG or JPEG radiographs in {folder}")
    return written


def picture_of(radiograph: Radiograph, key: str, collection: str, split: Split | None = None) -> Picture:
    """A radiograph with a header as a picture of high quality, its grey levels spread as those of image files are.

    key             stands for the patient      split       None: by patient
    raises   ModelError     no pixel size, pixels that are not square, or one grey value
    """
    if radiograph.spacing_yx_mm is None:
        raise ModelError("the header does not say how large a pixel is")
    down, across = radiograph.spacing_yx_mm
    if abs(down - across) > MOST_ANISOTROPY * across:
        raise ModelError("pixels are not square")
    if min(radiograph.pixels.shape) < LEAST_SIDE_PX:
        raise ModelError(f"fewer than {LEAST_SIDE_PX} pixels a side")
    spread = _spread(radiograph.pixels, radiograph.value_step, radiograph.source.instance_uid)
    unit = scale_of_radiograph(radiograph).unit(spread, _range(spread))
    return Picture(key, collection, unit, across, "hq", split or split_of(key))


def patient_of(path: Path) -> str:
    """Of a picture at this path within its collection, from the outermost folder on.

    The first folder or name with "patient" and a number, or with a number of six digits or more (hexadecimal too); the
    whole name where there is none.
    """
    for part in (*path.parts[:-1], path.stem):
        if found := _KEY.search(part):
            return found.group().lower()
    return path.stem


def quantised(unit: FloatArray) -> NDArray[np.uint16]:
    """16 bits over ±`MOST`: steps of 6e-5."""
    levels: NDArray[np.uint16] = np.rint((unit.clip(-MOST, MOST) + MOST) * (65535 / (2 * MOST))).astype(np.uint16)
    return levels


def unquantised(levels: NDArray[np.uint16]) -> FloatArray:
    """Back to float32."""
    unit: FloatArray = levels.astype(np.float32) * np.float32(2 * MOST / 65535) - np.float32(MOST)
    return unit


def _spread(pixels: FloatArray, step: float, name: str) -> FloatArray:
    """A grey level stands for all values that were rounded to it: without this, networks learn to see steps."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    return pixels + rng.uniform(-step / 2, step / 2, pixels.shape).astype(np.float32)


def _range(pixels: FloatArray) -> tuple[float, float]:
    return float(pixels.min()), float(pixels.max())


def _grey(path: Path) -> FloatArray:
    """Pixels float32 (Y, X) in whole grey levels. raises ModelError: no radiograph"""
    try:
        with Image.open(path) as image:
            grey = image.mode in GREY_MODES
            pixels = np.asarray(image if grey else image.convert("RGB"), dtype=np.float32)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ModelError("not an image that can be read") from error
    if not grey:
        if (np.ptp(pixels, axis=2) > COLOUR_STEP).mean() > COLOUR_SHARE:
            raise ModelError("in colour")
        pixels = pixels.mean(2)
    if min(pixels.shape) < LEAST_SIDE_PX:
        raise ModelError(f"fewer than {LEAST_SIDE_PX} pixels a side")
    if len(np.unique(pixels)) < LEAST_LEVELS:
        raise ModelError(f"fewer than {LEAST_LEVELS} grey levels")
    return pixels


def _loaded(path: Path, domain: Domain) -> Picture:
    def made(content: Mapping[str, NDArray[Any]]) -> Picture:
        return Picture(
            str(content["key"]),
            str(content["collection"]),
            unquantised(content["unit"]),
            float(content["spacing_mm"]),
            domain,
            cast(Split, path.parent.name),
        )

    return read_arrays(path, made, what="a prepared picture")
