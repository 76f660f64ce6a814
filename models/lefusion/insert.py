"""Lesions into a CT: where, of what shape and texture, and the truth of each.

source: dossier 9
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, cast

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from models.contract import BoolArray, FloatArray
from models.deeplesion.grouping import Axes, Box3, Region
from models.deeplesion.grouping import axes_of as recist_axes
from models.lefusion.composite import Vector, crop_at, difference, mask_at, on_volume, settled, soft_edge
from models.lefusion.config import CROP_ZYX
from models.lefusion.data import draw_shape
from models.lefusion.histogram import PRESETS, Texture, histogram, wasserstein_hu
from models.lefusion.places import InLungs, Kind, Places, Spot
from models.simulation.cases import NOISE_SMOOTHING_MM
from models.simulation.lesions import MOST_NOISE_HU

OnProgress = Callable[[int, int], None]

TRIES = 12
"""Places per lesion before a volume is said to have no room for more."""
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
LEAST_CHANGE_HU, LEAST_SHARE = 5.0, 0.5
"""Less of a lesion than this share would be seen where the rest is the wall that was there."""
HALF = 0.5
"""Of a voxel: what is filled so far is lesion."""


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
    kind        of a lung its texture
    shift_hu    mean change of what is there; None where the kind says what grey it has, whatever is there
    """

    healthy: FloatArray
    organ: BoolArray
    centre: tuple[int, int, int]
    diameter_mm: float
    kind: Kind
    shift_hu: float | None = None


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
    recist          longest diameter in a slice and across it, of the outline at half of a voxel filled
    contrast_hu     mean change in its mask             mean_hu     of the result in its mask
    kind            what was asked for                  seen_as     in a lung the published class whose histogram is
                                                                    nearest, else the kind
    box, mask       voxels that it fills by half or more; mask is bool of the box's shape
    """

    centre: tuple[float, float, float]
    diameter_mm: float
    axes_mm: tuple[float, float, float]
    recist: Axes
    contrast_hu: float
    mean_hu: float
    kind: Kind
    seen_as: Kind
    seed: int
    box: Box3
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
        if site.shift_hu is not None:
            level = np.float32(np.median(smooth[mask]) + site.shift_hu)
            return Drawn((level + grain,), (mask,))
        level = np.float32(rng.uniform(*LEVELS_HU[cast(Texture, site.kind)]))
        # Nothing in a lung makes a vessel or the wall darker: they are seen through ground glass.
        return Drawn((np.maximum(level + grain, site.healthy),), (mask,))


def insert_lesions(
    voxels: FloatArray,
    spacing_zyx_mm: Vector,
    artist: Artist,
    *,
    count: int,
    seed: int,
    places: Places | None = None,
    on_progress: OnProgress | None = None,
) -> tuple[FloatArray, tuple[Inserted, ...]]:
    """A copy of a CT with lesions, and their truth; fewer where there is no room.

    Voxels beyond the collar of a lesion keep their bits. No two lesions change one voxel, and none reaches the first or
    last slice: what goes on beyond the scan would have no true size.

    voxels   float32 (Z, Y, X), HU, padding set to air
    places   where they may be; None: in its lungs
    raises   ModelError     no lungs found
    """
    where = InLungs.find(voxels, spacing_zyx_mm) if places is None else places
    image = voxels.astype(np.float32, copy=True)
    taken = np.zeros(image.shape, bool)
    spots: list[Spot] = []
    done: list[Inserted] = []
    for number in range(TRIES * count):
        if len(done) == count:
            break
        of_lesion = int(np.random.SeedSequence((seed, number)).generate_state(1)[0])
        spot = where.spot(spots, np.random.default_rng(of_lesion))
        if spot is None:
            continue
        spot = dataclasses.replace(spot, diameter_mm=min(spot.diameter_mm, MOST_DIAMETER_MM))
        found = _inserted(image, taken, spacing_zyx_mm, where, spot, artist, of_lesion)
        if found is not None:
            spots.append(spot)
            done.append(found)
            if on_progress is not None:
                on_progress(len(done), count)
    return image, tuple(done)


def _inserted(
    image: FloatArray,
    taken: BoolArray,
    spacing_zyx_mm: Vector,
    where: Places,
    spot: Spot,
    artist: Artist,
    seed: int,
) -> Inserted | None:
    """One lesion, put into the image; None, and the image untouched, where it would not be seen, or not whole."""
    rng = np.random.default_rng((seed, 1))
    shift = np.array([int(rng.integers(-most, most + 1)) for most in MOST_SHIFT])
    first = (np.array(image.shape) - 1) / 2 * np.array(spacing_zyx_mm)
    z, y, x = (float(value) for value in np.asarray(spot.centre) + first + shift)
    middle = np.array(CROP_ZYX) // 2 - shift
    kind, shift_hu = where.kind(rng)
    site = Site(
        crop_at(image, spacing_zyx_mm, (z, y, x), CROP_ZYX),
        mask_at(where.host, spacing_zyx_mm, (z, y, x), CROP_ZYX),
        (int(middle[0]), int(middle[1]), int(middle[2])),
        spot.diameter_mm,
        kind,
        shift_hu,
    )
    drawn = artist.draw(site, seed)
    if drawn is None:
        return None
    edge_mm = where.blur_mm if drawn.edge_mm is None else drawn.edge_mm
    change = difference(drawn.hu, drawn.masks, site.healthy, sigma_voxels=edge_mm)
    on_grid = [
        on_volume(one, image.shape, spacing_zyx_mm, (z, y, x))
        for one in (change, drawn.whole.astype(np.float32), soft_edge(drawn.whole, edge_mm), site.healthy)
    ]
    box, (added, filled, soft, interpolated) = on_grid[0][0], [values for _, values in on_grid]
    mask = _largest_piece(filled >= HALF)
    reaches = added != 0
    if np.count_nonzero(mask) < LEAST_VOXELS or _is_cut(box, mask, len(image)) or (taken[box] & reaches).any():
        return None
    if np.mean(np.abs(added[mask]) > LEAST_CHANGE_HU) < LEAST_SHARE:
        return None
    before = image[box].copy()
    image[box] = settled(before, added, soft, interpolated, most_hu=MOST_NOISE_HU)
    taken[box] |= reaches
    recist = recist_axes(Region(box, mask, filled, HALF), spacing_zyx_mm)
    return _truth(image[box], before, mask, box, spacing_zyx_mm, recist=recist, kind=kind, seed=seed)


def _largest_piece(mask: BoolArray) -> BoolArray:
    """Of what an organ's border or thick slices cut in pieces; empty where the mask is."""
    pieces, count = ndimage.label(mask, np.ones((3, 3, 3)))
    if count < 2:
        return mask
    return np.asarray(pieces == 1 + int(np.bincount(pieces.ravel())[1:].argmax()))


