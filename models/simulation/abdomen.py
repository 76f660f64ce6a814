"""The procedural abdomen from the lower poles of the kidneys to the dome of the liver.

Organs are smooth unions and cuts of ellipsoids, bent by a warp; vessels, bowel and ribs are tubes. What it holds beside
the organs (forks of vessels, bowel content, plaque, small lymph nodes) is what a detector must not take for a lesion.
source: proportions after the FORBILD abdomen and the MIRD adult; HU: simulation dossier 4.2 and 4.4
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from models.contract import FloatArray
from models.simulation.canvas import Canvas, Distance, Tissue, blank
from models.simulation.shapes import Grid, Point, Tube, superellipse
from models.simulation.vessels import TreeConfig, grow_tree

FAT, MUSCLE, GAS = -105.0, 55.0, -980.0
LEVELS_MM = (-35.0, 60.0)
"""Where the middle of the volume may lie; 0 is the hilum of the kidneys, up is positive."""
VERTEBRA_PITCH_MM = 33.0

Place = Sequence[float] | NDArray[np.float64]
Nodes = Sequence[Place] | NDArray[np.float64]


@dataclass(frozen=True)
class Phase:
    """HU by contrast phase."""

    name: str
    liver: float
    spleen: float
    cortex: float
    medulla: float
    pancreas: float
    wall: float
    aorta: float
    cava: float
    portal: float
    hepatic: float
    muscle: float


@dataclass(frozen=True, eq=False)
class Abdomen:
    """A painted abdomen, not yet blurred."""

    canvas: Canvas
    phase: Phase


def draw_phase(rng: np.random.Generator) -> Phase:
    """Plain (liver 55 to 65 HU) or portal venous (90 to 120 HU)."""
    if rng.uniform() < 0.3:
        liver, blood = rng.uniform(55, 65), rng.uniform(36, 46)
        return Phase("plain", liver, rng.uniform(46, 54), 34, 30, 38, 38, blood, blood, blood, blood, 52)
    liver, blood = rng.uniform(90, 120), rng.uniform(135, 175)
    portal = max(blood, liver + 30) + rng.uniform(0, 15)
    return Phase(
        "portal", liver, liver + rng.uniform(5, 20), rng.uniform(165, 200), rng.uniform(130, 165), rng.uniform(85, 105),
        rng.uniform(70, 95), blood, blood - 10, portal, max(portal - rng.uniform(0, 20), liver + 28), 62,
    )  # fmt: skip


def draw_abdomen(grid: Grid, rng: np.random.Generator) -> Abdomen:
    """A random patient, level and phase."""
    phase = draw_phase(rng)
    canvas = blank(grid, rng, offset_mm=float(rng.uniform(*LEVELS_MM)), warp_mm=3.0)
    body = _Body(canvas, phase, rng)
    body.trunk()
    body.marbling()
    body.fat_stranding()
    body.bowel()
    body.pancreas()
    body.stomach()
    body.spleen()
    body.kidneys()
    body.liver()
    body.spine()
    body.great_vessels()
    body.liver_vessels()
    body.small_nodes()
    body.ribs()
    return Abdomen(canvas, phase)


class _Body:
    """One patient being painted: proportions are drawn once, organs follow each other."""

    def __init__(self, canvas: Canvas, phase: Phase, rng: np.random.Generator) -> None:
        self.canvas, self.phase, self.rng = canvas, phase, rng
        self.scale = rng.uniform(0.88, 1.08)
        self.fat = rng.uniform(8, 30)
        self.wall = rng.uniform(9, 14)
        self.width = min(128 * self.scale * rng.uniform(0.97, 1.05) + self.wall + self.fat, 184)
        self.depth = 84 * self.scale * rng.uniform(0.95, 1.08) + self.wall + 0.8 * self.fat
        self.exponent = rng.uniform(2.2, 2.6)
        self.spine_y = self.depth - 0.8 * self.fat - 44

    # --- shapes -------------------------------------------------------------------------------------------------

    def _ring(self, inset: float) -> Distance:
        """The body's outline moved inwards."""
        width, depth = self.width - inset, self.depth - 0.9 * inset

        def distance(_z: FloatArray, y: FloatArray, x: FloatArray) -> FloatArray:
            hollow = 7 * np.exp(-((x / 26) ** 2)) * (y > 0)  # the back's furrow
            return np.asarray(
                (superellipse(x / width, (y + hollow * (inset < self.fat)) / depth, self.exponent) - 1) * depth
            )

        return distance

    def _cavity(self, gap: float = 0.0) -> Distance:
        return self._ring(self.fat + self.wall + gap)

    def _span(self) -> tuple[Sequence[float], Sequence[float]]:
        return (-999, -self.depth, -self.width), (999, self.depth, self.width)

    def ellipsoid(
        self, centre: Place, axes: Place, *, turn_deg: float = 0.0, tilt: float = 0.0
    ) -> tuple[Distance, tuple[Sequence[float], Sequence[float]]]:
        """(z, y, x) centre and half axes, scaled to the patient; turned in the plane; tilt: x moves with z."""
        c, a = np.array(centre) * self.scale, np.array(axes) * self.scale
        cos, sin = np.cos(np.radians(turn_deg)), np.sin(np.radians(turn_deg))
        reach = float(a[1:].max() + abs(tilt) * a[0])
        least = float(a.min())

        def distance(z: FloatArray, y: FloatArray, x: FloatArray) -> FloatArray:
            dz, dy, dx = z - c[0], y - c[1], x - c[2] - tilt * (z - c[0])
            r = np.sqrt((dz / a[0]) ** 2 + ((cos * dy - sin * dx) / a[1]) ** 2 + ((sin * dy + cos * dx) / a[2]) ** 2)
            return np.asarray(((r - 1) * least * (1 + 0.3 * np.minimum(r, 2))).astype(np.float32))

        return distance, ((c[0] - a[0], c[1] - reach, c[2] - reach), (c[0] + a[0], c[1] + reach, c[2] + reach))

    # --- trunk --------------------------------------------------------------------------------------------------

    def trunk(self) -> None:
        """Skin, subcutaneous fat, the wall's muscles in layers, visceral fat, muscles of the back."""
        canvas, span = self.canvas, self._span()
        canvas.paint(self._ring(0), span, 40, Tissue.SUBCUTANEOUS)
        canvas.paint(self._ring(2), span, FAT, Tissue.SUBCUTANEOUS, texture_hu=5)
        canvas.paint(self._ring(self.fat), span, self.phase.muscle, Tissue.MUSCLE, texture_hu=5)
        for inset in (0.36, 0.68):  # fat planes between the three flat muscles
            outer, inner = self._ring(self.fat + inset * self.wall), self._ring(self.fat + inset * self.wall + 1.1)
            canvas.paint(_without(outer, inner), span, -30, Tissue.MUSCLE)
        canvas.paint(self._cavity(), span, FAT, Tissue.FAT, texture_hu=7)
        line = self._ring(self.fat)
        middle = _without(_both(line, lambda _z, _y, x: np.abs(x) - 5), self._cavity())
        canvas.paint(_both(middle, lambda _z, y, _x: y), span, FAT + 40, Tissue.SUBCUTANEOUS)
        for side in (-1, 1):
            back = (0, (self.spine_y + 26) / self.scale, side * 36 / self.scale)
            bulk, box = self.ellipsoid(back, (900, 21, 31), turn_deg=side * 8)
            canvas.paint(_both(bulk, self._ring(self.fat + 1)), box, self.phase.muscle, Tissue.MUSCLE, texture_hu=8)
            square, box = self.ellipsoid(
                (-10, (self.spine_y + 8) / self.scale, side * 62), (70, 10, 24), turn_deg=side * 30
            )
            canvas.paint(_both(square, self._ring(self.fat + 1)), box, self.phase.muscle, Tissue.MUSCLE, texture_hu=6)
            psoas, box = self.ellipsoid(
                (-75, (self.spine_y - 4) / self.scale, side * 38), (95, 19, 16), tilt=side * -0.18
            )
            canvas.paint(psoas, box, self.phase.muscle, Tissue.MUSCLE, texture_hu=5)

    def marbling(self) -> None:
        """Fat in the muscles."""
        canvas = self.canvas
        streaks = 110 * np.clip(canvas.texture - 1.0, 0, 0.9)
        canvas.voxels -= np.where(canvas.labels == Tissue.MUSCLE, streaks, 0).astype(np.float32)

    def fat_stranding(self) -> None:
        """Mesenteric and omental vessels: small, branched, in fat."""
        tubes: list[Tube] = []
        rng = self.rng
        for _ in range(14):
            root = np.array([self.canvas.offset_mm + rng.normal(0, 25), rng.uniform(-20, 5), rng.normal(5, 15)])
            heading = np.array([rng.normal(0, 0.5), -1.0, rng.normal(0, 1.2)])
            config = TreeConfig(root_radius_mm=rng.uniform(1.2, 2.2), least_radius_mm=0.6, most_branches=60)
            tubes += grow_tree(root, heading, lambda p: self.canvas.label_at(p) == Tissue.FAT, config, rng)
        self.canvas.paint_tubes(tubes, 0.8 * self.phase.cava, Tissue.VESSEL, only=Tissue.FAT)
        under_skin: list[Tube] = []
        for _ in range(10):
            angle = rng.uniform(0, 2 * np.pi)
            root = np.array([
                self.canvas.offset_mm + rng.normal(0, 25),
                (self.depth - 0.5 * self.fat) * np.sin(angle), (self.width - 0.5 * self.fat) * np.cos(angle),
            ])  # fmt: skip
            config = TreeConfig(root_radius_mm=1.2, least_radius_mm=0.6, most_branches=25)
            inside = lambda p: self.canvas.label_at(p) == Tissue.SUBCUTANEOUS  # noqa: E731
            under_skin += grow_tree(root, rng.standard_normal(3), inside, config, rng)
        self.canvas.paint_tubes(under_skin, 20, Tissue.VESSEL, only=Tissue.SUBCUTANEOUS)

    # --- hollow organs ------------------------------------------------------------------------------------------

    def bowel(self) -> None:
        """Small loops in front, the colon at the sides and across."""
        rng, s = self.rng, self.scale
        top = -8 if rng.uniform() < 0.5 else 15
        for _ in range(int(rng.integers(7, 12))):
            start = np.array([rng.uniform(-90, top), rng.uniform(-62, -5), rng.uniform(-45, 75)]) * s
            self._gut(_wander(start, 10, 15.0, rng), rng.uniform(8, 13) * s, "fluid" if rng.uniform() < 0.75 else "gas")
        side = self.width - self.fat - self.wall - 26 * s
        right = [(-110, 8, -side), (-60, 5, -side + 3), (-22, -6, -side + 6)]
        left = [(-110, 15, side), (-50, 18, side + 2), (10, 20, side), (45, 10, side - 8)]
        front = -(self.depth - 0.8 * self.fat - self.wall - 24 * s)
        level = rng.uniform(-45, -5)
        across = [
            (-22, -20, -side + 14),
            (level, front, -45),
            (level - 8, front - 2, 0),
            (level, front + 2, 45),
            (20, -30, side - 26),
        ]
        for nodes in (right, left, across):
            content = str(rng.choice(("feces", "gas", "feces", "fluid")))
            self._gut(_smooth(nodes, 9.0), rng.uniform(14, 21) * s, content)

    def _gut(self, path: NDArray[np.float64], radius: float, content: str) -> None:
        """A piece of bowel: wall, then content, with bulges along it."""
        rng, canvas = self.rng, self.canvas
        bulge = (
            1 + 0.16 * np.sin(np.arange(len(path)) * 1.7 + rng.uniform(0, 6)) + 0.06 * rng.standard_normal(len(path))
        )
        tubes = [Tube(a, b, radius * float(k)) for (a, b), k in zip(pairwise(path), bulge, strict=False)]
        outer = canvas.tubes(tubes)
        thick = rng.uniform(1.8, 3.2)
        inner = canvas.tubes([Tube(t.start, t.end, max(t.radius_mm - thick, 1.0)) for t in tubes])
        if outer is None or inner is None:
            return
        cavity = np.isin(canvas.labels[outer[0]], (Tissue.FAT, Tissue.BOWEL, Tissue.VESSEL, Tissue.OTHER))
        canvas.fill(outer[0], outer[1] * cavity, self.phase.wall + 4 * canvas.texture[outer[0]], Tissue.BOWEL)
        box, cover = inner
        cover = cover * (canvas.labels[box] == Tissue.BOWEL)
        noise = canvas.texture[box]
        hu = rng.uniform(8, 30) + 5 * noise
        if content == "feces":
            hu = np.where(noise + 0.3 * np.roll(noise, 3, -1) > 1.1, -650, 20 + 55 * noise).astype(np.float32)
        if content != "fluid":
            surface = float(path[:, 1].mean()) + radius * (rng.uniform(-0.6, 0.9) if content == "gas" else -0.75)
            hu = np.where(canvas.grid.axes()[1][box[1]][None, :, None] < surface, GAS, hu)
        canvas.fill(box, cover, hu, Tissue.BOWEL)

    def stomach(self) -> None:
        """Left, under the dome: wall with folds, fluid below, gas above, some food."""
        rng = self.rng
        body, span = self.ellipsoid((58, -28, 58), (52, 44, 40), turn_deg=-20, tilt=0.25)
        antrum, more = self.ellipsoid((18, -44, 14), (20, 19, 42), turn_deg=-12)
        outer = _both(_blended(body, antrum, 14), self._cavity(3))
        folds = rng.uniform(3.0, 5.5)

        def inner(z: FloatArray, y: FloatArray, x: FloatArray) -> FloatArray:
            ripple = 1.5 * np.sin(np.arctan2(y + 28, x - 58) * 17 + z / 6)
            return np.asarray(outer(z, y, x) + folds + ripple)

        box = (np.minimum(span[0], more[0]).tolist(), np.maximum(span[1], more[1]).tolist())
        self.canvas.paint(outer, box, self.phase.wall, Tissue.BOWEL, texture_hu=4)
        self.canvas.paint(inner, box, rng.uniform(5, 35), Tissue.BOWEL, texture_hu=rng.uniform(3, 28))
        surface = rng.uniform(-60, -35)
        self.canvas.paint(_both(inner, lambda _z, y, _x: y - surface), box, GAS, Tissue.BOWEL)

    # --- solid organs -------------------------------------------------------------------------------------------

    def pancreas(self) -> None:
        """Lobulated, across the spine, tail up to the spleen."""
        nodes = (
            np.array([(-12, 2, -26), (-2, -4, -18), (8, -14, 0), (14, -10, 22), (22, 2, 45), (30, 14, 68)]) * self.scale
        )
        nodes = nodes + self.rng.normal(0, 3, nodes.shape)
        path = _smooth(nodes, 5.0)
        radius = np.interp(np.arange(len(path)), (0, len(path)), (13, 8)) * self.scale
        lobes = [
            Tube(a, b, float(r * self.rng.uniform(0.75, 1.1)))
            for (a, b), r in zip(pairwise(path), radius, strict=False)
        ]
        found = self.canvas.tubes(lobes)
        if found is not None:
            box, cover = found
            self.canvas.fill(box, cover, self.phase.pancreas + 9 * self.canvas.texture[box], Tissue.OTHER)
        self.canvas.paint_tubes([Tube(a, b, 1.2) for a, b in pairwise(path)], 15, Tissue.OTHER)
        loop = _smooth([(10, -14, -34), (-4, -2, -46), (-25, 4, -40), (-36, 2, -10)], 8.0) * self.scale
        self._gut(loop, 11 * self.scale, "fluid")

    def spleen(self) -> None:
        """Behind on the left, hollowed towards the stomach and the kidney."""
        size = self.rng.uniform(0.85, 1.15)
        outer, span = self.ellipsoid((48, 26, 88), (58 * size, 54, 36), turn_deg=-25)
        hollow, _ = self.ellipsoid((46, 4, 60), (66, 40, 26), turn_deg=-25)
        shape = _both(_without(outer, hollow), self._cavity(2))
        self.canvas.paint(shape, span, self.phase.spleen, Tissue.SPLEEN, texture_hu=3)

    def kidneys(self) -> None:
        """Cortex, pyramids, sinus fat, pelvis; in their own fat."""
        for side in (-1, 1):
            level = self.rng.uniform(-12, 4) - (14 if side < 0 else 0)
            centre = np.array([level, (self.spine_y - 22) / self.scale, side * self.rng.uniform(60, 68)])
            turn = side * -35
            capsule, room = self.ellipsoid(centre, (66, 38, 42), turn_deg=turn)
            self.canvas.paint(_both(capsule, self._cavity(2)), room, FAT, Tissue.FAT, texture_hu=6)
            outer, span = self.ellipsoid(centre, (54, 24, 30), turn_deg=turn, tilt=side * -0.15)
            sinus_at = np.subtract(centre, (0, 4, side * 17))
            sinus, _ = self.ellipsoid(sinus_at, (24, 9, 22), turn_deg=turn)
            shape = _without(outer, sinus)
            self.canvas.paint(shape, span, self.phase.cortex, Tissue.KIDNEY, texture_hu=4)
            core = _without(_thinner(outer, 7 * self.scale), sinus)
            pyramids = _both(core, _spokes(centre * self.scale, 9, self.rng))
            self.canvas.paint(pyramids, span, self.phase.medulla, Tissue.KIDNEY, texture_hu=4)
            nodes = [sinus_at + np.array(step) for step in ((12, 0, side * 6), (0, 0, 0), (-10, 2, -side * 10))]
            pelvis = [Tube(a, b, 4.5) for a, b in pairwise(_smooth(nodes, 6) * self.scale)]
            self.canvas.paint_tubes(pelvis, 8, Tissue.OTHER)

    def liver(self) -> None:
        """Right lobe along the wall, left lobe in front, cut from below by the visceral surface; the gall bladder."""
        rng = self.rng
        right, span = self.ellipsoid((38, 2, -70), (92 * rng.uniform(0.9, 1.1), 88, 72))
        left, more = self.ellipsoid((62, -46, 6), (48, 34, 78 * rng.uniform(0.75, 1.1)), turn_deg=8)
        slope, bend = rng.uniform(0.45, 0.7), rng.uniform(0, 2 * np.pi)
        spine = self.spine_y

        def visceral(z: FloatArray, y: FloatArray, x: FloatArray) -> FloatArray:
            bed = np.hypot(y - spine + 4, x - 4) - 47 * self.scale  # spine, great vessels, crura
            hollow = 0.006 * (y + 25) ** 2 + 7 * np.sin(y / 17 + bend) + 5 * np.sin(z / 13 + y / 29)
            under = (z - (-60 + slope * 1.5 * (x + 100 * self.scale) + 0.25 * (y + 30) - hollow)) * 0.6
            fossa = np.sqrt(((z + 5) / 80) ** 2 + ((y - 35) / 55) ** 2 + ((x + 45) / 45) ** 2) * 45 - 45
            return np.asarray(np.minimum(np.minimum(bed, under), np.where(z < 35, fossa, 99)))

        shape = _both(_blended(right, left, 18), self._cavity(2.5))
        whole = lambda z, y, x: np.maximum(shape(z, y, x), -visceral(z, y, x))  # noqa: E731
        box = (np.minimum(span[0], more[0]).tolist(), np.maximum(span[1], more[1]).tolist())
        self.canvas.paint(whole, box, self.phase.liver, Tissue.LIVER, texture_hu=3.5)
        fissure = _both(whole, lambda z, y, x: np.abs(x + 8 + 0.3 * (y + 60)) - 1.6 + 0 * z)
        self.canvas.paint(_both(fissure, lambda _z, y, _x: y + 22), box, FAT + 50, Tissue.OTHER)
        bladder, small = self.ellipsoid((0, -38, -52), (26, 20, 13), turn_deg=25)
        self.canvas.paint(bladder, small, 60, Tissue.OTHER)
        self.canvas.paint(_thinner(bladder, 1.8), small, rng.uniform(2, 18), Tissue.OTHER, texture_hu=1.5)

    def spine(self) -> None:
        """Vertebral bodies with discs, arch, processes."""
        y0, canvas = self.spine_y, self.canvas
        span = ((-999, y0 - 30, -45), (999, y0 + 60, 45))

        def body(z: FloatArray, y: FloatArray, x: FloatArray) -> FloatArray:
            waist = 1.5 * np.cos(2 * np.pi * (z - 3) / VERTEBRA_PITCH_MM)
            dent = 6 * np.exp(-((x / 12) ** 2)) * (y > y0)
            return np.asarray(np.hypot(x / 1.28, y - y0 + dent) - 17.5 - waist)

        def disc(z: FloatArray, y: FloatArray, x: FloatArray) -> FloatArray:
            off = np.abs((z - 3) % VERTEBRA_PITCH_MM - 4) - 4
            return np.asarray(np.maximum(body(z, y, x), off))

        def arch(z: FloatArray, y: FloatArray, x: FloatArray) -> FloatArray:
            lamina = np.abs(np.hypot(x, y - y0 - 24) - 12.5) - 3
            spinous = np.maximum(np.abs(x) - 3.2, np.abs(y - y0 - 44) - 13)
            at = np.abs((z + 14) % VERTEBRA_PITCH_MM - VERTEBRA_PITCH_MM / 2)
            wings = np.maximum(np.abs(y - y0 - 17 - 0.25 * np.abs(x)) - 3.5, np.maximum(np.abs(x) - 36, at - 7))
            return np.asarray(np.minimum(np.minimum(lamina, np.maximum(spinous, at - 12)), wings))

        canvas.paint(body, span, 480, Tissue.BONE)
        canvas.paint(_thinner(body, 1.6), span, self.rng.uniform(140, 230), Tissue.BONE, texture_hu=28)
        canvas.paint(disc, span, 75, Tissue.OTHER, texture_hu=4)
        canvas.paint(arch, span, 620, Tissue.BONE)
        canvas.paint(_thinner(arch, 1.7), span, 260, Tissue.BONE, texture_hu=35)
        canvas.paint(lambda z, y, x: np.hypot(x, y - y0 - 24) - 9.2 + 0 * z, span, 15, Tissue.OTHER)
        canvas.paint(lambda z, y, x: np.hypot(x / 1.2, y - y0 - 24) - 5 + 0 * z, span, 38, Tissue.OTHER)

    def ribs(self) -> None:
        """The lower ribs, in the wall; each slice meets several."""
        for inset, hu in ((0.0, 620.0), (1.4, 210.0)):
            tubes: list[Tube] = []
            for number in range(9):
                level = 190 - 27 * number
                for side in (-1, 1):
                    turns = np.linspace(0.1, 0.62 if number > 4 else 0.8, 16) * np.pi
                    width, depth = self.width - self.fat - 5.5, self.depth - 0.9 * self.fat - 5.5
                    squash = np.power(
                        np.abs(np.cos(turns)) ** self.exponent + np.abs(np.sin(turns)) ** self.exponent,
                        -1 / self.exponent,
                    )
                    path = np.stack([
                        level - 110 * (turns / np.pi) ** 1.1,
                        depth * squash * np.cos(turns), side * width * squash * np.sin(turns),
                    ], 1)  # fmt: skip
                    tubes += [Tube(a, b, 4.6 - inset) for a, b in pairwise(path)]
            self.canvas.paint_tubes(tubes, hu, Tissue.BONE)

    # --- vessels ------------------------------------------------------------------------------------------------

    def great_vessels(self) -> None:
        """Aorta with plaque and branches, vena cava, renal, splenic and mesenteric vessels, portal vein, crura."""
        p, y0, s, rng = self.phase, self.spine_y, self.scale, self.rng
        aorta = np.array([(150, y0 - 30, 10), (40, y0 - 32, 6), (0, y0 - 31, 8), (-130, y0 - 30, 6)])
        aorta[1:3, 1:] += rng.normal(0, 2, (2, 2))
        cava = np.array([(95, y0 - 44, -24), (40, y0 - 36, -24), (-10, y0 - 30, -26), (-130, y0 - 28, -22)])
        crura = [
            Tube(np.array([90.0, y0 - 30, 20 * side]), np.array([-30.0, y0 - 20, 15.0 * side]), 6.0) for side in (-1, 1)
        ]
        self.canvas.paint_tubes(crura, p.muscle, Tissue.MUSCLE)
        radius = rng.uniform(8.5, 12)
        self._vessel(aorta, radius, p.aorta)
        self._vessel(cava, rng.uniform(9, 13), p.cava)
        left, right = np.array([-6, y0 - 24, 50 * s]), np.array([-16, y0 - 24, -48 * s])
        mesenteric = [(8, y0 - 41, 7), (2, y0 - 56, 6), (-30, y0 - 62, 4), (-110, y0 - 62, 0)]
        splenic = np.array([(8, -4, 0), (16, 0, 24), (26, 10, 48), (36, 22, 72)]) * s
        portal = [(4, -4, -4), (22, -2, -24), (38, -8, -42)]
        self._vessel([(0, y0 - 30, 14), np.add(left, (0, -6, -18)), left], 2.8, p.aorta)
        self._vessel([(-6, y0 - 30, -2), np.add(right, (0, -8, 16)), right], 2.8, p.aorta)
        self._vessel(
            [(-8, y0 - 42, -18), (-8, y0 - 43, 8), np.add(left, (0, -10, -14)), np.add(left, (-2, 0, 0))], 5.0, p.cava
        )
        self._vessel([(-18, y0 - 32, -28), np.add(right, (-2, -2, 10))], 5.0, p.cava)
        self._vessel(mesenteric, 3.4, p.aorta)
        self._vessel([(m[0], m[1] - 2, m[2] - 12) for m in mesenteric[1:]] + [(6, -4, -4)], 5.2, p.portal)
        self._vessel([(26, y0 - 40, 6), (28, y0 - 58, 6), (30, y0 - 66, -10), (34, -14, -30)], 2.8, p.aorta)
        self._vessel(splenic, 4.2, p.portal)
        self._vessel(np.array(portal) * s, 7.0, p.portal)
        for _ in range(int(rng.poisson(3))):  # plaque
            angle, level = rng.uniform(0, 2 * np.pi), rng.uniform(-120, 130)
            at = np.array([level, *(np.interp(level, aorta[::-1, 0], aorta[::-1, k]) for k in (1, 2))])
            at[1:] += (radius - 0.8) * np.array([np.sin(angle), np.cos(angle)])
            step = np.array([rng.uniform(0, 5), *rng.normal(0, 1.5, 2)])
            self.canvas.paint_tubes([Tube(at, at + step, rng.uniform(0.8, 1.8))], rng.uniform(350, 900), Tissue.VESSEL)

    def _vessel(self, nodes: Nodes, radius: float, hu: float) -> None:
        path = _smooth(nodes, 6.0)
        self.canvas.paint_tubes([Tube(a, b, radius) for a, b in pairwise(path)], hu, Tissue.VESSEL)

    def liver_vessels(self) -> None:
        """Portal and hepatic trees with their forks, inside the liver only."""
        rng, s = self.rng, self.scale
        portal: list[Tube] = []
        hepatic: list[Tube] = []

        def inside(point: Point) -> bool:
            label = self.canvas.label_at(point)
            beyond = abs(point[0] - self.canvas.offset_mm) > self.canvas.grid.half_extent_mm[0] - 2
            return label in (Tissue.LIVER, Tissue.VESSEL) or beyond

        root = np.array([38.0, -8, -42]) * s
        for heading, size in (
            ((0.2, 0.2, -1), 5.0),
            ((-0.9, 0.1, -0.6), 4.2),
            ((0.8, 0.3, -0.5), 4.2),
            ((0.3, -0.6, 0.7), 4.0),
        ):
            config = TreeConfig(root_radius_mm=size, least_radius_mm=0.6, most_branches=500)
            portal += grow_tree(root, np.array(heading), inside, config, rng)
        confluence = np.array([86.0 * s, self.spine_y - 46, -26])
        for heading, size in (
            ((-0.5, 0.1, -1), 4.6),
            ((-0.6, -0.8, -0.3), 4.2),
            ((-0.3, -0.8, 0.7), 3.8),
            ((-1.2, 0.4, -0.7), 4.0),
        ):
            config = TreeConfig(root_radius_mm=size, least_radius_mm=0.6, most_branches=400)
            hepatic += grow_tree(confluence, np.array(heading), inside, config, rng)
        for tubes, hu in ((hepatic, self.phase.hepatic), (portal, self.phase.portal)):
            found = self.canvas.tubes(tubes, only=Tissue.LIVER)
            if found is not None:
                box, cover = found
                region = self.canvas.voxels[box]
                region += cover * (hu - region)

    def small_nodes(self) -> None:
        """Lymph nodes of normal size: present in everybody, not lesions."""
        rng = self.rng
        for _ in range(int(rng.integers(5, 12))):
            at = np.array([rng.uniform(-110, 90), self.spine_y - rng.uniform(22, 70), rng.normal(0, 30)])
            end = at + rng.normal(0, 2.5, 3)
            self.canvas.paint_tubes(
                [Tube(at, end, rng.uniform(1.2, 2.4))], self.phase.muscle, Tissue.OTHER, only=Tissue.FAT
            )


