"""Forward projection and filtered back-projection in plain torch: batched, differentiable, any device.

source: Kak & Slaney ch. 3.3 (parallel) and 3.4.1 (equi-angular fan).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from models.simulation.geometry import FanBeam, Geometry
from models.simulation.kernels import Kernel, ramp_filter

MU_WATER_PER_MM = 0.0192
"""Linear attenuation of water at about 70 keV effective."""
VIEWS_AT_ONCE, FEW_IMAGES = 8, 8
"""Of a back-projection on a CPU. With few images the places that are looked up are most of the work, not the images."""


def attenuation(hounsfield: Tensor) -> Tensor:
    """HU to linear attenuation (1/mm), never negative."""
    return (MU_WATER_PER_MM * (1 + hounsfield / 1000)).clamp_min(0)


def hounsfield(mu_per_mm: Tensor) -> Tensor:
    """Linear attenuation (1/mm) to HU."""
    return (mu_per_mm / MU_WATER_PER_MM - 1) * 1000


def forward_project(image: Tensor, spacing_mm: float, geometry: Geometry, *, step_mm: float | None = None) -> Tensor:
    """Line integrals of an image along every ray.

    image    float (B, H, W), 1/mm     spacing_mm  pixel size     step_mm  distance of samples (default: one pixel)
    returns  float (B, views, channels), without unit
    """
    square = _square(image)  # (B, N, N)
    side = square.shape[-1]
    offset, turn = (part.to(image) for part in geometry.rays())
    quarter = geometry.quarter_views
    views = geometry.views if quarter is None else quarter
    turns = geometry.views // views
    stack = torch.stack([_rotate(square, k) for k in range(turns)], 1)  # (B, T, N, N)
    flat = stack.flatten(0, 1)[None]  # (1, B·T, N, N)
    step = step_mm or spacing_mm
    reach = side * spacing_mm / math.sqrt(2)
    along = torch.arange(-reach, reach, step).to(image)  # (S,)
    scale = 2 / (side * spacing_mm)
    rows = []
    for view in range(views):
        angle = view * geometry.step_rad + turn  # (D,)
        x = offset * angle.cos() - along[:, None] * angle.sin()  # (S, D)
        y = offset * angle.sin() + along[:, None] * angle.cos()
        grid = torch.stack([x, y], -1)[None] * scale  # (1, S, D, 2)
        rows.append(functional.grid_sample(flat, grid, align_corners=False)[0].sum(1) * step)  # (B·T, D)
    sinogram = torch.stack(rows, 1)  # (B·T, V, D)
    return sinogram.reshape(image.shape[0], turns * views, -1)


def filtered_back_project(
    sinogram: Tensor, geometry: Geometry, *, shape: tuple[int, int], spacing_mm: float, kernel: Kernel
) -> Tensor:
    """Image from line integrals.

    sinogram float (B, views, channels)     returns  float (B, *shape), 1/mm
    """
    filtered = _filter(sinogram, geometry, kernel)
    side = max(shape)
    square = _back_project(filtered, geometry, side, spacing_mm)
    top, left = (side - shape[0]) // 2, (side - shape[1]) // 2
    return square[:, top : top + shape[0], left : left + shape[1]]


def _filter(sinogram: Tensor, geometry: Geometry, kernel: Kernel) -> Tensor:
    response = ramp_filter(geometry, kernel).to(sinogram)
    length = 2 * (response.numel() - 1)
    if isinstance(geometry, FanBeam):
        sinogram = sinogram * (geometry.source_mm * torch.cos(geometry.coordinates()).to(sinogram))
    spectrum = torch.fft.rfft(sinogram, n=length) * response
    filtered: Tensor = torch.fft.irfft(spectrum, n=length)
    return filtered[..., : geometry.channels]


def _back_project(filtered: Tensor, geometry: Geometry, side: int, spacing_mm: float) -> Tensor:
    batch = filtered.shape[0]
    quarter = geometry.quarter_views
    views = geometry.views if quarter is None else quarter
    turns = geometry.views // views
    # Views a quarter turn apart share one sampling pattern: sample once, turn the images afterwards.
    rows = filtered.reshape(batch * turns, views, geometry.channels)
    axis = ((torch.arange(side, dtype=torch.float32) - (side - 1) / 2) * spacing_mm).to(filtered)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    summed = _sum_of_samples if filtered.is_cuda or len(rows) <= FEW_IMAGES else _sum_of_bags
    total = summed(rows, geometry, x, y).reshape(batch, turns, side, side)
    image = torch.stack([_rotate(total[:, k], -k) for k in range(turns)]).sum(0)  # (B, N, N)
    # A full turn sees every line twice, which the half in Kak & Slaney's fan kernel takes back.
    return image * geometry.step_rad * (0.5 if isinstance(geometry, FanBeam) else 1.0)


def _sum_of_samples(rows: Tensor, geometry: Geometry, x: Tensor, y: Tensor) -> Tensor:
    """Of (R, views, channels) at each pixel (N, N) the sum over all views, (R, N, N)."""
    total = rows.new_zeros(len(rows), *x.shape)
    for view in range(rows.shape[1]):
        position, weight = _detector_position(geometry, view, x, y)
        grid = torch.stack([position, torch.zeros_like(position)], -1)[None]  # (1, N, N, 2)
        sampled = functional.grid_sample(rows[None, :, view, None], grid, align_corners=True)[0]  # (R, N, N)
        total.add_(sampled if weight is None else sampled.mul_(weight))
    return total


def _sum_of_bags(rows: Tensor, geometry: Geometry, x: Tensor, y: Tensor) -> Tensor:
    """The same, quicker for many images on a CPU.

    A pixel is a weighted sum of rows of a table, two for each view; a row holds one channel of all images.
    """
    images, views, channels = rows.shape
    table = functional.pad(rows, (1, 1)).permute(1, 2, 0).contiguous()  # (V, C + 2, R): beyond the detector is nothing
    total = rows.new_zeros(x.numel(), images)
    for first in range(0, views, VIEWS_AT_ONCE):
        some = range(first, min(first + VIEWS_AT_ONCE, views))
        place = torch.empty(2 * len(some), x.numel(), dtype=torch.int32)
        share = rows.new_empty(place.shape)
        for number, view in enumerate(some):
            position, weight = _detector_position(geometry, view, x, y)
            channel = ((position + 1) * ((channels - 1) / 2) + 1).clamp(0, channels + 1).flatten()
            below = channel.floor().clamp(max=channels)
            whole = torch.ones_like(channel) if weight is None else weight.flatten()
            share[2 * number + 1] = above = (channel - below) * whole
            share[2 * number] = whole - above
            place[2 * number] = below + number * (channels + 2)
            place[2 * number + 1] = place[2 * number] + 1
        rows_of_some = table[some.start : some.stop].flatten(0, 1)
        total.add_(
            functional.embedding_bag(
                place.T.contiguous(), rows_of_some, mode="sum", per_sample_weights=share.T.contiguous()
            )
        )
    return total.T.reshape(images, *x.shape)


def _detector_position(geometry: Geometry, view: int, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor | None]:
    """Where each pixel falls on the detector, −1…1 from first to last channel, and its distance weight."""
    angle = view * geometry.step_rad
    across = x * math.cos(angle) + y * math.sin(angle)
    centre = (geometry.channels - 1) / 2
    if not isinstance(geometry, FanBeam):
        return across / geometry.pitch_mm / centre, None
    along = geometry.source_mm - x * math.sin(angle) + y * math.cos(angle)
    channel = torch.atan2(across, along) / geometry.sampling - geometry.channel_offset
    return channel / centre, 1 / (along.square() + across.square())


def _square(image: Tensor) -> Tensor:
    height, width = image.shape[-2:]
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    return functional.pad(image, (left, side - width - left, top, side - height - top))


def _rotate(image: Tensor, quarters: int) -> Tensor:
    """The image as a scanner turned by so many quarter turns sees it."""
    return torch.rot90(image, quarters, (-2, -1))
