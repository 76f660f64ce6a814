"""Training pairs: full-dose slices and the noise that lower doses add to them, made once and kept on disk.

One .npy per pair, int16 (3, Y, X): HU of the full-dose slice, quantum noise and electronic noise. The two noises are
kept apart since any dose fraction is a weighted sum of them (`NoiseFields.at`): one file serves every dose.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from models.contract import ModelError
from models.lidnet.config import PairConfig, TrainConfig
from models.lidnet.slices import Slice, load_slice, patient_of
from models.side_by_side import each
from models.simulation.dose import NoiseFields, Scanner, noise_fields, scanner_of
from models.simulation.geometry import FanBeam
from models.simulation.kernels import KERNELS

NOISE_STEP_HU = 0.125
PADDING = np.iinfo(np.int16).min
"""Stands for "outside the reconstruction circle" in the first plane."""
LEAST_STORED_HU = -1024.0
AIR_ONLY_HU = -900.0
PLACEMENT_TRIES = 4

OnProgress = Callable[[int, int], None]


def make_pairs(
    files: Sequence[Path],
    out: Path,
    config: PairConfig,
    *,
    seed: int,
    device: torch.device | str = "cpu",
    workers: int = 0,
    on_progress: OnProgress | None = None,
) -> list[Path]:
    """Pairs of all these slices, named by patient; those already there are kept.

    device      projects the noise      workers     processes side by side; 0: this one
    """
    out.mkdir(parents=True, exist_ok=True)
    patients = {path: patient_of(path) for path in files}
    slices_of = Counter(patients.values())
    plan = [
        (path, out / f"{patients[path]}-{path.stem.split('-')[-1]}-{realisation}.npy")
        for path in files
        for realisation in range(-(-config.least_realisations // slices_of[patients[path]]))
    ]
    missing = [(path, target) for path, target in plan if not target.exists()]
    make = partial(_make_pair, config=config, seed=seed, device=device)
    report = on_progress or (lambda _done, _total: None)
    report(len(plan) - len(missing), len(plan))
    for done, _ in enumerate(each(make, missing, workers)):
        report(len(plan) - len(missing) + done + 1, len(plan))
    return [target for _, target in plan]


def _make_pair(where: tuple[Path, Path], *, config: PairConfig, seed: int, device: torch.device | str) -> None:
    path, target = where
    _write(target, _pair(load_slice(path), config, draw_seed(target.stem, seed), device))


def _pair(image: Slice, config: PairConfig, seed: int, device: torch.device | str) -> NDArray[np.int16]:
    scanner = random_scanner(image, config, np.random.default_rng(seed))
    fields = noise_fields(torch.from_numpy(image.hu)[None].to(device), image.spacing_mm, scanner, seed=seed)
    info = np.iinfo(np.int16)
    planes = np.empty((3, *image.hu.shape), np.int16)
    planes[0] = np.where(image.padding, PADDING, image.hu)
    for plane, noise in ((1, fields.quantum), (2, fields.electronic)):
        planes[plane] = np.clip(np.rint(noise[0].cpu().numpy() / NOISE_STEP_HU), info.min, info.max)
    return planes


def random_scanner(image: Slice, config: PairConfig, rng: np.random.Generator) -> Scanner:
    """The scanner of the header, with its photons and sometimes its kernel drawn anew."""
    scanner = scanner_of(image.acquisition, FanBeam(views=config.views))
    kernel = scanner.kernel
    if rng.random() < config.other_kernel_share:
        kernel = KERNELS[int(rng.integers(len(KERNELS)))]
    photons = scanner.photons * float(np.exp(config.photon_spread * rng.standard_normal()))
    return replace(
        scanner, kernel=kernel, photons=photons, electronic_sigma=scanner.electronic_sigma * float(rng.uniform(0.5, 2))
    )


@dataclass(frozen=True, eq=False)
class Batch:
    """Patches for one step: low_dose, full_dose float32 (B, 1, P, P), HU; weight (B, 1, P, P), 1/HU²."""

    low_dose: torch.Tensor
    full_dose: torch.Tensor
    weight: torch.Tensor


class PairStore:
    """All pairs, mapped into memory, drawn from by step number: the same step always gives the same batch."""

    def __init__(self, files: Sequence[Path], config: PairConfig, *, seed: int) -> None:
        if not files:
            raise ModelError("no training pairs")
        self._pairs = [np.load(path, mmap_mode="r") for path in files]
        self._config = config
        self._seed = seed
        patients = [path.stem.split("-")[0] for path in files]
        count = Counter(patients)
        # A patient with 160 slices weighs more than one with a single slice, but not 160 times.
        weight = np.array([count[patient] ** -0.5 for patient in patients])
        self._probability = weight / weight.sum()

    def batch(self, step: int, training: TrainConfig) -> Batch:
        """The batch of this step."""
        rng = np.random.default_rng((self._seed, step))
        chosen = rng.choice(len(self._pairs), size=training.batch, p=self._probability)
        samples = [self._patch(self._pairs[index], training, rng) for index in chosen]
        low, full, weight = (torch.from_numpy(np.stack(part)[:, None]) for part in zip(*samples, strict=True))
        return Batch(low, full, weight)

    def _patch(
        self, pair: NDArray[np.int16], training: TrainConfig, rng: np.random.Generator
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        planes = _crop(pair, training.patch_px, rng)
        padding = planes[0] == PADDING
        full = np.where(padding, -1000, planes[0]).astype(np.float32)
        noise = np.float32(NOISE_STEP_HU) * planes[1:].astype(np.float32)
        fields = NoiseFields(torch.from_numpy(noise[0]), torch.from_numpy(noise[1]))
        added = np.where(padding, np.float32(0), fields.at(self._fraction(rng)).numpy())
        # Weighed by what there is to remove: else the noisiest patches alone would set the gradient.
        weight = np.float32(1 / (float(added.var()) + training.noise_floor_hu**2))
        low = full + added
        if rng.random() < self._config.clipped_share:
            low = np.maximum(low, np.float32(LEAST_STORED_HU))
        return low, full, np.where(padding, np.float32(0), weight)

    def _fraction(self, rng: np.random.Generator) -> float:
        low, high = self._config.fractions
        if rng.random() < self._config.full_dose_share:
            return 1.0
        return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _crop(pair: NDArray[np.int16], side: int, rng: np.random.Generator) -> NDArray[np.int16]:
    """A square patch with some body in it, turned and mirrored at random, int16 (3, side, side)."""
    height, width = pair.shape[-2:]
    for _ in range(PLACEMENT_TRIES):
        top, left = (int(rng.integers(length - side + 1)) for length in (height, width))
        patch = pair[:, top : top + side, left : left + side]
        if np.mean(patch[0, ::4, ::4] > AIR_ONLY_HU) > 0.25:
            break
    turned = np.rot90(patch, int(rng.integers(4)), (1, 2))
    return np.ascontiguousarray(turned[:, :, ::-1] if rng.random() < 0.5 else turned)


def draw_seed(name: str, seed: int) -> int:
    """A seed for what bears this name: the order of the work does not matter."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:6], "big")


def _write(target: Path, planes: NDArray[np.int16]) -> None:
    """Whole or not at all: an interrupted run leaves no half pair behind."""
    partial = target.with_suffix(".part")
    with partial.open("wb") as stream:
        np.save(stream, planes)
    os.replace(partial, target)