def _is_cut(box: Box3, mask: BoolArray, slices: int) -> bool:
    """Whether it reaches the first or last slice."""
    planes = box[0].start + np.flatnonzero(mask.any((1, 2)))
    return bool(planes[0] == 0 or planes[-1] == slices - 1)


def _truth(
    after: FloatArray,
    before: FloatArray,
    mask: BoolArray,
    box: Box3,
    spacing_zyx_mm: Vector,
    *,
    recist: Axes,
    kind: Kind,
    seed: int,
) -> Inserted:
    places = np.argwhere(mask)
    z, y, x = (float(part.start + middle) for part, middle in zip(box, places.mean(0), strict=True))
    volume_mm3 = len(places) * float(np.prod(spacing_zyx_mm))
    return Inserted(
        centre=(z, y, x),
        diameter_mm=(6 * volume_mm3 / np.pi) ** (1 / 3),
        axes_mm=axes_of(mask, spacing_zyx_mm),
        recist=recist,
        contrast_hu=float((after - before)[mask].mean()),
        mean_hu=float(after[mask].mean()),
        kind=kind,
        seen_as=_seen_as(after, mask) if kind in PRESETS else kind,
        seed=seed,
        box=box,
        mask=mask,
    )


def _seen_as(after: FloatArray, mask: BoolArray) -> Texture:
    shares = histogram(after, mask)
    return min(PRESETS, key=lambda name: wasserstein_hu(shares, PRESETS[name]))


def axes_of(mask: BoolArray, spacing_zyx_mm: Vector) -> tuple[float, float, float]:
    """Axes of the ellipsoid with the mask's second moments, mm, longest first; a voxel has its own extent."""
    places: NDArray[np.float64] = np.argwhere(mask) * np.array(spacing_zyx_mm)
    moments = np.cov(places.T, bias=True) if len(places) > 1 else np.zeros((3, 3))
    moments = moments + np.diag(np.array(spacing_zyx_mm) ** 2 / 12)
    longest, middle, shortest = (float(2 * np.sqrt(5 * value)) for value in np.linalg.eigvalsh(moments)[::-1])
    return longest, middle, shortest
