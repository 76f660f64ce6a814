"""A little data to train on: drawn slices of four patients, as node/dicom/slices.py would leave them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from models.lidnet.config import LidnetConfig, NetworkConfig, PairConfig

PATIENTS = ("aaaaaaaaaa", "bbbbbbbbbb", "cccccccccc", "dddddddddd")
SIDE, SPACING_MM = 144, 2.7


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def body(rng: np.random.Generator) -> np.ndarray:
    """An ellipse of soft tissue with two lungs, a spine and a little texture, HU."""
    axis = (np.arange(SIDE) - (SIDE - 1) / 2) * SPACING_MM
    y, x = np.meshgrid(axis, axis, indexing="ij")
    width, depth = rng.uniform(150, 175), rng.uniform(95, 115)
    image = np.where((x / width) ** 2 + (y / depth) ** 2 < 1, 45.0, -1000.0)
    for side in (-1, 1):
        image[((x - side * 75) / 55) ** 2 + (y / 70) ** 2 < 1] = -850
    image[np.hypot(x, y - 55) < 18] = 400
    return image + rng.normal(0, 8, image.shape)


@pytest.fixture(scope="session")
def slices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two slices of each patient; the first patient's have a reconstruction circle."""
    folder = tmp_path_factory.mktemp("slices")
    rng = np.random.default_rng(0)
    axis = np.arange(SIDE) - (SIDE - 1) / 2
    circle = np.hypot(axis[:, None], axis) > SIDE / 2
    for patient in PATIENTS:
        for number in range(2):
            padding = circle if patient == PATIENTS[0] else np.zeros_like(circle)
            np.savez(
                folder / f"{patient}-{number:010x}.npz",
                hu=np.where(padding, -2048, body(rng)).astype(np.int16),
                padding=padding,
                spacing_mm=SPACING_MM,
                patient=patient,
                collection="drawn",
                kernel="B40f",
                manufacturer="none",
                kvp=120.0,
                exposure_mas=np.nan,
                slice_thickness_mm=3.0,
            )
    return folder


@pytest.fixture(scope="session")
def small() -> LidnetConfig:
    """A network and pairs small enough for tests."""
    return LidnetConfig(
        network=NetworkConfig(widths=(8, 12)),
        pairs=PairConfig(views=160, least_realisations=1),
        held_out=(PATIENTS[3],),
    )
