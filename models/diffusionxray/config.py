"""Every number of the restorer, its schedule, its sampling, its tiles, its training and its bounds.

source: DiffusionXRay dossier 5 (the published restorer), 8 (cost), 9 and 10 (what the node would run)
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

Preset = Literal["cpu", "gpu"]
Stage = Literal["ddpm", "regressor", "refiner"]
"""The paper's conditional DDPM; the conservative restoration; the flow that starts from it."""
Norm = Literal["group", "channel"]


@dataclass(frozen=True)
class NetworkConfig:
    """Sizes and switches of the U-Net.

    inputs              images side by side: noised and condition (2), or one alone
    fold                pixels of fold × fold become channels of one: nothing is lost, and no map has full resolution
    stem, stem_px       channels and kernel of the first convolution
    width, mults        channels per level; but for the published size, all multiples of 16
    norm                "group": statistics over the image, as published; "channel": none, so that tiles and whole
                        images are seen alike
    down_attention      levels (0 is the finest) with linear attention on the way down
    up_attention        levels with linear attention on the way up
    middle_attention    full attention at the bottom
    full_skip           the shortcut of the finest level is used; the published network computes it and drops it
    time, time_scale    noise level or flow time as second input, and by how much it is multiplied before its waves
    residual            the result is added to the first input, and an untrained network is the identity
    """

    inputs: int = 1
    fold: int = 2
    stem: int = 32
    stem_px: int = 3
    width: int = 32
    mults: tuple[int, ...] = (1, 2, 4, 8)
    norm: Norm = "channel"
    groups: int = 8
    heads: int = 4
    head_width: int = 32
    down_attention: tuple[int, ...] = ()
    up_attention: tuple[int, ...] = ()
    middle_attention: bool = False
    full_skip: bool = True
    time: bool = True
    time_scale: float = 1.0
    residual: bool = False

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of the levels, finest first."""
        return tuple(self.width * mult for mult in self.mults)

    @property
    def multiple(self) -> int:
        """Height and width of the input must be multiples of this."""
        return self.fold << (len(self.mults) - 1)


PAPER = NetworkConfig(
    inputs=2,
    fold=1,
    stem=10,
    stem_px=7,
    width=16,
    mults=(1, 2, 4, 8, 16, 32, 32, 32),
    norm="group",
    down_attention=(4, 5, 6, 7),
    up_attention=(1, 2, 3),
    middle_attention=True,
    full_skip=False,
)
"""The published restorer: 91.4 M parameters, 217.5 GFLOP per evaluation at 1024². Reference, not for two cores."""

# Fold 2 and width 32: kernels wide enough for a CPU, and no more than four pixels are squeezed into a place of a layer.
# An evaluation of 2048², at full resolution and in one piece, is 541 GFLOP: 10.4 s at the dossier's 52 GFLOP/s of two
# cores, and a minute is the mean and one sample of 4 steps. Three levels, since regressor and refiner must be a small
# part of the 32 MB of all weights: noise and blur are local, and coarse structure must not change anyway.
_LEVELS = (1, 2, 4)
NETWORKS: dict[Stage, NetworkConfig] = {
    "ddpm": NetworkConfig(inputs=2, mults=_LEVELS),
    "regressor": NetworkConfig(mults=_LEVELS, time=False, residual=True),
    "refiner": NetworkConfig(mults=_LEVELS, time_scale=2000.0),
}


Shape = Literal["shipped", "paper", "paper-full-skip"]
SHAPES: dict[Shape, NetworkConfig] = {
    "shipped": NETWORKS["ddpm"],
    "paper": PAPER,
    "paper-full-skip": replace(PAPER, full_skip=True),
}
"""Of the conditional DDPM. The published network drops the shortcut of the finest level; the last one here uses it."""


@dataclass(frozen=True)
class ScheduleConfig:
    """T, the cosine's offset s, and what betas are clipped to."""

    steps: int = 2000
    offset: float = 0.008
    beta_range: tuple[float, float] = (1e-4, 0.9999)


@dataclass(frozen=True)
class SamplingConfig:
    """How the restored image is drawn.

    returned_steps      of the refiner in the image that is returned; 0: the conservative restoration. The refiner that
                        ships adds grain where there is little noise, and is farther from the truth at each degradation
                        that was tried: it serves uncertainty alone
    flow_steps          evaluations of the refiner per sample, where several are drawn
    flow_noise          standard deviation of the noise that the flow starts with, in units of the picture
    samples             drawn where uncertainty is asked for
    ancestral_steps     of the paper's own sampler where its DDPM is compared, spread over its 2,000 times
    solver_steps        of DPM-Solver++: a twelfth of the work, and 2.5 dB farther from the truth (ARMS.md)
    """

    returned_steps: int = 0
    flow_steps: int = 4
    flow_noise: float = 0.05
    samples: int = 4
    ancestral_steps: int = 250
    solver_steps: int = 20


