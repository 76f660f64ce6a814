"""The physics-labelled set: slices with the ingredients of every degradation, made once and kept on disk.

Two files per slice: <name>.npy, int16 (P, Y, X) in steps of `STEP_HU`: base, streaks of each thinning but the first,
quantum noise of each, electronic noise of each; and <name>.json, what `Facts` says. One slice serves every current.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.clinreadnet.config import SIDE_PX, ClinReadNetConfig, DataConfig
from models.clinreadnet.degrade import CPU, Ingredients, Source, added_noise, ingredients_of
from models.clinreadnet.folds import grouped_folds
from models.clinreadnet.labels import Physics, physics_of
from models.contract import Acquisition, FloatArray, ModelError
from models.lidnet.pairs import draw_seed
from models.lidnet.slices import load_slice, patient_of
from models.side_by_side import each
from models.simulation.cases import Family, draw_case
from models.simulation.dose import Scanner, scanner_of
from models.simulation.kernels import nearest_kernel

Split = Literal["train", "validation", "test"]
OnProgress = Callable[[int, int], None]

STEP_HU = 0.125
REAL = "real CT"
"""The family of every slice that was scanned."""
UNSHARP = ("soft", "hann")
"""Kernels of real slices that can be used: a sharper one leaves too much noise to start from."""


@dataclass(frozen=True)
class Facts:
    """What is known of a slice beside its image."""

    patient: str
    family: str
    kernel: str
    spacing_mm: float
    thinning: tuple[int, ...]
    physics: Physics


@dataclass(frozen=True)
class Planned:
    """Slices of one patient to be made: names of the samples, and how to draw what they show."""

    split: Split
    names: tuple[str, ...]
    draw: Callable[[], list[Source]]


def make_samples(
    out: Path,
    config: ClinReadNetConfig,
    *,
    seed: int,
    slices: Sequence[Path] = (),
    workers: int = 0,
    device: torch.device = CPU,
    on_progress: OnProgress | None = None,
) -> list[Path]:
    """Samples of drawn patients and of real slices, in `out`/<split>/; those already there are kept. Their .npy.

    slices      prepared real slices (node/dicom/slices.py); patients in `held_out` go to "test" alone
    workers     processes that work side by side, each with the device; 0: this one alone
    device      that projects and reconstructs
    raises   ModelError     a slice cannot be read
    """
    for split in get_args(Split):
        (out / split).mkdir(parents=True, exist_ok=True)
    plan = plan_samples(config, seed=seed, slices=slices)
    missing = [one for one in plan if not all(_facts_path(path).exists() for path in _targets(one, out))]
    make = partial(_make, out=out, config=config.data, seed=seed, device=device)
    report = on_progress or (lambda _done, _all: None)
    report(len(plan) - len(missing), len(plan))
    for done, _ in enumerate(each(make, missing, workers)):
        report(len(plan) - len(missing) + done + 1, len(plan))
    return [path for one in plan for path in _targets(one, out)]


def plan_samples(config: ClinReadNetConfig, *, seed: int, slices: Sequence[Path] = ()) -> list[Planned]:
    """Everything to be made. Families alternate, so that an early part of them is mixed too."""
    drawn = sorted(_drawn(config.data, seed), key=lambda one: one.names[0].rsplit(".", 1)[-1])
    return [*drawn, *_scanned(slices, config, seed)]


def _drawn(config: DataConfig, seed: int) -> Iterator[Planned]:
    last = min(config.folds, config.cases) - 1
    for family in (*config.families, *config.test_families):
        test = family in config.test_families
        for number in range(config.test_cases if test else config.cases):
            split: Split = "test" if test else "validation" if number % config.folds == last else "train"
            patient = f"{family}.{number:03d}"
            names = tuple(f"{patient}-{index}" for index in range(config.slices_per_case))
            yield Planned(split, names, partial(draw_sources, family, patient, config, draw_seed(patient, seed)))


def _scanned(slices: Sequence[Path], config: ClinReadNetConfig, seed: int) -> Iterator[Planned]:
    patients: dict[str, list[Path]] = {}
    for path in sorted(slices):
        if _usable(path):
            patients.setdefault(patient_of(path), []).append(path)
    chosen = [(patient, path) for patient in sorted(patients) for path in _spread(patients[patient], config.data)]
    kept = [(patient, path) for patient, path in chosen if patient not in config.held_out]
    folds = min(config.data.folds, len({patient for patient, _ in kept}))
    fold_of = dict(zip(kept, grouped_folds([patient for patient, _ in kept], folds, seed=seed), strict=True))
    for patient, path in chosen:
        first = folds > 1 and fold_of.get((patient, path)) == 0
        split: Split = "test" if patient in config.held_out else "validation" if first else "train"
        yield Planned(split, (path.stem,), partial(_read, path))


def _usable(path: Path) -> bool:
    with np.load(path, allow_pickle=False) as arrays:
        return arrays["hu"].shape == (SIDE_PX, SIDE_PX) and nearest_kernel(str(arrays["kernel"])) in UNSHARP


def _spread(paths: Sequence[Path], config: DataConfig) -> list[Path]:
    count = min(config.slices_per_patient, len(paths))
    return [paths[index] for index in np.linspace(0, len(paths) - 1, count).round().astype(int)]


def _read(path: Path) -> list[Source]:
    found = load_slice(path)
    return [Source(path.stem, found.hu, found.spacing_mm, found.patient, REAL, False, found.acquisition)]


def draw_sources(family: Family, patient: str, config: DataConfig, seed: int) -> list[Source]:
    """Slices of a drawn patient, evenly spread."""
    pixel = float(np.random.default_rng(seed).uniform(*config.pixels_mm))
    case = draw_case(family, seed=seed, shape_zyx=config.shape_zyx, spacing_zyx_mm=(config.step_mm, pixel, pixel))
    levels = np.linspace(0, len(case.voxels) - 1, config.slices_per_case + 2).round().astype(int)[1:-1]
    return [
        Source(f"{patient}-{number}", case.voxels[index], pixel, patient, family, True, Acquisition())
        for number, index in enumerate(levels)
    ]


def _targets(planned: Planned, out: Path) -> list[Path]:
    return [out / planned.split / f"{name}.npy" for name in planned.names]


def _make(planned: Planned, *, out: Path, config: DataConfig, seed: int, device: torch.device) -> None:
    for target, source in zip(_targets(planned, out), planned.draw(), strict=True):
        drawn = draw_seed(source.name, seed)
        scanner = random_scanner(source, config, np.random.default_rng(drawn))
        parts = ingredients_of(source, scanner, config.thinning, seed=drawn, device=device)
        physics = physics_of(parts, scanner, source.spacing_mm, config.observer)
        facts = Facts(source.patient, source.family, scanner.kernel, source.spacing_mm, config.thinning, physics)
        save_sample(target, parts, facts)


def random_scanner(source: Source, config: DataConfig, rng: np.random.Generator) -> Scanner:
    """The scanner of the header, or of tests, with its photons and kernel drawn."""
    geometry = config.test_geometry if source.family in config.test_families else config.geometry
    scanner = scanner_of(source.acquisition, geometry)
    promised = scanner.photons * (config.drawn_photons if source.noise_free else 1.0)
    photons = promised * float(np.exp(config.photon_spread * rng.standard_normal()))
    kernel = config.kernels[int(rng.integers(len(config.kernels)))]
    if not source.noise_free and rng.random() < config.own_kernel_share:
        kernel = scanner.kernel
    return replace(
        scanner, photons=photons, kernel=kernel, electronic_sigma=scanner.electronic_sigma * float(rng.uniform(0.5, 2))
    )


def save_sample(target: Path, parts: Ingredients, facts: Facts) -> None:
    """Write one sample: the image, then its facts, each whole or not at all."""
    info = np.iinfo(np.int16)
    planes = np.concatenate([parts.base[None], parts.streaks[1:], parts.quantum, parts.electronic])
    stored = np.clip(np.rint(planes / STEP_HU), info.min, info.max).astype(np.int16)
    partial_file = target.with_suffix(".part")
    with partial_file.open("wb") as stream:
        np.save(stream, stored)
    os.replace(partial_file, target)
    partial_file.write_text(json.dumps(asdict(facts)), encoding="utf8")
    os.replace(partial_file, _facts_path(target))


@dataclass(frozen=True, eq=False)
class Sample:
    """One slice on disk, mapped into memory."""

    path: Path
    facts: Facts
    planes: NDArray[np.int16]

    @property
    def name(self) -> str:
        """That of its files."""
        return self.path.stem

    def layers(self, view: int, rows: slice = slice(None), columns: slice = slice(None)) -> NDArray[np.int16]:
        """Base, streaks, quantum and electronic noise at one thinning (its index), (4, Y, X), in steps of `STEP_HU`."""
        views = len(self.facts.thinning)
        chosen = self.planes[[0, view, views + view, 2 * views + view], rows, columns]
        if view == 0:
            chosen[1] = 0
        return chosen

    def noise_weights(self, view: int, fraction: float, *, signs: tuple[int, int] = (1, 1)) -> tuple[float, float]:
        """What quantum and electronic noise are multiplied with at this part of the full current."""
        quantum, electronic = added_noise(self.facts.physics.own_noise, self.facts.thinning[view], fraction)
        return signs[0] * math.sqrt(quantum), signs[1] * math.sqrt(electronic)

    def image(self, view: int, fraction: float, *, signs: tuple[int, int] = (1, 1)) -> FloatArray:
        """The whole slice at this thinning (its index) and part of the full current, HU."""
        layers = torch.from_numpy(self.layers(view))[None]
        weights = torch.tensor([self.noise_weights(view, fraction, signs=signs)])
        image: FloatArray = mixed(layers, weights)[0].numpy()
        return image


def mixed(layers: Tensor, noise_weights: Tensor) -> Tensor:
    """Images of their layers, on the device where these are, HU.

    layers   int16 (B, 4, Y, X), as `Sample.layers`     noise_weights   float32 (B, 2)      returns  (B, Y, X)
    """
    hu = STEP_HU * layers.float()
    quantum, electronic = noise_weights[:, :, None, None].unbind(1)
    return hu[:, 0] + hu[:, 1] + quantum * hu[:, 2] + electronic * hu[:, 3]


def load_sample(path: Path) -> Sample:
    """A sample by its .npy.

    raises   ModelError     its facts are missing or incomplete
    """
    facts = read_facts(path)
    return Sample(path, facts, np.load(path, mmap_mode="r"))


def read_facts(path: Path) -> Facts:
    """What is known of a sample (its .npy), read without its image.

    raises   ModelError     missing or incomplete
    """
    try:
        content = json.loads(_facts_path(path).read_text(encoding="utf8"))
        told = content.pop("physics")
        physics = Physics(
            **{name: tuple(told[name]) for name in ("quantum", "electronic", "streaks")},
            responses=tuple((q, e, s) for q, e, s in told["responses"]),
            signal=told["signal"],
            own_noise=told["own_noise"],
        )
        return Facts(**{**content, "thinning": tuple(content["thinning"])}, physics=physics)
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{path.name}: its facts are missing or incomplete") from error


def sample_files(folder: Path) -> list[Path]:
    """All samples of a split, in a fixed order.

    raises   ModelError     there are none
    """
    found = sorted(path for path in folder.glob("*.npy") if _facts_path(path).exists())
    if not found:
        raise ModelError(f"no samples in {folder.name}")
    return found


def _facts_path(path: Path) -> Path:
    return path.with_suffix(".json")
