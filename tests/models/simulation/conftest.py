"""Discs whose line integrals are known in closed form: the oracle of the projector's tests."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from models.simulation.geometry import Geometry
from models.simulation.projection import MU_WATER_PER_MM

Disc = tuple[float, float, float, float]
"""(x, y, radius) in mm and attenuation relative to water."""


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def sinogram_of() -> Callable[[Geometry, list[Disc]], Tensor]:
    """Exact line integrals (1, views, channels) of a sum of discs."""

    def line_integrals(geometry: Geometry, discs: list[Disc]) -> Tensor:
        offset, turn = geometry.rays()
        angle = torch.arange(geometry.views)[:, None] * geometry.step_rad + turn
        total = torch.zeros(geometry.views, geometry.channels)
        for x, y, radius, density in discs:
            distance = offset - (x * angle.cos() + y * angle.sin())
            chord = 2 * (radius**2 - distance.square()).clamp_min(0).sqrt()
            total += density * MU_WATER_PER_MM * chord
        return total[None]

    return line_integrals


@pytest.fixture
def image_of() -> Callable[[int, float, list[Disc]], Tensor]:
    """The same discs as an image in HU (1, side, side), edges supersampled."""

    def paint(side: int, spacing_mm: float, discs: list[Disc]) -> Tensor:
        fine = 4
        axis = ((torch.arange(side * fine) + 0.5) / fine - side / 2) * spacing_mm
        y, x = torch.meshgrid(axis, axis, indexing="ij")
        density = torch.zeros_like(x)
        for cx, cy, radius, relative in discs:
            density += relative * ((x - cx) ** 2 + (y - cy) ** 2 < radius**2)
        return torch.nn.functional.avg_pool2d((density - 1)[None] * 1000, fine)

    return paint


@pytest.fixture
def disc_mask() -> Callable[[int, float, tuple[float, float, float]], Tensor]:
    """Pixels inside a disc (x, y, radius in mm), bool (side, side)."""

    def inside(side: int, spacing_mm: float, disc: tuple[float, float, float]) -> Tensor:
        axis = (torch.arange(side) - (side - 1) / 2) * spacing_mm
        y, x = torch.meshgrid(axis, axis, indexing="ij")
        return (x - disc[0]) ** 2 + (y - disc[1]) ** 2 < disc[2] ** 2

    return inside
