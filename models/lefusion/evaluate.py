"""What can be said of synthetic lesions without calling them real.

The reference are the simulated lesions of chests for tests: other chests and other shapes than those trained on, of a
generator that is known. Nothing here says that a lesion looks like a patient's, or that a detector gains by it.

source: dossier 11 (what can be verified) and 12.7 (the edge as a give-away)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.stats import rankdata

from models.contract import BoolArray, FloatArray
from models.diffusionxray.samplers import Noise
from models.evaluation.bootstrap import Interval, over_patients
from models.evaluation.table import Row, Table
from models.lefusion.composite import COLLAR_VOXELS, EDGE_SIGMA_MM, composite, difference
from models.lefusion.data import Classes, LesionCrop, condition_of, cut
from models.lefusion.histogram import LUNG, Histogram, Texture, histogram, preset, wasserstein_hu
from models.lefusion.synthesis import PAPER_SAMPLING, Sampling, Synthesiser, draw_texture

OnProgress = Callable[[str, int, int], None]
Texturer = Callable[[LesionCrop, int], Sequence[FloatArray]]
"""(site, seed) → what is in each class's mask, HU."""

CROP_ZYX = (32, 32, 32)
"""A quarter of a crop: the shipped size has no statistics over the plane, and is asked four times as fast."""
RINGS = ((0.0, 1.5), (1.5, 3.0), (3.0, 5.0))
"""Distances from a mask, voxels, whose voxels the classifier of edges is shown."""
BANDS = {"fine": (0.0, 1.0), "coarse": (1.0, 2.0)}
"""Two Gaussians each, voxels, whose difference is a band of the noise."""
LEAST_INTERIOR = 27
MOST_NOISE_HU = 100.0
"""Farther from the median around a lesion is vessel or wall."""
RIDGE = 1e-2


@dataclass(frozen=True, eq=False)
class Made:
    """One lesion of one method at one site, put into the healthy crop."""

    site: LesionCrop
    image: FloatArray
    asked: Histogram


def sites_of(regions: Sequence[LesionCrop], count: int) -> list[LesionCrop]:
    """So many crops, evenly over the files, each with its lesion whole and off its middle."""
    places = np.unique(np.linspace(0, len(regions) - 1, min(count, len(regions))).round().astype(int))
    return [cut(regions[place], CROP_ZYX, np.random.default_rng(int(place))) for place in places]


def texturers(
    synthesisers: Mapping[str, Synthesiser], train: Sequence[LesionCrop], sampling: Sampling
) -> dict[str, Texturer]:
    """The networks by name, and what they must be held against."""
    return {
        **{name: _by_network(one, sampling) for name, one in synthesisers.items()},
        "copy and paste": _pasted(train),
        "one grey and Gaussian noise": _grey_with_noise,
    }


def texture_table(sites: Sequence[LesionCrop], methods: Mapping[str, Texturer], on_progress: OnProgress) -> Table:
    """Background, edge, greys and noise of every method, beside the simulated lesions themselves."""
    made = {"simulated lesion": [Made(site, site.hu.astype(np.float32), _asked(site)) for site in sites]}
    for name, method in methods.items():
        made[name] = []
        for number, site in enumerate(sites):
            made[name].append(put(site, method(site, number)))
            on_progress(name, number + 1, len(sites))
    give_away = {name: edge_auc(made["simulated lesion"], mine) for name, mine in made.items() if name in methods}
    rows = [Row("chests for tests", name, _measured(mine, give_away.get(name))) for name, mine in made.items()]
    return Table(
        "Texture in the masks of simulated lesions, chests and shapes not trained on",
        tuple(rows),
        (
            "Each network is asked for the histogram of the simulated lesion that was there; so is the one"
            " grey. Copy and paste takes the nearest histogram of a training lesion, and its voxels by depth.",
            f"Background: largest change beyond {COLLAR_VOXELS} voxels from the mask, HU. Edge: mean step over the"
            " mask's surface over that of the simulated lesion. Greys: Wasserstein distance of asked and got, HU.",
            "Noise: standard deviation of a band inside of the mask over that around it, by which simulated lesions"
            " keep the volume's own noise.",
            "Edge AUC: a linear classifier, trained on other chests, tells simulated from synthetic by the rings around"
            " the mask with the lesion blanked; 0.5 is what it should be.",
            "The edges of all methods are faded alike.",
            "The edges of all methods are faded alike. Intervals are over chests, of which there are few.",
        ),
    )


