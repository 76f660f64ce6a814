"""Samples for the collaborative training: the same slices at full and at lower dose, and the lesions in them.

One .npz per sample: full int16 (M, Y, X), HU, with the noise of the full dose; quantum, electronic int16 (M, Y, X), the
noises that lower doses add (`NoiseFields`), in steps of 1/8 HU; labels uint8 (Y, X), boxes float32 (N, 4), category
int64 (N,), ignore float32 (G, 4) as in models/deeplesion/samples.py; patient, family str. Pixels of 0.8 mm, M slices
2 mm apart.
"""

from __future__ import annotations

import os
import struct
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from models.contract import Acquisition, BoolArray, FloatArray, ModelError
from models.deeplesion.config import SPACING_MM, DeepLesionConfig
from models.deeplesion.losses import Targets
from models.deeplesion.samples import LabelledVolume, Sample, draw_labelled, draw_seed, sample_at
from models.evaluation.noise import body_mask
from models.lidnet.pairs import NOISE_STEP_HU
from models.side_by_side import each
from models.simulation.cases import Family
from models.simulation.dose import NoiseFields, noise_fields, scanner_of
from models.simulation.geometry import FanBeam

OnProgress = Callable[[int, int], None]

PLANES = ("full", "quantum", "electronic")
LENGTHS_AT = 26
"""In the local header of a ZIP member: the lengths of its name and of what follows it, both before the content."""


@dataclass(frozen=True)
class JointConfig:
    """What is drawn.

    families, cases     phantoms of each family
    slices_per_case     key slices of each, through its lesions
    healthy             patients without any lesion
    fractions           lowest and highest dose fraction in training, drawn log-uniformly
    views               projections per turn for the noise
    """

    families: tuple[Family, ...] = ("anthropomorphic-chest", "anthropomorphic-abdomen")
    cases: int = 24
    slices_per_case: int = 8
    healthy: bool = False
    fractions: tuple[float, float] = (0.08, 0.5)
    views: int = 400


@dataclass(frozen=True, eq=False)
class JointSample:
    """One key slice with its neighbours; arrays as in the module's docstring, noises float32 HU.

    body    the patient on the key slice, bool (Y, X)
    """

    full: FloatArray
    noise: NoiseFields
    labels: NDArray[np.uint8]
    boxes: FloatArray
    category: NDArray[np.int64]
    ignore: FloatArray
    patient: str
    family: str
    body: BoolArray

    def low(self, fraction: float) -> FloatArray:
        """The slices at this part of the full dose, float32 (M, Y, X), HU."""
        low: FloatArray = self.full + self.noise.at(fraction).numpy()
        return low

    def square(self, side_px: int) -> JointSample:
        """A square of it around its first lesion, around the patient's middle without one; what it cuts is ignored.

        raises   ModelError     the sample is smaller than the square
        """
        height, width = self.body.shape
        if min(height, width) < side_px:
            raise ModelError(f"a square of {side_px} pixels does not fit a slice of {height} × {width}")
        around = self.boxes[0].reshape(2, 2).mean(0)[::-1] if len(self.boxes) else np.argwhere(self.body).mean(0)
        corner = np.rint(around - side_px / 2).clip(0, (height - side_px, width - side_px)).astype(int)
        rows, columns = (slice(start, start + side_px) for start in corner.tolist())
        seen = _seen(self.boxes, self.category, self.ignore, rows.start, columns.start, side_px)
        number = np.zeros(len(self.boxes) + 1, np.uint8)  # of each label afterwards: those of cut lesions are gone
        number[1:][seen.whole] = np.arange(1, seen.whole.sum() + 1)
        return JointSample(
            full=self.full[:, rows, columns],
            noise=NoiseFields(self.noise.quantum[:, rows, columns], self.noise.electronic[:, rows, columns]),
            labels=number[self.labels[rows, columns]],
            boxes=seen.boxes,
            category=seen.category,
            ignore=seen.ignore,
            patient=self.patient,
            family=self.family,
            body=self.body[rows, columns],
        )


