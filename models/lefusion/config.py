"""Every number of the two networks, their schedule, their sampling and their training.

source: LeFusion dossier 3 to 6 (as published), 9 (what two cores can run)
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from models.diffusionxray.config import ScheduleConfig

Preset = Literal["cpu", "gpu"]
Stage = Literal["texture", "mask"]
Norm = Literal["group", "channel"]
Focus = Literal["lesion", "crop", "everywhere"]
"""Over what the error is averaged: each lesion's own voxels; the lesions' voxels, divided by those of the whole crop as
published; all voxels, lesion or not (the ablation that the paper lacks)."""

CROP_ZYX = (32, 64, 64)
"""Voxels of a crop, 1 mm each."""
SPACING_MM = 1.0
SCHEDULE = ScheduleConfig(steps=300, offset=0.008, beta_range=(0.0, 0.9999))


@dataclass(frozen=True)
class NetworkConfig:
    """Sizes and switches of the U-Net. No convolution reaches through slices: depth is mixed by attention alone.

    inputs, outputs     channels; one per class of lesion, and for masks the control sphere among the inputs
    condition           length of the histogram, or of the histograms of all classes; 0 for none
    fold                in-plane blocks of fold × fold voxels become channels
    blocks              residual blocks per level, on the way down and on the way up
    norm                "group": statistics over the crop, as published; "channel": none, so that the size of a crop
                        does not matter
    through             levels (0 is the finest) with attention over depth
    planar              levels with linear attention in the plane
    stem_through        attention over depth right after the first convolution
    middle_planar       full attention in the plane at the bottom
    """

    inputs: int = 1
    outputs: int = 1
    condition: int = 16
    fold: int = 2
    stem_px: int = 3
    width: int = 32
    mults: tuple[int, ...] = (1, 2, 4)
    blocks: int = 1
    norm: Norm = "channel"
    groups: int = 8
    heads: int = 4
    head_width: int = 16
    through: tuple[int, ...] = (1, 2)
    planar: tuple[int, ...] = ()
    stem_through: bool = False
    middle_planar: bool = False

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of the levels, finest first."""
        return tuple(self.width * mult for mult in self.mults)

    @property
    def multiple(self) -> int:
        """Height and width of the input must be multiples of this; depth is free."""
        return self.fold << (len(self.mults) - 1)


_LEVELS = (0, 1, 2, 3)
PAPER = NetworkConfig(
    fold=1,
    stem_px=7,
    width=64,
    mults=(1, 2, 4, 8),
    blocks=2,
    norm="group",
    heads=8,
    head_width=32,
    through=_LEVELS,
    planar=_LEVELS,
    stem_through=True,
    middle_planar=True,
)
"""The published texture network: 35.8 M parameters, 505 GFLOP per evaluation of a crop. Not for two cores."""

NETWORKS: dict[Stage, dict[Preset, NetworkConfig]] = {
    "texture": {"cpu": NetworkConfig(), "gpu": PAPER},
    "mask": {
        "cpu": NetworkConfig(inputs=2, condition=0, width=16),
        "gpu": replace(PAPER, inputs=2, condition=0),
    },
}


@dataclass(frozen=True)
class TrainConfig:
    """One training run.

    crop_zyx    voxels of a crop in training: as many slices as in sampling, since attention learns their distances
    focus       see `Focus`
    """

    steps: int
    batch: int
    crop_zyx: tuple[int, int, int] = CROP_ZYX
    focus: Focus = "lesion"
    learning_rate: float = 4e-4
    last_learning_rate: float = 1e-6
    warmup_steps: int = 100
    gradient_clip: float = 1.0
    ema_decay: float = 0.995
    checkpoint_every: int = 100


TRAINING: dict[Stage, dict[Preset, TrainConfig]] = {
    "texture": {
        "cpu": TrainConfig(steps=4000, batch=4, crop_zyx=(32, 24, 24)),
        "gpu": TrainConfig(steps=20_000, batch=40, learning_rate=1e-4, checkpoint_every=1000),
    },
    "mask": {
        "cpu": TrainConfig(steps=4000, batch=4, crop_zyx=(32, 32, 32), focus="everywhere"),
        "gpu": TrainConfig(
            steps=50_000, batch=20, crop_zyx=(32, 64, 64), focus="everywhere", learning_rate=3e-4, checkpoint_every=1000
        ),
    },
}
"""Of two cores an hour each; of the published size days of a GPU, on which neither was tried."""
