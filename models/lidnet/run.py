"""Denoising of a volume: slices in batches, HU in, HU out, padding untouched."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from models.contract import FloatArray, ModelError, Volume
from models.lidnet.network import Denoiser, channels_last
from models.lidnet.redcnn import RedCnn, denoise_tiled
from models.lidnet.slices import AIR_HU
from models.lidnet.socket import PluggedIn

AnyDenoiser = TypeVar("AnyDenoiser", bound=PluggedIn)
OnProgress = Callable[[int, int], None]
"""Called with slices done and slices in all."""

BATCH = 4
"""Always so many at once, the last time with empty slices: convolutions round differently in batches of other sizes."""
LEAST_SIDE_PX = 16


def run(network: PluggedIn, volume: Volume, on_progress: OnProgress | None = None) -> FloatArray:
    """The denoised volume.

    returns  float32 (Z, Y, X), HU; bit for bit the input where `volume.padding` is True
    raises   ModelError     slices too small, or values that are not finite, in or out
    """
    voxels = volume.voxels
    if voxels.ndim != 3 or min(voxels.shape[1:]) < LEAST_SIDE_PX:
        raise ModelError(f"slices of at least {LEAST_SIDE_PX} pixels a side are needed")
    if not np.isfinite(voxels).all():
        raise ModelError("the volume holds values that are not finite")
    image = voxels if volume.padding is None else np.where(volume.padding, np.float32(AIR_HU), voxels)
    denoised = np.empty(voxels.shape, np.float32)
    for start in range(0, len(voxels), BATCH):
        denoised[start : start + BATCH] = denoise(network, image[start : start + BATCH])
        if on_progress is not None:
            on_progress(min(start + BATCH, len(voxels)), len(voxels))
    if not np.isfinite(denoised).all():
        raise ModelError("the network's result is not finite")
    return denoised if volume.padding is None else np.where(volume.padding, voxels, denoised)


@torch.inference_mode()
def denoise(network: PluggedIn, slices: FloatArray) -> FloatArray:
    """At most BATCH slices without padding values: float32 (B, Y, X), HU, to the same."""
    count, height, width = slices.shape
    image = torch.from_numpy(np.ascontiguousarray(slices, np.float32))[:, None].to(next(network.parameters()).device)
    below, right = (-height) % network.multiple, (-width) % network.multiple
    image = functional.pad(image, (0, right, 0, below), mode="reflect")
    image = functional.pad(image, (0, 0, 0, 0, 0, 0, 0, BATCH - count))  # (BATCH, 1, Y', X')
    image = image.contiguous(memory_format=torch.channels_last)
    result: Tensor = denoise_tiled(network, image) if isinstance(network, RedCnn) else network(image)
    array: FloatArray = result[:count, 0, :height, :width].cpu().numpy()
    return array


def prepare(network: AnyDenoiser, device: torch.device, *, half: bool | None = None) -> AnyDenoiser:
    """The network as `run` wants it.

    half     bf16 for the body: None where the processor has it, since elsewhere it is slower than float32; RED-CNN has
             no body whose rounding leaves HU alone, and stays in float32
    """
    if half is None:
        half = has_fast_bfloat16(device)
    network.to(device).eval().requires_grad_(False)
    if isinstance(network, Denoiser):
        network.body.to(torch.bfloat16 if half else torch.float32)
    return channels_last(network)


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bf16 in hardware."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
