"""Every number of the quality network, its data and its training.

source: ClinReadNet dossier 4 (a design of our own: of the paper only the abstract could be read)
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from models.simulation.cases import Family
from models.simulation.geometry import FanBeam, Geometry, ParallelBeam
from models.simulation.kernels import Kernel

Preset = Literal["cpu", "gpu"]
Arm = Literal["clinreadnet", "rps", "ce", "single-temperature", "no-sobel", "plain-swin"]

LEVELS = 21
LEVEL_STEP = 0.2
COARSE_SIZES = (3, 5, 5, 5, 3)
"""Fine levels of each whole grade: those that round to it, halves upwards."""
GRADES = ("Bad", "Poor", "Fair", "Good", "Excellent")
HIGHEST = 4.0
STORED_HU = (-1000.0, 400.0)
"""HU at which the network's input is 0 and 1: the map of the public challenge set (dossier 2.5, to about 25 HU)."""
SIDE_PX = 512


@dataclass(frozen=True)
class NetworkConfig:
    """Sizes and switches of the network.

    width                   channels at stride 4, a multiple of 16; doubled at strides 8, 16, 32
    depths, heads           blocks and attention heads per stage
    window                  side of an attention window, in tokens; divides the tokens of every stage at 512 pixels
    temperatures            at which attention starts, above 1 the overall scan, below 1 the focus; at least one
    learn_temperatures      False: they and their shares stay as they start
    sobel                   the edge path
    local                   the ordinal map beside the global head
    """

    width: int = 32
    depths: tuple[int, ...] = (2, 2, 2, 2)
    heads: tuple[int, ...] = (1, 2, 4, 8)
    window: int = 8
    temperatures: tuple[float, ...] = (2.0, 1.0, 0.5)
    learn_temperatures: bool = True
    sobel: bool = True
    local: bool = True

    @property
    def multiple(self) -> int:
        """Height and width of the input must be multiples of this."""
        return 4 * self.window << (len(self.depths) - 1)


PAPER_LIKE = NetworkConfig(width=96, depths=(2, 2, 6, 2), heads=(3, 6, 12, 24))
"""The size of Swin-T, which the paper's words suggest."""


@dataclass(frozen=True)
class LossConfig:
    """Weights of the terms.

    fine        ranked probability score of the 21 levels
    coarse      of the five grades
    entropy     cross entropy of the 21 levels: RPS alone has next to no gradient where the network is surely wrong
    """

    fine: float = 1.0
    coarse: float = 0.5
    entropy: float = 0.1


WHOLE: Arm = "clinreadnet"
"""The arm from which the others take something away."""

ARMS: dict[Arm, tuple[NetworkConfig, LossConfig]] = {
    "clinreadnet": (NetworkConfig(), LossConfig()),
    "rps": (NetworkConfig(), LossConfig(coarse=0.0)),
    "ce": (NetworkConfig(), LossConfig(fine=0.0, coarse=0.0, entropy=1.0)),
    "single-temperature": (NetworkConfig(temperatures=(1.0,), learn_temperatures=False), LossConfig()),
    "no-sobel": (NetworkConfig(sobel=False), LossConfig()),
    "plain-swin": (
        NetworkConfig(temperatures=(1.0,), learn_temperatures=False, sobel=False, local=False),
        LossConfig(fine=0.0, coarse=0.0, entropy=1.0),
    ),
}
"""What is trained for the ablation: each differs from the first in what its name says."""


@dataclass(frozen=True)
class ObserverConfig:
    """How physics becomes grades. The numbers are a choice of ours: no reader study stands behind them.

    disc_mm, disc_hu            the faint disc whose detectability is measured
    roi_px, step_px             side of the observer's field, and distance between its places
    half_d_prime                detectability of a middling image
    by_d_prime                  weight of its logarithm
    noise_hu, streak_hu         noise and streaks that weigh one beside it
    reader_bias                 of the five pseudo-readers, in grades
    reader_jitter               standard deviation of one reader about himself, in grades
    """

    disc_mm: float = 6.0
    disc_hu: float = 15.0
    roi_px: int = 48
    step_px: int = 12
    half_d_prime: float = 1.0
    noise_hu: float = 80.0
    streak_hu: float = 40.0
    by_d_prime: float = 1.8
    reader_bias: tuple[float, ...] = (-0.35, -0.15, 0.0, 0.15, 0.35)
    reader_jitter: float = 0.35


