"""CT: grade the images, look for lesions, denoise, check what the denoiser did, say what was done and what was not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import isnan

import numpy as np

from models.clinreadnet.config import HIGHEST
from models.clinreadnet.run import scores_of
from models.contract import (
    Analysis,
    Code,
    Findings,
    Image,
    Lesion,
    Measurement,
    ModelError,
    Quality,
    Score,
    Volume,
)
from models.deeplesion.run import LEAST_SIDE_PX
from node.pipelines import fidelity
from node.pipelines.models import Candidate, Detector, Models, Progress, Scorer
from node.pipelines.stacks import (
    LARGEST_GAP_MM,
    LEAST_EXTENT_MM,
    LEAST_SLICES,
    Stack,
    gaps_in_words,
    left_out_in_words,
    normal_of,
    places_mm,
    search,
    searchable,
    stacks_of,
)
from node.pipelines.trunk import not_of_the_trunk

NAME = "low_dose_ct"
VERSION = "9"
DENOISING, DETECTION, SCORING = "Denoising", "Lesion detection", "Image quality scoring"
DETECTION_APART = "Lesion detection in images that stand apart"

NOISE: Code = ("noise-sd", "99PACSNODE", "Noise in soft tissue, standard deviation")
HOUNSFIELD_UNIT: Code = ("[hnsf'U]", "UCUM", "Hounsfield unit")
SMOOTHING: Code = ("113087", "DCM", "Smoothing")

COARSEST_PIXEL_MM, MOST_TILT_DEG = 1.5, 30
"""What the detector is asked about: a little more than it was trained on. No gantry tilts by more than 30°."""
LEAST_BODY_CM2, DENSE_HU = 30.0, -500.0
"""Of what is denser than half of air, on the slice that shows most of it: less shows no trunk, not even a newborn's."""

_NOT_OFFERED = "No trained network for it is part of this version."
_CAUTION = "Denoising can weaken small and faint detail: read the original images beside the denoised ones."
_CANDIDATES = (
    "Lesions are candidates of a network that was trained on simulated lesions: it misses some and marks what is none."
)
_POOR = "Some images are of poor quality: that nothing is marked there says little."


def low_dose_ct(volume: Volume, models: Models, on_progress: Progress, *, least_quality: float = 0.0) -> Findings:
    """Findings of one CT series. raises ModelError where a network broke.

    Lesions are searched for in the series as it came, in each contiguous stack by itself. On the denoised one the
    search is repeated only to hold the denoiser to it: a lesion that the original does not support keeps the whole
    series from leaving. Quality is that of the series as it came too: no score of denoised images has been validated.

    least_quality   median quality below which lesions are not searched for; 0 searches always
    """
    stages = _Stages(on_progress, (models.scorer, models.denoiser, models.detector, models.detector))
    scoring, quality, scores = _scoring(models.scorer, volume, stages)
    if reason := not_of_the_trunk(volume.acquisition):
        skipped = tuple(Analysis(name, "not done", reason) for name in (DENOISING, DETECTION))
        return Findings(NAME, VERSION, (*skipped, scoring), quality=quality)
    unfit = unfit_for_detection(volume) or _too_poor(quality, least_quality)
    stacks = stacks_of(volume)
    detection = _detection(models.detector, unfit, stacks)
    if unfit:
        models = replace(models, detector=None)
    candidates = search(models.detector.find, searchable(stacks), stages.next()) if models.detector else []
    lesions = _lesions(candidates, volume, models.detector)
    denoising, images, measurements = _denoise(volume, models, candidates, lesions, stages)
    notes = [_CAUTION] if images else []
    if models.detector is not None:
        notes.append(_CANDIDATES)
        if quality is not None and quality.poor:
            notes.append(_POOR)
    return Findings(
        NAME,
        VERSION,
        (denoising, *detection, scoring),
        images=images,
        lesions=lesions,
        scores=scores,
        quality=quality,
        measurements=measurements,
        notes=tuple(notes),
    )


