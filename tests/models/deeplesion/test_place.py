"""Where a lesion lies: by lungs and room, in a drawn trunk of 120 slices of 3 mm, from pelvis to neck."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from models.contract import Acquisition, SourceRef, Volume
from models.deeplesion.grouping import Region
from models.deeplesion.place import (
    ABDOMEN_AND_PELVIS,
    ANYWHERE,
    CHEST,
    CHEST_AND_ABDOMEN,
    NECK_AND_CHEST,
    SITES,
    Surroundings,
    site_of,
    surroundings_of,
)
from models.deeplesion.run import positions_along_normal

SLICES, SIDE = 220, 100
SPACING = (3.0, 4.0, 4.0)
LOWEST, HIGHEST = 120, 205
"""Slices with lung."""


def trunk() -> Volume:
    """A body of 280 × 160 mm with two lungs, gas in its bowel, and a windpipe."""
    y, x = np.mgrid[:SIDE, :SIDE] * 4.0

    def ellipse(at: tuple[float, float], half: tuple[float, float]) -> np.ndarray:
        return ((y - at[0]) / half[0]) ** 2 + ((x - at[1]) / half[1]) ** 2 < 1

    image = np.full((SLICES, SIDE, SIDE), -1000.0, np.float32)
    image[:, ellipse((200, 200), (80, 140))] = 40
    for side in (-60, 60):
        image[LOWEST : HIGHEST + 1, ellipse((200, 200 + side), (55, 45))] = -850
    image[LOWEST:, ellipse((190, 200), (9, 9))] = -850
    image[40:60, ellipse((190, 200), (40, 60))] = -1000
    affine = np.diag([SPACING[2], SPACING[1], SPACING[0], 1.0])[:, [2, 1, 0, 3]]
    origins = np.zeros((SLICES, 3))
    origins[:, 2] = np.arange(SLICES) * SPACING[0]
    sources = tuple(SourceRef(f"1.2.{k}") for k in range(SLICES))
    return Volume(image, affine, SPACING, origins, sources, Acquisition(modality="CT"))


def around(volume: Volume) -> Surroundings:
    return surroundings_of(volume, volume.voxels, positions_along_normal(volume))


def at(index: int, row: int, column: int, size: int = 3) -> Region:
    box = (slice(index, index + 1), slice(row, row + size), slice(column, column + size))
    return Region(box, np.ones((1, size, size), np.bool_), np.ones((1, size, size), np.float32), 0.5)


@pytest.fixture(scope="module")
def body() -> Surroundings:
    return around(trunk())


def test_heights_are_above_the_lowest_slice_with_lung(body: Surroundings) -> None:
    assert body.heights_mm is not None
    assert body.heights_mm[LOWEST] == 0
    assert body.heights_mm[LOWEST - 10] == -30
    assert body.top_mm == pytest.approx(3 * (HIGHEST - LOWEST))


@pytest.mark.parametrize(
    ("index", "part"),
    [
        (LOWEST - 1, ABDOMEN_AND_PELVIS),
        (LOWEST, CHEST_AND_ABDOMEN),
        (LOWEST + 49, CHEST_AND_ABDOMEN),
        (LOWEST + 50, CHEST),
        (HIGHEST, CHEST),
        (HIGHEST + 1, NECK_AND_CHEST),
    ],
)
def test_parts_of_the_trunk_follow_the_lungs(body: Surroundings, index: int, part: tuple[str, str, str]) -> None:
    assert body.part_of_trunk(index) == part


def test_slices_from_head_to_feet_say_the_same(body: Surroundings) -> None:
    volume = trunk()
    turned = around(
        replace(volume, voxels=volume.voxels[::-1].copy(), slice_origins_mm=volume.slice_origins_mm[::-1].copy())
    )
    assert body.heights_mm is not None
    assert turned.heights_mm is not None
    assert turned.heights_mm[::-1].tolist() == pytest.approx(body.heights_mm.tolist())


@pytest.mark.parametrize(
    ("category", "place", "site"),
    [
        ("lung", (LOWEST + 20, 50, 32), SITES["lung"]),  # in the lung
        ("lung", (LOWEST + 20, 50, 20), SITES["lung"]),  # in the chest wall beside it
        ("lung", (LOWEST + 20, 64, 49), CHEST_AND_ABDOMEN),  # behind the spine
        ("lung", (50, 50, 32), ABDOMEN_AND_PELVIS),
        ("lung", (50, 58, 49), ABDOMEN_AND_PELVIS),  # beside gas in bowel
        ("liver", (LOWEST - 83, 50, 32), SITES["liver"]),  # 249 mm below the lungs
        ("liver", (LOWEST - 84, 50, 32), ABDOMEN_AND_PELVIS),
        ("liver", (LOWEST + 66, 50, 49), SITES["liver"]),
        ("liver", (LOWEST + 67, 50, 49), CHEST),
        ("kidney", (10, 50, 32), SITES["kidney"]),
        ("kidney", (LOWEST + 51, 50, 49), CHEST),
        ("lymph node", (10, 50, 32), SITES["lymph node"]),
        ("soft tissue", (HIGHEST, 50, 32), SITES["soft tissue"]),
        ("lesion", (LOWEST + 60, 50, 32), CHEST),
    ],
)
def test_an_organ_is_told_where_it_can_be(
    body: Surroundings, category: str, place: tuple[int, int, int], site: tuple[str, str, str]
) -> None:
    assert site_of(category, at(*place), place[0], body) == site


def test_without_lungs_nothing_speaks_against_liver_and_kidney() -> None:
    volume = trunk()
    pelvis = replace(
        volume, voxels=volume.voxels[:100], slice_origins_mm=volume.slice_origins_mm[:100], sources=volume.sources[:100]
    )
    seen = around(pelvis)
    assert site_of("liver", at(5, 50, 32), 5, seen) == SITES["liver"]
    assert site_of("kidney", at(5, 50, 32), 5, seen) == SITES["kidney"]
    assert site_of("lung", at(50, 58, 49), 50, seen) == ANYWHERE
    assert site_of("lesion", at(5, 50, 32), 5, seen) == ANYWHERE


@pytest.mark.parametrize("shell", [False, True], ids=["behind arms that the edge cuts", "in a shell"])
def test_foam_of_the_couch_is_no_lung_to_measure_from(body: Surroundings, shell: bool) -> None:
    volume = trunk()
    if shell:
        volume.voxels[:, 76:90, 20:80] = 100
        volume.voxels[:, 77:89, 21:79] = -900
    else:
        volume.voxels[:, 64:70] = 40
        volume.voxels[:, 70:] = -900
    seen = around(volume)
    assert seen.heights_mm is not None
    assert body.heights_mm is not None
    assert seen.heights_mm.tolist() == body.heights_mm.tolist()


def test_a_lung_that_the_edge_cuts_is_a_lung_still() -> None:
    """Images of the lungs alone: no slice shows a whole one, but a nodule in it is one of the lung."""
    volume = trunk()
    cut = replace(volume, voxels=volume.voxels[LOWEST:HIGHEST, 40:62, 25:45].copy())
    seen = around(replace(cut, slice_origins_mm=volume.slice_origins_mm[LOWEST:HIGHEST], sources=volume.sources[:85]))
    assert site_of("lung", at(20, 8, 8), 20, seen) == SITES["lung"]


def test_what_is_air_outside_the_body_is_in_the_room_and_gas_and_lung_are_not() -> None:
    volume = trunk()
    seen = around(volume)
    assert seen.is_in_room(at(20, 10, 50), volume.voxels)
    assert seen.is_in_room(at(20, 80, 50), volume.voxels)
    for place in ((50, 46, 49), (LOWEST + 20, 50, 34), (20, 50, 32)):
        assert not seen.is_in_room(at(*place), volume.voxels)
    thin = volume.voxels.copy()
    thin[20, 10:12, 50:52] = 40  # a flap of skin, thinner than the grid sees
    assert not seen.is_in_room(at(20, 10, 50, 2), thin)


def test_padding_is_room_and_lets_the_room_reach_the_circle() -> None:
    volume = trunk()
    y, x = np.mgrid[:SIDE, :SIDE] * 4.0
    beyond = np.broadcast_to((y - 200) ** 2 + (x - 200) ** 2 > 190**2, volume.voxels.shape)
    seen = around(replace(volume, padding=beyond))
    assert seen.is_in_room(at(20, 2, 2), volume.voxels)
    assert seen.is_in_room(at(20, 10, 50), volume.voxels)
    assert site_of("lung", at(LOWEST + 20, 50, 32), LOWEST + 20, seen) == SITES["lung"]
