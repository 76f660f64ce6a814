"""RED-CNN as a second denoiser in LIDnet's socket.

source: Chen et al., arXiv 1702.00288. As in later benchmarks (arXiv 2401.04661) the last rectifier is left out: HU may
lie below the lowest input.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

WIDTH, KERNEL, LAYERS = 96, 5, 5
RADIUS_PX = LAYERS * (KERNEL - 1)
"""Beyond so many pixels from a tile's edge its result is that of the whole image."""
LOWEST_HU, SPAN_HU = -1024.0, 4096.0


class RedCnn(nn.Module):
    """Five convolutions, five transposed ones, three additive shortcuts; HU in, HU out."""

    multiple = 1

    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.ModuleList(nn.Conv2d(WIDTH if layer else 1, WIDTH, KERNEL) for layer in range(LAYERS))
        self.decode = nn.ModuleList(
            nn.ConvTranspose2d(WIDTH, WIDTH if layer < LAYERS - 1 else 1, KERNEL) for layer in range(LAYERS)
        )
        # With the usual start the signal grows from layer to layer until the first steps throw everything away.
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.normal_(module.weight, std=0.01)
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]

    def forward(self, hu: Tensor) -> Tensor:
        """float32 (B, 1, H, W), HU, at least 21 pixels a side, to the same."""
        image = ((hu - LOWEST_HU) / SPAN_HU).clamp(0, 1)  # (B, 1, H, W)
        kept = [image]
        with torch.autocast(hu.device.type, enabled=False):  # bf16 would round the image to steps of 8 HU
            x = functional.relu(self.encode[0](image))  # (B, 96, H − 4, W − 4)
        for layer in self.encode[1:]:
            kept.append(x)
            x = functional.relu(layer(x))  # (B, 96, H − 20, W − 20) after the last
        # After transposed layers 1, 3 and 5 the sizes are those after convolutions 4 and 2, and of the image.
        for number, layer in enumerate(self.decode):
            x = layer(x)
            if number % 2 == 0:
                x = x + kept[LAYERS - 1 - number]
            if number < LAYERS - 1:
                x = functional.relu(x)
        return x.float() * SPAN_HU + LOWEST_HU


def denoise_tiled(network: RedCnn, hu: Tensor, *, tile_px: int = 192) -> Tensor:
    """What `network(hu)` gives, tile by tile: 100 MB a layer at 512² are too much for a small machine.

    hu  float32 (B, 1, H, W)
    """
    height, width = hu.shape[-2:]
    result = torch.empty_like(hu)
    for top in range(0, height, tile_px):
        for left in range(0, width, tile_px):
            bottom, right = min(top + tile_px, height), min(left + tile_px, width)
            rows = slice(max(top - RADIUS_PX, 0), min(bottom + RADIUS_PX, height))
            columns = slice(max(left - RADIUS_PX, 0), min(right + RADIUS_PX, width))
            tile = network(hu[..., rows, columns])
            result[..., top:bottom, left:right] = tile[
                ..., top - rows.start : bottom - rows.start, left - columns.start : right - columns.start
            ]
    return result


def build_redcnn() -> RedCnn:
    """The untrained network."""
    return RedCnn()
