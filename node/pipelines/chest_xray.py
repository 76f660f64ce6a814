"""Chest radiographs: restore what is fit for it, check what the restorer did, say what was done and what was not."""

from __future__ import annotations

from dataclasses import replace
from math import ceil

import numpy as np

from models.contract import (
    Analysis,
    BoolArray,
    Code,
    Findings,
    FloatArray,
    Image,
    Map,
    Measurement,
    ModelError,
    ModelIdentity,
    Radiograph,
)
from models.diffusionxray.domain import unfit, untouchable
from node.pipelines import fidelity_xray
from node.pipelines.models import Models, Progress, Restored, Restorer

NAME = "chest_xray"
VERSION = "5"
RESTORATION, DETECTION = "Restoration", "Lesion detection"

NOISE: Code = ("noise-local", "99PACSNODE", "Local noise, standard deviation")
MEAN_CHANGE: Code = ("change-mean", "99PACSNODE", "Mean change of a pixel")
LARGEST_CHANGE: Code = ("change-largest", "99PACSNODE", "Largest change of a pixel")
CHANGED_SHARE: Code = ("change-share", "99PACSNODE", "Pixels changed by more than the noise")
LEVELS: Code = ("{levels}", "UCUM", "grey levels")
PERCENT: Code = ("%", "UCUM", "Percent")
SMOOTHING: Code = ("113087", "DCM", "Smoothing")
"""The nearest that CID 7203 has: what changes most is noise. The derivation description says the rest."""

_NOT_OFFERED = "No trained network for it is part of this version."
_NO_DETECTOR = "No trained network for lesions in radiographs is part of this version."
CAUTIONS = (
    "Restoration can weaken or sharpen fine detail and was trained on simulated degradation: read the original image "
    "beside the restored one.",
    "No finding rests on the restored image.",
)
SMALL_FIELD_MM = (240.0, 300.0)
"""A cassette for hands. Chests of adults are taken on 350 x 430 mm and collimated little; a baby's fits on this one."""
_NO_DIAGNOSIS = "It shows where the processing acted, not disease."


def chest_xray(
    image: Radiograph, models: Models, on_progress: Progress, *, maps: bool = False, unstated_side_mm: float = 0.0
) -> Findings:
    """Findings of one radiograph. raises ModelError where a network broke.

    maps                change and uncertainty, pixel by pixel, are asked for beside the restored image
    unstated_side_mm    longer side of a radiograph that does not say how large a pixel is; 0 where nobody knows
    """
    detection = Analysis(DETECTION, "not done", _NO_DETECTOR)
    restorer = models.restorer
    if restorer is None:
        on_progress(1, 1)
        return Findings(NAME, VERSION, (Analysis(RESTORATION, "not done", _NOT_OFFERED), detection))
    small = _small_field(image)
    image, assumed = _sized(image, unstated_side_mm)
    if reason := unfit(image):
        on_progress(1, 1)
        return Findings(NAME, VERSION, (Analysis(RESTORATION, "not done", reason, restorer.identity), detection))
    restored = _restored(restorer, image, on_progress, maps=maps)
    kept = untouchable(image)
    result = np.where(kept, image.pixels, restored.pixels)
    verdict = fidelity_xray.check(image, restored, result, kept)
    measurements = _measurements(verdict, image.value_step)
    if verdict.complaint:
        withheld = f"The restored image was not returned: {verdict.complaint}."
        analysis = Analysis(RESTORATION, "withheld", withheld, restorer.identity)
        return Findings(NAME, VERSION, (analysis, detection), measurements=measurements[:1])
    return Findings(
        NAME,
        VERSION,
        (Analysis(RESTORATION, "done", "", restorer.identity), detection),
        images=(_image(result, restored, verdict, restorer.identity),),
        maps=_maps(image, result, restored, kept, restorer.identity) if maps else (),
        measurements=measurements,
        notes=CAUTIONS + assumed + small,
    )


def _small_field(image: Radiograph) -> tuple[str, ...]:
    """A caution where the picture is smaller than nearly any adult chest: a hand may be labelled as one."""
    if image.spacing_yx_mm is None:
        return ()
    sides = sorted(count * step for count, step in zip(image.pixels.shape, image.spacing_yx_mm, strict=True))
    if any(side > most for side, most in zip(sides, SMALL_FIELD_MM, strict=True)):
        return ()
    return (
        f"The image covers {sides[0] / 10:.0f} x {sides[1] / 10:.0f} cm, less than nearly any chest of an adult. It "
        "was processed as the chest that its header says it is; whether it is one was not looked at.",
    )


