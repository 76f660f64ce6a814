"""Unpaired crops follow from the step alone, and each domain from its own pictures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from models.contract import ModelError
from models.diffusionxray.config import CropConfig
from models.diffusionxray.data import Picture
from models.diffusionxray.unpaired import UnpairedCrops


@dataclass(frozen=True)
class Asked:
    batch: int = 3
    crop_px: int = 32


def pictures(level: float, domain: str) -> list[Picture]:
    rng = np.random.default_rng(0)
    unit = (level + 0.1 * rng.standard_normal((96, 96))).astype(np.float32)
    return [Picture("p", "made", unit, 0.3, "hq" if domain == "hq" else "lq")]


PLAIN = CropConfig(gain=0, offset=0, bend=0)


def test_the_same_step_gives_the_same_batch() -> None:
    store = UnpairedCrops(pictures(0.5, "hq"), pictures(-0.5, "lq"), PLAIN, seed=1)
    first, again, next_ = store.batch(4, Asked()), store.batch(4, Asked()), store.batch(5, Asked())
    assert torch.equal(first.hq, again.hq)
    assert torch.equal(first.lq, again.lq)
    assert not torch.equal(first.hq, next_.hq)
    assert first.hq.shape == first.lq.shape == (3, 1, 32, 32)


def test_domains_stay_apart_and_within_the_range_of_pictures() -> None:
    store = UnpairedCrops(pictures(0.95, "hq"), pictures(-0.5, "lq"), PLAIN, seed=1)
    batch = store.batch(0, Asked())
    assert batch.hq.mean() > 0.8
    assert batch.lq.mean() < -0.4
    assert batch.hq.max() == 1


def test_refuses_a_domain_without_pictures() -> None:
    with pytest.raises(ModelError, match="both domains"):
        UnpairedCrops(pictures(0.5, "hq"), [], PLAIN, seed=1)
