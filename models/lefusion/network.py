"""The 3-D U-Net of LeFusion and DiffMask, one code path for the published size and for the one that two cores can run.

source: dossier 3 (shape of a video diffusion network, arXiv 2204.03458); written from its table
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.diffusionxray.network import TimeEmbedding
from models.layers import ChannelNorm
from models.lefusion.config import NetworkConfig

BUCKETS, FARTHEST = 32, 32
"""Of the relative positions of two slices: half of the buckets each way, single steps first, then logarithmic."""
ROTARY_BASE = 10_000.0


class LesionUNet(nn.Module):
    """A noised crop, its time and a histogram to the noise in it."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        widths, folded, first = config.widths, config.fold**2, config.width
        told = 4 * config.width + config.condition
        self.time = TimeEmbedding(config.width, 4 * config.width, 1.0)
        self.offset_bias = OffsetBias(config.heads)
        self.stem = nn.Conv3d(config.inputs * folded, first, (1, config.stem_px, config.stem_px), padding="same")
        self.stem_look = DepthAttention(config, first) if config.stem_through else None
        self.down = nn.ModuleList(
            Stage(config, before, width, told, level)
            for level, (before, width) in enumerate(pairwise((first, *widths)))
        )
        self.shrink = nn.ModuleList(nn.Conv3d(width, width, *_HALVING) for width in widths[:-1])
        self.middle = nn.ModuleList(Block(config, widths[-1], widths[-1], told) for _ in range(2))
        self.look_around = PlaneAttention(config, widths[-1]) if config.middle_planar else None
        self.look_through = DepthAttention(config, widths[-1])
        upward = [*reversed(list(enumerate(pairwise((first, *widths)))))]
        self.up = nn.ModuleList(Stage(config, 2 * coarse, fine, told, level) for level, (fine, coarse) in upward)
        self.grow = nn.ModuleList(nn.ConvTranspose3d(fine, fine, *_HALVING) for _, (fine, _) in upward[:-1])
        self.last = Block(config, 2 * first, first, 0)
        self.head = nn.Conv3d(first, config.outputs * folded, 1)

    def forward(self, x: Tensor, time: Tensor, condition: Tensor | None = None) -> Tensor:
        """The noise in x.

        x           float32 (B, inputs, D, H, W), H and W multiples of `config.multiple`
        time        (B,), steps, whole or not
        condition   (B, config.condition); None for a network without
        returns     float32 (B, outputs, D, H, W)
        """
        if (condition is None) is not (self.config.condition == 0):
            raise ValueError("a histogram for a network without one, or none for a network with one")
        told = self.time(time)
        if condition is not None:
            told = torch.cat([told, condition], 1)  # (B, 4 · width + condition)
        bias = self.offset_bias(x.shape[2])
        h = first = self._begin(x, bias)
        shortcuts: list[Tensor] = []
        for level, stage in enumerate(self.down):
            h = stage(h, told, bias)
            shortcuts.append(h)
            if level < len(self.shrink):
                h = self.shrink[level](h)  # (B, w, D, H/2, W/2)
        h = self.middle[0](h, told)
        h = h if self.look_around is None else self.look_around(h)
        h = self.middle[1](self.look_through(h, bias), told)
        for level, stage in enumerate(self.up):
            h = stage(torch.cat([h, shortcuts.pop()], 1), told, bias)
            if level < len(self.grow):
                h = self.grow[level](h)  # (B, w, D, 2H, 2W)
        h = self.head(self.last(torch.cat([h, first], 1), None))
        return _unfolded(h, self.config.fold)

    def _begin(self, x: Tensor, bias: Tensor) -> Tensor:
        h: Tensor = self.stem(_folded(x, self.config.fold))  # (B, width, D, H/fold, W/fold)
        return h if self.stem_look is None else self.stem_look(h, bias)


class OffsetBias(nn.Module):
    """What attention over depth adds for the distance of two slices, learnt per bucket and head.

    source: T5 (arXiv 1910.10683) 2.1
    """

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.table = nn.Embedding(BUCKETS, heads)

    def forward(self, depth: int) -> Tensor:
        """(heads, depth, depth)."""
        place = torch.arange(depth, device=self.table.weight.device)
        bias: Tensor = self.table(buckets(place[None, :] - place[:, None]))
        return bias.permute(2, 0, 1)


def buckets(offset: Tensor) -> Tensor:
    """Bucket of each relative position, same shape, 0 … BUCKETS − 1; those from FARTHEST on share the last."""
    each_way = BUCKETS // 2
    exact = each_way // 2
    distance = offset.abs()
    farther = distance.clamp(min=exact).float() / exact
    logarithmic = exact + (farther.log() / math.log(FARTHEST / exact) * (each_way - exact)).long()
    bucket = torch.where(distance < exact, distance, logarithmic.clamp(max=each_way - 1))
    return bucket + each_way * (offset > 0)


class Stage(nn.Module):
    """Blocks of one level, then attention in the plane and over depth where the level has them."""

    def __init__(self, config: NetworkConfig, inward: int, outward: int, told: int, level: int) -> None:
        super().__init__()
        inputs = (inward, *[outward] * (config.blocks - 1))
        self.blocks = nn.ModuleList(Block(config, before, outward, told) for before in inputs)
        self.planar = LinearAttention(config, outward) if level in config.planar else None
        self.through = DepthAttention(config, outward) if level in config.through else None

    def forward(self, x: Tensor, told: Tensor, bias: Tensor) -> Tensor:
        """(B, inward, D, H, W) to (B, outward, D, H, W)."""
        for block in self.blocks:
            x = block(x, told)
        x = x if self.planar is None else self.planar(x)
        return x if self.through is None else self.through(x, bias)


