"""What the scores are worth, in numbers: on patients and families never trained on, beside simple baselines.

Every slice is mixed at every thinning of the views and every part of the current of the grid; its label is what five
pseudo-readers make of the physics. Nothing here can be compared with numbers on the public challenge.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.clinreadnet.baselines import fitted, noise_features, scene_features
from models.clinreadnet.config import SIDE_PX, WHOLE, DataConfig
from models.clinreadnet.correlation import MEASURES, rank_correlation
from models.clinreadnet.labels import Latent, latent, level, quality
from models.clinreadnet.losses import decode
from models.clinreadnet.network import QualityNetwork, stored_units
from models.clinreadnet.resampling import drawn_agreement, drawn_rank_correlation, of_patients
from models.clinreadnet.run import BATCH, GPU_BATCH, score_slices, stored_slice
from models.clinreadnet.samples import REAL, Sample, load_sample, mixed
from models.contract import FloatArray, ModelError
from models.device import as_written
from models.evaluation.bootstrap import Interval, over_patients
from models.evaluation.froc import Bootstrap
from models.evaluation.speed import interleaved
from models.evaluation.table import Row, Table
from models.lidnet.pairs import draw_seed
from models.side_by_side import processes

OnProgress = Callable[[int, int], None]
Report = Callable[[str, int, int], None]
"""Called with what is being done, images done, images in all."""
Floats = NDArray[np.float64]

FLIPPED_IMAGES = 40
TRUE_QUALITY = "true quality"
BASELINES: Mapping[str, Callable[[FloatArray], Floats]] = {"noise SD": noise_features, "BRISQUE-like": scene_features}
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
    "True quality is what the pseudo-readers saw before they erred and rounded: no method can agree better with them.",
    "Streaks dominate: their root mean square is above the noise.",
)
ARM_NOTES = (
    "An arm's value is the mean over its seeds, with the same patients drawn for all of them. How much seeds differ is"
    " told by their rows above: the interval is that of patients alone.",
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

    def mixed_on(self, device: torch.device) -> Tensor:
        """The same, mixed on a device, float32 (Y, X)."""
        layers = torch.from_numpy(self.sample.layers(self.view))[None].to(device)
        weights = torch.tensor([self.sample.noise_weights(self.view, self.fraction)])
        return mixed(layers, weights.to(device))[0]


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


@torch.inference_mode()
@as_written()
def scores_of(
    networks: Mapping[str, QualityNetwork], images: Sequence[Graded], *, on_progress: OnProgress | None = None
) -> dict[str, Floats]:
    """What each network says of each image, (N,); every image is mixed once, where the networks are.

    networks    at least one, all on one device
    """
    device = next(iter(networks.values())).soqn.embed.weight.device
    count = BATCH if device.type == "cpu" else GPU_BATCH
    found: dict[str, list[Floats]] = {name: [] for name in networks}
    for start in range(0, len(images), count):
        part = images[start : start + count]
        x = torch.zeros(count, 1, SIDE_PX, SIDE_PX, device=device)
        for place, image in enumerate(part):
            _put(x[place, 0], stored_units(image.mixed_on(device)))
        told = torch.stack([decode(network(x))[0] for network in networks.values()])[:, : len(part)]
        for name, scores in zip(networks, told.cpu().numpy().astype(np.float64), strict=True):
            found[name].append(scores)
        if on_progress is not None:
            on_progress(start + len(part), len(images))
    return {name: np.concatenate(scores) for name, scores in found.items()}


def _put(whole: Tensor, image: Tensor) -> None:
    """A smaller image into the middle of a larger one, as `stored_slice` does it."""
    (top, height), (left, width) = (
        ((outer - inner) // 2, inner) for outer, inner in zip(whole.shape, image.shape, strict=True)
    )
    whole[top : top + height, left : left + width] = image


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Tables, and every single score: method → (N,), in the order of the images."""

    tables: tuple[Table, ...]
    scores: Mapping[str, Floats]