def put(site: LesionCrop, drawn: Sequence[FloatArray]) -> Made:
    """A drawn lesion in its healthy crop."""
    masks = site.masks(1 if len(drawn) == 1 else 2)
    healthy = site.healthy.astype(np.float32)
    change = difference(drawn, masks, healthy, sigma_voxels=EDGE_SIGMA_MM)
    return Made(site, composite(healthy, change), _asked(site))


def histogram_table(
    synthesiser: Synthesiser, sites: Sequence[LesionCrop], sampling: Sampling, on_progress: OnProgress
) -> Table:
    """What is got where the published classes are asked for."""
    rows = []
    names: tuple[Texture, ...] = ("ground-glass", "part-solid", "solid")
    for number, name in enumerate(names):
        got: dict[str, list[tuple[float, float]]] = {}
        for seed, site in enumerate(sites):
            wanted = _as_classes(preset(name), synthesiser)
            drawn = _draw(synthesiser, site, wanted, seed, sampling)
            shares = histogram(_whole(site, drawn), site.mask)
            mean = float((shares * LUNG.centres_hu).sum())
            got.setdefault(site.key, []).append((mean, wasserstein_hu(shares, preset(name))))
        asked = float((preset(name) * LUNG.centres_hu).sum())
        values = {
            "asked mean, HU": Interval(asked, asked, asked, 0),
            "got mean, HU": over_patients({key: [mean for mean, _ in both] for key, both in got.items()}),
            "greys, HU": over_patients({key: [apart for _, apart in both] for key, both in got.items()}),
        }
        rows.append(Row(name, "LeFusion", values))
        on_progress("published classes", number + 1, len(names))
    return Table("The three published histograms as controls", tuple(rows), ("Greys: as above.",))


def diversity_table(
    synthesiser: Synthesiser, sites: Sequence[LesionCrop], sampling: Sampling, repeats: int, on_progress: OnProgress
) -> Table:
    """How far lesions of several seeds at one place are apart, and how far those of several histograms."""
    apart: dict[str, dict[str, list[float]]] = {"one histogram": {}, "another histogram each": {}}
    for number, site in enumerate(sites):
        for name, found in apart.items():
            drawn = []
            for repeat in range(repeats):
                source = site if name == "one histogram" else sites[(number + repeat) % len(sites)]
                wanted = condition_of(source.hu.astype(np.float32), source.masks(_classes(synthesiser)))
                drawn.append(
                    _whole(site, _draw(synthesiser, site, _present(wanted, site, synthesiser), repeat, sampling))
                )
            found.setdefault(site.key, []).append(_pairwise_hu(drawn, site.mask))
        on_progress("diversity", number + 1, len(sites))
    rows = [Row(name, "LeFusion", {"apart, HU": over_patients(found)}) for name, found in apart.items()]
    note = "Root mean square difference in the mask, mean over pairs of samples that differ in their seed."
    return Table("Diversity", tuple(rows), (note,))


def speed_table(
    synthesiser: Synthesiser, sites: Sequence[LesionCrop], sampling: Sampling, on_progress: OnProgress
) -> Table:
    """The sampler of few steps against the paper's (every step, resampled twice)."""
    found: dict[str, dict[str, list[float]]] = {"greys, HU": {}, "mean, HU": {}, "fine noise, ratio": {}}
    for number, site in enumerate(sites):
        wanted = _present(_asked_of(site, synthesiser), site, synthesiser)
        fast, slow = (put(site, _draw(synthesiser, site, wanted, number, how)) for how in (sampling, PAPER_SAMPLING))
        greys = wasserstein_hu(histogram(fast.image, site.mask), histogram(slow.image, site.mask))
        means = [float(one.image[site.mask].mean()) for one in (fast, slow)]
        noise = [_noise(one, "fine") for one in (fast, slow)]
        for name, value in zip(found, (greys, means[0] - means[1], noise[0] / noise[1]), strict=True):
            found[name].setdefault(site.key, []).append(value)
        on_progress("the paper's sampler", number + 1, len(sites))
    values = {name: over_patients(one) for name, one in found.items()}
    return Table(
        "Few steps against the paper's sampling (598 evaluations)",
        (Row(f"{sampling.evaluations} evaluations", "LeFusion", values),),
        ("Wasserstein distance of histograms, difference of means, ratio of noise; same sites, same histograms.",),
    )


