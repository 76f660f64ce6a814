"""Lesions into a chest CT: where, of what shape and texture, and the truth of each.

source: dossier 9
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from models.contract import BoolArray, FloatArray, ModelError
from models.lefusion.composite import Vector, crop_at, difference, mask_at, on_volume, settled, soft_edge
from models.lefusion.config import CROP_ZYX
from models.lefusion.data import draw_shape
from models.lefusion.histogram import LUNG, PRESETS, Texture, histogram, wasserstein_hu
from models.simulation.cases import NOISE_SMOOTHING_MM
from models.simulation.lesions import MOST_NOISE_HU, Plan
from models.simulation.lungs import Lungs, find_lungs, plan_nodule, point_spread_mm

OnProgress = Callable[[int, int], None]

TEXTURES: tuple[Texture, ...] = ("ground-glass", "part-solid", "solid")
TRIES = 12
"""Places per lesion before a chest is said to have no room for more."""
MOST_DIAMETER_MM = 20.0
"""What is larger would not fit into a crop with its surroundings."""
MOST_SHIFT = (3, 8, 8)
"""Voxels by which a crop is moved, so that lesions are not in the middle of what a network sees."""
LEVELS_HU: dict[Texture, tuple[float, float]] = {
    "ground-glass": (-600.0, -400.0),
    "part-solid": (-300.0, -50.0),
    "solid": (0.0, 100.0),
}
LEAST_VOXELS = 4


@dataclass(frozen=True, eq=False)
class Drawn:
    """A lesion as it was drawn on a crop, (D, H, W): per class its HU and its mask.

    edge_mm     standard deviation of the point spread that fades its edge; None: that of the volume, for what was drawn
                without an edge of its own
    """

    hu: tuple[FloatArray, ...]
    masks: tuple[BoolArray, ...]
    edge_mm: float | None = None

    @property
    def whole(self) -> BoolArray:
        """All classes together."""
        whole: BoolArray = np.logical_or.reduce(self.masks)
        return whole


@dataclass(frozen=True, eq=False)
class Site:
    """What a lesion is drawn for.

    healthy     float32 (D, H, W), HU, voxels of 1 mm          organ   bool: where the lesion may be
    centre      voxel of its middle
    """

    healthy: FloatArray
    organ: BoolArray
    centre: tuple[int, int, int]
    diameter_mm: float
    texture: Texture


class Artist(Protocol):
    """Draws one lesion; None where nothing came of it. Same site and seed: same lesion."""

    @property
    def name(self) -> str: ...

    def draw(self, site: Site, seed: int, /) -> Drawn | None: ...


@dataclass(frozen=True, eq=False)
class Inserted:
    """The truth of one lesion.

    centre          (z, y, x) of its centroid, index into the volume, not whole
    axes_mm         of the ellipsoid with its moments, longest first
    contrast_hu     mean change in its mask             mean_hu     of the result in its mask
    texture         the class asked for                 seen_as     the published class whose histogram is nearest
    box, mask       voxels that it fills by more than half; mask is bool of the box's shape
    """

    centre: tuple[float, float, float]
    diameter_mm: float
    axes_mm: tuple[float, float, float]
    contrast_hu: float
    mean_hu: float
    texture: Texture
    seen_as: Texture
    seed: int
    box: tuple[slice, slice, slice]
    mask: BoolArray


@dataclass(frozen=True)
class ByHand:
    """Ellipsoids of one grey, the volume's own noise on them: needs no weights, and is what a network must beat."""

    name: str = "formula"

    def draw(self, site: Site, seed: int, /) -> Drawn | None:
        """See `Artist`."""
        rng = np.random.default_rng(seed)
        shape = draw_shape(site.healthy.shape, rng, "train", diameter_mm=site.diameter_mm)
        offset = np.array(site.centre) - np.array(shape.shape) // 2
        mask = ndimage.shift(shape, offset, order=0, cval=False, prefilter=False) & site.organ
        if not mask.any():
            return None
        smooth = ndimage.gaussian_filter(site.healthy, NOISE_SMOOTHING_MM)
        grain = np.clip(site.healthy - smooth, -MOST_NOISE_HU, MOST_NOISE_HU)
        level = np.float32(rng.uniform(*LEVELS_HU[site.texture]))
        return Drawn((level + grain,), (mask,))


