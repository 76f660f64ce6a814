"""Samples for the collaborative training: the same slices at full and at lower dose, and the lesions in them.

One .npz per sample: full int16 (M, Y, X), HU, with the noise of the full dose; quantum, electronic int16 (M, Y, X), the
noises that lower doses add (`NoiseFields`), in steps of 1/8 HU; labels uint8 (Y, X), boxes float32 (N, 4), category
int64 (N,), ignore float32 (G, 4) as in models/deeplesion/samples.py; patient, family str. Pixels of 0.8 mm, M slices
2 mm apart.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from models.contract import Acquisition, FloatArray, ModelError
from models.deeplesion.config import SPACING_MM, DeepLesionConfig
from models.deeplesion.losses import Targets
from models.deeplesion.samples import LabelledVolume, draw_labelled, draw_seed, sample_at
from models.lidnet.pairs import NOISE_STEP_HU
from models.simulation.cases import Family
from models.simulation.dose import NoiseFields, noise_fields, scanner_of
from models.simulation.geometry import FanBeam

OnProgress = Callable[[int, int], None]


@dataclass(frozen=True)
class JointConfig:
    """What is drawn.

    families, cases     phantoms of each family
    slices_per_case     key slices of each, through its lesions
    fractions           lowest and highest dose fraction in training, drawn log-uniformly
    views               projections per turn for the noise
    """

    families: tuple[Family, ...] = ("anthropomorphic-chest", "anthropomorphic-abdomen")
    cases: int = 24
    slices_per_case: int = 8
    fractions: tuple[float, float] = (0.08, 0.5)
    views: int = 400


@dataclass(frozen=True, eq=False)
class JointSample:
    """One key slice with its neighbours; arrays as in the module's docstring, noises float32 HU."""

    full: FloatArray
    noise: NoiseFields
    labels: NDArray[np.uint8]
    boxes: FloatArray
    category: NDArray[np.int64]
    ignore: FloatArray
    patient: str
    family: str

    def low(self, fraction: float) -> FloatArray:
        """The slices at this part of the full dose, float32 (M, Y, X), HU."""
        low: FloatArray = self.full + self.noise.at(fraction).numpy()
        return low


def make_joint_samples(
    out: Path,
    config: JointConfig,
    detector: DeepLesionConfig,
    *,
    seed: int,
    first_case: int = 0,
    on_progress: OnProgress | None = None,
) -> list[Path]:
    """Samples of drawn cases in `out`; those already there are kept.

    first_case  number of the first case of each family: other numbers, other patients
    """
    out.mkdir(parents=True, exist_ok=True)
    plan = [(family, first_case + number) for family in config.families for number in range(config.cases)]
    made: list[Path] = []
    for done, (family, number) in enumerate(plan):
        name = f"{family}.{number:03d}"
        targets = [out / f"{name}-{index:02d}.npz" for index in range(config.slices_per_case)]
        if not all(target.exists() for target in targets):
            case = draw_seed(f"joint/{name}", seed)
            volume = draw_labelled(family, name, detector.data, case)
            for target, sample in zip(targets, _samples(volume, config, detector, case), strict=True):
                _save(target, sample)
        made += targets
        if on_progress is not None:
            on_progress(done + 1, len(plan))
    return made


def _samples(
    volume: LabelledVolume, config: JointConfig, detector: DeepLesionConfig, seed: int
) -> Sequence[JointSample]:
    rng = np.random.default_rng(seed)
    through = sorted({index for lesion in volume.lesions for index in range(lesion.box[0].start, lesion.box[0].stop)})
    chosen = rng.choice(through or len(volume.hu), size=config.slices_per_case, replace=True)
    return [_sample(volume, int(index), config, detector, int(rng.integers(1 << 40))) for index in chosen]


def _sample(
    volume: LabelledVolume, index: int, config: JointConfig, detector: DeepLesionConfig, seed: int
) -> JointSample:
    truth = sample_at(volume, index, detector.network.offsets_mm)
    slices = torch.from_numpy(np.ascontiguousarray(truth.hu))
    scanner = scanner_of(Acquisition(), FanBeam(views=config.views))
    fields = noise_fields(slices, SPACING_MM, scanner, seed=seed, repeats=2)
    count = len(slices)
    # One realisation is the noise of the full dose itself, the other what lower doses add to it.
    own = NoiseFields(fields.quantum[:count], fields.electronic[:count])
    added = NoiseFields(fields.quantum[count:], fields.electronic[count:])
    full = truth.hu + (own.quantum + own.electronic).numpy() if volume.noise_free else truth.hu
    return JointSample(
        full, added, truth.labels, truth.boxes, truth.category, truth.ignore, truth.patient, truth.family
    )


