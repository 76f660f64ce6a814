"""The error of the predicted noise, over lesions alone.

source: dossier 2 (paper eq. 4 and 5) and 4
"""

from __future__ import annotations

import torch
from torch import Tensor

from models.diffusionxray.schedule import Schedule
from models.lefusion.config import Focus
from models.lefusion.network import LesionUNet


def noise_loss(
    network: LesionUNet,
    crops: Tensor,
    masks: Tensor,
    schedule: Schedule,
    draws: torch.Generator,
    *,
    condition: Tensor | None = None,
    beside: Tensor | None = None,
    focus: Focus = "lesion",
) -> Tensor:
    """Mean absolute error of the noise that the network predicts, t uniform over whole steps; a scalar.

    The whole crop is noised. With several classes each has its channel, the same image with noise of its own.

    crops       float32 (B, classes, D, H, W) in −1 … 1      masks   bool, same shape: per class, its lesions
    draws       a generator on the CPU: times and noise are the same on every device
    condition   (B, bins): histograms        beside      (B, n, D, H, W): inputs without noise
    """
    time = torch.randint(schedule.steps, (len(crops),), generator=draws)
    noise = torch.randn(crops.shape, generator=draws).to(crops)
    alpha, sigma = (
        torch.from_numpy(table)[time].to(crops)[:, None, None, None, None] for table in (schedule.alpha, schedule.sigma)
    )
    noised = alpha * crops + sigma * noise
    seen = noised if beside is None else torch.cat([noised, beside], 1)
    return focused((network(seen, time.to(crops), condition) - noise).abs(), masks, focus)


def focused(error: Tensor, masks: Tensor, focus: Focus) -> Tensor:
    """The mean of an error (B, classes, D, H, W) as `Focus` says; a scalar.

    With "lesion" every lesion counts as much as any other, however small, and a class that a crop lacks does not count.
    """
    if focus == "everywhere":
        return error.mean()
    inside = error * masks
    if focus == "crop":
        return inside.mean()
    volume = masks.flatten(2).sum(-1)  # (B, classes)
    present = volume > 0
    each = inside.flatten(2).sum(-1)[present] / volume[present]
    return each.mean()