def evaluate(
    networks: Mapping[str, Sequence[QualityNetwork]],
    test: Sequence[Path],
    training: Sequence[Path],
    data: DataConfig,
    *,
    seed: int = 0,
    bootstrap: Bootstrap | None = None,
    tuning_images: int = 240,
    workers: int = 0,
    on_progress: Report | None = None,
) -> Evaluation:
    """Agreement with the labels, differences to the first arm, and whether scores fall as scans get worse.

    networks    the seeds of each arm, as `prepare` leaves them; the first arm is the one in question
    test, training      samples to measure on, and those to which the baselines are fitted
    workers     processes that measure the baselines' features meanwhile; 0: this one, afterwards
    raises   ModelError     no networks, or no samples
    """
    if not networks or not all(networks.values()) or not test:
        raise ModelError("networks and samples to measure them on are wanted")
    report: Report = on_progress or (lambda _what, _done, _total: None)
    seeds = names_of_seeds({arm: len(each) for arm, each in networks.items()})
    single = {name: one for arm in networks for name, one in zip(seeds[arm], networks[arm], strict=True)}
    images = graded_images(test, data, seed=seed)
    known = spread(graded_images(training, data, seed=seed), tuning_images)
    with _features_of([*known, *images], workers) as features:
        scores = scores_of(single, images, on_progress=partial(report, "scores"))
        rows = []
        for found in features:
            rows.append(found)
            report("baselines", len(rows), len(known) + len(images))
    scores |= _baselines(rows, known)
    scores[TRUE_QUALITY] = np.array([image.quality for image in images])
    report("intervals", 0, 1)
    drawn = drawn_measures(scores, images, bootstrap or Bootstrap(seed=seed))
    first = next(iter(networks))
    tables = (
        agreement_table(drawn),
        *arm_tables(drawn, seeds),
        difference_table(pooled(drawn, seeds), reference=first),
        monotone_table(scores, images),
        slice_table(seeds[first][0], scores[seeds[first][0]], images),
        flip_table({arm: each[0] for arm, each in networks.items()}, spread(images, FLIPPED_IMAGES)),
    )
    report("intervals", 1, 1)
    return Evaluation(tables, scores)


def names_of_seeds(arms: Mapping[str, int]) -> dict[str, list[str]]:
    """What the seeds of each arm are called: the arm's own name where it has but one."""
    return {arm: [arm] if count == 1 else [f"{arm} ({n + 1})" for n in range(count)] for arm, count in arms.items()}


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
    slices = [stored_slice(image.hu()) for image in images]
    for method, network in networks.items():
        moved: dict[str, dict[str, list[float]]] = {"left and right": {}, "up and down": {}}
        for image, stored in zip(images, slices, strict=True):
            mirrored = np.concatenate([stored, stored[:, :, ::-1], stored[:, ::-1]])
            same, *others = score_slices(network, mirrored)[0].astype(np.float64)
            for values, other in zip(moved.values(), others, strict=True):
                values.setdefault(image.sample.facts.patient, []).append(float(abs(other - same)))
        rows.append(Row("mirrored", method, {name: over_patients(values) for name, values in moved.items()}))
    return Table("Change of the score by mirroring, in grades", tuple(rows), FLIP_NOTES)


@contextmanager
def _features_of(images: Sequence[Graded], workers: int) -> Iterator[Iterator[list[Floats]]]:
    """Features of each image for each baseline, in the images' order."""
    wanted = [(image.sample.path, image.view, image.fraction) for image in images]
    if not workers:
        yield map(_features, wanted)
        return
    with processes(workers) as pool:
        yield pool.map(_features, wanted, chunksize=8)


def _features(wanted: tuple[Path, int, float]) -> list[Floats]:
    path, view, fraction = wanted
    hu = load_sample(path).image(view, fraction)
    return [features(hu) for features in BASELINES.values()]


