"""A radiograph to its restoration: conservative first, then refined, and held to it by the guard."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from models.contract import FloatArray, ModelError, Radiograph
from models.device import as_written
from models.diffusionxray.config import DiffusionXRayConfig
from models.diffusionxray.guard import (
    MOST_SAFE_CAP,
    cap_residual,
    frequency_split,
    local_noise_sd,
    mean_and_spread,
    share_open,
)
from models.diffusionxray.network import RestorationUNet
from models.diffusionxray.samplers import Noise, Predict, refine, seed_of
from models.diffusionxray.scale import scale_of_radiograph
from models.diffusionxray.tiles import padded, predictor, tiled

OnProgress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class RestoredPicture:
    """In units of the picture, float32 (Y, X) each.

    pixels      the result: the conservative restoration, or the first sample, split and capped
    safe        the conservative restoration: coarse structure is that of the received picture, and nothing is farther
                from it than `safe_cap` noise standard deviations
    noise_sd    of what was received, around each pixel
    spread      standard deviation of the samples, not less than a share of the noise; not calibrated. None for one
    """

    pixels: FloatArray
    safe: FloatArray
    noise_sd: FloatArray
    spread: FloatArray | None


@dataclass(frozen=True, eq=False)
class Restored:
    """All of the radiograph's grid, in its stored units.

    pixels      float32 (Y, X), values that can be stored: the result
    safe        float32 (Y, X), values that can be stored: the conservative restoration
    allowed     float32 (Y, X): by how much `pixels` may differ from `safe`, beside half a step of each rounding
    noise_sd    float32 (Y, X): of the radiograph as received, around each pixel
    spread      float32 (Y, X): half width of the interval around `pixels`, calibrated where the configuration has a
                widening; None for one sample
    seed        of the noise        steps       of the refiner in the result
    """

    pixels: FloatArray
    safe: FloatArray
    allowed: FloatArray
    noise_sd: FloatArray
    spread: FloatArray | None
    seed: int
    steps: int


@torch.inference_mode()
@as_written()
def restore(
    regressor: RestorationUNet,
    refiner: RestorationUNet,
    picture: FloatArray,
    spacing_yx_mm: tuple[float, float],
    config: DiffusionXRayConfig,
    *,
    seed: int,
    steps: int | None = None,
    samples: int = 1,
    on_progress: OnProgress | None = None,
) -> RestoredPicture:
    """A picture restored and held to its bounds; the same again, to the bit, for the same seed on the same processor.

    regressor, refiner      in `eval` mode, on one device
    picture     float32 (Y, X), about −1 to 1
    steps       of the refiner in the result, instead of the configuration's; 0: the conservative restoration
    samples     drawn where more than one, for the spread; the first is the result where the refiner has a part in it
    on_progress called with evaluations done and in all
    raises   ModelError     no sample, or a result that is not finite
    """
    if samples < 1:
        raise ModelError("at least one sample is needed")
    steps = config.sampling.returned_steps if steps is None else steps
    per_sample = steps or config.sampling.flow_steps
    wanted = samples if samples > 1 or steps else 0
    done = _Counter(on_progress, 1 + per_sample * wanted)
    image = _canvas(picture, max(regressor.config.multiple, refiner.config.multiple), refiner)
    mean = tiled(regressor, image, config.tiles, regressor.config.multiple)
    noise_sd = local_noise_sd(picture)
    told = _like(picture, mean)
    split = partial(frequency_split, split_mm=config.guard.split_mm, spacing_yx_mm=spacing_yx_mm)
    share = share_open(picture, noise_sd, config.guard.kept_from)
    fine = picture + share * (split(picture, told) - picture)
    safe = cap_residual(picture, fine, noise_sd, config.guard.safe_cap, most=MOST_SAFE_CAP)
    done()
    velocity = predictor(refiner, config.tiles)

    def drawn(sample: int) -> FloatArray:
        noise, start_sd = Noise(seed, sample), config.sampling.flow_noise
        return _like(picture, refine(done.counted(velocity), mean, noise, steps=per_sample, start_sd=start_sd))

    several = [drawn(sample) for sample in range(wanted)]
    held = safe
    if steps:
        added = share * (split(told, several[0]) - told)
        held = cap_residual(safe, safe + added, noise_sd, config.guard.cap)
    spread = None
    if samples > 1:
        spread = np.hypot(mean_and_spread(several)[1], np.float32(config.guard.spread_floor) * noise_sd)
    return RestoredPicture(held, safe, noise_sd, spread)


def run(
    regressor: RestorationUNet,
    refiner: RestorationUNet,
    radiograph: Radiograph,
    config: DiffusionXRayConfig,
    *,
    samples: int = 1,
    on_progress: OnProgress | None = None,
) -> Restored:
    """The restored radiograph; the same again, to the bit, for the same SOP Instance UID on the same kind of processor.

    regressor, refiner      in `eval` mode, on one device
    samples                 drawn; all but the first only for the spread
    raises   ModelError     no pixel spacing, values out of range, or a result that is not finite
    """
    if radiograph.spacing_yx_mm is None:
        raise ModelError("without pixel spacing it is not known what the refiner may decide")
    value_range, step, scale = radiograph.value_range, radiograph.value_step, scale_of_radiograph(radiograph)
    seed = seed_of(radiograph.source.instance_uid)
    restored = restore(
        regressor,
        refiner,
        scale.unit(radiograph.pixels, value_range),
        radiograph.spacing_yx_mm,
        config,
        seed=seed,
        samples=samples,
        on_progress=on_progress,
    )
    per_unit = np.float32(scale.half)
    noise_sd = restored.noise_sd * per_unit
    return Restored(
        pixels=scale.stored(restored.pixels, value_range, step),
        safe=scale.stored(restored.safe, value_range, step),
        allowed=np.float32(config.guard.cap) * noise_sd,
        noise_sd=noise_sd,
        spread=None if restored.spread is None else np.float32(config.guard.widening) * restored.spread * per_unit,
        seed=seed,
        steps=config.sampling.returned_steps,
    )


class _Counter:
    """Evaluations done of all."""

    def __init__(self, report: OnProgress | None, total: int) -> None:
        self._report, self._done, self._total = report, 0, total

    def __call__(self) -> None:
        self._done += 1
        if self._report is not None:
            self._report(self._done, self._total)

    def counted(self, predict: Predict) -> Predict:
        def counting(state: Tensor, time: float) -> Tensor:
            told = predict(state, time)
            self()
            return told

        return counting


@torch.inference_mode()
@as_written()
def _canvas(unit: FloatArray, multiple: int, network: RestorationUNet) -> Tensor:
    """The image as the network takes it, (1, 1, H, W)."""
    return torch.from_numpy(padded(unit, multiple))[None, None].to(next(network.parameters()).device)


def _like(unit: FloatArray, canvas: Tensor) -> FloatArray:
    """What lies over the image, (Y, X)."""
    height, width = unit.shape
    array: FloatArray = canvas[0, 0, :height, :width].cpu().numpy()
    return array
