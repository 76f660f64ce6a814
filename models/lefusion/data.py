"""Lesions as networks learn them: crops of chests with nodules of known masks, and shapes without an image.

A lesion for training has another chest and another generator of shapes than any lesion for tests (`Source`): a shape
that is in both would be remembered. Files hold no patient, only a digest that keeps patients apart.

source: dossier 4 (preparation), 9 and 12 (traps)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from models.contract import BoolArray, FloatArray, ModelError
from models.lefusion.composite import Vector, crop_at, mask_at
from models.lefusion.config import CROP_ZYX, TrainConfig
from models.lefusion.histogram import LUNG, Histogram, histogram
from models.lefusion.masks import coded, control_sphere, sphere_of
from models.simulation.cases import NOISE_SMOOTHING_MM, draw_case
from models.simulation.lesions import Plan, PlantedLesion, ellipsoid, lobulated, plant
from models.simulation.lungs import Lungs, find_lungs, plan_nodule, point_spread_mm
from models.simulation.shapes import Grid

Split = Literal["train", "test"]
Classes = Literal[1, 2]
"""1: the lesion as a whole; 2: its ground glass and its solid part, a channel each."""
OnProgress = Callable[[int, int], None]

SHAPES: Mapping[Split, str] = {"train": "ellipsoids", "test": "spherical harmonics"}
"""Generator of the masks (`simulation.lesions`)."""
MARGIN_ZYX = (8, 16, 16)
"""Of a stored region beyond a crop: where a crop may be moved to."""
REGION_ZYX = (CROP_ZYX[0] + MARGIN_ZYX[0], CROP_ZYX[1] + MARGIN_ZYX[1], CROP_ZYX[2] + MARGIN_ZYX[2])
DRAWN_SHAPE, DRAWN_SPACING_MM = (40, 352, 352), (1.5, 1.0, 1.0)
FIRST_TEST_SEED = 100_000
"""Drawn chests for tests have seeds from here on."""
GROUND_GLASS_HU, SOLID_HU = (-650.0, -350.0), (0.0, 110.0)
CORE_SHARES = (0.35, 0.75)
"""Diameter of a part-solid lesion's core over the whole."""
LEAST_VOXELS = 8
END_SLICES = 2
"""Of a scan, at each end: no lesion lies there."""
EDGE_VOXELS = 2
"""Between a lesion and the border of its crop."""
DIAMETERS_MM = (4.0, 24.0)
"""Of shapes without an image, even in their logarithm."""


@dataclass(frozen=True, eq=False)
class LesionCrop:
    """One lesion and its surroundings, voxels of 1 mm, all (D, H, W).

    key         of the chest        source      generator of its shape
    hu          int16, with the lesion          healthy     int16, without
    mask        bool                core        bool: its solid part, empty or all of it too
    organ       bool: where it may be
    """

    key: str
    source: str
    hu: np.ndarray
    healthy: np.ndarray
    mask: BoolArray
    core: BoolArray
    organ: BoolArray

    def masks(self, classes: Classes) -> list[BoolArray]:
        """Per class, without a voxel in common."""
        return [self.mask] if classes == 1 else [self.mask & ~self.core, self.core]


@dataclass(frozen=True, eq=False)
class Crops:
    """One batch.

    image       float32 (B, classes, D, H, W), −1 … 1           masks   bool, same shape
    condition   float32 (B, classes · bins), None without histograms
    beside      float32 (B, n, D, H, W), None without
    """

    image: Tensor
    masks: Tensor
    condition: Tensor | None = None
    beside: Tensor | None = None


def prepare_drawn(folder: Path, split: Split, *, chests: int, lesions: int, on_progress: OnProgress) -> int:
    """Lesions in drawn chests; how many were written. Chests already there are passed over."""
    written = 0
    for number in range(chests):
        seed = number + (FIRST_TEST_SEED if split == "test" else 0)
        key = f"drawn{seed}"
        if not any((folder / split).glob(f"{key}-*.npz")):
            case = draw_case(
                "anthropomorphic-chest", seed=seed, shape_zyx=DRAWN_SHAPE, spacing_zyx_mm=DRAWN_SPACING_MM, lesions=0
            )
            written += prepare_chest(case.voxels, case.spacing_zyx_mm, key, folder, split, lesions=lesions)
        on_progress(number + 1, chests)
    return written


