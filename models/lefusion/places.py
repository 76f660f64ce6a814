"""Where a lesion may be, how large it is there and how it differs from what is around it.

Lungs are found by their air. A liver is not to be found so: its mask is given.

source: dossier 9; simulation dossier 5.1 (lungs), 5.2 (liver)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from scipy import ndimage

from models.contract import BoolArray, FloatArray, ModelError
from models.lefusion.composite import Vector
from models.lefusion.histogram import Texture
from models.simulation.lesions import drawn
from models.simulation.lungs import Lungs, find_lungs, plan_nodule, point_spread_mm
from models.simulation.scenes import DIAMETER_MM, LIVER_CONTRAST_HU

Kind = Texture | Literal["darker", "brighter"]
"""Of a lung lesion its texture; of a liver lesion whether it is hypo- or hyperdense."""

TEXTURES: tuple[Texture, ...] = ("ground-glass", "part-solid", "solid")
BRIGHTER_SHARE = 0.25
"""Of liver lesions. An assumption, and so is that their contrasts are those of the darker ones: of hyperdense lesions
the dossiers have no statistics."""
LIVER_HU = (20.0, 180.0)
"""The median of a liver, plain or with contrast agent, lies between these."""
RIM_MM = 3.0
"""Of the liver, beside half a slice, that no lesion fills: its collar lies there, and nothing outside changes."""
GAP_MM = 3.0
SOFT_TISSUE_BLUR_MM = 0.5
"""Standard deviation of the in-plane blur where no edge against air is there to measure it on: of soft kernels."""


@dataclass(frozen=True)
class Spot:
    """Where and how large: centre (z, y, x) in mm from the volume's middle."""

    centre: tuple[float, float, float]
    diameter_mm: float

    def beside(self, others: Sequence[Spot]) -> Spot | None:
        """Itself; None where it comes nearer than the gap to another."""
        near = (math.dist(self.centre, one.centre) - (self.diameter_mm + one.diameter_mm) / 2 for one in others)
        return self if all(gap >= GAP_MM for gap in near) else None


class Places(Protocol):
    """An organ.

    host        bool (Z, Y, X): what lesions may fill           blur_mm     standard deviation of the in-plane blur
    """

    @property
    def host(self) -> BoolArray: ...

    @property
    def blur_mm(self) -> float: ...

    def spot(self, others: Sequence[Spot], rng: np.random.Generator, /) -> Spot | None:
        """A place beside the others; None where none was found."""

    def kind(self, rng: np.random.Generator, /) -> tuple[Kind, float | None]:
        """What a lesion is, and its mean difference from what is there (see `insert.Site`)."""


@dataclass(frozen=True, eq=False)
class InLungs:
    """Nodules of lungs, of the sizes and sites of a screening sample."""

    lungs: Lungs
    blur_mm: float

    @classmethod
    def find(cls, voxels: FloatArray, spacing_zyx_mm: Vector) -> InLungs:
        """raises ModelError    no lungs found"""
        lungs = find_lungs(voxels, spacing_zyx_mm)
        if lungs is None:
            raise ModelError("no lungs found in this volume")
        return cls(lungs, point_spread_mm(voxels, lungs, spacing_zyx_mm))

    @property
    def host(self) -> BoolArray:
        return self.lungs.host

    def spot(self, others: Sequence[Spot], rng: np.random.Generator, /) -> Spot | None:
        """See `Places`."""
        plan = plan_nodule(self.lungs, [], rng=rng, blur_mm=self.blur_mm)
        if plan is None:
            return None
        z, y, x = (float(value) for value in plan.centre)
        return Spot((z, y, x), plan.diameter_mm).beside(others)

    def kind(self, rng: np.random.Generator, /) -> tuple[Kind, float | None]:
        """See `Places`."""
        return TEXTURES[int(rng.integers(len(TEXTURES)))], None


@dataclass(frozen=True, eq=False)
class InLiver:
    """Lesions of a liver, wholly inside of it, of the sizes and contrasts of a reader study's metastases.

    host        bool (Z, Y, X): the liver without its rim       depth_mm    float32: below the host's surface, 0 outside
    """

    host: BoolArray
    depth_mm: FloatArray
    spacing_zyx_mm: Vector
    blur_mm: float = SOFT_TISSUE_BLUR_MM

    @classmethod
    def of(cls, mask: BoolArray, voxels: FloatArray, spacing_zyx_mm: Vector) -> InLiver:
        """raises ModelError    empty, or no liver by its density"""
        if not mask.any():
            raise ModelError("the mask of the liver is empty")
        median = float(np.median(voxels[mask]))
        if not LIVER_HU[0] <= median <= LIVER_HU[1]:
            raise ModelError(f"what the mask covers is no liver: its median is {median:.0f} HU")
        below = ndimage.distance_transform_edt(np.pad(mask, 1), spacing_zyx_mm)[1:-1, 1:-1, 1:-1]
        depth = np.maximum(below - RIM_MM - spacing_zyx_mm[0] / 2, 0).astype(np.float32)
        return cls(depth > 0, depth, spacing_zyx_mm)

    def spot(self, others: Sequence[Spot], rng: np.random.Generator, /) -> Spot | None:
        """See `Places`."""
        diameter = drawn(DIAMETER_MM["liver"], rng)
        room = np.flatnonzero(self.depth_mm > diameter / 2)
        if not room.size:
            return None
        index = np.array(np.unravel_index(int(rng.choice(room)), self.host.shape))
        centre = (index - (np.array(self.host.shape) - 1) / 2) * self.spacing_zyx_mm
        z, y, x = (float(value) for value in centre)
        return Spot((z, y, x), diameter).beside(others)

    def kind(self, rng: np.random.Generator, /) -> tuple[Kind, float | None]:
        """See `Places`."""
        contrast = drawn(LIVER_CONTRAST_HU, rng)
        return ("brighter", contrast) if rng.uniform() < BRIGHTER_SHARE else ("darker", -contrast)
