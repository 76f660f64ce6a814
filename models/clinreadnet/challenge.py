"""The public low-dose CT quality set (LDCTIQAG2023) as it is laid out: image/0000.tif … and train.json.

float32 in [0, 1], 512 × 512, the mean of five whole grades as score. The set does not come with this project: its
licence is stated differently by different users and must be read at its source (Zenodo record 7833096) first.
source: ClinReadNet dossier 2.4 and 2.5
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from models.clinreadnet.config import HIGHEST, SIDE_PX
from models.clinreadnet.folds import grouped_folds, pseudo_patients, thumbnail
from models.contract import FloatArray, ModelError

LABELS, IMAGES = "train.json", "image"
SAME_ANATOMY = 0.02
"""Root mean square of thumbnails, in stored units, below which two images are taken for one patient."""
SOFT_TISSUE = (0.68, 0.88)
"""Where muscle and liver lie when 0 is −1000 HU and 1 is 400 HU; with another window they do not."""
LEAST_SOFT_TISSUE = 0.05
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Rated:
    """One image and its mean grade."""

    path: Path
    score: float

    def image(self) -> FloatArray:
        """float32 (512, 512), stored units.

        raises   ModelError     not such an image
        """
        try:
            with Image.open(self.path) as file:
                image = np.array(file)
        except (OSError, UnidentifiedImageError) as error:
            raise ModelError(f"{self.path.name} cannot be read as an image") from error
        if image.dtype != np.float32 or image.shape != (SIDE_PX, SIDE_PX):
            raise ModelError(f"{self.path.name}: {image.dtype} {image.shape}, not float32 of 512 × 512")
        if not np.isfinite(image).all() or image.min() < -TOLERANCE or image.max() > 1 + TOLERANCE:
            raise ModelError(f"{self.path.name}: values outside 0 … 1")
        return image


def load_challenge(folder: Path) -> list[Rated]:
    """All rated images, by name.

    raises   ModelError     folder, labels or images are missing, a label is no mean of five grades, or the pixels are
                            not on the set's map of HU
    """
    labels = folder / LABELS
    if not labels.is_file() or not (folder / IMAGES).is_dir():
        raise ModelError(f"{folder.name} is not the public training set: {LABELS} and {IMAGES}/ are wanted in it")
    try:
        told = json.loads(labels.read_text(encoding="utf8"))
        scores = {str(name): float(score) for name, score in told.items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise ModelError(f"{LABELS} is not a table of file names and scores") from error
    if not scores:
        raise ModelError(f"{LABELS} holds no labels")
    for name, score in scores.items():
        if not 0 <= score <= HIGHEST or abs(5 * score - round(5 * score)) > 5 * TOLERANCE:
            raise ModelError(f"{name}: {score} is not the mean of five whole grades from 0 to 4")
    if missing := [name for name in scores if not (folder / IMAGES / name).is_file()]:
        raise ModelError(f"{len(missing)} labelled images are missing, the first is {missing[0]}")
    rated = [Rated(folder / IMAGES / name, score) for name, score in sorted(scores.items())]
    check_map(rated)
    return rated


def check_map(rated: Sequence[Rated], *, images: int = 20) -> None:
    """Hold some images against the set's map of HU, the best ones, where noise does not hide tissue.

    raises   ModelError     hardly a pixel of them is where soft tissue must be
    """
    best = sorted(rated, key=lambda one: -one.score)[:images]
    low, high = SOFT_TISSUE
    shares = [float(np.mean((image > low) & (image < high))) for image in (one.image() for one in best)]
    if np.median(shares) < LEAST_SOFT_TISSUE:
        raise ModelError("the pixels are not on the map of -1000 … 400 HU to 0 … 1: there is no soft tissue in them")


def patients_of(rated: Sequence[Rated]) -> NDArray[np.int64]:
    """Who may be whom: the set does not say, so images of nearly the same anatomy count as one patient."""
    return pseudo_patients(np.stack([thumbnail(one.image()) for one in rated]), distance=SAME_ANATOMY)


def fold(rated: Sequence[Rated], number: int, *, folds: int, seed: int) -> tuple[list[Rated], list[Rated]]:
    """Images to train on and images held out, pseudo-patients whole.

    raises   ModelError     there is no such fold, or too few patients
    """
    if not 0 <= number < folds:
        raise ModelError(f"there is no fold {number} of {folds}")
    try:
        fold_of = grouped_folds(list(patients_of(rated)), folds, seed=seed)
    except ValueError as error:
        raise ModelError(str(error)) from error
    kept = [one for one, found in zip(rated, fold_of, strict=True) if found != number]
    return kept, [one for one, found in zip(rated, fold_of, strict=True) if found == number]
