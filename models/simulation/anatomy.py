"""The schematic chest: its proportions, and its tissues slice by slice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from models.contract import FloatArray
from models.simulation.shapes import Point, Tube, blend, edge, superellipse

AIR, FAT, MUSCLE, SOFT, LIVER, MARROW, SPONGIOSA, CORTEX = -1000.0, -100.0, 50.0, 40.0, 60.0, -10.0, 180.0, 800.0
VERTEBRA_PITCH_MM, DISC_MM = 25.0, 5.0
RIB_PITCH_MM, RIB_DROP_MM = 26.0, 75.0


@dataclass(frozen=True)
class Anatomy:
    """Proportions of one chest, mm and HU; origin in the middle of the chest, z up, y backwards, x to the left.

    half_width, half_depth      of the skin, at the level of the hilum
    exponent                    of the super-ellipses: 2 is an ellipse, 3 is boxy
    fat, wall                   subcutaneous fat and muscle with ribs
    lung_top, lung_base         levels of the apex and of the domes' summit
    warp                        amplitudes and phases of the smooth deformation
    """

    half_width: float
    half_depth: float
    exponent: float
    fat: float
    wall: float
    mediastinum: float
    lung_top: float
    lung_base: float
    lung_hu: float
    gravity_hu: float
    texture_hu: float
    blood_hu: float
    warp: tuple[tuple[float, float], ...]

    @property
    def cavity(self) -> tuple[float, float]:
        """Half axes of the rib cage's inner side (x, y)."""
        rim = self.fat + self.wall
        return self.half_width - rim, self.half_depth - rim

    @property
    def spine_y(self) -> float:
        """Centre of the vertebral bodies: the spinous process ends 8 mm below the skin."""
        return self.half_depth - 62

    def hilum(self, side: int) -> Point:
        """Where vessels and bronchi enter the lung; side −1 right, 1 left."""
        return np.array([5.0, 8.0, side * (self.mediastinum + 2)])

    def lung_distance(self, z: float, y: FloatArray, x: FloatArray) -> FloatArray:
        """Signed distance (mm, about) from the lungs' surface, negative inside; broadcast over y and x."""
        width, depth = self.cavity
        taper = _taper(z, self.lung_top)
        chest = (superellipse(x / (width * taper), (y - 4) / (depth * taper), self.exponent) - 1) * depth * taper
        # The heart pushes the middle to the left below the hilum.
        heart = 24 * np.exp(-(((z + 35) / 40) ** 2)) * np.exp(-(((y + 15) / 45) ** 2))
        # Before and behind the hilum the lungs come close to the midline, then make room for the spine.
        waist = 9 + (self.mediastinum - 9) * np.exp(-(((y - 4) / 42) ** 2))
        middle = waist + heart * np.where(x > 0, 1.0, 0.35) - np.abs(x)
        spine = np.maximum(20 - np.hypot(x, y - self.spine_y), np.minimum(22 - np.abs(x), y - self.spine_y))
        outside: FloatArray = np.maximum(np.maximum(chest, middle), np.maximum(spine, self.dome_distance(z, y, x)))
        return outside.astype(np.float32)

    def dome_distance(self, z: float, y: FloatArray, x: FloatArray) -> FloatArray:
        """Positive below the diaphragm, mm."""
        width, depth = self.cavity
        centre = np.where(x < 0, -0.5, 0.5) * width
        bulge = 1 - ((x - centre) / (0.75 * width)) ** 2 - ((y - 4) / (1.15 * depth)) ** 2
        summit = self.lung_base - np.where(x < 0, 0.0, 12.0)
        level: FloatArray = (summit + 45 * (np.sqrt(np.maximum(bulge, 0.0)) - 1) - z).astype(np.float32)
        return level

    def in_lung(self, point: Point, side: int) -> bool:
        """Whether a point (z, y, x) lies in that lung, two millimetres from its surface at least."""
        z, y, x = (float(value) for value in point)
        if x * side <= 0:
            return False
        return bool(self.lung_distance(z, np.float32(y), np.float32(x)) < -2)  # type: ignore[arg-type]


MAP_STEP_MM = 3.0