def _baselines(rows: Sequence[Sequence[Floats]], known: Sequence[Graded]) -> dict[str, Floats]:
    """Scores of the other images by each baseline, fitted to those that are known: the first rows."""
    labels = [image.score for image in known]
    scores = {}
    for name, each in zip(BASELINES, zip(*rows, strict=True), strict=True):
        regressor = fitted(BASELINES[name], each[: len(known)], labels)
        scores[name] = regressor.of_features(np.stack(each[len(known) :]))
    return scores


def spread(images: Sequence[Graded], count: int) -> list[Graded]:
    """So many of them at most, evenly."""
    chosen = np.unique(np.linspace(0, len(images) - 1, min(count, len(images))).round().astype(int))
    return [images[index] for index in chosen]


STREAKS = "streaks dominate"
Condition = Callable[[Graded], bool]
CONDITIONS: Mapping[str, Condition] = {
    "all": lambda _: True,
    "held-out patients, real CT": lambda image: image.sample.facts.family == REAL,
    "families never trained on": lambda image: image.sample.facts.family != REAL,
    STREAKS: lambda image: image.physics.streak_hu > image.physics.noise_hu,
}


@dataclass(frozen=True, eq=False)
class Drawn:
    """Measures of every method under one condition: method → (1 + D, measures), of all patients, then of each draw."""

    condition: str
    patients: int
    values: Mapping[str, Floats]


def drawn_measures(scores: Mapping[str, Floats], images: Sequence[Graded], bootstrap: Bootstrap) -> list[Drawn]:
    """Under every condition that has images; the same patients are drawn for every method."""
    found = []
    for condition, chosen in _conditions(images):
        part = [images[index] for index in chosen]
        owner, patients = of_patients([image.sample.facts.patient for image in part])
        truth, d_prime = (
            np.array(values) for values in zip(*((one.score, one.physics.d_prime) for one in part), strict=True)
        )
        counts = np.concatenate([np.ones((1, patients), np.int64), bootstrap.weights(patients)])
        values = {}
        for method, all_told in scores.items():
            told = all_told[chosen]
            ranked = np.nan_to_num(drawn_rank_correlation(told, d_prime, owner, counts))
            values[method] = np.column_stack([drawn_agreement(told, truth, owner, counts), ranked])
        found.append(Drawn(condition, patients, values))
    return found


def pooled(drawn: Sequence[Drawn], seeds: Mapping[str, Sequence[str]]) -> list[Drawn]:
    """Arms instead of their seeds: means over these. Other methods stay as they are."""
    several = {name for names in seeds.values() for name in names}
    return [
        replace(
            one,
            values={arm: np.mean([one.values[name] for name in names], 0) for arm, names in seeds.items()}
            | {method: values for method, values in one.values.items() if method not in several},
        )
        for one in drawn
    ]


def agreement_table(drawn: Sequence[Drawn]) -> Table:
    """Every method under every condition."""
    return Table("Agreement with simulated labels", _rows(drawn), NOTES)


def arm_tables(drawn: Sequence[Drawn], seeds: Mapping[str, Sequence[str]]) -> list[Table]:
    """Arms by the means over their seeds, and their paired differences to the ablation's whole network.

    None where every arm has one seed: then nothing is pooled.
    """
    if all(len(names) == 1 for names in seeds.values()):
        return []
    arms = [replace(one, values={arm: one.values[arm] for arm in seeds}) for one in pooled(drawn, seeds)]
    whole = WHOLE if WHOLE in seeds else next(iter(seeds))
    counted = ", ".join(f"{arm} {len(names)}" for arm, names in seeds.items())
    table = Table("Arms, means over their seeds", _rows(arms), (*ARM_NOTES, f"Seeds: {counted}."))
    return [table, replace(difference_table(arms, reference=whole), notes=ARM_NOTES)]


