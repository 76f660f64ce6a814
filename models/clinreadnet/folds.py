"""Folds in which nobody is on both sides."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage

from models.contract import FloatArray

Group = TypeVar("Group", bound=Hashable)
THUMBNAIL_PX = 16
"""Side of the block means by which anatomies are told apart: noise and streaks are gone from them."""


def grouped_folds(groups: Sequence[Group], count: int, *, seed: int) -> NDArray[np.int64]:
    """A fold 0 … count − 1 for every element: groups stay whole, folds are about as large as each other.

    raises   ValueError     fewer groups than folds
    """
    sizes = Counter(groups)
    if len(sizes) < count:
        raise ValueError(f"{len(sizes)} groups cannot fill {count} folds")
    names = sorted(sizes, key=str)
    drawn = np.random.default_rng(seed).permutation(len(names))
    order = sorted((names[index] for index in drawn), key=lambda name: -sizes[name])
    filled = [0] * count
    fold_of: dict[Group, int] = {}
    for name in order:
        fold = int(np.argmin(filled))
        fold_of[name] = fold
        filled[fold] += sizes[name]
    return np.array([fold_of[group] for group in groups])


def pseudo_patients(thumbnails: FloatArray, *, distance: float) -> NDArray[np.int64]:
    """Images that show nearly the same anatomy, as one patient each: single linkage of their thumbnails.

    thumbnails  float (N, …), as `thumbnail` makes them     distance  root mean square below which two are alike
    """
    flat = thumbnails.reshape(len(thumbnails), -1)
    if len(flat) < 2:
        return np.zeros(len(flat), np.int64)
    tree = linkage(flat / np.sqrt(flat.shape[1]), "single")
    clusters: NDArray[np.int64] = fcluster(tree, distance, "distance").astype(np.int64)
    return clusters


def thumbnail(image: FloatArray) -> FloatArray:
    """Block means of an image (Y, X), for telling anatomies apart and nothing else."""
    height, width = (side // THUMBNAIL_PX * THUMBNAIL_PX for side in image.shape)
    blocks = image[:height, :width].reshape(THUMBNAIL_PX, height // THUMBNAIL_PX, THUMBNAIL_PX, width // THUMBNAIL_PX)
    means: FloatArray = blocks.mean((1, 3), dtype=np.float64).astype(np.float32)
    return means
