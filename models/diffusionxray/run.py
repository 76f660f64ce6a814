"""A radiograph to its restoration: conservative first, then refined, and held to it by the guard."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from models.contract import FloatArray, ModelError, Radiograph
from models.diffusionxray.config import DiffusionXRayConfig
from models.diffusionxray.guard import cap_residual, frequency_split, local_noise_sd, mean_and_spread
from models.diffusionxray.network import RestorationUNet
from models.diffusionxray.samplers import Noise, dpm_solver, refine, seed_of
from models.diffusionxray.schedule import cosine, even_steps
from models.diffusionxray.tiles import padded, predictor, tiled, to_stored, to_unit


@dataclass(frozen=True, eq=False)
class Restored:
    """All of the radiograph's grid, in its stored units.

    pixels      float32 (Y, X), whole stored values: the first sample, split and capped
    safe        float32 (Y, X), whole stored values: the conservative restoration
    allowed     float32 (Y, X): by how much `pixels` may differ from `safe`, beside half a stored value of each rounding
    spread      float32 (Y, X): standard deviation of the samples before the guard, not calibrated; None for one sample
    seed        of the noise        steps       evaluations of the refiner per sample
    """

    pixels: FloatArray
    safe: FloatArray
    allowed: FloatArray
    spread: FloatArray | None
    seed: int
    steps: int


@torch.inference_mode()
def run(
    regressor: RestorationUNet,
    refiner: RestorationUNet,
    radiograph: Radiograph,
    config: DiffusionXRayConfig,
    *,
    samples: int = 1,
) -> Restored:
    """The restored radiograph; the same again, to the bit, for the same SOP Instance UID on the same kind of processor.

    regressor, refiner      in `eval` mode, on one device
    samples                 drawn; all but the first only for the spread
    raises   ModelError     no pixel spacing, values out of range, or a result that is not finite
    """
    if radiograph.spacing_yx_mm is None:
        raise ModelError("without pixel spacing it is not known what the refiner may decide")
    if samples < 1:
        raise ModelError("at least one sample is needed")
    value_range = radiograph.value_range
    unit = to_unit(radiograph.pixels, value_range)
    seed = seed_of(radiograph.source.instance_uid)
    steps, start_sd = config.sampling.flow_steps, config.sampling.flow_noise

    image = _canvas(unit, max(regressor.config.multiple, refiner.config.multiple), refiner)
    mean = tiled(regressor, image, config.tiles, regressor.config.multiple).clamp(-1, 1)
    velocity = predictor(refiner, config.tiles)
    drawn = [
        _like(unit, refine(velocity, mean, Noise(seed, sample), steps=steps, start_sd=start_sd))
        for sample in range(samples)
    ]
    safe, noise_sd = _like(unit, mean), local_noise_sd(unit)
    split_mm = config.guard.split_mm
    fine = frequency_split(safe, drawn[0], split_mm=split_mm, spacing_yx_mm=radiograph.spacing_yx_mm)
    held = cap_residual(safe, fine, noise_sd, config.guard.cap)
    per_unit = np.float32((value_range[1] - value_range[0]) / 2)
    return Restored(
        pixels=to_stored(held, value_range),
        safe=to_stored(safe, value_range),
        allowed=config.guard.cap * noise_sd * per_unit,
        spread=mean_and_spread(drawn)[1] * per_unit if samples > 1 else None,
        seed=seed,
        steps=steps,
    )


@torch.inference_mode()
def reference(network: RestorationUNet, radiograph: Radiograph, config: DiffusionXRayConfig) -> FloatArray:
    """What the paper's conditional DDPM makes of the radiograph, by DPM-Solver++: to compare with, not for a reader.

    No guard: nothing bounds what it adds.

    network     in `eval` mode, with two inputs
    returns     float32 (Y, X), whole stored values
    raises      ModelError     values out of range
    """
    unit = to_unit(radiograph.pixels, radiograph.value_range)
    condition = _canvas(unit, network.config.multiple, network)
    path = even_steps(cosine(config.schedule), config.sampling.solver_steps)
    noise = Noise(seed_of(radiograph.source.instance_uid))
    drawn = dpm_solver(predictor(network, config.tiles, condition), path, condition, noise)
    return to_stored(_like(unit, drawn), radiograph.value_range)


def _canvas(unit: FloatArray, multiple: int, network: RestorationUNet) -> Tensor:
    """The image as the network takes it, (1, 1, H, W)."""
    return torch.from_numpy(padded(unit, multiple))[None, None].to(next(network.parameters()).device)


def _like(unit: FloatArray, canvas: Tensor) -> FloatArray:
    """What lies over the image, (Y, X)."""
    height, width = unit.shape
    array: FloatArray = canvas[0, 0, :height, :width].cpu().numpy()
    return array