class _Stages:
    """One progress for several stages of equal weight, in percent: as many as there are networks for them."""

    def __init__(self, on_progress: Progress, networks: Sequence[object | None]) -> None:
        self._on_progress, self._begun = on_progress, 0
        self._count = max(sum(network is not None for network in networks), 1)

    def next(self) -> Progress:
        begun = self._begun
        self._begun += 1
        return lambda done, total: self._on_progress(round(100 * (begun + done / total) / self._count), 100)


def _scoring(
    scorer: Scorer | None, volume: Volume, stages: _Stages
) -> tuple[Analysis, Quality | None, tuple[Score, ...]]:
    if scorer is None:
        return Analysis(SCORING, "not done", _NOT_OFFERED), None, ()
    quality = scorer.run(volume, stages.next())
    if quality.not_applicable:
        reason = f"It does not apply: {quality.not_applicable}."
        return Analysis(SCORING, "not done", reason, scorer.identity), quality, ()
    return Analysis(SCORING, "done", "", scorer.identity), quality, scores_of(quality, scorer.identity)


def _too_poor(quality: Quality | None, least: float) -> str:
    """Why lesions must not be searched for, in words; a series that was not scored is searched."""
    if quality is None or quality.not_applicable or quality.median >= least:
        return ""
    return (
        f"The image quality of the series is {quality.median:.2f} of {HIGHEST:g}, and this node searches from {least:g}"
        " on: what a search would miss in such images is not known."
    )


def unfit_for_detection(volume: Volume) -> str:
    """Why the detector must not be asked, in words; empty where it may. It was trained on slices 1.25 to 5 mm apart."""
    if len(volume.voxels) < LEAST_SLICES:
        return f"It needs at least {LEAST_SLICES} slices, and there are {len(volume.voxels)}."
    side = min(volume.voxels.shape[1:])
    if side < LEAST_SIDE_PX:
        return f"It needs images of at least {LEAST_SIDE_PX} pixels a side, and these have {side}."
    turned = round(_from_axial_deg(volume))
    if turned > MOST_TILT_DEG:
        return f"It was made for axial slices, and these are turned by {turned}° (coronal, sagittal or oblique)."
    pixel = max(volume.spacing_zyx_mm[1:])
    if pixel > COARSEST_PIXEL_MM:
        return f"The pixels of {pixel:.1f} mm are coarser than the {COARSEST_PIXEL_MM:g} mm that it was made for."
    if reason := _too_far_apart(volume):
        return reason
    if _body_cm2(volume) < LEAST_BODY_CM2:
        return "The images show hardly anything but air: that nothing is found there would say nothing."
    return ""


def _too_far_apart(volume: Volume) -> str:
    """Why slices do not follow each other closely enough, in words: by gaps, or sideways; "" where most do."""
    stacks = stacks_of(volume)
    if searchable(stacks):
        return ""
    if len(stacks) == 1:
        return (
            f"It needs slices that reach over at least {LEAST_EXTENT_MM:g} mm, and these reach over "
            f"{stacks[0].extent_mm:.1f} mm."
        )
    steps = np.diff(places_mm(volume), axis=0)  # (Z - 1, 3)
    way = np.linalg.norm(steps, axis=1)
    gaps = way if volume.gantry_tilt_deg else np.abs(steps @ normal_of(volume))
    if float(gaps.max()) > LARGEST_GAP_MM:
        return (
            f"Slices are up to {gaps.max():.1f} mm apart, and it was made for {LARGEST_GAP_MM:g} mm at most: too few "
            "of them follow each other."
        )
    aside = float(np.sqrt(np.maximum(way**2 - gaps**2, 0)).max())
    return (
        f"Slices are shifted sideways against their neighbours by up to {aside:.1f} mm, and it was made for slices "
        "that lie over each other."
    )


def _body_cm2(volume: Volume) -> float:
    """Area denser than `DENSE_HU` on the slice with most of it."""
    dense = 0
    for index, voxels in enumerate(volume.voxels):
        inside = voxels > DENSE_HU
        if volume.padding is not None:
            inside &= ~volume.padding[index]
        dense = max(dense, int(np.count_nonzero(inside)))
    return dense * volume.spacing_zyx_mm[1] * volume.spacing_zyx_mm[2] / 100


