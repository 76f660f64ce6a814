"""What the denoiser is worth, in numbers: on patients it has not seen, against simple filters and nothing at all."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from models.contract import BoolArray, FloatArray
from models.evaluation import baselines
from models.evaluation.bootstrap import over_patients
from models.evaluation.metrics import LUNG, SOFT_TISSUE, psnr, rmse, ssim
from models.evaluation.noise import FAT_HU, LUNG_HU, SOFT_TISSUE_HU, body_mask, homogeneous, noise_sd
from models.evaluation.table import Row, Table
from models.lidnet.config import LidnetConfig
from models.lidnet.pairs import draw_seed
from models.lidnet.run import denoise
from models.lidnet.slices import Slice, load_slice, patient_of, slice_files, split
from models.lidnet.socket import PluggedIn
from models.simulation.dose import NoiseFields, noise_fields, scanner_of
from models.simulation.geometry import FanBeam

Filter = Callable[[FloatArray], FloatArray]
Methods = Mapping[float, Mapping[str, Filter]]
"""Part of the dose → what is compared there, by name."""
OnProgress = Callable[[int, int], None]
Values = defaultdict[tuple[str, str], defaultdict[str, defaultdict[str, list[float]]]]
"""(condition, method) → metric → patient → one number per slice."""

OURS, CEILING = "this model", "full dose"
UNKNOWN_NOISE_HU = 40.0
"""Noise that the filters assume where a slice has too little soft tissue to measure it."""
STRENGTHS: dict[str, tuple[float, ...]] = {
    "Gaussian": (0.6, 0.9, 1.2, 1.6, 2.2),
    "bilateral": (1.5, 2.5, 4.0, 6.0),
    "non-local means": (0.6, 0.9, 1.2, 1.6),
    "BM3D": (0.8, 1.2, 1.6),
}
"""Gaussian: sigma in pixels. The others: strength over the slice's own noise."""

NOTES = (
    "Low dose is simulated: noise is inserted into full-dose images through projections, at the header's photons.",
    "The reference is the full-dose image with its own noise, so that the best possible RMSE is not 0; as the ceiling"
    " it is a row of its own, without a PSNR, which would be infinite.",
    "Mean over patients and 95 % bootstrap interval over patients; within the body, without table and padding.",
    "PSNR and SSIM: soft tissue on -160…240 HU (data range 400), lung on -1350…150 HU (data range 1500).",
    "The filters' strengths were chosen by RMSE on patients of the training set, per dose.",
    "Noise: standard deviation in homogeneous soft tissue. Bias: mean of result minus reference in homogeneous tissue.",
)


@dataclass(frozen=True)
class EvaluationConfig:
    """How much is evaluated.

    fractions           parts of the full dose
    slices_per_patient  at most so many, evenly spread
    tuning_slices       of the training set, for the filters' strengths
    bm3d                as one of the filters; its package is not part of the product
    """

    fractions: tuple[float, ...] = (0.25, 0.1)
    slices_per_patient: int = 4
    tuning_slices: int = 8
    views: int = 600
    bm3d: bool = False


def compared_methods(
    network: PluggedIn, data: Path, config: LidnetConfig, *, what: EvaluationConfig, seed: int = 0
) -> Methods:
    """No processing, the network, and every filter at the strength that does best on patients of the training.

    network  as `prepare` leaves it      data  folder of prepared slices
    raises   ModelError     a patient to hold out is not among the slices
    """
    kept, _ = split(slice_files(data), config.held_out)
    tuning = [load_slice(path) for path in spread(kept, 1)[: what.tuning_slices]]
    tuned = [(image, noise_of(image, views=what.views, seed=seed)) for image in tuning]
    filters = [name for name in STRENGTHS if what.bm3d or name != "BM3D"]
    return {
        fraction: {
            "no processing": lambda low: low,
            OURS: lambda low: denoise(network, low[None])[0],
            **_filters(tuned, fraction, filters),
        }
        for fraction in what.fractions
    }


def evaluate(
    data: Path,
    config: LidnetConfig,
    methods: Methods,
    *,
    what: EvaluationConfig,
    seed: int = 0,
    on_progress: OnProgress | None = None,
) -> Table:
    """RMSE, PSNR, SSIM, noise and HU bias on the patients held out.

    data     folder of prepared slices
    raises   ModelError     a patient to hold out is not among the slices
    """
    _, held_out = split(slice_files(data), config.held_out)
    tested = [load_slice(path) for path in spread(held_out, what.slices_per_patient)]
    values: Values = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    done, total = 0, len(tested) * len(methods)
    for image in tested:
        noise = noise_of(image, views=what.views, seed=seed)
        for fraction, apply_all in methods.items():
            low = low_dose(image, noise, fraction)
            shown = {method: apply(low) for method, apply in apply_all.items()}
            for method, result in {**shown, CEILING: image.hu}.items():
                for metric, value in compare(result, image).items():
                    known = value if np.isfinite(value) else float("nan")
                    values[f"{100 * fraction:.0f} % dose", method][metric][image.patient].append(known)
            done += 1
            if on_progress is not None:
                on_progress(done, total)
    rows = tuple(
        Row(condition, method, {name: over_patients(numbers, seed=seed) for name, numbers in metrics.items()})
        for (condition, method), metrics in values.items()
    )
    return Table("Denoising of simulated low-dose CT, patients held out", rows, NOTES)


