"""The conditional U-Net, one code path for the published size and for the one that two cores can run.

source: dossier 5 (shape of CheFF-SR, itself of SR3's kind); written from its table
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.diffusionxray.config import NetworkConfig
from models.layers import ChannelNorm

LONGEST_PERIOD = 10_000.0


class RestorationUNet(nn.Module):
    """Images side by side, and a time where it has one, to one image."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        widths, folded = config.widths, config.fold**2
        embedded = 4 * config.width if config.time else 0
        self.time = TimeEmbedding(config.width, embedded, config.time_scale) if config.time else None
        self.stem = nn.Conv2d(config.inputs * folded, config.stem, config.stem_px, padding=config.stem_px // 2)
        inward = (config.stem, *widths[:-1])
        self.down = nn.ModuleList(
            Stage(config, before, width, embedded, attention=level in config.down_attention)
            for level, (before, width) in enumerate(zip(inward, widths, strict=True))
        )
        self.shrink = nn.ModuleList(nn.Conv2d(width, width, 4, 2, 1) for width in widths[:-1])
        self.middle = nn.ModuleList(Block(config, widths[-1], widths[-1], embedded) for _ in range(2))
        self.look = FullAttention(config, widths[-1]) if config.middle_attention else None
        upward = [(level, fine, coarse) for level, (fine, coarse) in enumerate(pairwise(widths), start=1)]
        self.up = nn.ModuleList(
            Stage(config, 2 * coarse, fine, embedded, attention=level in config.up_attention)
            for level, fine, coarse in reversed(upward)
        )
        self.grow = nn.ModuleList(nn.ConvTranspose2d(fine, fine, 4, 2, 1) for _, fine, _ in reversed(upward))
        self.finest = Stage(config, 2 * widths[0], widths[0], embedded, attention=False) if config.full_skip else None
        self.last = nn.Sequential(*(_convolved(config, widths[0], widths[0]) for _ in range(2)))
        self.head = nn.Conv2d(widths[0], folded, 1)
        if config.residual:
            nn.init.zeros_(self.head.weight)
            nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, time: Tensor | None = None) -> Tensor:
        """The prediction.

        x        float32 (B, inputs, H, W), sides multiples of `config.multiple`; the condition is the last
        time     (B,), whole or not; None for a network without
        returns  float32 (B, 1, H, W)
        """
        if (time is None) is not (self.time is None):
            raise ValueError("a time for a network without one, or none for a network with one")
        embedded = None if self.time is None or time is None else self.time(time)
        h = self.stem(functional.pixel_unshuffle(x, self.config.fold))  # (B, stem, H/fold, W/fold)
        shortcuts: list[Tensor] = []
        for level, stage in enumerate(self.down):
            h = stage(h, embedded)
            shortcuts.append(h)
            if level < len(self.shrink):
                h = self.shrink[level](h)  # (B, w, H/2ⁿ, W/2ⁿ)
        h = self.middle[0](h, embedded)
        h = h if self.look is None else self.look(h)
        h = self.middle[1](h, embedded)
        for stage, grow in zip(self.up, self.grow, strict=True):
            h = grow(stage(torch.cat([h, shortcuts.pop()], 1), embedded))  # (B, w, 2H', 2W')
        if self.finest is not None:
            h = self.finest(torch.cat([h, shortcuts.pop()], 1), embedded)
        told = functional.pixel_shuffle(self.head(h + self.last(h)), self.config.fold)  # (B, 1, H, W)
        return x[:, :1] + told if self.config.residual else told


class TimeEmbedding(nn.Module):
    """Sines and cosines of the time through two layers."""

    def __init__(self, waves: int, width: int, scale: float) -> None:
        super().__init__()
        half = waves // 2
        frequencies = scale * torch.exp(torch.arange(half) * (-math.log(LONGEST_PERIOD) / (half - 1)))
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.layers = nn.Sequential(nn.Linear(waves, width), nn.GELU(), nn.Linear(width, width))

    frequencies: Tensor

    def forward(self, time: Tensor) -> Tensor:
        """(B,) to (B, width)."""
        angle = time.to(self.frequencies)[:, None] * self.frequencies
        embedded: Tensor = self.layers(torch.cat([angle.sin(), angle.cos()], 1))
        return embedded


