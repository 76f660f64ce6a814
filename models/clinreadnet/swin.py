"""The backbone: stages of attention blocks at strides 4, 8, 16, 32. source: Swin (arXiv 2103.14030)"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor, nn

from models.clinreadnet.attention import WindowAttention, shift_mask
from models.clinreadnet.config import NetworkConfig

MLP_RATIO = 4


class Block(nn.Module):
    """Attention in windows, then a perceptron on every token; both beside the identity.

    shifted     every other block's windows lie half a window further, so that neighbours meet
    """

    def __init__(self, width: int, heads: int, config: NetworkConfig, *, shifted: bool) -> None:
        super().__init__()
        self.window, self.shifted = config.window, shifted
        self.first_norm = nn.LayerNorm(width)
        self.attention = WindowAttention(
            width, heads, config.window, temperatures=config.temperatures, learn=config.learn_temperatures
        )
        self.second_norm = nn.LayerNorm(width)
        self.perceptron = nn.Sequential(
            nn.Linear(width, MLP_RATIO * width), nn.GELU(), nn.Linear(MLP_RATIO * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) to the same; H and W are multiples of the window."""
        x = x + self._attended(self.first_norm(x))
        found: Tensor = x + self.perceptron(self.second_norm(x))
        return found

    def _attended(self, x: Tensor) -> Tensor:
        _, height, width, _ = x.shape
        # One window that sees everything has no neighbours to meet.
        shift = self.window // 2 if self.shifted and min(height, width) > self.window else 0
        if not shift:
            return from_windows(self.attention(to_windows(x, self.window)), x)
        mask = _mask(height, width, self.window, shift, x.device).to(x.dtype)
        rolled = torch.roll(x, (-shift, -shift), (1, 2))
        seen = from_windows(self.attention(to_windows(rolled, self.window), mask), rolled)
        return torch.roll(seen, (shift, shift), (1, 2))


@lru_cache(maxsize=32)
@torch.inference_mode(False)  # what inference made first, training could not use
def _mask(height: int, width: int, window: int, shift: int, device: torch.device) -> Tensor:
    """`shift_mask` on the device: copied there at every step it would hold the device up."""
    return torch.from_numpy(shift_mask(height, width, window, shift)).to(device)


def to_windows(x: Tensor, window: int) -> Tensor:
    """(B, H, W, C) to (B·H·W / window², window², C), windows row by row."""
    batch, height, width, channels = x.shape
    tiles = x.reshape(batch, height // window, window, width // window, window, channels)
    return tiles.transpose(2, 3).reshape(-1, window * window, channels)


def from_windows(windows: Tensor, like: Tensor) -> Tensor:
    """The way back, to the shape of `like`."""
    batch, height, width, channels = like.shape
    side = int(windows.shape[1] ** 0.5)
    tiles = windows.reshape(batch, height // side, width // side, side, side, channels)
    return tiles.transpose(2, 3).reshape(batch, height, width, channels)


class Merge(nn.Module):
    """Four neighbouring tokens to one of twice the width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * width)
        self.reduce = nn.Linear(4 * width, 2 * width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) to (B, H / 2, W / 2, 2C)."""
        four = torch.cat([x[:, row::2, column::2] for column in (0, 1) for row in (0, 1)], -1)
        merged: Tensor = self.reduce(self.norm(four))
        return merged


class Backbone(nn.Module):
    """All stages."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width = config.width
        for stage, (depth, heads) in enumerate(zip(config.depths, config.heads, strict=True)):
            if stage:
                layers.append(Merge(width))
                width *= 2
            layers += [Block(width, heads, config, shifted=number % 2 == 1) for number in range(depth)]
        self.layers = nn.Sequential(*layers, nn.LayerNorm(width))
        self.width = width

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, H, W, C) to (B, H / 8, W / 8, 8C) with four stages."""
        features: Tensor = self.layers(tokens)
        return features