def full_dose(network: PluggedIn, data: Path, config: LidnetConfig, *, slices_per_patient: int = 4) -> Table:
    """What it changes where nothing is to do: full-dose images of the patients held out.

    raises   ModelError     a patient to hold out is not among the slices
    """
    _, held_out = split(slice_files(data), config.held_out)
    values: defaultdict[str, defaultdict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for path in spread(held_out, slices_per_patient):
        image = load_slice(path)
        result = denoise(network, image.hu[None])[0]
        measured = compare(result, image)
        told = {
            "change, RMS (HU)": measured["RMSE (HU)"],
            "noise before (HU)": noise_sd(image.hu, ~body_mask(image.hu) | image.padding),
            "noise after (HU)": measured["noise (HU)"],
            "bias soft (HU)": measured["bias soft (HU)"],
            "bias fat (HU)": measured["bias fat (HU)"],
            "bias lung (HU)": measured["bias lung (HU)"],
        }
        for name, value in told.items():
            values[name][image.patient].append(value)
    row = Row("100 % dose", OURS, {name: over_patients(numbers) for name, numbers in values.items()})
    notes = ("Real images, nothing simulated; mean over patients and 95 % bootstrap interval over patients.",)
    return Table("Change of full-dose images, patients held out", (row,), notes)


@dataclass(frozen=True, eq=False)
class Changed:
    """One slice (Y, X), HU: at full dose, at a simulated part of it, and denoised."""

    reference: FloatArray
    low: FloatArray
    result: FloatArray
    fraction: float


def most_changed(
    network: PluggedIn, data: Path, config: LidnetConfig, *, what: EvaluationConfig, seed: int = 0
) -> Changed:
    """The held-out slice from which most is taken away at the lowest dose, for the eye: no hand has chosen it."""
    _, held_out = split(slice_files(data), config.held_out)
    fraction = min(what.fractions)
    shown: list[tuple[float, Changed]] = []
    for path in spread(held_out, 1):
        image = load_slice(path)
        low = low_dose(image, noise_of(image, views=what.views, seed=seed), fraction)
        result = denoise(network, low[None])[0]
        taken = rmse(result, low, where=body_mask(image.hu) & ~image.padding)
        shown.append((taken, Changed(image.hu, low, result, fraction)))
    return max(shown, key=lambda pair: pair[0])[1]


def noise_of(image: Slice, *, views: int, seed: int) -> NoiseFields:
    """The noise that lower doses add to this slice, whatever the order of the work."""
    scanner = scanner_of(image.acquisition, FanBeam(views=views))
    return noise_fields(torch.from_numpy(image.hu)[None], image.spacing_mm, scanner, seed=draw_seed(image.name, seed))


def low_dose(image: Slice, noise: NoiseFields, fraction: float) -> FloatArray:
    """The slice at a part of its dose, padding left as air, float32 (Y, X), HU."""
    added: FloatArray = image.hu + noise.at(fraction)[0].numpy()
    return np.where(image.padding, image.hu, added)


def compare(result: FloatArray, image: Slice) -> Mapping[str, float]:
    """All metrics of one result against the full-dose slice."""
    reference = image.hu
    body = body_mask(reference) & ~image.padding
    return {
        "RMSE (HU)": rmse(result, reference, where=body),
        "PSNR soft (dB)": psnr(result, reference, window=SOFT_TISSUE, where=body),
        "SSIM soft": ssim(result, reference, window=SOFT_TISSUE, where=body),
        "PSNR lung (dB)": psnr(result, reference, window=LUNG, where=body),
        "SSIM lung": ssim(result, reference, window=LUNG, where=body),
        "noise (HU)": noise_sd(result, ~body),
        "bias soft (HU)": _bias(result, reference, homogeneous(reference, SOFT_TISSUE_HU, ~body)),
        "bias fat (HU)": _bias(result, reference, homogeneous(reference, FAT_HU, ~body)),
        "bias lung (HU)": _bias(result, reference, homogeneous(reference, LUNG_HU, ~body)),
    }


def _bias(result: FloatArray, reference: FloatArray, where: BoolArray) -> float:
    return float(np.mean((result - reference)[where])) if where.any() else float("nan")


def _filters(tuning: Sequence[tuple[Slice, NoiseFields]], fraction: float, names: Sequence[str]) -> dict[str, Filter]:
    """Every baseline at the strength that does best on the tuning slices."""
    pairs = [(low_dose(image, noise, fraction), image) for image, noise in tuning]
    chosen: dict[str, Filter] = {}
    for name in names:
        candidates = [_filter(name, strength) for strength in STRENGTHS[name]]
        errors = [
            np.mean([rmse(apply(low), image.hu, where=body_mask(image.hu)) for low, image in pairs])
            for apply in candidates
        ]
        best = int(np.argmin(errors))
        chosen[name] = candidates[best]
    return chosen


def _filter(name: str, strength: float) -> Filter:
    def apply(image: FloatArray) -> FloatArray:
        if name == "Gaussian":
            return baselines.gaussian(image, sigma_px=strength)
        noise = noise_sd(image)
        hu = strength * (UNKNOWN_NOISE_HU if np.isnan(noise) else noise)
        if name == "BM3D":
            return baselines.bm3d(image, sigma_hu=hu)
        if name == "bilateral":
            return baselines.bilateral(image, sigma_px=1.5, sigma_hu=hu)
        return baselines.non_local_means(image, strength_hu=hu)

    return apply


def spread(files: Sequence[Path], per_patient: int) -> list[Path]:
    """At most so many files of every patient, evenly spread over its slices."""
    by_patient: dict[str, list[Path]] = defaultdict(list)
    for path in files:
        by_patient[patient_of(path)].append(path)
    return [path for group in by_patient.values() for path in _evenly(group, per_patient)]


def _evenly(group: Sequence[Path], count: int) -> Sequence[Path]:
    if len(group) <= count:
        return group
    # Away from both ends, where a series often has little to show.
    places = np.linspace(0, len(group) - 1, count + 2)[1:-1]
    return [group[round(float(place))] for place in places]
