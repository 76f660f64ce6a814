"""Training samples: key slices with their neighbours and the truth, made once from volumes and kept on disk.

One .npz per sample: hu int16 (M, Y, X) on pixels of `SPACING_MM`; labels uint8 (Y, X), 0 or 1 + the lesion's number;
boxes float32 (N, 4); category int64 (N,), index into CATEGORIES or −1; annotated bool (N,); ignore float32 (G, 4),
lesions that the key slice only grazes; patient, family str.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from models.contract import Acquisition, BoolArray, FloatArray, ModelError
from models.deeplesion.config import BOX_MARGIN_PX, CATEGORIES, SPACING_MM, DataConfig, DeepLesionConfig
from models.deeplesion.resample import positions_of, resize, resized_shape, slab
from models.side_by_side import each
from models.simulation.cases import Family, PlantedLesion, draw_case, plant_in
from models.simulation.dose import NoiseFields, noise_fields, scanner_of
from models.simulation.geometry import FanBeam
from models.weights import write_whole

Split = Literal["train", "validation", "test"]
OnProgress = Callable[[int, int], None]

FAMILIES: tuple[Family, ...] = (
    "anthropomorphic-chest", "anthropomorphic-abdomen", "forbild-thorax", "forbild-abdomen", "mird"
)  # fmt: skip
"""Those that the shipped weights were trained and measured on."""
CLOSED = "categories.json"
GRAZED = 0.25
"""Of a lesion's largest section: a smaller one is neither a target nor background."""
LEAST_SECTION_PX = 6.0
"""Pixels of the network's grid: smaller sections are grazed ones too."""


@dataclass(frozen=True, eq=False)
class LabelledVolume:
    """A scan and what is in it.

    hu              float32 (Z, Y, X), HU, padding set to air
    noise_free      drawn, not scanned: the noise of the full dose is missing too
    patient         a key that stands for the patient
    """

    hu: FloatArray
    spacing_zyx_mm: tuple[float, float, float]
    lesions: tuple[PlantedLesion, ...]
    patient: str
    family: str
    noise_free: bool


@dataclass(frozen=True, eq=False)
class Sample:
    """One key slice; arrays as in the module's docstring, hu float32."""

    hu: FloatArray
    labels: NDArray[np.uint8]
    boxes: FloatArray
    category: NDArray[np.int64]
    annotated: BoolArray
    ignore: FloatArray
    patient: str
    family: str


def save_volume(path: Path, hu: FloatArray, spacing_zyx_mm: Sequence[float], *, patient: str, collection: str) -> None:
    """A prepared real volume: hu int16 (Z, Y, X) with padding set to air, spacing, key of the patient."""
    info = np.iinfo(np.int16)
    stored = np.clip(np.rint(hu), info.min, info.max).astype(np.int16)
    _write(path, hu=stored, spacing_zyx_mm=np.array(spacing_zyx_mm), patient=patient, collection=collection)


def load_volume(path: Path) -> LabelledVolume:
    """A prepared real volume, nothing annotated.

    raises   ModelError     an array is missing
    """
    with np.load(path, allow_pickle=False) as arrays:
        try:
            z, y, x = (float(step) for step in arrays["spacing_zyx_mm"])
            hu = arrays["hu"].astype(np.float32)
            return LabelledVolume(
                hu, (z, y, x), (), str(arrays["patient"]), str(arrays["collection"]), noise_free=False
            )
        except KeyError as error:
            raise ModelError(f"{path.name} is not a prepared volume: {error}") from error


