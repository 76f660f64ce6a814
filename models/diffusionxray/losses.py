"""What each stage makes small, on pairs of a clean and a degraded image in [−1, 1], both (B, 1, H, W)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from models.contract import ModelError
from models.diffusionxray.network import RestorationUNet
from models.diffusionxray.schedule import Schedule


def noise_loss(
    network: RestorationUNet, clean: Tensor, degraded: Tensor, schedule: Schedule, draws: torch.Generator
) -> Tensor:
    """The paper's: mean absolute error of the predicted noise, t uniform over whole steps (dossier 5).

    draws    a generator on the CPU: times and noise are the same on every device
    raises   ModelError     a condition that equals its target: the noise could be read off (dossier 13.3). Not where
                            the image is flat: a shutter is itself, however degraded
    """
    flat = clean.flatten(1).amax(1) == clean.flatten(1).amin(1)
    if bool(((clean == degraded).flatten(1).all(1) & ~flat).any()):
        raise ModelError("an image is paired with itself")
    time = torch.randint(schedule.steps, (len(clean),), generator=draws)
    noise = torch.randn(clean.shape, generator=draws).to(clean)
    alpha, sigma = (
        torch.from_numpy(table)[time].to(clean)[:, None, None, None] for table in (schedule.alpha, schedule.sigma)
    )
    told = network(torch.cat([alpha * clean + sigma * noise, degraded], 1), time.to(clean))
    return functional.l1_loss(told, noise)


def regression_loss(network: RestorationUNet, clean: Tensor, degraded: Tensor) -> Tensor:
    """Of the conservative restoration: mean absolute error, so that it learns the median of what is possible."""
    return functional.l1_loss(network(degraded), clean)


def flow_loss(network: RestorationUNet, clean: Tensor, safe: Tensor, start_sd: float, draws: torch.Generator) -> Tensor:
    """Of the refiner: squared error of the velocity clean − Z_0 at Z_t = (1 − t) Z_0 + t clean, Z_0 = safe + noise.

    safe     the conservative restoration of the degraded image
    draws    a generator on the CPU
    source   PMRF (arXiv 2410.00418) stage 2
    """
    time = torch.rand(len(clean), generator=draws).to(clean)
    start = safe + start_sd * torch.randn(clean.shape, generator=draws).to(clean)
    state = torch.lerp(start, clean, time[:, None, None, None])
    return functional.mse_loss(network(state, time), clean - start)