def _sized(image: Radiograph, unstated_side_mm: float) -> tuple[Radiograph, tuple[str, ...]]:
    """The radiograph with a pixel size, as the operator told it where the header does not, and then a note."""
    if image.spacing_yx_mm is not None or not unstated_side_mm:
        return image, ()
    spacing = unstated_side_mm / max(image.pixels.shape)
    note = (
        f"The header does not say how large a pixel is: restored as if the longer side were {unstated_side_mm:g} mm, "
        f"pixels of {spacing:.2f} mm. Measure no lengths by it."
    )
    return replace(image, spacing_yx_mm=(spacing, spacing)), (note,)


def _restored(restorer: Restorer, image: Radiograph, on_progress: Progress, *, maps: bool) -> Restored:
    restored = restorer.run(image, on_progress, maps)
    told = [restored.pixels, restored.safe, restored.allowed, restored.noise_sd]
    told += [] if restored.spread is None else [restored.spread]
    if any(array.shape != image.pixels.shape for array in told):
        raise ModelError(f"the restorer returned {restored.pixels.shape} for {image.pixels.shape}")
    if not all(np.isfinite(array).all() for array in told):
        raise ModelError("the restorer returned values that are not finite")
    return restored


def _image(result: FloatArray, restored: Restored, verdict: fidelity_xray.FidelityXray, model: ModelIdentity) -> Image:
    drawn = f"{restored.steps} steps from noise of seed {restored.seed}"
    how = f"refined in {drawn}" if restored.steps else "conservative restoration, nothing drawn at random"
    return Image(
        kind="restored",
        array=result,
        description=f"Noise and blur reduced by {model.name} {model.version}, {how}",
        derivation=SMOOTHING,
        model=model,
        checks=verdict.checks,
    )


def _measurements(verdict: fidelity_xray.FidelityXray, step: float) -> tuple[Measurement, ...]:
    """Noise before first: the only one that is told of an image that was withheld.

    step    of the values, from one grey level to the next
    """
    noise = "median over the image of the noise around each pixel"
    change = "restored minus received image, padding and shutter left out"
    share = round(100 * verdict.changed_share, 2)
    return (
        Measurement(NOISE, round(verdict.noise_in / step, 3), LEVELS, noise, "input"),
        Measurement(NOISE, round(verdict.noise_out / step, 3), LEVELS, noise, "restored"),
        Measurement(MEAN_CHANGE, round(verdict.mean_change / step, 3), LEVELS, change, "restored"),
        Measurement(LARGEST_CHANGE, round(verdict.largest_change / step, 3), LEVELS, "", "restored"),
        Measurement(CHANGED_SHARE, share, PERCENT, "", "restored"),
    )


def _maps(
    image: Radiograph, result: FloatArray, restored: Restored, kept: BoolArray, model: ModelIdentity
) -> tuple[Map, ...]:
    step = np.float32(image.value_step)
    change = (result - image.pixels) / step
    reach = _reach(np.abs(change), kept)
    found = [
        Map(
            kind="change",
            array=change,
            title="Change: restored minus received",
            limits=(-reach, reach),
            unit="grey levels",
            explanation=f"Red became denser, blue less dense, black did not change. {_NO_DIAGNOSIS}",
            model=model,
        )
    ]
    if restored.spread is not None:
        spread = np.where(kept, np.float32(0), restored.spread / step)
        found.append(
            Map(
                kind="uncertainty",
                array=spread,
                title="Uncertainty: half width of the calibrated interval",
                limits=(0.0, _reach(spread, kept)),
                unit="grey levels",
                explanation=(
                    "Bright is where the restored value is least sure, by noise and repeated restorations calibrated "
                    "on simulated images of known truth. It knows noise, not sharpness that was lost before. It shows "
                    "how sure the processing is, not disease."
                ),
                model=model,
            )
        )
    return tuple(found)


def _reach(values: FloatArray, kept: BoolArray) -> float:
    """A round end for the colour bar, beyond all but the strongest thousandth."""
    return float(max(1, ceil(np.percentile(values[~kept], 99.9))))