def difference_table(drawn: Sequence[Drawn], *, reference: str) -> Table:
    """The reference minus each other method, the same patients drawn for both."""
    differences = [
        replace(
            one,
            values={
                method: one.values[reference] - values for method, values in one.values.items() if method != reference
            },
        )
        for one in drawn
    ]
    return Table(f"Paired difference: {reference} minus the method", _rows(differences), NOTES)


def _rows(drawn: Sequence[Drawn]) -> tuple[Row, ...]:
    names = (*MEASURES, BY_D_PRIME)
    return tuple(
        Row(
            one.condition,
            method,
            {name: _interval(column, one.patients) for name, column in zip(names, values.T, strict=True)},
        )
        for one in drawn
        for method, values in one.values.items()
    )


def _interval(values: Floats, patients: int) -> Interval:
    """Of all patients, and the 95 % percentile interval of the draws in which it means something."""
    known = values[1:][np.isfinite(values[1:])]
    low, high = np.percentile(known, (2.5, 97.5)) if known.size else (np.nan, np.nan)
    return Interval(float(values[0]), float(low), float(high), patients)


def _conditions(images: Sequence[Graded]) -> Iterator[tuple[str, NDArray[np.int64]]]:
    for name, holds in CONDITIONS.items():
        chosen = np.flatnonzero([holds(image) for image in images])
        if chosen.size:
            yield name, chosen


def monotone_table(scores: Mapping[str, Floats], images: Sequence[Graded]) -> Table:
    """Whether scores fall as the scan gets worse: mean over patients, and the share of slices where they surely do."""
    falls = {method: list(_falls(told, images)) for method, told in scores.items()}
    rows = []
    for condition, _ in _conditions(images):
        if condition == STREAKS:  # a part of a grid has no order to keep
            continue
        for method, found in falls.items():
            values: dict[str, dict[str, list[float]]] = {}
            for image, by_dose, by_views in found:
                if not CONDITIONS[condition](image):
                    continue
                for name, worst in (("dose", by_dose), ("views", by_views)):
                    for key, value in ((f"{name}, worst", worst), (f"{name}, share", float(worst <= MONOTONE))):
                        values.setdefault(key, {}).setdefault(image.sample.facts.patient, []).append(value)
            rows.append(Row(condition, method, {key: over_patients(each) for key, each in values.items()}))
    return Table("Monotone in dose and in views", tuple(rows), MONOTONE_NOTES)


def slice_table(method: str, told: Floats, images: Sequence[Graded]) -> Table:
    """The same for every slice of one method."""
    rows = tuple(
        Row(
            f"{image.sample.name} ({image.sample.facts.family})",
            method,
            {name: Interval(value, value, value, 1) for name, value in (("dose, worst", dose), ("views, worst", view))},
        )
        for image, dose, view in _falls(told, images)
    )
    return Table("Monotone, slice by slice", rows, MONOTONE_NOTES)


def _falls(told: Floats, images: Sequence[Graded]) -> Iterator[tuple[Graded, float, float]]:
    """For each slice (its first image) the worst rank correlation of score and degradation, by dose and by views."""
    grids: dict[str, list[int]] = {}
    for index, image in enumerate(images):
        grids.setdefault(image.sample.name, []).append(index)
    for members in grids.values():
        by_dose = [
            rank_correlation(told[part], np.array([-images[index].fraction for index in part]))
            for part in _parts(members, [images[index].view for index in members])
        ]
        by_views = [
            rank_correlation(told[part], np.array([float(images[index].view) for index in part]))
            for part in _parts(members, [images[index].fraction for index in members])
        ]
        yield images[members[0]], max(by_dose), max(by_views)


def _parts(members: Sequence[int], keys: Sequence[float]) -> list[list[int]]:
    """Members with the same key, in their order."""
    parts: dict[float, list[int]] = {}
    for member, key in zip(members, keys, strict=True):
        parts.setdefault(key, []).append(member)
    return list(parts.values())