def _both(a: Distance, b: Distance) -> Distance:
    return lambda z, y, x: np.maximum(a(z, y, x), b(z, y, x))


def _without(a: Distance, b: Distance) -> Distance:
    return lambda z, y, x: np.maximum(a(z, y, x), -b(z, y, x))


def _thinner(a: Distance, by_mm: float) -> Distance:
    return lambda z, y, x: a(z, y, x) + np.float32(by_mm)


def _blended(a: Distance, b: Distance, over_mm: float) -> Distance:
    """Union with a fillet."""

    def distance(z: FloatArray, y: FloatArray, x: FloatArray) -> FloatArray:
        p, q = a(z, y, x), b(z, y, x)
        h = np.clip(0.5 + 0.5 * (q - p) / over_mm, 0, 1)
        return np.asarray(q + (p - q) * h - over_mm * h * (1 - h))

    return distance


def _spokes(centre: NDArray[np.float64], count: int, rng: np.random.Generator) -> Distance:
    """Wedges around an axis along z: the pyramids of a kidney."""
    phase = rng.uniform(0, 2 * np.pi)

    def distance(z: FloatArray, y: FloatArray, x: FloatArray) -> FloatArray:
        angle = np.arctan2(y - centre[1], x - centre[2])
        return np.asarray(6 * (np.cos(count * angle + phase + np.sin(z / 9)) - 0.25))

    return distance


def _smooth(nodes: Nodes, step_mm: float) -> NDArray[np.float64]:
    """Points along a rounded path through the nodes (N, 3)."""
    points = np.asarray(nodes, float)
    lengths = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
    at = np.linspace(0, lengths[-1], max(3, int(lengths[-1] / step_mm) + 1))
    path = np.stack([np.interp(at, lengths, column) for column in points.T], 1)
    for _ in range(2):
        path[1:-1] = 0.5 * path[1:-1] + 0.25 * (path[:-2] + path[2:])
    return path


def _wander(start: Point, steps: int, length_mm: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """A winding path of a loop of bowel, mostly in the plane."""
    heading = rng.standard_normal(3)
    points = [start]
    for _ in range(steps):
        heading = 0.75 * heading / np.linalg.norm(heading) + 0.65 * rng.standard_normal(3) * (0.7, 0.8, 1)
        points.append(points[-1] + length_mm * heading / np.linalg.norm(heading))
    return _smooth(np.array(points), 6.0)