class Block(nn.Module):
    """Twice convolution, norm and SiLU beside a shortcut; time and histogram scale and shift after the first norm."""

    def __init__(self, config: NetworkConfig, inward: int, outward: int, told: int) -> None:
        super().__init__()
        self.told = nn.Sequential(nn.SiLU(), nn.Linear(told, 2 * outward)) if told else None
        self.first = nn.Conv3d(inward, outward, (1, 3, 3), padding=(0, 1, 1))
        self.second = nn.Conv3d(outward, outward, (1, 3, 3), padding=(0, 1, 1))
        self.norms = nn.ModuleList(_norm(config, outward) for _ in range(2))
        self.shortcut = nn.Conv3d(inward, outward, 1) if inward != outward else nn.Identity()

    def forward(self, x: Tensor, told: Tensor | None) -> Tensor:
        """(B, inward, D, H, W) to (B, outward, D, H, W)."""
        h = self.norms[0](self.first(x))
        if self.told is not None:
            scale, shift = self.told(told)[:, :, None, None, None].chunk(2, 1)
            h = h * (scale + 1) + shift
        h = self.norms[1](self.second(functional.silu(h)))
        out: Tensor = functional.silu(h) + self.shortcut(x)
        return out


class Attention(nn.Module):
    """What attention over depth and in the plane share: normed tokens to queries, keys and values, and back."""

    def __init__(self, config: NetworkConfig, width: int, *, bias: bool = False) -> None:
        super().__init__()
        self.heads = config.heads
        hidden = config.heads * config.head_width
        self.scale = nn.Parameter(torch.ones(width))
        self.queries = nn.Linear(width, 3 * hidden, bias=False)
        self.out = nn.Linear(hidden, width, bias=bias)

    def asked(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(…, N, width) to queries, keys and values, each (…, heads, N, head_width)."""
        joined = self.queries(functional.layer_norm(tokens, self.scale.shape, self.scale))
        q, k, v = (part.reshape(*part.shape[:-1], self.heads, -1).transpose(-2, -3) for part in joined.chunk(3, -1))
        return q, k, v

    def told(self, seen: Tensor) -> Tensor:
        """(…, heads, N, head_width) to (…, N, width)."""
        told: Tensor = self.out(seen.transpose(-2, -3).flatten(-2))
        return told


class DepthAttention(Attention):
    """Each place in the plane by itself: its slices attend to one another, beside the identity."""

    def __init__(self, config: NetworkConfig, width: int) -> None:
        super().__init__(config, width)
        turns = ROTARY_BASE ** (-torch.arange(0, config.head_width, 2) / config.head_width)
        self.register_buffer("turns", turns, persistent=False)

    turns: Tensor

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """(B, width, D, H, W) to the same.

        bias     (heads, D, D)
        """
        tokens = x.permute(0, 3, 4, 2, 1)  # (B, H, W, D, width)
        q, k, v = self.asked(tokens)  # (B, H, W, heads, D, head_width)
        angle = torch.arange(x.shape[2], device=x.device)[:, None] * self.turns  # (D, head_width / 2)
        seen = functional.scaled_dot_product_attention(_turned(q, angle), _turned(k, angle), v, attn_mask=bias)
        return x + self.told(seen).permute(0, 4, 3, 1, 2)


class PlaneAttention(Attention):
    """Each slice by itself: its places attend to one another, beside the identity."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, D, H, W) to the same."""
        tokens = x.flatten(3).permute(0, 2, 3, 1)  # (B, D, H·W, width)
        seen = self.seen(*self.asked(tokens))  # (B, D, heads, H·W, head_width)
        return x + self.told(seen).permute(0, 3, 1, 2).reshape(x.shape)

    def seen(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Of each query the values of all places."""
        return functional.scaled_dot_product_attention(q, k, v)


class LinearAttention(PlaneAttention):
    """The same at a cost linear in the number of places: keys and values are summed up first."""

    def __init__(self, config: NetworkConfig, width: int) -> None:
        super().__init__(config, width, bias=True)
        self.factor = config.head_width**-0.5

    def seen(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """By the sum of keys and values, (B, D, heads, head_width, head_width)."""
        seen: Tensor = q.softmax(-1) * self.factor @ (k.softmax(-2).transpose(-1, -2) @ v)
        return seen


def build(config: NetworkConfig) -> LesionUNet:
    """The untrained network."""
    return LesionUNet(config)


_HALVING = ((1, 4, 4), (1, 2, 2), (0, 1, 1))
"""Kernel, stride and padding of what halves or doubles height and width."""


def _norm(config: NetworkConfig, width: int) -> nn.Module:
    return ChannelNorm(width) if config.norm == "channel" else nn.GroupNorm(config.groups, width)


def _turned(tokens: Tensor, angle: Tensor) -> Tensor:
    """Rotary position embedding: pairs of numbers turned by an angle that grows with the slice (arXiv 2104.09864)."""
    even, odd = tokens[..., 0::2], tokens[..., 1::2]
    cosine, sine = angle.cos(), angle.sin()
    return torch.stack([even * cosine - odd * sine, odd * cosine + even * sine], -1).flatten(-2)


def _folded(x: Tensor, fold: int) -> Tensor:
    """(B, C, D, H, W) to (B, C · fold², D, H/fold, W/fold)."""
    if fold == 1:
        return x
    flat = functional.pixel_unshuffle(x.transpose(1, 2), fold)  # (B, D, C · fold², H/fold, W/fold)
    return flat.transpose(1, 2)


def _unfolded(x: Tensor, fold: int) -> Tensor:
    if fold == 1:
        return x
    return functional.pixel_shuffle(x.transpose(1, 2), fold).transpose(1, 2)