def examples(
    sites: Sequence[LesionCrop], methods: Mapping[str, Texturer], most: int = 6
) -> dict[str, list[FloatArray]]:
    """The slice with most of the lesion, of some sites, HU: healthy, simulated, and by every method."""
    some = sites[:most]
    planes = [int(site.mask.sum((1, 2)).argmax()) for site in some]
    rows = {
        "healthy": [site.healthy[plane].astype(np.float32) for site, plane in zip(some, planes, strict=True)],
        "simulated lesion": [site.hu[plane].astype(np.float32) for site, plane in zip(some, planes, strict=True)],
    }
    for name, method in methods.items():
        made = [put(site, method(site, number)).image for number, site in enumerate(some)]
        rows[name] = [image[plane] for image, plane in zip(made, planes, strict=True)]
    return rows


def edge_auc(real: Sequence[Made], synthetic: Sequence[Made]) -> Interval:
    """How well rings around the blanked lesion tell one from the other, each chest by a classifier of the others.

    A linear discriminant with a ridge; NaN with less than two chests.
    """
    keys = sorted({made.site.key for made in real})
    features = [np.array([_rings(made) for made in group]) for group in (real, synthetic)]
    owners = [np.array([made.site.key for made in group]) for group in (real, synthetic)]
    found: dict[str, list[float]] = {}
    for key in keys:
        train = [rows[owner != key] for rows, owner in zip(features, owners, strict=True)]
        test = [rows[owner == key] for rows, owner in zip(features, owners, strict=True)]
        if min(map(len, train)) > 1 and min(map(len, test)) > 0:
            direction = _discriminant(*train)
            found[key] = [auc(test[1] @ direction, test[0] @ direction)]
    return over_patients(found)


def auc(positive: NDArray[np.float64], negative: NDArray[np.float64]) -> float:
    """Area under the ROC curve: the share of pairs in the right order, ties half."""
    ranks = rankdata(np.concatenate([positive, negative]))[: len(positive)]
    return float((ranks.sum() - len(positive) * (len(positive) + 1) / 2) / (len(positive) * len(negative)))


def _measured(made: Sequence[Made], give_away: Interval | None) -> dict[str, Interval]:
    columns: dict[str, dict[str, list[float]]] = {}
    for one in made:
        for name, value in _numbers(one).items():
            columns.setdefault(name, {}).setdefault(one.site.key, []).append(value)
    found = {name: over_patients(values) for name, values in columns.items()}
    none = Interval(float("nan"), float("nan"), float("nan"), 0)
    return {**found, "edge AUC": none if give_away is None else give_away}


def _numbers(made: Made) -> dict[str, float]:
    site = made.site
    beyond = ndimage.distance_transform_edt(~site.mask) > COLLAR_VOXELS
    healthy, real = site.healthy.astype(np.float32), site.hu.astype(np.float32)
    is_real = np.array_equal(made.image, real)
    background = float(np.abs(made.image - healthy)[beyond].max()) if beyond.any() and not is_real else float("nan")
    return {
        "background, HU": background,
        "edge": _step(made.image, site.mask) / _step(real, site.mask),
        "greys, HU": wasserstein_hu(histogram(made.image, site.mask), made.asked),
        **{f"{band} noise": _noise(made, band) for band in BANDS},
    }


def _step(image: FloatArray, mask: BoolArray) -> float:
    """Mean gradient over the surface of a mask, HU per voxel."""
    surface = ndimage.binary_dilation(mask) & ~ndimage.binary_erosion(mask)
    gradient = np.sqrt(sum(part.astype(np.float64) ** 2 for part in np.gradient(image)))
    return float(gradient[surface].mean())


def _noise(made: Made, band: str) -> float:
    """Inside over around, each cut out first, so that the edge between them is in neither; NaN for a tiny lesion."""
    mask, image = made.site.mask, made.image.astype(np.float64)
    inside = ndimage.binary_erosion(mask)
    ring = ndimage.binary_dilation(mask, iterations=6) & ~ndimage.binary_dilation(mask, iterations=3)
    around = ring & (np.abs(image - np.median(image[ring])) < MOST_NOISE_HU) if ring.any() else ring
    if min(np.count_nonzero(inside), np.count_nonzero(around)) < LEAST_INTERIOR:
        return float("nan")
    low, high = BANDS[band]
    spreads = []
    for part in (inside, around):
        alone = np.where(part, image - image[part].mean(), 0.0)
        spreads.append((ndimage.gaussian_filter(alone, low) - ndimage.gaussian_filter(alone, high))[part].std())
    return float(spreads[0] / spreads[1])


