"""What the scores are worth, in numbers: on patients and families never trained on, beside simple baselines.

Every slice is mixed at every thinning of the views and every part of the current of the grid; its label is what five
pseudo-readers make of the physics. Nothing here can be compared with numbers on the public challenge.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from models.clinreadnet.baselines import Regressor, fitted, noise_features, scene_features
from models.clinreadnet.config import SIDE_PX, DataConfig
from models.clinreadnet.correlation import MEASURES, agreement, rank_correlation
from models.clinreadnet.labels import Latent, latent, level, quality
from models.clinreadnet.network import QualityNetwork
from models.clinreadnet.run import BATCH, score_slices, stored_slice
from models.clinreadnet.samples import REAL, Sample, load_sample
from models.contract import FloatArray, ModelError
from models.evaluation.bootstrap import Interval, over_patients
from models.evaluation.froc import Bootstrap
from models.evaluation.speed import interleaved
from models.evaluation.table import Row, Table
from models.lidnet.pairs import draw_seed

OnProgress = Callable[[int, int], None]
Report = Callable[[str, int, int], None]
"""Called with what is being done, images done, images in all."""
Floats = NDArray[np.float64]

FLIPPED_IMAGES = 40
BY_D_PRIME = "SROCC of d'"
MONOTONE = -0.95
"""Rank correlation of score and degradation by which a slice counts as monotone."""
NOTES = (
    "Simulated degradations and labels: five pseudo-readers of an observer model, no radiologist. Not comparable with"
    " figures on LDCTIQAG2023.",
    "Intervals are 95 % bootstrap intervals over patients; correlations have their signs, their sum has not.",
    "Dose is the part of the full tube current; views are left out at the same current, so that fewer views are less"
    " dose too.",
    "Noise SD and BRISQUE-like were fitted to images of the training patients.",
    "Streaks dominate: their root mean square is above the noise.",
)
FLIP_NOTES = ("Mean size of the change, and its 95 % bootstrap interval over patients.",)
MONOTONE_NOTES = (
    "Rank correlation of score and degradation within one slice: -1 where the score falls with every step.",
    "Worst: of all views for the dose, of all doses for the views. A score that does not move counts as 0.",
    f"Share: of the slices whose worst is {MONOTONE:g} or lower.",
)


@dataclass(frozen=True)
class Graded:
    """One image of the grid and its label.

    view, fraction      which thinning (its index), and part of the full current
    score               mean grade of the pseudo-readers, 0 … 4      quality  what they rounded
    """

    sample: Sample
    view: int
    fraction: float
    score: float
    quality: float
    physics: Latent

    def hu(self) -> FloatArray:
        """The image, HU."""
        return self.sample.image(self.view, self.fraction)


def graded_images(files: Sequence[Path], data: DataConfig, *, seed: int) -> list[Graded]:
    """All images of the grid of these samples, slice by slice; labels follow from the names."""
    return [image for path in files for image in _grid(load_sample(path), data, seed)]


def _grid(sample: Sample, data: DataConfig, seed: int) -> Iterator[Graded]:
    for view, thinning in enumerate(sample.facts.thinning):
        for fraction in data.grid_fractions:
            seen = latent(sample.facts.physics, view, fraction)
            value = quality(seen, data.observer)
            rng = np.random.default_rng(draw_seed(f"{sample.name}/{thinning}/{fraction}", seed))
            yield Graded(sample, view, fraction, level(value, data.observer, rng) / 5, value, seen)


def scores_of(network: QualityNetwork, images: Sequence[Graded], *, on_progress: OnProgress | None = None) -> Floats:
    """What the network says of each, (N,)."""
    found = []
    for start in range(0, len(images), BATCH):
        stored = np.concatenate([stored_slice(image.hu()) for image in images[start : start + BATCH]])
        found.append(score_slices(network, stored)[0].astype(np.float64))
        if on_progress is not None:
            on_progress(min(start + BATCH, len(images)), len(images))
    return np.concatenate(found)


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Tables, and every single score: method → (N,), in the order of the images."""

    tables: tuple[Table, ...]
    scores: Mapping[str, Floats]


