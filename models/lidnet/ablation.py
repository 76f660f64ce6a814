"""Does the detector's feedback help, and is it lesions that help? Every arm trained alike, judged by another detector.

source: LIDnet dossier, section 7. The judge has another start and was trained on clean slices alone: a denoiser that
has only learned to please its own detector gains nothing here.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt
from torch import nn

from models.contract import BoolArray, FloatArray
from models.deeplesion.config import SPACING_MM, DeepLesionConfig
from models.deeplesion.network import Detector
from models.evaluation.bootstrap import Interval
from models.evaluation.froc import Bootstrap, Outcome, Reading, Tally, match
from models.evaluation.metrics import SOFT_TISSUE, psnr
from models.evaluation.noise import body_mask
from models.evaluation.table import Row, Table
from models.lidnet.collaborate import Arm, Collaboration, CollaborationConfig, denoise_stack
from models.lidnet.joint import JointConfig, JointSample, JointStore, load_joint, make_joint_samples

Method = Arm | Literal["A0", "full dose"]
OnProgress = Callable[[str, int, int, float], None]

COMPARISONS: tuple[tuple[Arm, Method], ...] = (
    ("A1", "A0"),
    ("A6", "A1"),
    ("A3", "A2"),
    ("A6", "A5"),
    ("A6", "A6-shuffled"),
)
FIRST_TEST_CASE = 1000
RING_MM = (2.0, 5.0)
NOTES = (
    "Simulated patients that no training saw; low dose is simulated.",
    "Detection is by a detector that took no part in the training (other start, clean slices only): mean sensitivity at"
    " .5, 1, 2 and 4 false positives per slice, IoU 0.5.",
    "ROI RMSE: over the lesions' boxes against the full-dose slice. CNR: lesion less ring, over the ring's spread.",
    "PSNR: soft tissue -160…240 HU (data range 400), over the body.",
    "All seeds together; 95 % bootstrap over patients, the same patients drawn for both sides of a difference.",
)


@dataclass(frozen=True)
class AblationConfig:
    """What is compared.

    arms        trained; the low-dose input (A0) and the full dose (the ceiling) are always measured besides
    seeds       one training of every arm each
    training    its samples           test    the samples of the judgement
    fractions   doses of the judgement
    """

    collaboration: CollaborationConfig
    arms: tuple[Arm, ...] = ("A1", "A2", "A3", "A4", "A5", "A6", "A6-shuffled")
    seeds: tuple[int, ...] = (1, 2, 3)
    training: JointConfig = field(default_factory=JointConfig)
    test: JointConfig = field(default_factory=lambda: JointConfig(cases=10, slices_per_case=4))
    fractions: tuple[float, ...] = (0.25, 0.1)


@dataclass
class _Measured:
    """One method at one dose: outcomes of the judge, and numbers per patient."""

    outcomes: list[Outcome] = field(default_factory=list)
    numbers: dict[str, dict[str, list[float]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(list)))


def run(
    denoiser: nn.Module,
    detector: Detector,
    judge: Detector,
    out: Path,
    config: AblationConfig,
    detector_config: DeepLesionConfig,
    *,
    seed: int = 0,
    device: torch.device | str = "cpu",
    on_progress: OnProgress | None = None,
) -> tuple[Table, Table]:
    """Every arm and its differences; a run that was stopped goes on where it was.

    denoiser, detector  trained apart, where every arm starts       judge   trained apart from both
    out         samples, checkpoints and weights of every arm
    raises   ModelError     a checkpoint of another run, or a loss that is no longer finite
    """
    report: OnProgress = on_progress or (lambda _what, _done, _total, _loss: None)

    def samples(what: str, wanted: JointConfig, first_case: int) -> list[Path]:
        return make_joint_samples(
            out / what,
            wanted,
            detector_config,
            seed=seed,
            first_case=first_case,
            on_progress=lambda done, total: report(f"{what} samples", done, total, float("nan")),
        )

    files = samples("training", config.training, 0)
    tested = [load_joint(path) for path in samples("test", config.test, FIRST_TEST_CASE)]
    single = len(detector_config.network.categories) == 1
    measured: dict[tuple[float, Method], _Measured] = defaultdict(_Measured)
    for number in config.seeds:
        store = JointStore(files, config.training, seed=number, single=single)
        for arm in config.arms:
            collaboration = Collaboration(
                copy.deepcopy(denoiser),
                copy.deepcopy(detector),
                store,
                config.collaboration,
                arm=arm,
                seed=number,
                device=device,
            )
            checkpoint = out / f"{arm}-{number}.pt"
            if checkpoint.exists():
                collaboration.load(checkpoint)
            collaboration.fit(checkpoint, report)
            for fraction in config.fractions:
                _judge(measured[fraction, arm], collaboration.smoothed, judge, tested, fraction)
    for fraction in config.fractions:
        for _ in config.seeds:  # as often as the arms, so that differences have the same images on both sides
            _judge(measured[fraction, "A0"], None, judge, tested, fraction)
            _judge(measured[fraction, "full dose"], None, judge, tested, 1.0)
    return _tables(measured, config)


@torch.inference_mode()
def _judge(
    into: _Measured, denoiser: nn.Module | None, judge: Detector, tested: Sequence[JointSample], fraction: float
) -> None:
    judge.eval()
    device = judge.calibration.device
    for sample in tested:
        hu = torch.from_numpy(sample.full if fraction == 1 else sample.low(fraction))[None]
        shown = hu if denoiser is None else _padded(denoiser, hu.to(device))
        [found] = judge.detect(shown.to(device), masks=False)
        boxes, scores = found.boxes.cpu().numpy(), found.scores.cpu().numpy()
        reading = Reading(sample.patient, _last_inside(sample.boxes), _last_inside(boxes), scores.astype(np.float64))
        into.outcomes.append(match(reading))
        middle = len(sample.full) // 2
        for name, value in compare(shown[0, middle].cpu().numpy(), sample).items():
            into.numbers[name][sample.patient].append(value)


def _padded(denoiser: nn.Module, hu: torch.Tensor) -> torch.Tensor:
    """(1, M, H, W) of any size through a denoiser that wants multiples."""
    multiple = int(getattr(denoiser, "multiple", 1))
    height, width = hu.shape[-2:]
    padded = nn.functional.pad(hu, (0, -width % multiple, 0, -height % multiple), mode="reflect")
    return denoise_stack(denoiser, padded)[..., :height, :width]


def _last_inside(boxes: FloatArray) -> NDArray[np.float64]:
    """Boxes whose x2, y2 are edges, to boxes whose x2, y2 are the last pixel inside, as the protocol counts."""
    return boxes.astype(np.float64).reshape(-1, 4) - (0, 0, 1, 1)


def compare(image: FloatArray, sample: JointSample) -> Mapping[str, float]:
    """Key slice (Y, X) against the full dose: PSNR of the body, RMSE in the lesions' boxes, CNR of the lesions."""
    reference = sample.full[len(sample.full) // 2]
    squares = [
        (image - reference)[rows, columns].astype(np.float64).ravel() ** 2
        for rows, columns in (_inside(box) for box in sample.boxes)
    ]
    ratios = [_cnr(image, sample.labels == number + 1) for number in range(len(sample.boxes))]
    return {
        "PSNR (dB)": psnr(image, reference, window=SOFT_TISSUE, where=body_mask(reference)),
        "ROI RMSE (HU)": float(np.sqrt(np.concatenate(squares).mean())) if squares else float("nan"),
        "CNR": float(np.mean(ratios)) if ratios else float("nan"),
    }


def _inside(box: FloatArray) -> tuple[slice, slice]:
    x1, y1, x2, y2 = (round(float(value)) for value in box)
    return slice(y1, y2), slice(x1, x2)


def _cnr(image: FloatArray, inside: BoolArray) -> float:
    distance = distance_transform_edt(~inside, sampling=SPACING_MM)
    ring = (distance >= RING_MM[0]) & (distance <= RING_MM[1])
    return float(abs(image[inside].mean() - image[ring].mean()) / image[ring].std())


def _tables(measured: Mapping[tuple[float, Method], _Measured], config: AblationConfig) -> tuple[Table, Table]:
    bootstrap = Bootstrap()
    rows, differences = [], []
    methods: tuple[Method, ...] = ("A0", *config.arms, "full dose")
    for fraction in config.fractions:
        condition = f"{100 * fraction:.0f} % dose"
        all_values = {method: _per_patient(measured[fraction, method]) for method in methods}
        for method, values in all_values.items():
            rows.append(Row(condition, method, _intervals(values, None, bootstrap)))
        for arm, other in COMPARISONS:
            if {arm, other} <= set(methods):
                gained = _intervals(all_values[arm], all_values[other], bootstrap)
                differences.append(Row(condition, f"{arm} − {other}", gained))
    return (
        Table("Arms of the collaborative training", tuple(rows), NOTES),
        Table("Differences of arms", tuple(differences), NOTES),
    )


@dataclass(frozen=True, eq=False)
class _Values:
    """The judge's outcomes, and the mean of each number per patient, patients in the tally's order."""

    tally: Tally
    numbers: dict[str, NDArray[np.float64]]


def _per_patient(measured: _Measured) -> _Values:
    tally = Tally(measured.outcomes)
    numbers = {
        name: np.array([_mean(values[patient]) for patient in tally.patients])
        for name, values in measured.numbers.items()
    }
    return _Values(tally, numbers)


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if np.isfinite(value)]
    return float(np.mean(known)) if known else float("nan")


def _intervals(values: _Values, other: _Values | None, bootstrap: Bootstrap) -> dict[str, Interval]:
    """Each measure, or its difference to another method's, over patients drawn alike for both."""

    def measure(weights: NDArray[np.int64]) -> NDArray[np.float64]:
        own = _weighed(values, weights)
        return own if other is None else own - _weighed(other, weights)

    names = ("mean sensitivity", *values.numbers)
    return dict(zip(names, bootstrap.interval(measure, len(values.tally.patients)), strict=True))


def _weighed(values: _Values, weights: NDArray[np.int64]) -> NDArray[np.float64]:
    found = [values.tally.average_sensitivity(weights)]
    for numbers in values.numbers.values():
        known = np.isfinite(numbers)
        total = weights[known].sum()
        found.append(float(weights[known] @ numbers[known] / total) if total else float("nan"))
    return np.array(found)
