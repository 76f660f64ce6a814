"""Every number of the lesion detector, its data and its training."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

Preset = Literal["cpu", "gpu"]
Missing = Literal["teacher", "plain"]

CATEGORIES = ("lung", "liver", "lymph node", "kidney", "soft tissue")
SINGLE = ("lesion",)
UNKNOWN_CATEGORY = -1
"""Of a lesion whose kind nobody told, as most marks in a PACS are."""
POOLED, MASK_POOLED, MASK_SIDE = 7, 14, 28
"""Cells a side of a region: for class and box, for the mask's features, and of the mask."""
SPACING_MM = 0.8
"""Pixels of the network's input; slices are resampled to it, so that a size in pixels is a size."""
CURVE_LEAST_SCORE = 0.002
"""Of detections in a FROC curve: with the least score of DetectConfig it ended near 1.3 false positives per image."""
BOX_MARGIN_PX = 5
"""Around the lesion on each side, in pixels whatever their size: DeepLesion's rule (dossier 1.2)."""

SLICE_STEP_MM = 2.0
"""Between the slices of one input."""


def offsets_of(slices: int) -> tuple[float, ...]:
    """Where so many slices lie along the normal, mm, the key slice in the middle; an odd number."""
    return tuple(SLICE_STEP_MM * (number - slices // 2) for number in range(slices))


def numbered(count: int) -> tuple[str, ...]:
    """Names of categories that have none."""
    return tuple(f"category {number}" for number in range(1, count + 1))


@dataclass(frozen=True)
class DetectConfig:
    """From outputs to boxes.

    before_nms, proposals       boxes that the RPN hands to its NMS, and keeps
    least_score, most           of a slice's detections
    """

    before_nms: int = 600
    proposals: int = 128
    proposal_nms: float = 0.7
    nms: float = 0.3
    least_score: float = 0.05
    most: int = 50


@dataclass(frozen=True)
class LossConfig:
    """What counts as lesion, as background and as neither.

    rpn_positive, rpn_negative      IoU of an anchor with an annotation: at least, below
    roi_positive                    IoU of a proposal with an annotation: at least; below is background
    roi_proposals                   of an image, best first, from which the heads' samples are drawn
    ignored                         IoU with a box to ignore from which on nothing is background
    """

    rpn_positive: float = 0.6
    rpn_negative: float = 0.3
    rpn_samples: int = 256
    rpn_most_positive: int = 64
    roi_positive: float = 0.5
    roi_proposals: int = 64
    roi_samples: int = 32
    roi_most_positive: int = 16
    ignored: float = 0.3


@dataclass(frozen=True)
class FusionConfig:
    """How features of several images are joined (3DCE, dossier 4.3).

    slices      of one image
    per_cell    channels that each image has for each of the 7 × 7 cells of a region
    width       of the layer in which all cells of all images meet
    """

    slices: int = 3
    per_cell: int = 10
    width: int = 2048


@dataclass(frozen=True)
class NetworkConfig:
    """Sizes of the detector.

    categories      outputs of the RoI head beside background: one for the single-category twin
    offsets_mm      where the input slices lie along the normal; the middle one is the key slice
    windows         HU (low, high) through which every slice is seen
    widths          channels per level of the residual backbone, from stride 4 on, doubling stride each time
    fpn_channels    of the pyramid's levels (stride 4 and 8)
    anchor_sides    pixels, per level
    head_widths     of conv6 and conv7
    fusion          None: all slices are the channels of one image; else the images are joined in the head for class
                    and box, which then has no conv6 and conv7
    detect, loss    how boxes are chosen, and how targets are
    """

    categories: tuple[str, ...] = CATEGORIES
    offsets_mm: tuple[float, ...] = (-2.0, 0.0, 2.0)
    windows: tuple[tuple[float, float], ...] = ((-175.0, 275.0), (-1500.0, 500.0), (-1024.0, 3071.0))
    backbone: Literal["residual", "vgg16"] = "residual"
    widths: tuple[int, ...] = (48, 96, 160, 192)
    fpn_channels: int = 64
    anchor_sides: tuple[tuple[float, ...], ...] = ((16.0, 24.0, 32.0), (48.0, 96.0))
    anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    rpn_width: int = 64
    head_widths: tuple[int, int] = (64, 256)
    mask_width: int = 32
    fusion: FusionConfig | None = None
    detect: DetectConfig = field(default_factory=DetectConfig)
    loss: LossConfig = field(default_factory=LossConfig)

    @property
    def slices(self) -> int:
        """Slices of one input."""
        return len(self.offsets_mm)


J18 = NetworkConfig(
    categories=SINGLE,
    windows=((-1024.0, 3071.0),),
    backbone="vgg16",
    anchor_sides=((16.0, 24.0, 32.0, 48.0, 96.0),),
    rpn_width=512,
    head_widths=(512, 512),
)
"""The published shape (dossier 4.2): VGG-16 without its last two poolings, stride 8, 15 anchors, conv6 and conv7."""


THREE_DCE = replace(J18, offsets_mm=offsets_of(27), fusion=FusionConfig())
"""The published shape (dossier 4.3): nine images of three slices on the same backbone and anchors."""


@dataclass(frozen=True)
class DataConfig:
    """How samples are made.

    cases, test_cases   drawn patients per family: of those trained on, of those kept for tests
    shape_zyx           of a drawn volume; slice intervals (steps_mm) and pixel sizes are drawn from these
    plantings           times that each real volume is used, with other nodules each time
    lesions_per_case    in a drawn patient; a real chest gets twice as many
    slices_per_case     key slices: through lesions as far as there are any, the last `empty_share` anywhere
    noisy_share         part of the samples at a lower dose than full
    fractions           lowest and highest dose fraction, drawn log-uniformly
    photon_spread       standard deviation of ln(photons) around the reference scanner
    views, noise_slices projections per turn, and slices per volume, for which noise is simulated
    unannotated_share   part of the lesions whose annotation is withheld, as about half of DeepLesion's are missing
    derived_marks       lesions of a table that somebody drew and nobody measured are targets; else they are ignored
    validation_every    of the patients of each family, every so-manieth is for validation
    most_false_per_case findings per validation case that are no lesion: sets the operating point
    """

    cases: int = 80
    test_cases: int = 4
    shape_zyx: tuple[int, int, int] = (24, 448, 448)
    steps_mm: tuple[float, ...] = (1.25, 2.0, 2.5, 3.0, 5.0)
    pixels_mm: tuple[float, float] = (0.75, 0.95)
    plantings: int = 8
    lesions_per_case: int = 6
    slices_per_case: int = 12
    empty_share: float = 0.25
    noisy_share: float = 0.7
    fractions: tuple[float, float] = (0.1, 0.7)
    photon_spread: float = 0.4
    views: int = 160
    noise_slices: int = 8
    unannotated_share: float = 0.0
    derived_marks: bool = True
    validation_every: int = 6
    most_false_per_case: float = 1.0


@dataclass(frozen=True)
class TrainConfig:
    """One training run.

    lesion_share        part of the crops that are placed on a lesion, if the sample has one
    scale_jitter        smallest and largest magnification
    missing             "teacher": what the averaged network is sure of and nobody annotated is not background;
                        "plain": it is
    teacher_score       from which on the teacher is sure
    teacher_after       steps before which it is not asked
    """

    steps: int
    batch: int
    crop_px: int
    learning_rate: float = 1e-3
    last_learning_rate: float = 1e-5
    weight_decay: float = 0.01
    warmup_steps: int = 200
    gradient_clip: float = 5.0
    ema_decay: float = 0.998
    lesion_share: float = 0.75
    scale_jitter: tuple[float, float] = (0.85, 1.2)
    missing: Missing = "teacher"
    teacher_score: float = 0.5
    teacher_after: int = 800
    checkpoint_every: int = 250


TRAINING: dict[Preset, TrainConfig] = {
    "cpu": TrainConfig(steps=9000, batch=8, crop_px=192),
    "gpu": TrainConfig(steps=40_000, batch=32, crop_px=320),
}


@dataclass(frozen=True)
class RunConfig:
    """From a volume to lesions.

    step_mm             distance between key slices: thinner slices are passed over, never thicker ones
    link_iou            IoU by which boxes on neighbouring key slices are one lesion
    gap_mm              along the normal over which a lesion may be lost from sight
    """

    step_mm: float = 2.0
    batch: int = 2
    link_iou: float = 0.3
    gap_mm: float = 4.5
    legacy_interp: bool = False


@dataclass(frozen=True)
class DeepLesionConfig:
    """The detector, its data, and the patients and families that it must never see in training."""

    network: NetworkConfig = field(default_factory=NetworkConfig)
    data: DataConfig = field(default_factory=DataConfig)
    run: RunConfig = field(default_factory=RunConfig)
    held_out: tuple[str, ...] = ()
    test_families: tuple[str, ...] = ("forbild-thorax", "forbild-abdomen", "mird")
