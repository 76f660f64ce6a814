"""Crops of both domains that do not belong together: what the translator and the prior learn from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from models.contract import ModelError
from models.diffusionxray.config import CropConfig
from models.diffusionxray.data import Picture
from models.diffusionxray.pairs import draw_crop


class Batches(Protocol):
    """What a training says of its batches."""

    @property
    def batch(self) -> int: ...
    @property
    def crop_px(self) -> int: ...


@dataclass(frozen=True, eq=False)
class Unpaired:
    """One batch, float32 (B, 1, H, W) each, in [−1, 1]."""

    hq: Tensor
    lq: Tensor


class UnpairedCrops:
    """Batches that follow from the seed and the number of the step alone."""

    def __init__(self, hq: Sequence[Picture], lq: Sequence[Picture], config: CropConfig, *, seed: int) -> None:
        """raises   ModelError     a domain has no pictures"""
        if not hq or not lq:
            raise ModelError("pictures of both domains are wanted")
        self._domains, self._config, self._seed = (hq, lq), config, seed

    def batch(self, step: int, training: Batches, /) -> Unpaired:
        """One batch; what lies beyond the range of pictures is cut, since the translator ends in a tanh."""
        rng = np.random.default_rng((self._seed, step))
        hq, lq = (
            np.stack([draw_crop(pictures, training.crop_px, self._config, rng).unit for _ in range(training.batch)])
            for pictures in self._domains
        )
        return Unpaired(*(torch.from_numpy(part.clip(-1, 1))[:, None] for part in (hq, lq)))