class Stage(nn.Module):
    """Two blocks of one level, and linear attention where the level has it."""

    def __init__(self, config: NetworkConfig, inward: int, outward: int, embedded: int, *, attention: bool) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(config, before, outward, embedded) for before in (inward, outward))
        self.look = LinearAttention(config, outward) if attention else None

    def forward(self, x: Tensor, time: Tensor | None) -> Tensor:
        """(B, inward, H, W) to (B, outward, H, W)."""
        for block in self.blocks:
            x = block(x, time)
        return x if self.look is None else self.look(x)


class Block(nn.Module):
    """Twice convolution, norm and SiLU beside a shortcut; the time is added in between."""

    def __init__(self, config: NetworkConfig, inward: int, outward: int, embedded: int) -> None:
        super().__init__()
        self.time = nn.Sequential(nn.SiLU(), nn.Linear(embedded, outward)) if embedded else None
        self.first = _convolved(config, inward, outward)
        self.second = _convolved(config, outward, outward)
        self.shortcut = nn.Conv2d(inward, outward, 1) if inward != outward else nn.Identity()

    def forward(self, x: Tensor, time: Tensor | None) -> Tensor:
        """(B, inward, H, W) to (B, outward, H, W)."""
        h = self.first(x)
        if self.time is not None:
            h = h + self.time(time)[:, :, None, None]
        out: Tensor = self.second(h) + self.shortcut(x)
        return out


class LinearAttention(nn.Module):
    """Attention at a cost linear in the number of pixels, beside the identity."""

    def __init__(self, config: NetworkConfig, width: int) -> None:
        super().__init__()
        self.heads = config.heads
        hidden = config.heads * config.head_width
        self.scale = config.head_width**-0.5
        self.norm = nn.GroupNorm(1, width)
        self.queries = nn.Conv2d(width, 3 * hidden, 1, bias=False)
        self.out = nn.Sequential(nn.Conv2d(hidden, width, 1), nn.GroupNorm(1, width))

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, H, W) to the same."""
        q, k, v = _split(self.queries(self.norm(x)), self.heads)  # (B, heads, head_width, H·W)
        context = k.softmax(-1) @ v.transpose(-1, -2)  # (B, heads, head_width, head_width)
        seen = context.transpose(-1, -2) @ (q.softmax(-2) * self.scale)  # (B, heads, head_width, H·W)
        told: Tensor = self.out(seen.reshape(len(x), -1, *x.shape[-2:]))
        return x + told


class FullAttention(nn.Module):
    """Every pixel attends to every other, beside the identity."""

    def __init__(self, config: NetworkConfig, width: int) -> None:
        super().__init__()
        self.heads = config.heads
        hidden = config.heads * config.head_width
        self.norm = nn.GroupNorm(1, width)
        self.queries = nn.Conv2d(width, 3 * hidden, 1, bias=False)
        self.out = nn.Conv2d(hidden, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, H, W) to the same."""
        q, k, v = (part.transpose(-1, -2) for part in _split(self.queries(self.norm(x)), self.heads))
        seen = functional.scaled_dot_product_attention(q, k, v)  # (B, heads, H·W, head_width)
        told: Tensor = self.out(seen.transpose(-1, -2).reshape(len(x), -1, *x.shape[-2:]))
        return x + told


def build(config: NetworkConfig) -> RestorationUNet:
    """The untrained network."""
    return RestorationUNet(config)


def _split(joined: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values, each (B, heads, head_width, H·W)."""
    q, k, v = (part.reshape(len(part), heads, -1, part[0, 0].numel()) for part in joined.chunk(3, 1))
    return q, k, v


def _convolved(config: NetworkConfig, inward: int, outward: int) -> nn.Sequential:
    norm = ChannelNorm(outward) if config.norm == "channel" else nn.GroupNorm(config.groups, outward)
    return nn.Sequential(nn.Conv2d(inward, outward, 3, padding=1), norm, nn.SiLU())