def load_joint(path: Path) -> JointSample:
    """One sample.

    raises   ModelError     an array is missing
    """
    with np.load(path, allow_pickle=False) as arrays:
        try:
            quantum, electronic = (
                torch.from_numpy(np.float32(NOISE_STEP_HU) * arrays[name].astype(np.float32))
                for name in ("quantum", "electronic")
            )
            return JointSample(
                full=arrays["full"].astype(np.float32),
                noise=NoiseFields(quantum, electronic),
                labels=arrays["labels"],
                boxes=arrays["boxes"],
                category=arrays["category"],
                ignore=arrays["ignore"],
                patient=str(arrays["patient"]),
                family=str(arrays["family"]),
            )
        except KeyError as error:
            raise ModelError(f"{path.name} is not a sample of the collaborative training: {error}") from error


def _save(target: Path, sample: JointSample) -> None:
    info = np.iinfo(np.int16)

    def whole(array: FloatArray, step: float) -> NDArray[np.int16]:
        stored: NDArray[np.int16] = np.clip(np.rint(array / step), info.min, info.max).astype(np.int16)
        return stored

    partial_file = target.with_suffix(".part")
    with partial_file.open("wb") as stream:
        np.savez(
            stream,
            full=whole(sample.full, 1),
            quantum=whole(sample.noise.quantum.numpy(), NOISE_STEP_HU),
            electronic=whole(sample.noise.electronic.numpy(), NOISE_STEP_HU),
            labels=sample.labels,
            boxes=sample.boxes,
            category=sample.category,
            ignore=sample.ignore,
            patient=sample.patient,
            family=sample.family,
        )
    os.replace(partial_file, target)


@dataclass(frozen=True, eq=False)
class JointBatch:
    """low, full float32 (B, M, P, P), HU; weight (B, 1, 1, 1), 1/HU²: of the pixel loss; one target per image."""

    low: torch.Tensor
    full: torch.Tensor
    weight: torch.Tensor
    targets: list[Targets]


class JointStore:
    """All samples, drawn from by step number: the same step always gives the same batch."""

    def __init__(self, files: Sequence[Path], config: JointConfig, *, seed: int, single: bool) -> None:
        """single   the detector has one category."""
        if not files:
            raise ModelError("no samples for the collaborative training")
        self._files = sorted(files)
        self._config = config
        self._seed = seed
        self._single = single

    def batch(self, step: int, *, size: int, crop_px: int, noise_floor_hu: float) -> JointBatch:
        """Crops that hold a whole lesion, at a random dose each."""
        rng = np.random.default_rng((self._seed, step))
        low_fraction, high_fraction = self._config.fractions
        lows, fulls, weights, targets = [], [], [], []
        for index in rng.integers(len(self._files), size=size):
            sample = load_joint(self._files[int(index)])
            rows, columns = _crop(sample, crop_px, rng)
            fraction = float(np.exp(rng.uniform(np.log(low_fraction), np.log(high_fraction))))
            noise = sample.noise.at(fraction)[:, rows, columns]
            full = torch.from_numpy(sample.full[:, rows, columns])
            fulls.append(full)
            lows.append(full + noise)
            weights.append(1 / (noise.var() + noise_floor_hu**2))
            targets.append(self._targets(sample, rows.start, columns.start, crop_px))
        weight = torch.stack(weights)[:, None, None, None]
        return JointBatch(torch.stack(lows), torch.stack(fulls), weight, targets)

    def _targets(self, sample: JointSample, top: int, left: int, side: int) -> Targets:
        """Whole boxes are targets, cut ones are ignored."""
        shift = np.array([left, top, left, top], np.float32)
        boxes = torch.from_numpy(sample.boxes - shift)
        seen = boxes.clamp(0, side)
        whole = (seen == boxes).all(1)
        touched = ((seen[:, 2:] - seen[:, :2]) > 0).all(1)
        grazed = torch.from_numpy(sample.ignore - shift).clamp(0, side)
        category = torch.from_numpy(sample.category)[whole]
        return Targets(
            boxes=boxes[whole],
            category=torch.zeros_like(category) if self._single else category,
            ignore=torch.cat([seen[touched & ~whole], grazed]),
        )


def _crop(sample: JointSample, side: int, rng: np.random.Generator) -> tuple[slice, slice]:
    """A square around a whole lesion where one fits.

    raises   ModelError     the sample is smaller than the square
    """
    height, width = sample.full.shape[1:]
    if min(height, width) < side:
        raise ModelError(f"a crop of {side} pixels does not fit a slice of {height} × {width}")
    fitting = sample.boxes[(sample.boxes[:, 2:] - sample.boxes[:, :2]).max(1, initial=0) <= side]
    box = fitting[int(rng.integers(len(fitting)))] if len(fitting) else None
    corner = []
    for axis, length in ((1, height), (0, width)):
        low, high = 0, length - side
        if box is not None:
            low = max(low, int(np.ceil(box[axis + 2] - side)))
            high = min(high, int(np.floor(box[axis])))
        corner.append(int(rng.integers(low, max(low, high) + 1)))
    return slice(corner[0], corner[0] + side), slice(corner[1], corner[1] + side)