@dataclass(frozen=True)
class DataConfig:
    """How the physics-labelled set is made.

    geometry, test_geometry     of the scans: the families kept for tests are scanned on another machine
    thinning                    of the views, one in so many; the current of each view stays
    fractions                   least and most of the full tube current, drawn log-uniformly
    full_share                  part of the images at full current
    grid_fractions              of the images that are measured: every one with every thinning
    kernels                     that the images are reconstructed with
    own_kernel_share            part of the real slices that keep the kernel of their header
    drawn_photons               of drawn patients, over the reference scanner: real slices turned out so much noisier
                                than their headers promise that drawn ones would be told by their quality
    photon_spread               standard deviation of ln(photons) around that or around what the header says
    cases, test_cases           drawn patients per family: of those trained on, of those kept for tests
    slices_per_case             of a drawn patient     slices_per_patient  of a real one, at most
    folds                       of the patients trained on; the first fold is for validation
    """

    families: tuple[Family, ...] = ("anthropomorphic-abdomen", "anthropomorphic-chest")
    test_families: tuple[Family, ...] = ("forbild-abdomen", "forbild-thorax", "mird")
    geometry: Geometry = field(default_factory=lambda: ParallelBeam(views=480))
    test_geometry: Geometry = field(default_factory=lambda: FanBeam(views=960))
    thinning: tuple[int, ...] = (1, 2, 3, 5)
    fractions: tuple[float, float] = (0.08, 1.0)
    full_share: float = 0.1
    grid_fractions: tuple[float, ...] = (1.0, 0.6, 0.35, 0.2, 0.1)
    kernels: tuple[Kernel, ...] = ("soft", "hann", "shepp-logan")
    own_kernel_share: float = 0.5
    drawn_photons: float = 0.3
    photon_spread: float = 0.4
    cases: int = 24
    test_cases: int = 3
    slices_per_case: int = 3
    slices_per_patient: int = 12
    shape_zyx: tuple[int, int, int] = (14, SIDE_PX, SIDE_PX)
    step_mm: float = 3.0
    pixels_mm: tuple[float, float] = (0.75, 0.95)
    folds: int = 6
    observer: ObserverConfig = field(default_factory=ObserverConfig)


@dataclass(frozen=True)
class TrainConfig:
    """One training run.

    crop_px         side of the crops
    whole_share     last part of the steps, on whole images, a quarter as many at once
    head_rate       of both heads, over that of the rest
    """

    steps: int
    batch: int
    crop_px: int = 256
    whole_share: float = 0.2
    learning_rate: float = 1e-3
    last_learning_rate: float = 1e-5
    head_rate: float = 5.0
    weight_decay: float = 0.05
    warmup_steps: int = 200
    gradient_clip: float = 1.0
    ema_decay: float = 0.998
    checkpoint_every: int = 250


TRAINING: dict[Preset, TrainConfig] = {
    "cpu": TrainConfig(steps=4000, batch=8),
    "gpu": TrainConfig(steps=4000, batch=32),
}


@dataclass(frozen=True)
class RunConfig:
    """From a series to its summary, and what may be scored at all.

    low_percentile          of the scores, beside their median
    poor_below              a slice below this rounds to Poor or Bad
    pixels_mm               least and most
    least_body_cm2          of a slice's body, median over the series: a head is smaller
    most_tilt_deg           between the slices' normal and the body's long axis
    """

    low_percentile: float = 10.0
    poor_below: float = 1.5
    pixels_mm: tuple[float, float] = (0.5, 1.1)
    least_body_cm2: float = 280.0
    most_tilt_deg: float = 20.0


@dataclass(frozen=True)
class ClinReadNetConfig:
    """The network, its data and the patients that it must never see in training (keys as in the prepared slices)."""

    network: NetworkConfig = field(default_factory=NetworkConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    data: DataConfig = field(default_factory=DataConfig)
    held_out: tuple[str, ...] = ()