def make_samples(
    out: Path,
    config: DeepLesionConfig,
    *,
    seed: int,
    volumes: Sequence[Path] = (),
    workers: int = 0,
    device: torch.device | str = "cpu",
    on_progress: OnProgress | None = None,
) -> list[Path]:
    """Samples of drawn cases and of real volumes with planted nodules, in `out`/<split>/; those already there are kept.

    volumes     prepared real chests; patients in `held_out` go to "test" alone
    workers     processes that draw cases side by side; 0: in this one
    device      where the noise is projected and reconstructed
    """
    for split in get_args(Split):
        (out / split).mkdir(parents=True, exist_ok=True)
    plan = plan_cases(config, seed=seed, volumes=volumes)
    made = [target for case in plan for target in _targets(case, out, config)]
    missing = [case for case in plan if not all(target.exists() for target in _targets(case, out, config))]
    make = partial(_make_case, out=out, config=config, seed=seed, device=device)
    report = on_progress or (lambda _done, _all: None)
    report(len(plan) - len(missing), len(plan))
    for done, _ in enumerate(each(make, missing, workers)):
        report(len(plan) - len(missing) + done + 1, len(plan))
    return made


def close(folder: Path, categories: int) -> None:
    """Say that the samples of a folder have so many categories of their own, and that no others belong to them."""
    write_whole(json.dumps({"categories": categories}).encode(), folder / CLOSED)