@dataclass(frozen=True)
class TileConfig:
    """Tiles of one evaluation. 2048² is not cut: in the shipped size it takes 330 MiB, and no tile has a seam then.

    side_px, overlap_px     multiples of the network's `multiple`; an image that fits is not cut
    ramp_px                 where one tile turns into the next, in the middle of the overlap: pixels beyond saw the edge
    """

    side_px: int = 2304
    overlap_px: int = 384
    ramp_px: int = 128


@dataclass(frozen=True)
class TrainConfig:
    """One training run. Adam at a constant 5e-5 without smoothing, as published, would be another.

    batch, crop_px      pairs per step, and the side of the crops a store should make
    """

    steps: int
    batch: int
    crop_px: int = 256
    learning_rate: float = 4e-4
    last_learning_rate: float = 1e-6
    warmup_steps: int = 200
    gradient_clip: float = 1.0
    ema_decay: float = 0.999
    checkpoint_every: int = 250


def fitting(training: TrainConfig, network: NetworkConfig) -> TrainConfig:
    """The same with crops that the network takes: larger ones where it halves them more often."""
    return replace(training, crop_px=-(-training.crop_px // network.multiple) * network.multiple)


TRAINING: dict[Preset, TrainConfig] = {
    "cpu": TrainConfig(steps=5000, batch=4, crop_px=128),
    "gpu": TrainConfig(steps=4000, batch=16, crop_px=192, checkpoint_every=500),
}
"""Of two cores an hour, of a GPU minutes. Crops must fit in those of the banks (`CropConfig.bank_px`)."""


@dataclass(frozen=True)
class CropConfig:
    """How crops are drawn from pictures.

    spacing_mm          pixel sizes, evenly in their logarithm: those of detectors, and of images made smaller
    gain, offset, bend  of the grey scale, each up to ± this: detectors and their look-up tables differ
    least_contrast      standard deviation below which a crop is drawn again        tries   at most
    bicubic_factor      of the baseline's pairs
    soft_share          of the identity's crops that are soft        soft_factor     by which those were reduced
    coarse_mm           σ of the Gaussian below whose cut learnt pairs take the clean crop's structure, where asked for
    bank_px, together   side of the crops that degraders are given, and how many at once
    """

    spacing_mm: tuple[float, float] = (0.2, 0.45)
    gain: float = 0.15
    offset: float = 0.1
    bend: float = 0.2
    least_contrast: float = 0.05
    tries: int = 5
    bicubic_factor: float = 2.0
    soft_share: float = 0.5
    soft_factor: tuple[float, float] = (1.2, 2.5)
    coarse_mm: float = 3.0
    bank_px: int = 256
    together: int = 4


@dataclass(frozen=True)
class GuardConfig:
    """Bounds on what the generator may change (dossier 10).

    safe_cap        k: the conservative restoration is within k local noise standard deviations of what was received
    cap             k: the output is within k of them of the conservative restoration; at most 3
    widening        what the spread is multiplied by, from calibration on known truth (`coverage`)
    spread_floor    of the noise's standard deviation: what the spread of samples is at least taken to be
    split_mm        σ of the Gaussian below whose cut what was received decides, and no network: of what a network would
                    do at the centre of a disc of 4 mm a fiftieth is left (`share_decided`)
    kept_from       times the noise from which fine detail begins to be kept as received, and is kept altogether
    block_px        side of the blocks of the re-degradation test       block_z   beyond which a block is an outlier
    alpha, delta    miscoverage, and the risk that calibration itself misses it
    outside_share   part of an image's pixels that may be outside their intervals before the image counts as missed
    """

    safe_cap: float = 4.0
    cap: float = 3.0
    widening: float = 3.05
    spread_floor: float = 1.0
    split_mm: float = 0.7
    kept_from: tuple[float, float] = (1.5, 3.0)
    block_px: int = 32
    block_z: float = 3.0
    alpha: float = 0.1
    delta: float = 0.1
    outside_share: float = 0.05


@dataclass(frozen=True)
class DiffusionXRayConfig:
    """All of it."""

    networks: dict[Stage, NetworkConfig] = field(default_factory=lambda: dict(NETWORKS))
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    tiles: TileConfig = field(default_factory=TileConfig)
    guard: GuardConfig = field(default_factory=GuardConfig)