class LungMap:
    """`Anatomy.in_lung` looked up on a grid of 3 mm, for the many questions of growing vessels.

    levels_mm   (lowest, highest) z; outside them no point is in a lung
    """

    def __init__(self, anatomy: Anatomy, levels_mm: tuple[float, float]) -> None:
        low = np.array([levels_mm[0], -anatomy.half_depth, -anatomy.half_width])
        high = np.array([levels_mm[1], anatomy.half_depth, anatomy.half_width])
        self._low = low
        z, y, x = (np.arange(a, b, MAP_STEP_MM, dtype=np.float32) for a, b in zip(low, high, strict=True))
        self._inside = np.stack([anatomy.lung_distance(float(level), y[:, None], x[None]) < -2 for level in z])

    def __call__(self, point: Point, side: int) -> bool:
        """Whether the point (z, y, x) lies in the lung on that side."""
        if point[2] * side <= 0:
            return False
        index = tuple(int(i) for i in np.rint((point - self._low) / MAP_STEP_MM))
        if min(index) < 0 or any(i >= n for i, n in zip(index, self._inside.shape, strict=True)):
            return False
        return bool(self._inside[index])


def draw_anatomy(rng: np.random.Generator) -> Anatomy:
    """A random chest."""
    scale = rng.uniform(0.88, 1.05)  # the widest fits a field of 384 mm
    return Anatomy(
        half_width=175 * scale * rng.uniform(0.96, 1.03),
        half_depth=118 * scale * rng.uniform(0.92, 1.08),
        exponent=rng.uniform(2.1, 2.7),
        fat=rng.uniform(8, 24),
        wall=rng.uniform(17, 24),
        mediastinum=rng.uniform(24, 32),
        lung_top=rng.uniform(125, 145),
        lung_base=rng.uniform(-85, -70),
        lung_hu=rng.uniform(-890, -830),
        gravity_hu=rng.uniform(20, 60),
        texture_hu=rng.uniform(10, 18),
        blood_hu=float(rng.choice((45.0, 180.0), p=(0.6, 0.4))),
        warp=tuple((rng.uniform(2, 6), rng.uniform(0, 2 * np.pi)) for _ in range(4)),
    )


def slice_of(anatomy: Anatomy, z: float, y: FloatArray, x: FloatArray, texture: FloatArray) -> FloatArray:
    """One transverse slice without vessels and ribs, float32 (Y, X), HU; y (Y, 1), x (1, X), texture (Y, X)."""
    voxel = float(x[0, 1] - x[0, 0])
    y, x = _warp(anatomy, z, y, x)
    image = np.full(texture.shape, AIR, np.float32)
    _body(image, anatomy, z, (y, x), voxel)
    image += np.where(image > 0, _marbling(texture), 0)
    _cavity(image, anatomy, z, (y, x), voxel)
    lungs = edge(anatomy.lung_distance(z, y, x), voxel)
    depth = anatomy.cavity[1]
    blend(image, lungs, anatomy.lung_hu + anatomy.gravity_hu * (y / depth) + anatomy.texture_hu * texture)
    fissure = edge(_fissure(anatomy, z, y, x) - np.float32(0.5), voxel)
    blend(image, np.asarray(lungs * fissure), anatomy.lung_hu + 260)
    image += np.where((lungs < 0.5) & (image > -200), 0.35 * texture * anatomy.texture_hu, 0).astype(np.float32)
    _spine_and_sternum(image, anatomy, z, (y, x), voxel)
    return image


def _body(image: FloatArray, anatomy: Anatomy, z: float, yx: tuple[FloatArray, FloatArray], voxel: float) -> None:
    """Skin, fat, muscle; fat between the muscles outside the ribs; the shoulder blades."""
    y, x = yx
    for inset, hu in ((0.0, MUSCLE), (2.0, FAT), (anatomy.fat, MUSCLE)):
        blend(image, edge(_inset(anatomy, inset, y, x), voxel), hu)
    turn = np.arctan2(y, x)
    (_, p), (_, q), (_, r), _ = anatomy.warp
    between = _inset(anatomy, anatomy.fat + anatomy.wall - 14.5, y, x)
    thick = 1.3 + 1.2 * np.sin(3 * turn + p + z / 60) + 0.8 * np.sin(7 * turn + q - z / 45)
    layer = np.asarray(np.abs(between) - np.maximum(thick, 0), np.float32)
    blend(image, edge(layer, voxel), FAT + 20)
    if z > 0:
        outer = _inset(anatomy, anatomy.fat + 0.5 * (anatomy.wall - 13), y, x)
        reach = 0.16 + 0.2 * np.clip(z / 60, 0, 1)
        for middle in (0.78, np.pi - 0.78):  # behind, on both sides
            along = (np.abs(turn - middle - 0.1 * np.sin(r)) - reach) * anatomy.half_depth
            blade = np.maximum(np.abs(outer + 6 * (turn - middle)) - 2.6, along)
            blend(image, edge(blade, voxel), 520.0)
            blend(image, edge(blade + 1.3, voxel), SPONGIOSA)


