"""Prepared lesions without a chest to prepare them from."""

from __future__ import annotations

import numpy as np

from models.lefusion.data import REGION_ZYX, SHAPES, LesionCrop
from models.lefusion.masks import control_sphere


def region(at: tuple[int, int, int] = (20, 40, 40), radius: int = 4, core_radius: int = 0, seed: int = 0) -> LesionCrop:
    """A ball in noise, with the healthy chest beside it."""
    rng = np.random.default_rng(seed)
    healthy = rng.normal(-850, 30, REGION_ZYX).astype(np.int16)
    mask = control_sphere(REGION_ZYX, at, radius)
    core = control_sphere(REGION_ZYX, at, core_radius) if core_radius else np.zeros(REGION_ZYX, bool)
    hu = np.where(mask, -500, healthy)
    hu = np.where(core, 60, hu).astype(np.int16)
    return LesionCrop(f"k{seed}", SHAPES["train"], hu, healthy, mask, core, np.ones(REGION_ZYX, bool))
