"""Noise and edges, on a network that changes nothing and on one that blurs."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from models.lidnet import sharpness
from models.lidnet.network import build
from models.lidnet.run import prepare


def test_doing_nothing_changes_neither_noise_nor_edges(small):
    idle = prepare(build(small.network), torch.device("cpu"), half=False)
    noise, edges = sharpness.spectra(idle, fractions=(0.25,), images=16)
    for table in (noise, edges):
        assert [row.values for row in table.rows[::2]] == [row.values for row in table.rows[1::2]]
    # A Gaussian of 0.8 mm and pixels of 0.8 mm: half is left at 0.21 per mm.
    bone = edges.rows[-1].values["half transfer (1/mm)"]
    assert bone.mean == pytest.approx(0.215, abs=0.02)


def test_a_blur_is_seen_in_both(small, monkeypatch):
    def blur(stack: np.ndarray) -> np.ndarray:
        return gaussian_filter(stack, (0, 1.5, 1.5))

    monkeypatch.setattr(
        sharpness, "methods_of", lambda _network: (("no processing", lambda stack: stack), ("this model", blur))
    )
    idle = prepare(build(small.network), torch.device("cpu"), half=False)
    noise, edges = sharpness.spectra(idle, fractions=(0.25,), images=16)
    before, after = noise.rows
    assert after.values["noise (HU)"].high < before.values["noise (HU)"].low
    assert after.values["mean frequency (1/mm)"].high < before.values["mean frequency (1/mm)"].low
    sharp, blurred = edges.rows[-2:]
    assert blurred.values["half transfer (1/mm)"].high < sharp.values["half transfer (1/mm)"].low