def make_joint_samples(
    out: Path,
    config: JointConfig,
    detector: DeepLesionConfig,
    *,
    seed: int,
    first_case: int = 0,
    device: torch.device | str = "cpu",
    workers: int = 0,
    on_progress: OnProgress | None = None,
) -> list[Path]:
    """Samples of drawn cases in `out`; those already there are kept.

    first_case  number of the first case of each family: other numbers, other patients
    device      projects the noise      workers     processes that draw cases side by side; 0: this one
    """
    out.mkdir(parents=True, exist_ok=True)
    numbers = range(first_case, first_case + config.cases)
    plan = [_Case(family, f"{family}.{number:03d}") for family in config.families for number in numbers]
    missing = [case for case in plan if not all(target.exists() for target in case.targets(out, config))]
    make = partial(_make_case, out=out, config=config, detector=detector, seed=seed, device=device)
    report = on_progress or (lambda _done, _total: None)
    report(len(plan) - len(missing), len(plan))
    for done, _ in enumerate(each(make, missing, workers)):
        report(len(plan) - len(missing) + done + 1, len(plan))
    return [target for case in plan for target in case.targets(out, config)]


@dataclass(frozen=True)
class _Case:
    family: Family
    name: str

    def targets(self, out: Path, config: JointConfig) -> list[Path]:
        return [out / f"{self.name}-{index:02d}.npz" for index in range(config.slices_per_case)]


def _make_case(
    case: _Case, *, out: Path, config: JointConfig, detector: DeepLesionConfig, seed: int, device: torch.device | str
) -> None:
    drawn = draw_seed(f"joint/{case.name}", seed)
    data = replace(detector.data, lesions_per_case=0) if config.healthy else detector.data
    volume = draw_labelled(case.family, case.name, data, drawn)
    samples = _samples(volume, config, detector, drawn, device)
    for target, sample in zip(case.targets(out, config), samples, strict=True):
        _save(target, sample)


def _samples(
    volume: LabelledVolume, config: JointConfig, detector: DeepLesionConfig, seed: int, device: torch.device | str
) -> Sequence[JointSample]:
    rng = np.random.default_rng(seed)
    through = sorted({index for lesion in volume.lesions for index in range(lesion.box[0].start, lesion.box[0].stop)})
    chosen = rng.choice(through or len(volume.hu), size=config.slices_per_case, replace=True)
    return [
        _sample(sample_at(volume, int(index), detector.network.offsets_mm), volume.noise_free, config, seed, device)
        for index, seed in zip(chosen, rng.integers(1 << 40, size=len(chosen)).tolist(), strict=True)
    ]