def _fissure(anatomy: Anatomy, z: float, y: FloatArray, x: FloatArray) -> FloatArray:
    """Distance from the oblique fissures, never negative: high behind, low in front, bowed."""
    slope = np.where(x < 0, 1.15, 1.05)
    bow = 7 * np.sin(x / 38) + 4 * np.sin(y / 30 + anatomy.warp[0][1])
    return np.asarray(np.abs(z - 12 - slope * y - bow) / 1.5, np.float32)


def _inset(anatomy: Anatomy, inset: float, y: FloatArray, x: FloatArray) -> FloatArray:
    """Signed distance from the skin moved inwards."""
    width, depth = anatomy.half_width - inset, anatomy.half_depth - inset
    return np.asarray((superellipse(x / width, y / depth, anatomy.exponent) - 1) * depth, np.float32)


def _marbling(texture: FloatArray) -> FloatArray:
    """Fat in muscle, HU to add: streaks where the texture is high."""
    return np.asarray(-70 * np.clip(texture - 1.1, 0, 1.2), np.float32)


def _cavity(image: FloatArray, anatomy: Anatomy, z: float, yx: tuple[FloatArray, FloatArray], voxel: float) -> None:
    """Mediastinal fat, heart, and what lies below the diaphragm."""
    y, x = yx
    width, depth = anatomy.cavity
    inner = edge((superellipse(x / width, (y - 4) / depth, anatomy.exponent) - 1) * depth, voxel)
    blend(image, inner, -60.0)
    below = inner * edge(-anatomy.dome_distance(z, y, x), voxel)
    blend(image, below, np.where(x < 0.2 * width, LIVER, SOFT).astype(np.float32))
    for half_axes, hu in (((46.0, 44.0, 52.0), SOFT), ((34.0, 31.0, 38.0), anatomy.blood_hu)):
        reach = 1 - ((z + 35) / half_axes[0]) ** 2
        if reach > 0:
            r = np.hypot((y + 18) / half_axes[1], (x - 16) / half_axes[2]) / np.sqrt(reach)
            blend(image, inner * edge((r - 1) * half_axes[1] * np.sqrt(reach), voxel) * (1 - below), hu)


def _spine_and_sternum(
    image: FloatArray, anatomy: Anatomy, z: float, yx: tuple[FloatArray, FloatArray], voxel: float
) -> None:
    y, x = yx
    spine = anatomy.spine_y
    disc = (z % VERTEBRA_PITCH_MM) < DISC_MM
    body = np.hypot(x / 1.15, y - spine)
    blend(image, edge(body - 16, voxel), 80.0 if disc else CORTEX)
    if not disc:
        blend(image, edge(body - 14.3, voxel), SPONGIOSA)
    arch = np.hypot(x, y - spine - 24)
    blend(image, edge(arch - 13, voxel), 500.0)
    blend(image, edge(np.maximum(np.abs(x) - 3.5, np.abs(y - spine - 42) - 12), voxel), 450.0)
    blend(image, edge(np.maximum(np.abs(y - spine - 22) - 4, np.abs(x) - 32), voxel), 420.0)
    blend(image, edge(arch - 8.5, voxel), 25.0)
    front = y + anatomy.cavity[1] + 4
    for inset, hu in ((0.0, CORTEX * 0.7), (1.6, MARROW + 110)):
        blend(image, edge(np.maximum(np.abs(x) - 17 + inset, np.abs(front) - 6 + inset), voxel), hu)


def thoracic_tubes(anatomy: Anatomy) -> list[tuple[list[Tube], float]]:
    """Great vessels and airways with their HU, in the order of painting."""
    top, blood = 70.0, anatomy.blood_hu
    spine = anatomy.spine_y
    aorta = [(-30, -12, -6), (15, -22, -14), (42, -14, -8), (52, 6, 8), (44, 26, 20), (20, spine - 24, 22)]
    aorta += [(-180, spine - 22, 18)]
    pulmonary = [(-15, -30, 14), (12, -18, 18), (14, 2, 14)]
    vena_cava = [(-20, -8, -26), (80, -12, -26)]
    airway = [(150, 14, 0), (18, 16, 0)]
    bronchi = [[(18, 16, 0), (2, 12, side * (anatomy.mediastinum + 6))] for side in (-1, 1)]
    vessels = _path(aorta, 13.0) + _path(pulmonary, 12.0) + _path(vena_cava, 9.0)
    vessels += [tube for side in (-1, 1) for tube in _path([(14, 2, 14), tuple(anatomy.hilum(side))], 8.5)]
    oesophagus = _path([(top * 2, 30, 4), (-150, 36, 8)], 6.0)
    wall = _path(airway, 9.5) + [t for b in bronchi for t in _path(b, 7.2)]
    lumen = _path(airway, 8.0) + [t for b in bronchi for t in _path(b, 6.0)]
    return [(vessels, blood), (oesophagus, SOFT), (wall, 30.0), (lumen, AIR)]