def own_categories(folder: Path) -> int | None:
    """How many categories of their own these samples have; None where they are those of CATEGORIES.

    raises   ModelError     what `close` wrote is damaged
    """
    try:
        return int(json.loads((folder / CLOSED).read_text(encoding="utf8"))["categories"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, LookupError) as error:
        raise ModelError(f"{folder / CLOSED} is damaged") from error


def _targets(case: Planned, out: Path, config: DeepLesionConfig) -> list[Path]:
    return [out / case.split / f"{case.name}-{number:02d}.npz" for number in range(config.data.slices_per_case)]


def _make_case(case: Planned, *, out: Path, config: DeepLesionConfig, seed: int, device: torch.device | str) -> None:
    samples = samples_of(case.draw(), config, seed=draw_seed(case.name, seed), device=device)
    for target, sample in zip(_targets(case, out, config), samples, strict=True):
        save_sample(target, sample)


@dataclass(frozen=True)
class Planned:
    """A case to be made: its name starts with the patient's, who is in this split and no other."""

    split: Split
    name: str
    patient: str
    family: str
    draw: Callable[[], LabelledVolume]


def plan_cases(config: DeepLesionConfig, *, seed: int, volumes: Sequence[Path] = ()) -> list[Planned]:
    """All cases that the samples are made of. Families alternate, so that an early part of them is mixed too."""
    return [*sorted(_drawn(config, seed), key=lambda case: case.name[-3:]), *_planted(volumes, config, seed)]


def _drawn(config: DeepLesionConfig, seed: int) -> Iterator[Planned]:
    for family in FAMILIES:
        test = family in config.test_families
        for number in range(config.data.test_cases if test else config.data.cases):
            validation = number % config.data.validation_every == config.data.validation_every - 1
            split: Split = "test" if test else "validation" if validation else "train"
            name = f"{family}.{number:03d}"
            draw = partial(draw_labelled, family, name, config.data, draw_seed(name, seed))
            yield Planned(split, name, name, family, draw)


def _planted(volumes: Sequence[Path], config: DeepLesionConfig, seed: int) -> Iterator[Planned]:
    """Each real volume several times with other nodules."""
    for path in volumes:
        patient = _text(path, "patient")
        split: Split = "test" if patient in config.held_out else "train"
        for number in range(config.data.plantings):
            name = f"{path.stem}.{number:03d}"
            draw = partial(_plant, path, config.data, draw_seed(name, seed))
            yield Planned(split, name, patient, _text(path, "collection"), draw)


def draw_labelled(family: Family, name: str, config: DataConfig, seed: int) -> LabelledVolume:
    """A drawn case with a random slice interval and pixel size."""
    rng = np.random.default_rng(seed)
    pixel = float(rng.uniform(*config.pixels_mm))
    spacing = (float(rng.choice(config.steps_mm)), pixel, pixel)
    case = draw_case(
        family, seed=seed, shape_zyx=config.shape_zyx, spacing_zyx_mm=spacing, lesions=config.lesions_per_case
    )
    return LabelledVolume(case.voxels, spacing, case.lesions, name, family, noise_free=True)


def _plant(path: Path, config: DataConfig, seed: int) -> LabelledVolume:
    volume = load_volume(path)
    try:
        hu, lesions = plant_in(volume.hu, volume.spacing_zyx_mm, seed=seed, lesions=2 * config.lesions_per_case)
    except ModelError:  # no lungs in it: an abdomen, worth its lesion-free slices
        return volume
    return replace(volume, hu=hu, lesions=lesions)


def samples_of(
    volume: LabelledVolume, config: DeepLesionConfig, *, seed: int, device: torch.device | str = "cpu"
) -> list[Sample]:
    """Key slices of a volume, at a random dose each."""
    rng = np.random.default_rng(seed)
    fields = _noise(volume, config.data, rng, device)
    annotated = rng.random(len(volume.lesions)) >= config.data.unannotated_share
    samples = []
    for number in range(config.data.slices_per_case):
        empty = number >= config.data.slices_per_case * (1 - config.data.empty_share)
        index = _key_slice(volume, rng, anywhere=empty)
        sample = sample_at(volume, index, config.network.offsets_mm, annotated=annotated)
        noise = slab(_noise_at(fields, volume, config.data, rng), index, _positions(volume), config.network.offsets_mm)
        noisy = sample.hu + resize(noise, (sample.hu.shape[1], sample.hu.shape[2]))
        samples.append(replace(sample, hu=noisy))
    return samples


def sample_at(
    volume: LabelledVolume, index: int, offsets_mm: Sequence[float], *, annotated: BoolArray | None = None
) -> Sample:
    """The sample of one key slice, with the noise that the volume has."""
    planes = slab(volume.hu, index, _positions(volume), offsets_mm)
    full = (planes.shape[1], planes.shape[2])
    shape = resized_shape(full, volume.spacing_zyx_mm[1:], SPACING_MM)
    labels = np.zeros(shape, np.uint8)
    boxes, category, marked, grazed = [], [], [], []
    for number, lesion in enumerate(volume.lesions):
        section = _section(lesion, index, full)
        if section is None:
            continue
        part = resize(section.astype(np.float32)[None], shape)[0]
        box = box_of(section, shape)
        largest = float(lesion.mask.sum((1, 2)).max())
        if section.sum() < GRAZED * largest or part.sum() < LEAST_SECTION_PX:
            grazed.append(box)
            continue
        boxes.append(box)
        category.append(CATEGORIES.index(lesion.category))
        marked.append(annotated is None or bool(annotated[number]))
        labels[part >= 0.5] = len(boxes)
    return Sample(
        hu=resize(planes, shape),
        labels=labels,
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        category=np.array(category, np.int64),
        annotated=np.array(marked, np.bool_),
        ignore=np.array(grazed, np.float32).reshape(-1, 4),
        patient=volume.patient,
        family=volume.family,
    )


def box_of(section: BoolArray, shape: tuple[int, int]) -> tuple[float, float, float, float]:
    """The box of a mask (Y, X) on a grid of this shape over the same field, with DeepLesion's margin, clipped."""
    down, across = shape[0] / section.shape[0], shape[1] / section.shape[1]
    rows, columns = (np.flatnonzero(section.any(axis)) for axis in (1, 0))
    return (
        max(columns[0] * across - BOX_MARGIN_PX, 0),
        max(rows[0] * down - BOX_MARGIN_PX, 0),
        min((columns[-1] + 1) * across + BOX_MARGIN_PX, shape[1]),
        min((rows[-1] + 1) * down + BOX_MARGIN_PX, shape[0]),
    )


def load_sample(path: Path) -> Sample:
    """One sample."""
    with np.load(path, allow_pickle=False) as arrays:
        return Sample(
            hu=arrays["hu"].astype(np.float32),
            labels=arrays["labels"],
            boxes=arrays["boxes"],
            category=arrays["category"],
            annotated=arrays["annotated"],
            ignore=arrays["ignore"],
            patient=str(arrays["patient"]),
            family=str(arrays["family"]),
        )


def family_of(path: Path) -> str:
    """The family of a sample, read without its image."""
    return _text(path, "family")


def patient_of(path: Path) -> str:
    """The key of a sample's patient, read without its image."""
    return _text(path, "patient")


def draw_seed(name: str, seed: int) -> int:
    """A seed for what bears this name: the order of the work does not matter."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:6], "big")


def _section(lesion: PlantedLesion, index: int, shape: tuple[int, int]) -> BoolArray | None:
    """The lesion's mask on this slice (Y, X), None where it has none."""
    depth, rows, columns = lesion.box
    if not depth.start <= index < depth.stop:
        return None
    plane = lesion.mask[index - depth.start]
    if not plane.any():
        return None
    section = np.zeros(shape, np.bool_)
    section[rows, columns] = plane
    return section


def _key_slice(volume: LabelledVolume, rng: np.random.Generator, *, anywhere: bool) -> int:
    """A random slice, through the thick of a random lesion where there are any."""
    if anywhere or not volume.lesions:
        return int(rng.integers(len(volume.hu)))
    lesion = volume.lesions[int(rng.integers(len(volume.lesions)))]
    sections = lesion.mask.sum((1, 2))
    return int(lesion.box[0].start + rng.choice(np.flatnonzero(sections >= GRAZED * sections.max())))


def _noise(
    volume: LabelledVolume, config: DataConfig, rng: np.random.Generator, device: torch.device | str = "cpu"
) -> NoiseFields:
    """Noise of some of the slices; neighbours share it (`_noise_at`), since it changes little along the body."""
    chosen = np.linspace(0, len(volume.hu) - 1, config.noise_slices + 2).round().astype(int)[1:-1]
    scanner = scanner_of(Acquisition(), FanBeam(views=config.views))
    photons = scanner.photons * float(np.exp(config.photon_spread * rng.standard_normal()))
    image = torch.from_numpy(np.ascontiguousarray(volume.hu[chosen], np.float32)).to(device)
    drawn = int(rng.integers(1 << 31))
    fields = noise_fields(image, volume.spacing_zyx_mm[1], replace(scanner, photons=photons), seed=drawn)
    return NoiseFields(fields.quantum.cpu(), fields.electronic.cpu())


def _noise_at(fields: NoiseFields, volume: LabelledVolume, config: DataConfig, rng: np.random.Generator) -> FloatArray:
    """Noise of every slice of the volume at a random dose, float32 (Z, Y, X): no two neighbours have the same."""
    low, high = config.fractions
    fraction = float(np.exp(rng.uniform(np.log(low), np.log(high)))) if rng.random() < config.noisy_share else 1.0
    planes: FloatArray = (fields.whole(fraction) if volume.noise_free else fields.at(fraction)).numpy()
    start = int(rng.integers(len(planes)))
    order = (start + np.arange(len(volume.hu))) % len(planes)
    noise: FloatArray = planes[order]
    if rng.random() < 0.5:
        noise = noise[:, :, ::-1]
    return noise


def _positions(volume: LabelledVolume) -> NDArray[np.float64]:
    return positions_of(len(volume.hu), volume.spacing_zyx_mm[0])


def _text(path: Path, name: str) -> str:
    with np.load(path, allow_pickle=False) as arrays:
        return str(arrays[name])


def scanned(volume: LabelledVolume, config: DataConfig, seed: int) -> LabelledVolume:
    """The volume with the noise of a random dose."""
    rng = np.random.default_rng(seed)
    noise = _noise_at(_noise(volume, config, rng), volume, config, rng)
    return replace(volume, hu=volume.hu + noise, noise_free=False)


def save_sample(target: Path, sample: Sample) -> None:
    """Write one sample, whole or not at all."""
    info = np.iinfo(np.int16)
    arrays = {name: getattr(sample, name) for name in ("labels", "boxes", "category", "annotated", "ignore")}
    hu = np.clip(np.rint(sample.hu), info.min, info.max).astype(np.int16)
    _write(target, hu=hu, patient=sample.patient, family=sample.family, **arrays)


def _write(target: Path, **arrays: Any) -> None:
    """Whole or not at all: an interrupted run leaves no half file behind."""
    partial_file = target.with_suffix(".part")
    with partial_file.open("wb") as stream:
        np.savez(stream, **arrays)
    os.replace(partial_file, target)