def prepare_chest(
    voxels: FloatArray, spacing_zyx_mm: Vector, key: str, folder: Path, split: Split, *, lesions: int
) -> int:
    """So many lesions in one chest, each in a copy of its own, as files; fewer where there is no room.

    voxels   float32 (Z, Y, X), HU, padding set to air
    raises   ModelError     no lungs found
    """
    lungs = find_lungs(voxels, spacing_zyx_mm)
    if lungs is None:
        raise ModelError("no lungs found in this volume")
    blur_mm = point_spread_mm(voxels, lungs, spacing_zyx_mm)
    (folder / split).mkdir(parents=True, exist_ok=True)
    written = 0
    for number in range(lesions):
        rng = np.random.default_rng([number, *key.encode()])
        plan = plan_nodule(lungs, [], rng=rng, blur_mm=blur_mm, lobulated_shape=split == "test")
        made = None if plan is None else _planted(voxels, spacing_zyx_mm, lungs, plan, rng)
        if made is not None:
            region = dataclasses.replace(made, key=key, source=SHAPES[split])
            _save(region, folder / split / f"{key}-{number:03d}.npz")
            written += 1
    return written


def load_crops(folder: Path, split: Split) -> list[LesionCrop]:
    """All of a split, in a fixed order, regions of `REGION_ZYX`.

    raises   ModelError     there are none, or a file is not one
    """
    files = sorted((folder / split).glob("*.npz"))
    if not files:
        raise ModelError(f"no prepared lesions ({split}) in {folder.name}")
    return [_load(path) for path in files]


def cut(region: LesionCrop, shape_zyx: tuple[int, int, int], rng: np.random.Generator) -> LesionCrop:
    """A crop of a region with the lesion in it as far as it fits, seldom in its middle; mirrored every second time."""
    places = np.argwhere(region.mask)
    first, last = places.min(0), places.max(0) + 1
    starts = []
    for low, high, side, whole in zip(first, last, shape_zyx, region.mask.shape, strict=True):
        least, most = sorted((int(high) + EDGE_VOXELS - side, int(low) - EDGE_VOXELS))
        starts.append(int(rng.integers(np.clip(least, 0, whole - side), np.clip(most, 0, whole - side) + 1)))
    part = tuple(slice(start, start + side) for start, side in zip(starts, shape_zyx, strict=True))
    step = -1 if rng.random() < 0.5 else 1
    arrays = ("hu", "healthy", "mask", "core", "organ")
    return dataclasses.replace(region, **{name: getattr(region, name)[part][..., ::step] for name in arrays})


def condition_of(hu: FloatArray, masks: Sequence[BoolArray]) -> Histogram:
    """The histograms of all classes one after another; zeros for a class that is not there. (classes · bins,)"""
    none = np.zeros(LUNG.bins, np.float32)
    return np.concatenate([histogram(hu, mask) if mask.any() else none for mask in masks])


