"""CT: denoise, check what the denoiser did, say what was done and what was not."""

from __future__ import annotations

from math import isnan

from models.contract import Analysis, Code, Findings, Image, Measurement, ModelError, Volume
from node.pipelines import fidelity
from node.pipelines.models import Denoiser, Models, Progress

NAME = "low_dose_ct"
VERSION = "1"

NOISE: Code = ("noise-sd", "99PACSNODE", "Noise in soft tissue, standard deviation")
HOUNSFIELD_UNIT: Code = ("[hnsf'U]", "UCUM", "Hounsfield unit")
SMOOTHING: Code = ("113087", "DCM", "Smoothing")

_NOT_OFFERED = "No trained network for it is part of this version."
_CAUTION = "Denoising can weaken small and faint detail: read the original images beside the denoised ones."
_NOT_TRUNK = frozenset({"HEAD", "BRAIN", "SKULL", "FACE", "EAR", "ORBIT", "SINUS", "EXTREMITY", "HAND", "FOOT", "KNEE"})
"""Body Part Examined (PS3.16 L-1) for which the denoiser was not made: it saw chests, abdomens and pelves only."""


def low_dose_ct(volume: Volume, models: Models, on_progress: Progress) -> Findings:
    """Findings of one CT series. raises ModelError where a network broke."""
    others = (
        Analysis("Lesion detection", "not done", _NOT_OFFERED),
        Analysis("Image quality scoring", "not done", _NOT_OFFERED),
    )
    if models.denoiser is None:
        return Findings(NAME, VERSION, (Analysis("Denoising", "not done", _NOT_OFFERED), *others))
    if volume.acquisition.body_part.upper() in _NOT_TRUNK:
        part = volume.acquisition.body_part.lower()
        reason = f"The network was trained on images of the trunk, and this is the {part}."
        return Findings(NAME, VERSION, (Analysis("Denoising", "not done", reason), *others))
    denoising, images, measurements = _denoise(volume, models.denoiser, on_progress)
    notes = (_CAUTION,) if images else ()
    return Findings(NAME, VERSION, (denoising, *others), images=images, measurements=measurements, notes=notes)


def _denoise(
    volume: Volume, denoiser: Denoiser, on_progress: Progress
) -> tuple[Analysis, tuple[Image, ...], tuple[Measurement, ...]]:
    """The denoised series where it passes its checks; else the reason why it is withheld."""
    array = denoiser.run(volume, on_progress)
    if array.shape != volume.voxels.shape:
        raise ModelError(f"the denoiser returned {array.shape} for {volume.voxels.shape}")
    result = fidelity.check(volume, array)
    measurements = _noise(result)
    if result.complaint:
        reason = f"The denoised images were not returned: {result.complaint}."
        return Analysis("Denoising", "withheld", reason, denoiser.identity), (), measurements[:1]
    image = Image(
        kind="denoised",
        array=array,
        description=f"Noise reduced by {denoiser.identity.name} {denoiser.identity.version}",
        derivation=SMOOTHING,
        model=denoiser.identity,
        checks=result.checks,
    )
    return Analysis("Denoising", "done", "", denoiser.identity), (image,), measurements


def _noise(result: fidelity.Fidelity) -> tuple[Measurement, ...]:
    method = "median over slices of the local standard deviation in homogeneous soft tissue"
    values = (("input", result.noise_in_hu), ("denoised", result.noise_out_hu))
    return tuple(
        Measurement(NOISE, round(value, 2), HOUNSFIELD_UNIT, method, group)
        for group, value in values
        if not isnan(value)
    )