def _from_axial_deg(volume: Volume) -> float:
    """Angle between the normal of the slices and the body's long axis, degrees, 0 to 90."""
    return float(np.degrees(np.arccos(np.clip(abs(normal_of(volume)[2]), 0, 1))))


def _detection(detector: Detector | None, unfit: str, stacks: Sequence[Stack]) -> tuple[Analysis, ...]:
    """What is said of the search; of slices that stand apart, by themselves."""
    if detector is None:
        return (Analysis(DETECTION, "not done", _NOT_OFFERED),)
    if unfit:
        return (Analysis(DETECTION, "not done", unfit),)
    done = Analysis(DETECTION, "done", gaps_in_words(stacks), detector.identity, looks_for=detector.looks_for)
    left_out = left_out_in_words(stacks)
    return (done, Analysis(DETECTION_APART, "not done", left_out)) if left_out else (done,)


def _lesions(
    candidates: Sequence[tuple[Stack, Candidate]], volume: Volume, detector: Detector | None
) -> tuple[Lesion, ...]:
    if detector is None:
        return ()
    return tuple(stack.lesion(one, volume, detector.identity) for stack, one in _findings(candidates))


def _findings(candidates: Sequence[tuple[Stack, Candidate]]) -> list[tuple[Stack, Candidate]]:
    """Those sure enough to be told."""
    return [(stack, one) for stack, one in candidates if one.score >= one.operating_point]


def _denoise(
    volume: Volume,
    models: Models,
    candidates: Sequence[tuple[Stack, Candidate]],
    lesions: tuple[Lesion, ...],
    stages: _Stages,
) -> tuple[Analysis, tuple[Image, ...], tuple[Measurement, ...]]:
    """The denoised series where it passes its checks; else the reason why it is withheld."""
    denoiser = models.denoiser
    if denoiser is None:
        return Analysis(DENOISING, "not done", _NOT_OFFERED), (), ()
    array = denoiser.run(volume, stages.next())
    if array.shape != volume.voxels.shape:
        raise ModelError(f"the denoiser returned {array.shape} for {volume.voxels.shape}")
    result = fidelity.check(volume, array, lesions)
    measurements = _noise(result)
    complaint = result.complaint
    checks = dict(result.checks)
    if models.detector is not None and not complaint:
        new = _unsupported(replace(volume, voxels=array), volume, candidates, models.detector, stages.next())
        checks["lesions only in the denoised images"] = f"{new} (limit 0)"
        if new:
            complaint = f"the detector finds {new} in them that the images as received do not support"
    if complaint:
        reason = f"The denoised images were not returned: {complaint}."
        return Analysis(DENOISING, "withheld", reason, denoiser.identity), (), measurements[:1]
    image = Image(
        kind="denoised",
        array=array,
        description=f"Noise reduced by {denoiser.identity.name} {denoiser.identity.version}",
        derivation=SMOOTHING,
        model=denoiser.identity,
        checks=checks,
    )
    return Analysis(DENOISING, "done", "", denoiser.identity), (image,), measurements


def _unsupported(
    denoised: Volume,
    volume: Volume,
    candidates: Sequence[tuple[Stack, Candidate]],
    detector: Detector,
    on_progress: Progress,
) -> int:
    """Findings in the denoised volume where the original has not even a weak candidate."""
    known = np.zeros(volume.voxels.shape, np.bool_)
    for stack, one in candidates:
        known[stack.of_series(one.region.box)] |= one.region.mask
    found = _findings(search(detector.find, searchable(stacks_of(denoised)), on_progress))
    return sum(not (one.region.mask & known[stack.of_series(one.region.box)]).any() for stack, one in found)


def _noise(result: fidelity.Fidelity) -> tuple[Measurement, ...]:
    method = "median over slices of the local standard deviation in homogeneous soft tissue"
    values = (("input", result.noise_in_hu), ("denoised", result.noise_out_hu))
    return tuple(
        Measurement(NOISE, round(value, 2), HOUNSFIELD_UNIT, method, group)
        for group, value in values
        if not isnan(value)
    )
