"""Denoising of a volume: slices in batches, HU in, HU out, padding untouched."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from models.contract import FloatArray, ModelError, Volume
from models.device import as_written, has_fast_bfloat16, through
from models.lidnet.network import Denoiser, channels_last
from models.lidnet.redcnn import RedCnn, denoise_tiled
from models.lidnet.slices import AIR_HU
from models.lidnet.socket import PluggedIn

AnyDenoiser = TypeVar("AnyDenoiser", bound=PluggedIn)
OnProgress = Callable[[int, int], None]
"""Called with slices done and slices in all."""

BATCH, GPU_BATCH = 4, 16
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
    if not _finite(torch.from_numpy(np.ascontiguousarray(voxels))):
        raise ModelError("the volume holds values that are not finite")
    device = next(network.parameters()).device
    batch = GPU_BATCH if device.type == "cuda" else BATCH
    parts = [slice(start, start + batch) for start in range(0, len(voxels), batch)]
    results = through(partial(_denoised, network, batch=batch), (_seen(volume, part) for part in parts), device)
    denoised = np.empty(voxels.shape, np.float32)
    for part, result in zip(parts, results, strict=True):
        if not _finite(result):
            raise ModelError("the network's result is not finite")
        torch.from_numpy(denoised[part]).copy_(result)
        if volume.padding is not None:
            np.copyto(denoised[part], voxels[part], where=volume.padding[part])
        if on_progress is not None:
            on_progress(min(part.stop, len(voxels)), len(voxels))
    return denoised


def denoise(network: PluggedIn, slices: FloatArray) -> FloatArray:
    """At most BATCH slices without padding values: float32 (B, Y, X), HU, to the same."""
    image = torch.from_numpy(np.ascontiguousarray(slices, np.float32)).to(next(network.parameters()).device)
    array: FloatArray = _denoised(network, image, batch=BATCH).cpu().numpy()
    return array


def _finite(image: Tensor) -> bool:
    """In one pass, by all threads: NaN is the least and the largest of what it is among."""
    return bool(torch.stack(torch.aminmax(image)).isfinite().all())


def _seen(volume: Volume, part: slice) -> Tensor:
    """These slices, air where nothing was reconstructed, (B, Y, X), HU."""
    slices = volume.voxels[part]
    if volume.padding is not None:
        slices = np.where(volume.padding[part], np.float32(AIR_HU), slices)
    return torch.from_numpy(np.ascontiguousarray(slices, np.float32))


@torch.inference_mode()
@as_written()
def _denoised(network: PluggedIn, slices: Tensor, *, batch: int) -> Tensor:
    """At most `batch` slices (B, Y, X), HU, to the same."""
    count, height, width = slices.shape
    below, right = (-height) % network.multiple, (-width) % network.multiple
    image = functional.pad(slices[:, None], (0, right, 0, below), mode="reflect")
    image = functional.pad(image, (0, 0, 0, 0, 0, 0, 0, batch - count))  # (batch, 1, Y', X')
    image = image.contiguous(memory_format=torch.channels_last)
    result: Tensor = denoise_tiled(network, image) if isinstance(network, RedCnn) else network(image)
    return result[:count, 0, :height, :width]


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
