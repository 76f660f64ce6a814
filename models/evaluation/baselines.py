"""Filters that a trained network has to beat: Gaussian, bilateral, non-local means, BM3D, and unsharp mask.

Slice by slice, on HU; on pictures, whatever is named HU here is in units of the picture.
"""

from __future__ import annotations

import importlib

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor
from torch.nn import functional

from models.contract import FloatArray, ModelError


def gaussian(image: FloatArray, *, sigma_px: float) -> FloatArray:
    """Gaussian blur of one slice (Y, X)."""
    blurred: FloatArray = gaussian_filter(image, sigma_px, mode="nearest")
    return blurred


def unsharp_mask(image: FloatArray, *, sigma_px: float, amount: float) -> FloatArray:
    """The slice (Y, X), and so much of what a Gaussian takes from it once more."""
    sharper: FloatArray = image + np.float32(amount) * (image - gaussian(image, sigma_px=sigma_px))
    return sharper


def bilateral(image: FloatArray, *, sigma_px: float, sigma_hu: float) -> FloatArray:
    """Mean of the neighbours, weighed by their distance and their difference in HU (Tomasi & Manduchi 1998)."""
    reach = int(np.ceil(2 * sigma_px))
    centre, shifted = _shifts(image, reach)
    total, weights = torch.zeros_like(centre), torch.zeros_like(centre)
    for dy, dx, other in shifted:
        near = np.exp(-(dy * dy + dx * dx) / (2 * sigma_px**2))
        weight = torch.exp(-(other - centre).square() / (2 * sigma_hu**2)) * float(near)
        total += weight * other
        weights += weight
    return (total / weights).numpy()


def non_local_means(image: FloatArray, *, strength_hu: float, search_px: int = 5, patch_px: int = 2) -> FloatArray:
    """Mean of the pixels around, weighed by how alike their patches are (Buades, Coll, Morel 2005)."""
    centre, shifted = _shifts(image, search_px)
    side = 2 * patch_px + 1
    total, weights = torch.zeros_like(centre), torch.zeros_like(centre)
    for _, _, other in shifted:
        distance = functional.avg_pool2d(
            (other - centre).square()[None, None], side, stride=1, padding=patch_px, count_include_pad=False
        )[0, 0]
        weight = torch.exp(-distance / strength_hu**2)
        total += weight * other
        weights += weight
    return (total / weights).numpy()


def bm3d(image: FloatArray, *, sigma_hu: float) -> FloatArray:
    """Block-matching and 3-D filtering (Dabov, Foi, Katkovnik, Egiazarian 2007), by the package of its authors.

    raises   ModelError     the package is not installed: it is for non-commercial use, and no part of the product
    """
    try:
        package = importlib.import_module("bm3d")
    except ImportError as error:
        how = "pip install 'pacsnode[evaluation]', for non-commercial use only"
        raise ModelError(f"BM3D is not installed: {how}") from error
    filtered: FloatArray = package.bm3d(image.astype(np.float64), sigma_psd=sigma_hu).astype(np.float32)
    return filtered


def _shifts(image: FloatArray, reach: int) -> tuple[Tensor, list[tuple[int, int, Tensor]]]:
    """The image, and the image seen from every neighbour within reach."""
    height, width = image.shape
    centre = torch.from_numpy(np.ascontiguousarray(image, np.float32))
    padded = functional.pad(centre[None, None], (reach,) * 4, mode="reflect")[0, 0]
    steps = range(-reach, reach + 1)
    return centre, [
        (dy, dx, padded[reach + dy : reach + dy + height, reach + dx : reach + dx + width])
        for dy in steps
        for dx in steps
    ]