def insert_lesions(
    voxels: FloatArray,
    spacing_zyx_mm: Vector,
    artist: Artist,
    *,
    count: int,
    seed: int,
    on_progress: OnProgress | None = None,
) -> tuple[FloatArray, tuple[Inserted, ...]]:
    """A copy of a chest CT with lung lesions, and their truth; fewer where there is no room.

    Voxels beyond the collar of a lesion keep their bits.

    voxels   float32 (Z, Y, X), HU, padding set to air
    raises   ModelError     no lungs found
    """
    lungs = find_lungs(voxels, spacing_zyx_mm)
    if lungs is None:
        raise ModelError("no lungs found in this volume")
    blur_mm = point_spread_mm(voxels, lungs, spacing_zyx_mm)
    image = voxels.astype(np.float32, copy=True)
    plans: list[Plan] = []
    done: list[Inserted] = []
    for number in range(TRIES * count):
        if len(done) == count:
            break
        of_lesion = int(np.random.SeedSequence((seed, number)).generate_state(1)[0])
        rng = np.random.default_rng(of_lesion)
        plan = plan_nodule(lungs, plans, rng=rng, blur_mm=blur_mm)
        if plan is None:
            continue
        plan = dataclasses.replace(plan, diameter_mm=min(plan.diameter_mm, MOST_DIAMETER_MM))
        found = _inserted(image, spacing_zyx_mm, lungs, plan, artist, of_lesion, blur_mm)
        if found is not None:
            plans.append(plan)
            done.append(found)
            if on_progress is not None:
                on_progress(len(done), count)
    return image, tuple(done)


def _inserted(
    image: FloatArray,
    spacing_zyx_mm: Vector,
    lungs: Lungs,
    plan: Plan,
    artist: Artist,
    seed: int,
    blur_mm: float,
) -> Inserted | None:
    """One lesion, put into the image; None, and the image untouched, where it would not be seen."""
    rng = np.random.default_rng((seed, 1))
    shift = np.array([int(rng.integers(-most, most + 1)) for most in MOST_SHIFT])
    first = (np.array(image.shape) - 1) / 2 * np.array(spacing_zyx_mm)
    z, y, x = (float(value) for value in plan.centre + first + shift)
    middle = np.array(CROP_ZYX) // 2 - shift
    site = Site(
        crop_at(image, spacing_zyx_mm, (z, y, x), CROP_ZYX),
        mask_at(lungs.host, spacing_zyx_mm, (z, y, x), CROP_ZYX),
        (int(middle[0]), int(middle[1]), int(middle[2])),
        plan.diameter_mm,
        TEXTURES[int(rng.integers(len(TEXTURES)))],
    )
    drawn = artist.draw(site, seed)
    if drawn is None:
        return None
    edge_mm = blur_mm if drawn.edge_mm is None else drawn.edge_mm
    change = difference(drawn.hu, drawn.masks, site.healthy, sigma_voxels=edge_mm)
    on_grid = [
        on_volume(one, image.shape, spacing_zyx_mm, (z, y, x))
        for one in (change, drawn.whole.astype(np.float32), soft_edge(drawn.whole, edge_mm), site.healthy)
    ]
    box, (added, filled, soft, interpolated) = on_grid[0][0], [values for _, values in on_grid]
    mask = filled > 0.5
    if np.count_nonzero(mask) < LEAST_VOXELS:
        return None
    before = image[box].copy()
    image[box] = settled(before, added, soft, interpolated, most_hu=MOST_NOISE_HU)
    return _truth(image[box], before, mask, box, spacing_zyx_mm, site.texture, seed)


def _truth(
    after: FloatArray,
    before: FloatArray,
    mask: BoolArray,
    box: tuple[slice, slice, slice],
    spacing_zyx_mm: Vector,
    texture: Texture,
    seed: int,
) -> Inserted:
    shares = histogram(after, mask)
    nearest = min(PRESETS, key=lambda name: wasserstein_hu(shares, PRESETS[name]))
    places = np.argwhere(mask)
    z, y, x = (float(part.start + middle) for part, middle in zip(box, places.mean(0), strict=True))
    volume_mm3 = len(places) * float(np.prod(spacing_zyx_mm))
    return Inserted(
        centre=(z, y, x),
        diameter_mm=(6 * volume_mm3 / np.pi) ** (1 / 3),
        axes_mm=axes_of(mask, spacing_zyx_mm),
        contrast_hu=float((after - before)[mask].mean()),
        mean_hu=float((shares * LUNG.centres_hu).sum()),
        texture=texture,
        seen_as=nearest,
        seed=seed,
        box=box,
        mask=mask,
    )


def axes_of(mask: BoolArray, spacing_zyx_mm: Vector) -> tuple[float, float, float]:
    """Axes of the ellipsoid with the mask's second moments, mm, longest first; a voxel has its own extent."""
    places: NDArray[np.float64] = np.argwhere(mask) * np.array(spacing_zyx_mm)
    moments = np.cov(places.T, bias=True) if len(places) > 1 else np.zeros((3, 3))
    moments = moments + np.diag(np.array(spacing_zyx_mm) ** 2 / 12)
    longest, middle, shortest = (float(2 * np.sqrt(5 * value)) for value in np.linalg.eigvalsh(moments)[::-1])
    return longest, middle, shortest
