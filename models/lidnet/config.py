"""Every number of LIDnet's denoiser and of its training."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Preset = Literal["cpu", "gpu"]
Socket = Literal["unet", "red-cnn"]


@dataclass(frozen=True)
class NetworkConfig:
    """Sizes of the residual U-Net.

    widths          channels per level, finest first
    unshuffle       side of the pixel block that is folded into channels before the first level: a quarter of the
                    work at 2, for noise that is correlated over several pixels anyway
    hu_range        HU are clipped to this range on the way into the network (never on the way past it); it reaches far
                    below air, since noise does: what the network cannot see it cannot remove
    input_hu        HU that one unit of the network's input stands for
    least_scale_hu  added to the local noise by which detail is divided: where there is none, nothing is blown up
    level_px        pixels of the block means below which the residual must vanish: a power of two
    """

    widths: tuple[int, ...] = (48, 96, 192)
    unshuffle: int = 2
    hu_range: tuple[float, float] = (-3000.0, 3071.0)
    input_hu: float = 1000.0
    least_scale_hu: float = 2.0
    level_px: int = 8

    @property
    def multiple(self) -> int:
        """Height and width are padded to a multiple of this."""
        return max(self.unshuffle << (len(self.widths) - 1), self.level_px)


@dataclass(frozen=True)
class PairConfig:
    """How low-dose images are made for training.

    views               projections per turn (fewer than a scanner's: only noise is reconstructed from them)
    fractions           lowest and highest dose fraction, drawn log-uniformly
    full_dose_share     part of the samples that stay at full dose: there the network must learn to do nothing
    photon_spread       standard deviation of ln(photons) around what the header says
    clipped_share       part of the samples whose HU are cut at −1024, as many scanners store them
    other_kernel_share  part of the slices whose noise gets another kernel than the header's
    least_realisations  noise fields per patient at least: patients with few slices get several per slice
    """

    views: int = 800
    fractions: tuple[float, float] = (0.08, 0.6)
    full_dose_share: float = 0.12
    photon_spread: float = 0.5
    clipped_share: float = 0.4
    other_kernel_share: float = 0.35
    least_realisations: int = 6


@dataclass(frozen=True)
class TrainConfig:
    """One training run.

    noise_floor_hu      added to a patch's noise when its squared error is weighed, so that quiet patches count, but not
                        without bound
    """

    steps: int
    batch: int
    patch_px: int
    learning_rate: float = 4e-4
    last_learning_rate: float = 1e-6
    warmup_steps: int = 100
    gradient_clip: float = 1.0
    ema_decay: float = 0.998
    noise_floor_hu: float = 15.0
    checkpoint_every: int = 250


TRAINING: dict[Preset, TrainConfig] = {
    # At 1e-3 a run was thrown back near step 700: its mean loss jumped by half and took 200 steps to recover.
    "cpu": TrainConfig(steps=10_000, batch=16, patch_px=64, learning_rate=6e-4),
    "gpu": TrainConfig(steps=100_000, batch=64, patch_px=128),
}

RED_CNN_ON_GPU = TrainConfig(steps=2500, batch=64, patch_px=64, learning_rate=2e-4)
"""About 2 TFLOP a step: RED-CNN computes at full resolution. Patches of 64 pixels, as in its paper (55)."""


def training_of(preset: Preset, socket: Socket) -> TrainConfig:
    """The training of a denoiser with the pixel loss."""
    return RED_CNN_ON_GPU if (preset, socket) == ("gpu", "red-cnn") else TRAINING[preset]


@dataclass(frozen=True)
class LidnetConfig:
    """The denoiser, its data and the patients that it must never see in training (keys as in the prepared slices).

    socket      which denoiser is plugged in
    network     sizes of the residual U-Net
    """

    socket: Socket = "unet"
    network: NetworkConfig = field(default_factory=NetworkConfig)
    pairs: PairConfig = field(default_factory=PairConfig)
    held_out: tuple[str, ...] = ()