def _sample(truth: Sample, noise_free: bool, config: JointConfig, seed: int, device: torch.device | str) -> JointSample:
    slices = torch.from_numpy(np.ascontiguousarray(truth.hu)).to(device)
    scanner = scanner_of(Acquisition(), FanBeam(views=config.views))
    fields = noise_fields(slices, SPACING_MM, scanner, seed=seed, repeats=2)
    fields = NoiseFields(fields.quantum.cpu(), fields.electronic.cpu())
    count = len(slices)
    # One realisation is the noise of the full dose itself, the other what lower doses add to it.
    own = NoiseFields(fields.quantum[:count], fields.electronic[:count])
    added = NoiseFields(fields.quantum[count:], fields.electronic[count:])
    full = truth.hu + (own.quantum + own.electronic).numpy() if noise_free else truth.hu
    return JointSample(
        full,
        added,
        truth.labels,
        truth.boxes,
        truth.category,
        truth.ignore,
        truth.patient,
        truth.family,
        _body_of(full),
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
            full = arrays["full"].astype(np.float32)
            return JointSample(
                full=full,
                noise=NoiseFields(quantum, electronic),
                labels=arrays["labels"],
                boxes=arrays["boxes"],
                category=arrays["category"],
                ignore=arrays["ignore"],
                patient=str(arrays["patient"]),
                family=str(arrays["family"]),
                body=_body_of(full),
            )
        except KeyError as error:
            raise ModelError(f"{path.name} is not a sample of the collaborative training: {error}") from error


def _body_of(full: FloatArray) -> BoolArray:
    return body_mask(full[len(full) // 2])


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
        self._outlines: dict[int, _Outline] = {}

    def batch(
        self, step: int, *, size: int, crop_px: int, noise_floor_hu: float, device: torch.device | str = "cpu"
    ) -> JointBatch:
        """Crops that hold a whole lesion, at a random dose each, on the device."""
        rng = np.random.default_rng((self._seed, step))
        low_fraction, high_fraction = self._config.fractions
        windows, fractions, targets = [], [], []
        for index in rng.integers(len(self._files), size=size):
            outline = self._outline(int(index))
            rows, columns = _crop(outline, crop_px, rng)
            fractions.append(float(np.exp(rng.uniform(np.log(low_fraction), np.log(high_fraction)))))
            windows.append(outline.window(rows, columns))
            targets.append(self._targets(outline, rows.start, columns.start, crop_px).to(torch.device(device)))
        planes = torch.from_numpy(np.stack(windows)).to(device)  # (B, 3, M, P, P)
        full = planes[:, 0].float()
        quantum, electronic = (NOISE_STEP_HU * planes[:, 1:].float()).unbind(1)
        noise = NoiseFields(quantum, electronic).at(torch.tensor(fractions)[:, None, None, None])
        weight = 1 / (noise.var((1, 2, 3), keepdim=True) + noise_floor_hu**2)
        return JointBatch(full + noise, full, weight, targets)

    def _outline(self, index: int) -> _Outline:
        if index not in self._outlines:
            self._outlines[index] = _outline_of(self._files[index])
        return self._outlines[index]

    def _targets(self, sample: _Outline, top: int, left: int, side: int) -> Targets:
        seen = _seen(sample.boxes, sample.category, sample.ignore, top, left, side)
        category = torch.from_numpy(seen.category)
        return Targets(
            boxes=torch.from_numpy(seen.boxes),
            category=torch.zeros_like(category) if self._single else category,
            ignore=torch.from_numpy(seen.ignore),
        )


@dataclass(frozen=True, eq=False)
class _Seen:
    """Of lesions in a square: arrays as in the module's docstring; whole bool (N,), of all lesions there were."""

    boxes: FloatArray
    category: NDArray[np.int64]
    ignore: FloatArray
    whole: BoolArray


def _seen(boxes: FloatArray, category: NDArray[np.int64], ignore: FloatArray, top: int, left: int, side: int) -> _Seen:
    """Whole boxes stay, cut ones are ignored."""
    shift = np.array([left, top, left, top], np.float32)
    moved = boxes - shift
    cut = moved.clip(0, side)
    whole = (cut == moved).all(1)
    touched = ((cut[:, 2:] - cut[:, :2]) > 0).all(1)
    return _Seen(
        moved[whole], category[whole], np.concatenate([cut[touched & ~whole], (ignore - shift).clip(0, side)]), whole
    )


@dataclass(frozen=True)
class _Plane:
    """Where an array lies in a file."""

    offset: int
    shape: tuple[int, ...]
    order: Literal["C", "F"]


@dataclass(frozen=True, eq=False)
class _Outline:
    """A sample without its pixels: of those a step wants a small part, and reading them all would take longer."""

    path: Path
    planes: list[_Plane]
    boxes: FloatArray
    category: NDArray[np.int64]
    ignore: FloatArray

    def window(self, rows: slice, columns: slice) -> NDArray[np.int16]:
        """full, quantum and electronic as they are stored, int16 (3, M, P, P)."""
        return np.stack(
            [
                np.memmap(self.path, np.int16, "r", plane.offset, plane.shape, plane.order)[:, rows, columns]
                for plane in self.planes
            ]
        )


def _outline_of(path: Path) -> _Outline:
    """raises ModelError    an array is missing"""
    with np.load(path, allow_pickle=False) as arrays:
        if missing := {*PLANES, "boxes", "category", "ignore"} - set(arrays.files):
            raise ModelError(f"{path.name} is not a sample of the collaborative training: no {', '.join(missing)}")
        boxes, category, ignore = arrays["boxes"], arrays["category"], arrays["ignore"]
    with zipfile.ZipFile(path) as archive:
        starts = [archive.getinfo(f"{name}.npy").header_offset for name in PLANES]
    with path.open("rb") as stream:
        return _Outline(path, [_plane_at(stream, start) for start in starts], boxes, category, ignore)


def _plane_at(stream: BinaryIO, start: int) -> _Plane:
    """The array of an uncompressed ZIP member that starts here."""
    stream.seek(start + LENGTHS_AT)
    stream.seek(sum(struct.unpack("<HH", stream.read(4))), os.SEEK_CUR)
    np.lib.format.read_magic(stream)
    shape, fortran, _ = np.lib.format.read_array_header_1_0(stream)
    return _Plane(stream.tell(), shape, "F" if fortran else "C")


def _crop(sample: _Outline, side: int, rng: np.random.Generator) -> tuple[slice, slice]:
    """A square around a whole lesion where one fits.

    raises   ModelError     the sample is smaller than the square
    """
    height, width = sample.planes[0].shape[1:]
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