def _rings(made: Made) -> NDArray[np.float64]:
    """Mean, spread and gradient of the rings, the lesion blanked by the mean of what is near."""
    mask = made.site.mask
    distance = ndimage.distance_transform_edt(~mask)
    image = made.image.astype(np.float64).copy()
    image[mask] = image[(distance > 0) & (distance <= RINGS[-1][1])].mean()
    gradient = np.sqrt(sum(part**2 for part in np.gradient(image)))
    numbers = []
    for low, high in RINGS:
        ring = (distance > low) & (distance <= high)
        numbers += [image[ring].mean(), image[ring].std(), gradient[ring].mean()]
    return np.array(numbers)


def _discriminant(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    both = np.concatenate([first - first.mean(0), second - second.mean(0)])
    scale = both.std(0) + 1e-9
    covariance = np.cov((both / scale).T) + RIDGE * np.eye(both.shape[1])
    direction: NDArray[np.float64] = np.linalg.solve(covariance, (second.mean(0) - first.mean(0)) / scale) / scale
    return direction


def _by_network(synthesiser: Synthesiser, sampling: Sampling) -> Texturer:
    def texture(site: LesionCrop, seed: int) -> Sequence[FloatArray]:
        return _draw(synthesiser, site, _asked_of(site, synthesiser), seed, sampling)

    return texture


def _pasted(train: Sequence[LesionCrop]) -> Texturer:
    known = [(histogram(one.hu, one.mask), one) for one in train]

    def texture(site: LesionCrop, _seed: int) -> Sequence[FloatArray]:
        asked = _asked(site)
        _, donor = min(known, key=lambda pair: wasserstein_hu(pair[0], asked))
        return [_by_depth(donor, site)]

    return texture


def _by_depth(donor: LesionCrop, site: LesionCrop) -> FloatArray:
    """The donor's voxels in the order of their depth under its surface, put into the site's mask in that order."""
    given = np.argsort(ndimage.distance_transform_edt(donor.mask)[donor.mask], kind="stable")
    wanted = np.argsort(ndimage.distance_transform_edt(site.mask)[site.mask], kind="stable")
    picked = given[np.linspace(0, len(given) - 1, len(wanted)).round().astype(int)]
    values = np.empty(len(wanted), np.float32)
    values[wanted] = donor.hu[donor.mask][picked]
    hu = site.healthy.astype(np.float32)
    hu[site.mask] = values
    return hu


def _grey_with_noise(site: LesionCrop, seed: int) -> Sequence[FloatArray]:
    mean = float((_asked(site) * LUNG.centres_hu).sum())
    healthy = site.healthy.astype(np.float64)
    spread = float((healthy - ndimage.gaussian_filter(healthy, 1.0))[site.organ].std())
    return [np.random.default_rng(seed).normal(mean, spread, healthy.shape).astype(np.float32)]


def _classes(synthesiser: Synthesiser) -> Classes:
    return 2 if synthesiser.texture.facts["classes"] == 2 else 1


def _asked(site: LesionCrop) -> Histogram:
    return histogram(site.hu, site.mask)


def _asked_of(site: LesionCrop, synthesiser: Synthesiser) -> Histogram:
    return condition_of(site.hu.astype(np.float32), site.masks(_classes(synthesiser)))


def _as_classes(wanted: Histogram, synthesiser: Synthesiser) -> Histogram:
    return np.tile(wanted, _classes(synthesiser))


def _present(wanted: Histogram, site: LesionCrop, synthesiser: Synthesiser) -> Histogram:
    """Zeros for a class that the site lacks."""
    masks = site.masks(_classes(synthesiser))
    parts = np.split(wanted, len(masks))
    return np.concatenate([part if mask.any() else 0 * part for part, mask in zip(parts, masks, strict=True)])


def _draw(
    synthesiser: Synthesiser, site: LesionCrop, wanted: Histogram, seed: int, sampling: Sampling
) -> list[FloatArray]:
    masks = site.masks(_classes(synthesiser))
    healthy = site.healthy.astype(np.float32)
    return draw_texture(synthesiser.texture.network, healthy, masks, wanted, Noise(seed, 1), sampling=sampling)


def _whole(site: LesionCrop, drawn: Sequence[FloatArray]) -> FloatArray:
    return put(site, drawn).image


def _pairwise_hu(images: Sequence[FloatArray], mask: BoolArray) -> float:
    inside = np.stack([image[mask] for image in images]).astype(np.float64)
    pairs = [(first, second) for first in range(len(inside)) for second in range(first)]
    return float(np.mean([np.sqrt(np.mean((inside[a] - inside[b]) ** 2)) for a, b in pairs]))