def evaluate(
    networks: Mapping[str, QualityNetwork],
    test: Sequence[Path],
    training: Sequence[Path],
    data: DataConfig,
    *,
    seed: int = 0,
    bootstrap: Bootstrap | None = None,
    tuning_images: int = 240,
    on_progress: Report | None = None,
) -> Evaluation:
    """Agreement with the labels, differences to the first network, and whether scores fall as scans get worse.

    networks    as `prepare` leaves them; the first is the one in question
    test, training      samples to measure on, and those to which the baselines are fitted
    raises   ModelError     no networks, or no samples
    """
    if not networks or not test:
        raise ModelError("networks and samples to measure them on are wanted")
    report: Report = on_progress or (lambda _what, _done, _total: None)
    images = graded_images(test, data, seed=seed)
    scores: dict[str, Floats] = {}
    for name, network in networks.items():
        scores[name] = scores_of(network, images, on_progress=partial(report, name))
    known = spread(graded_images(training, data, seed=seed), tuning_images)
    for name, features in (("noise SD", noise_features), ("BRISQUE-like", scene_features)):
        baseline = _fit(features, known, partial(report, f"fitting {name}"))
        scores[name] = _scores_by(baseline, images, partial(report, name))
    draws = bootstrap or Bootstrap(seed=seed)
    first = next(iter(networks))
    report("intervals", 0, 1)
    tables = (
        agreement_table(scores, images, draws),
        difference_table(scores, images, draws, reference=first),
        monotone_table(scores, images),
        slice_table(first, scores[first], images),
        flip_table(networks, spread(images, FLIPPED_IMAGES)),
    )
    report("intervals", 1, 1)
    return Evaluation(tables, scores)


def speed_table(networks: Mapping[str, QualityNetwork], *, rounds: int = 3) -> Table:
    """Seconds for a slice of 512², as networks run, and of measuring the noise on the same machine."""
    first = next(iter(networks.values()))
    hu = np.random.default_rng(0).normal(40, 50, (BATCH, SIDE_PX, SIDE_PX)).astype(np.float32)
    stored = np.concatenate([stored_slice(one) for one in hu])
    calls: dict[str, Callable[[], object]] = {
        name: partial(score_slices, network, stored) for name, network in networks.items()
    }
    calls["noise SD"] = lambda: [noise_features(one) for one in hu]
    device = next(first.parameters()).device.type
    note = f"Interleaved on one machine: {device}, {torch.get_num_threads()} threads, torch {torch.__version__}."
    return interleaved("Speed", calls, slices=BATCH, rounds=rounds, notes=(note,))


def flip_table(networks: Mapping[str, QualityNetwork], images: Sequence[Graded]) -> Table:
    """How far a score moves when the slice is mirrored: nothing of its quality has changed."""
    rows = []
    for method, network in networks.items():
        moved: dict[str, dict[str, list[float]]] = {"left and right": {}, "up and down": {}}
        for image in images:
            stored = stored_slice(image.hu())
            mirrored = np.concatenate([stored, stored[:, :, ::-1], stored[:, ::-1]])
            same, *others = score_slices(network, mirrored)[0].astype(np.float64)
            for values, other in zip(moved.values(), others, strict=True):
                values.setdefault(image.sample.facts.patient, []).append(float(abs(other - same)))
        rows.append(Row("mirrored", method, {name: over_patients(values) for name, values in moved.items()}))
    return Table("Change of the score by mirroring, in grades", tuple(rows), FLIP_NOTES)


def _fit(features: Callable[[FloatArray], Floats], images: Sequence[Graded], on_progress: OnProgress) -> Regressor:
    rows = []
    for done, image in enumerate(images):
        rows.append(features(image.hu()))
        on_progress(done + 1, len(images))
    return fitted(features, rows, [image.score for image in images])


def _scores_by(baseline: Regressor, images: Sequence[Graded], on_progress: OnProgress) -> Floats:
    rows = []
    for done, image in enumerate(images):
        rows.append(baseline.features(image.hu()))
        on_progress(done + 1, len(images))
    return baseline.of_features(np.stack(rows))


def spread(images: Sequence[Graded], count: int) -> list[Graded]:
    """So many of them at most, evenly."""
    chosen = np.unique(np.linspace(0, len(images) - 1, min(count, len(images))).round().astype(int))
    return [images[index] for index in chosen]


Condition = Callable[[Graded], bool]
CONDITIONS: Mapping[str, Condition] = {
    "all": lambda _: True,
    "held-out patients, real CT": lambda image: image.sample.facts.family == REAL,
    "families never trained on": lambda image: image.sample.facts.family != REAL,
    "streaks dominate": lambda image: image.physics.streak_hu > image.physics.noise_hu,
}


def agreement_table(scores: Mapping[str, Floats], images: Sequence[Graded], bootstrap: Bootstrap) -> Table:
    """Every method under every condition that has images."""
    rows = []
    for condition, chosen in _conditions(images):
        for method, told in scores.items():
            values = bootstrap.interval(*_measure([told[chosen]], [images[index] for index in chosen]))
            rows.append(Row(condition, method, dict(zip((*MEASURES, BY_D_PRIME), values, strict=True))))
    return Table("Agreement with simulated labels", tuple(rows), NOTES)