def small_things(anatomy: Anatomy, rng: np.random.Generator) -> list[tuple[list[Tube], float]]:
    """What is in many chests and is no lesion: normal lymph nodes, plaque of aorta and coronaries, granulomas."""
    nodes: list[Tube] = []
    plaque: list[Tube] = []
    for _ in range(int(rng.integers(6, 14))):
        at = np.array([rng.uniform(-20, 90), rng.uniform(-45, 20), rng.normal(0, 12)])
        nodes.append(Tube(at, at + rng.normal(0, 2.5, 3), rng.uniform(1.2, 2.3)))
    for _ in range(int(rng.poisson(2.5))):
        turn, level = rng.uniform(0, 2 * np.pi), rng.uniform(-120, 20)
        at = np.array([level, anatomy.spine_y - 22 + 12.4 * np.sin(turn), 18 + 12.4 * np.cos(turn)])
        plaque.append(Tube(at, at + np.array([rng.uniform(0, 4), *rng.normal(0, 1.2, 2)]), rng.uniform(0.7, 1.5)))
    for _ in range(int(rng.poisson(1.5))):
        turn = rng.uniform(np.pi, 2 * np.pi)
        at = np.array([rng.uniform(-50, 5), -18 + 36 * np.sin(turn), 16 + 40 * np.cos(turn)])
        plaque.append(Tube(at, at + rng.normal(0, 2.5, 3), rng.uniform(0.5, 1.1)))
    for _ in range(int(rng.poisson(0.7))):
        side = int(rng.choice((-1, 1)))
        at = np.array([rng.uniform(-60, 90), rng.uniform(-60, 60), side * rng.uniform(55, 110)])
        if anatomy.in_lung(at, side):
            plaque.append(Tube(at, at, rng.uniform(0.6, 1.2)))
    return [(nodes, MUSCLE - 5), (plaque, 650.0)]


def ribs(anatomy: Anatomy) -> list[tuple[list[Tube], float]]:
    """Ten pairs of ribs: cortex and marrow."""
    width, depth = anatomy.cavity
    curve: list[list[tuple[float, float, float]]] = []
    turns = np.linspace(0.12, 0.86, 15) * np.pi  # from the spine to the front
    for number in range(-6, 7):
        level = number * RIB_PITCH_MM + 45
        taper = _taper(level - RIB_DROP_MM / 2, anatomy.lung_top)
        for side in (-1, 1):
            curve.append(
                [
                    (
                        level - RIB_DROP_MM * (turn / np.pi) ** 1.2,
                        4 + (depth * taper + 7) * np.cos(turn),
                        side * (width * taper + 7) * np.sin(turn),
                    )
                    for turn in turns
                ]
            )
    return [([t for points in curve for t in _path(points, r)], hu) for r, hu in ((5.5, CORTEX), (4.0, SPONGIOSA))]


def _path(points: Sequence[Sequence[float]], radius_mm: float) -> list[Tube]:
    nodes = [np.array(point, dtype=float) for point in points]
    return [Tube(a, b, radius_mm) for a, b in pairwise(nodes)]


def _taper(z: float, top: float) -> float:
    """The rib cage narrows towards the apex."""
    return float(np.sqrt(max(1 - max(z + 20, 0.0) ** 2 / (top + 20) ** 2, 0.0025)))


def _warp(anatomy: Anatomy, z: float, y: FloatArray, x: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Smooth deformation of a few millimetres, so that nothing is an exact ellipse."""
    (a, p), (b, q), (c, r), (d, s) = anatomy.warp
    moved_y = y + a * np.sin(x / 55 + p + z / 90) + b * np.sin(x / 110 + q)
    moved_x = x + c * np.sin(y / 50 + r - z / 80) + d * np.sin(y / 95 + s)
    return moved_y.astype(np.float32), moved_x.astype(np.float32)
