"""Pictures of any size through a network that takes small tiles, and back, without a seam.

Pixels are never resized: aspect and spacing of the result are those of the input. Where tiles overlap, their results
are mixed by weights that are whole multiples of 2⁻¹² per axis and sum to exactly 1; sums are float64. So nothing is
rounded, and the identity comes back bit for bit. Samplers keep one state of the whole image and tile each evaluation:
overlapping tiles see the same noise, and x̂_0 is what is mixed, at every step (it is affine in the predicted noise).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.contract import FloatArray, ModelError
from models.diffusionxray.config import TileConfig
from models.diffusionxray.network import RestorationUNet
from models.diffusionxray.samplers import Predict

WEIGHT_STEPS = 1 << 12


def padded(image: FloatArray, multiple: int) -> FloatArray:
    """(Y, X), mirrored below and to the right until both sides are multiples."""
    return np.pad(image, [(0, -side % multiple) for side in image.shape], mode="reflect")


def starts(side: int, config: TileConfig, multiple: int) -> list[int]:
    """Where tiles begin along one axis: evenly, at multiples, overlapping by at least `overlap_px`."""
    if side <= config.side_px:
        return [0]
    last = side - config.side_px
    count = -(-last // (config.side_px - config.overlap_px))
    return [last * index // count // multiple * multiple for index in range(count)] + [last]


def weights(side: int, begins: list[int], config: TileConfig) -> list[NDArray[np.float64]]:
    """Share of each tile along one axis: float64 (side_px,) each, multiples of 2⁻¹², summing to exactly 1.

    Tile i has r_i − r_{i+1}, where r_i rises from 0 to 1 as half a cosine in the middle of its overlap with tile i − 1.
    """
    at = np.arange(side)
    rises = [np.ones(side)]
    for before, begin in pairwise(begins):
        middle = (before + config.side_px + begin) / 2
        way = np.clip((at + 0.5 - middle) / config.ramp_px + 0.5, 0, 1)
        rises.append(np.rint((1 - np.cos(np.pi * way)) / 2 * WEIGHT_STEPS) / WEIGHT_STEPS)
    rises.append(np.zeros(side))
    return [
        (rise - after)[begin : begin + config.side_px]
        for (rise, after), begin in zip(pairwise(rises), begins, strict=True)
    ]


def tiled(run: Callable[[Tensor], Tensor], images: Tensor, config: TileConfig, multiple: int) -> Tensor:
    """A network over tiles, as if over the whole.

    run      (1, C, h, w) to (1, 1, h, w)
    images   (1, C, H, W), sides multiples of `multiple`
    returns  (1, 1, H, W)
    raises   ModelError     tiles whose sides or overlaps the network does not take, or whose ramps do not fit
    """
    height, width = images.shape[-2:]
    if any(size % multiple for size in (height, width, config.side_px, config.overlap_px)):
        raise ModelError(f"sides of images, tiles and overlaps must be multiples of {multiple} pixels")
    if not 0 < config.ramp_px <= config.overlap_px < config.side_px:
        raise ModelError("ramps must fit in the overlaps, and overlaps in the tiles")
    if max(height, width) <= config.side_px:
        return run(images)
    total = images.new_zeros(1, 1, height, width, dtype=torch.float64)
    for (y, weight_y), (x, weight_x) in _places(height, width, config, multiple):
        here = (..., slice(y, y + len(weight_y)), slice(x, x + len(weight_x)))
        share = torch.from_numpy(np.outer(weight_y, weight_x)).to(images.device)
        total[here] += run(images[here]).double() * share
    return total.to(images.dtype)


def predictor(network: RestorationUNet, config: TileConfig, condition: Tensor | None = None) -> Predict:
    """A trained network as the samplers ask for it, tile by tile.

    condition    (1, 1, H, W), put beside the state; None for a network that sees the state alone
    """

    def predict(state: Tensor, time: float) -> Tensor:
        images = state if condition is None else torch.cat([state, condition], 1)
        at = torch.full((1,), time, device=state.device)
        return tiled(lambda tile: network(tile, at), images, config, network.config.multiple)

    return predict


Place = tuple[int, NDArray[np.float64]]


def _places(height: int, width: int, config: TileConfig, multiple: int) -> Iterator[tuple[Place, Place]]:
    rows, columns = starts(height, config, multiple), starts(width, config, multiple)
    for row in zip(rows, weights(height, rows, config), strict=True):
        for column in zip(columns, weights(width, columns, config), strict=True):
            yield row, column