def difference_table(
    scores: Mapping[str, Floats], images: Sequence[Graded], bootstrap: Bootstrap, *, reference: str
) -> Table:
    """The reference minus each other method, the same patients drawn for both."""
    rows = []
    for condition, chosen in _conditions(images):
        for method, told in scores.items():
            if method == reference:
                continue
            pair = [scores[reference][chosen], told[chosen]]
            values = bootstrap.interval(*_measure(pair, [images[index] for index in chosen]))
            rows.append(Row(condition, method, dict(zip((*MEASURES, BY_D_PRIME), values, strict=True))))
    return Table(f"Paired difference: {reference} minus the method", tuple(rows), NOTES)


def _conditions(images: Sequence[Graded]) -> Iterator[tuple[str, NDArray[np.int64]]]:
    for name, holds in CONDITIONS.items():
        chosen = np.flatnonzero([holds(image) for image in images])
        if chosen.size:
            yield name, chosen


def _measure(told: Sequence[Floats], images: Sequence[Graded]) -> tuple[Callable[[NDArray[np.int64]], Floats], int]:
    """Measures of one method, or the difference of two, by how often each patient is drawn; and how many there are."""
    patients = sorted({image.sample.facts.patient for image in images})
    place = {patient: number for number, patient in enumerate(patients)}
    owner = np.array([place[image.sample.facts.patient] for image in images])
    truth = np.array([image.score for image in images])
    d_prime = np.array([image.physics.d_prime for image in images])

    def measure(counts: NDArray[np.int64]) -> Floats:
        drawn = np.repeat(np.arange(len(images)), counts[owner])
        found = [
            [*agreement(one[drawn], truth[drawn]).values(), rank_correlation(one[drawn], d_prime[drawn])]
            for one in told
        ]
        return np.array(found[0]) if len(found) == 1 else np.subtract(found[0], found[1])

    return measure, len(patients)


def monotone_table(scores: Mapping[str, Floats], images: Sequence[Graded]) -> Table:
    """Whether scores fall as the scan gets worse: mean over patients, and the share of slices where they surely do."""
    rows = []
    for condition, chosen in _conditions(images):
        if condition == "streaks dominate":  # a part of a grid has no order to keep
            continue
        for method, told in scores.items():
            values: dict[str, dict[str, list[float]]] = {}
            for sample, by_dose, by_views in _falls(told, images, chosen):
                found = {"dose": by_dose, "views": by_views}
                for name, worst in found.items():
                    for key, value in ((f"{name}, worst", worst), (f"{name}, share", float(worst <= MONOTONE))):
                        values.setdefault(key, {}).setdefault(sample.facts.patient, []).append(value)
            rows.append(Row(condition, method, {key: over_patients(each) for key, each in values.items()}))
    return Table("Monotone in dose and in views", tuple(rows), MONOTONE_NOTES)


def slice_table(method: str, told: Floats, images: Sequence[Graded]) -> Table:
    """The same for every slice of one method."""
    rows = tuple(
        Row(
            f"{sample.name} ({sample.facts.family})",
            method,
            {name: Interval(value, value, value, 1) for name, value in (("dose, worst", dose), ("views, worst", view))},
        )
        for sample, dose, view in _falls(told, images, np.arange(len(images)))
    )
    return Table("Monotone, slice by slice", rows, MONOTONE_NOTES)


def _falls(told: Floats, images: Sequence[Graded], chosen: NDArray[np.int64]) -> Iterator[tuple[Sample, float, float]]:
    """For each slice the worst rank correlation of score and degradation, by dose and by views."""
    grids: dict[str, list[int]] = {}
    for index in chosen:
        grids.setdefault(images[index].sample.name, []).append(int(index))
    for members in grids.values():
        by_dose = [
            rank_correlation(told[part], np.array([-images[index].fraction for index in part]))
            for part in _parts(members, [images[index].view for index in members])
        ]
        by_views = [
            rank_correlation(told[part], np.array([float(images[index].view) for index in part]))
            for part in _parts(members, [images[index].fraction for index in members])
        ]
        yield images[members[0]].sample, max(by_dose), max(by_views)


def _parts(members: Sequence[int], keys: Sequence[float]) -> list[list[int]]:
    """Members with the same key, in their order."""
    parts: dict[float, list[int]] = {}
    for member, key in zip(members, keys, strict=True):
        parts.setdefault(key, []).append(member)
    return list(parts.values())