def histograms_of(regions: Sequence[LesionCrop], *, classes: Classes, most: int = 96) -> FloatArray:
    """Conditions of some of them, evenly, (n, classes · bins): what a trained network can be asked for."""
    some = regions[:: -(-len(regions) // most)]
    return np.stack([condition_of(region.hu, region.masks(classes)) for region in some])


class CropStore:
    """Batches of the texture network. What a batch holds follows from seed and step alone."""

    def __init__(self, regions: Sequence[LesionCrop], *, classes: Classes, seed: int) -> None:
        self._regions, self._classes, self._seed = regions, classes, seed

    def batch(self, step: int, training: TrainConfig, /) -> Crops:
        rng = np.random.default_rng((self._seed, step))
        chosen = rng.integers(len(self._regions), size=training.batch)
        crops = [cut(self._regions[index], training.crop_zyx, rng) for index in chosen]
        unit = np.stack([LUNG.unit(crop.hu) for crop in crops])[:, None]
        masks = np.stack([np.stack(crop.masks(self._classes)) for crop in crops])
        conditions = np.stack([condition_of(crop.hu, crop.masks(self._classes)) for crop in crops])
        image = torch.from_numpy(unit).expand(-1, self._classes, -1, -1, -1)
        return Crops(image, torch.from_numpy(masks), condition=torch.from_numpy(conditions))


class ShapeStore:
    """Batches of the mask network: shapes of the training generator and their control spheres."""

    def __init__(self, *, seed: int) -> None:
        self._seed = seed

    def batch(self, step: int, training: TrainConfig, /) -> Crops:
        rng = np.random.default_rng((self._seed, step))
        masks = np.stack([draw_shape(training.crop_zyx, rng, "train") for _ in range(training.batch)])
        spheres = np.stack([control_sphere(training.crop_zyx, *sphere_of(mask)) for mask in masks])
        image, beside = (torch.from_numpy(coded(shapes))[:, None] for shapes in (masks, spheres))
        return Crops(image, torch.ones_like(image, dtype=torch.bool), beside=beside)


def draw_shape(
    shape_zyx: tuple[int, int, int], rng: np.random.Generator, split: Split, *, diameter_mm: float | None = None
) -> BoolArray:
    """One shape near the middle of a crop of 1 mm, bool (D, H, W), never empty.

    diameter_mm     of the ball of equal volume; drawn where it is not given
    """
    low, high = np.log(DIAMETERS_MM)
    diameter = float(np.exp(rng.uniform(low, high))) if diameter_mm is None else diameter_mm
    if split == "train":
        cover = ellipsoid(rng, edge_mm=0.5, roughness=float(rng.uniform(0.03, 0.12)))
    else:
        cover = lobulated(rng, spread=float(rng.uniform(0.1, 0.15)))
    middle = np.array(shape_zyx) // 2 + rng.uniform(-1, 1, 3)
    offset = np.moveaxis(np.indices(shape_zyx), 0, -1) - middle
    mask = np.zeros(shape_zyx, bool)
    near = np.linalg.norm(offset, axis=-1) < diameter  # no shape reaches as far
    mask[near] = cover(offset[near], diameter) > 0.5
    mask[tuple(np.rint(middle).astype(int))] = True
    return mask


def _planted(
    voxels: FloatArray, spacing_zyx_mm: Vector, lungs: Lungs, plan: Plan, rng: np.random.Generator
) -> LesionCrop | None:
    """The lesion in a copy of the chest, as a region round it; None where too little of it would be seen."""
    texture = rng.choice(("ground-glass", "part-solid", "solid"))
    solid, glassy = float(rng.uniform(*SOLID_HU)), float(rng.uniform(*GROUND_GLASS_HU))
    image = voxels.copy()
    grid = Grid((voxels.shape[0], voxels.shape[1], voxels.shape[2]), spacing_zyx_mm)

    def put(level: float, share: float) -> PlantedLesion | None:
        part = dataclasses.replace(plan, level=level, diameter_mm=share * plan.diameter_mm)
        return plant(image, grid, part, smoothing_mm=NOISE_SMOOTHING_MM)

    whole = put(solid if texture == "solid" else glassy, 1.0)
    if whole is None or _is_cut(whole, voxels.shape[0]):
        return None
    inner = put(solid, float(rng.uniform(*CORE_SHARES))) if texture == "part-solid" else None

    def region_of(mask: BoolArray) -> BoolArray:
        return mask_at(mask, spacing_zyx_mm, whole.centre_mm, REGION_ZYX)

    def full(lesion: PlantedLesion | None) -> BoolArray:
        mask = np.zeros(voxels.shape, bool)
        if lesion is not None:
            mask[lesion.box] = lesion.mask
        return mask

    mask = region_of(full(whole))
    if np.count_nonzero(mask) < LEAST_VOXELS:
        return None
    hu, healthy = (crop_at(volume, spacing_zyx_mm, whole.centre_mm, REGION_ZYX) for volume in (image, voxels))
    core = mask if texture == "solid" else mask & region_of(full(inner))
    return LesionCrop("", "", _stored(hu), _stored(healthy), mask, core, region_of(lungs.host) | mask)


def _is_cut(lesion: PlantedLesion, slices: int) -> bool:
    """By the end of the scan: what goes on beyond it would be a lesion outside of its mask."""
    planes = lesion.box[0].start + np.flatnonzero(lesion.mask.any((1, 2)))
    return bool(planes[0] < END_SLICES or planes[-1] >= slices - END_SLICES)


def _stored(hu: FloatArray) -> np.ndarray:
    return np.rint(hu).clip(-(2**15), 2**15 - 1).astype(np.int16)


def _save(region: LesionCrop, path: Path) -> None:
    np.savez_compressed(path, **{field.name: getattr(region, field.name) for field in dataclasses.fields(region)})


def _load(path: Path) -> LesionCrop:
    try:
        with np.load(path, allow_pickle=False) as content:
            arrays = {name: content[name] for name in ("hu", "healthy", "mask", "core", "organ")}
            return LesionCrop(str(content["key"]), str(content["source"]), **arrays)
    except (KeyError, ValueError, OSError) as error:
        raise ModelError(f"{path.name} is not a prepared lesion") from error
