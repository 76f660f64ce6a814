"""MUNIT-LQ: pictures as content (what is there, in a space shared by both domains) and style (how it looks).

The degraded copy of a clean picture is decode_LQ(content_HQ(picture), style), the style drawn from N(0, I) or taken
from a real degraded picture. The style reaches the decoder only as gains and shifts after normalisation (AdaIN), and
content codes are normalised over the picture: brightness and contrast are style, and cannot hide in the content.

Statistics over the picture are what the method rests on, so a crop and its whole are not translated alike.

source: dossier 3; written from its table and from arXiv 1804.04732
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

LEAK = 0.2
HEAD_BLOCK_PX = 4
CRITIC_START_SD = 0.02
LEAST_CRITIC_MAP_PX = 2


@dataclass(frozen=True)
class MunitConfig:
    """Sizes of the networks of one domain; the shipped ones are for two cores.

    width           channels at full resolution, a multiple of 16; doubled by each halving of the content encoder
    blocks          residual blocks of the content encoder, and as many of the decoder
    halvings        of the content encoder; the style encoder has two more
    style           numbers of a style code         mlp     width of the layers that turn it into gains and shifts
    critic_width    channels of a discriminator's first layer, doubled by each of `critic_layers`
    scales          discriminators, each for the picture at half the resolution of the one before
    """

    width: int = 16
    blocks: int = 2
    halvings: int = 2
    style: int = 8
    mlp: int = 64
    critic_width: int = 16
    critic_layers: int = 4
    scales: int = 3

    @property
    def content(self) -> int:
        """Channels of a content code."""
        return self.width << self.halvings

    @property
    def adain(self) -> int:
        """Gains and shifts of the decoder, all layers together: two layers a block."""
        return 2 * self.content * 2 * self.blocks

    @property
    def multiple(self) -> int:
        """Height and width must be multiples of this."""
        return max(HEAD_BLOCK_PX, 1 << self.halvings)

    @property
    def least_px(self) -> int:
        """Sides below which a discriminator has nothing left to mirror at its edge."""
        return LEAST_CRITIC_MAP_PX << (self.critic_layers - 1 + self.scales - 1)


PAPER = MunitConfig(width=64, blocks=4, mlp=256, critic_width=64)
"""The published sizes: 4096 AdaIN parameters. Reference, not for two cores."""
HALF = MunitConfig(width=32, blocks=4, mlp=128, critic_width=32)
"""Half the published widths, a quarter of the arithmetic: what a GPU trains in minutes."""


class Domain(nn.Module):
    """Encoders and decoder of one domain."""

    def __init__(self, config: MunitConfig) -> None:
        super().__init__()
        self.config = config
        self.content = ContentEncoder(config)
        self.style = StyleEncoder(config)
        self.decoder = Decoder(config)
        _kaiming(self.modules())

    def encode(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Content (B, content, H/4, W/4) and style (B, style) of pictures (B, 1, H, W)."""
        return self.content(pictures), self.style(pictures)

    def decode(self, content: Tensor, style: Tensor) -> Tensor:
        """The picture of this content in this style, (B, 1, H, W), within −1 and 1."""
        told: Tensor = self.decoder(content, style)
        return told


class Munit(nn.Module):
    """Both domains: clean pictures (HQ) and degraded ones (LQ).

    They begin with the same weights, so that a content code says the same in both. Begun apart, nothing but the
    discriminators tells dense from lucent at first, and a short training can end with every translation a negative.
    """

    def __init__(self, config: MunitConfig) -> None:
        super().__init__()
        self.config = config
        self.hq = Domain(config)
        self.lq = Domain(config)
        self.lq.load_state_dict(self.hq.state_dict())


class ContentEncoder(nn.Sequential):
    """What is there: every layer normalised over the picture, so a picture's gain and offset leave no trace."""

    def __init__(self, config: MunitConfig) -> None:
        width = config.width
        layers: list[nn.Module] = [Layer(1, width, 7, norm="instance")]
        for _ in range(config.halvings):
            layers.append(Layer(width, 2 * width, 4, stride=2, norm="instance"))
            width *= 2
        super().__init__(*layers, *(Residual(width) for _ in range(config.blocks)))


class StyleEncoder(nn.Module):
    """How it looks, averaged over the picture. No normalisation: it would erase what is looked for."""

    def __init__(self, config: MunitConfig) -> None:
        super().__init__()
        widths = [config.width << min(level, config.halvings) for level in range(config.halvings + 3)]
        self.layers = nn.Sequential(Layer(1, widths[0], 7), *(Layer(*step, 4, stride=2) for step in pairwise(widths)))
        self.head = nn.Linear(widths[-1], config.style)

    def forward(self, pictures: Tensor) -> Tensor:
        """(B, 1, H, W) to (B, style)."""
        told: Tensor = self.head(self.layers(pictures).mean((2, 3)))  # a 1 × 1 convolution of the average
        return told


class Decoder(nn.Module):
    """Content and style to picture."""

    def __init__(self, config: MunitConfig) -> None:
        super().__init__()
        width, mlp = config.content, config.mlp
        self.mlp = nn.Sequential(
            nn.Linear(config.style, mlp), nn.ReLU(), nn.Linear(mlp, mlp), nn.ReLU(), nn.Linear(mlp, config.adain)
        )
        self.blocks = nn.ModuleList(StyledResidual(width) for _ in range(config.blocks))
        layers: list[nn.Module] = []
        for _ in range(config.halvings):
            layers += [Doubling(width, width // 2), nn.GroupNorm(1, width // 2), nn.ReLU()]
            width //= 2
        self.up = nn.Sequential(*layers)
        self.head = Head(width)

    def forward(self, content: Tensor, style: Tensor) -> Tensor:
        """(B, content, h, w) and (B, style) to (B, 1, H, W)."""
        told = self.mlp(style).reshape(len(style), len(self.blocks), 2, 2, -1)  # block, layer, gain and shift, channel
        for index, block in enumerate(self.blocks):
            content = block(content, told[:, index])
        picture: Tensor = self.head(self.up(content))
        return picture.tanh()


class Layer(nn.Sequential):
    """Convolution with mirrored edge, norm where there is one, ReLU."""

    def __init__(self, inward: int, outward: int, px: int, *, stride: int = 1, norm: str | None = None) -> None:
        convolution = nn.Conv2d(inward, outward, px, stride, (px - 1) // 2, padding_mode="reflect")
        normed = [nn.InstanceNorm2d(outward)] if norm == "instance" else []
        super().__init__(convolution, *normed, nn.ReLU())


class Residual(nn.Module):
    """Two convolutions beside the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1, padding_mode="reflect")
        self.second = nn.Conv2d(width, width, 3, padding=1, padding_mode="reflect")

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, H, W) to the same."""
        h = functional.instance_norm(self.first(x)).relu()
        return x + functional.instance_norm(self.second(h))


class StyledResidual(Residual):
    """The same with AdaIN: the style decides mean and spread of every channel."""

    def forward(self, x: Tensor, told: Tensor) -> Tensor:  # type: ignore[override]
        """x (B, width, H, W); told (B, 2 layers, gain and shift, width)."""
        h = adain(self.first(x), *told[:, 0].unbind(1)).relu()
        return x + adain(self.second(h), *told[:, 1].unbind(1))


class Doubling(nn.Module):
    """Every pixel becomes 2 × 2, then a convolution of 5 × 5; done on the small map with a third of the arithmetic.

    Of a map of doubled pixels, 5 neighbours in a row are never more than 3 pixels of the small one: the kernel's taps
    that meet the same pixel are added up, once for even and once for odd places. The edge is repeated, not mirrored.
    """

    def __init__(self, inward: int, outward: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(inward, outward, 5)
        place = torch.arange(2)[:, None, None]  # even, odd
        meets = (place + torch.arange(5) - 2).div(2, rounding_mode="floor") + 1  # (2, 1, 5): the small pixel of a tap
        self.register_buffer("fold", (meets == torch.arange(3)[:, None]).float(), persistent=False)  # (2, 3, 5)

    fold: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """(B, inward, h, w) to (B, outward, 2h, 2w)."""
        kernel = torch.einsum("oikl,pyk,qxl->opqiyx", self.convolution.weight, self.fold, self.fold).flatten(0, 2)
        bias = None if self.convolution.bias is None else self.convolution.bias.repeat_interleave(4)
        told = functional.conv2d(functional.pad(x, (1, 1, 1, 1), mode="replicate"), kernel, bias)
        return functional.pixel_shuffle(told, 2)


class Head(nn.Conv2d):
    """A convolution of 7 × 7 with mirrored edge, to one channel; done on blocks of 4 × 4 pixels as 16 channels.

    That is three times the arithmetic in half the time: with one channel out, a processor's lanes stay empty. Pixel p
    of a block reads pixels p + 1 … p + 7 of the three blocks around it.
    """

    def __init__(self, width: int) -> None:
        super().__init__(width, 1, 7)
        reads = torch.arange(4)[:, None] + torch.arange(7) + 1  # (4, 7): place in three blocks
        self.register_buffer("unrolled", functional.one_hot(reads, 12).float().reshape(4, 7, 3, 4), persistent=False)

    unrolled: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, H, W), sides multiples of 4, to (B, 1, H, W)."""
        kernel = torch.einsum("ckl,pkys,qlxt->pqcstyx", self.weight[0], self.unrolled, self.unrolled)
        blocks = functional.pixel_unshuffle(functional.pad(x, (4, 4, 4, 4), mode="reflect"), 4)
        bias = None if self.bias is None else self.bias.expand(16)
        return functional.pixel_shuffle(functional.conv2d(blocks, kernel.flatten(2, 4).flatten(0, 1), bias), 4)


class Critics(nn.Module):
    """The discriminators of one domain: the picture and its halvings, each judged patch by patch."""

    def __init__(self, config: MunitConfig) -> None:
        super().__init__()
        self.scales = nn.ModuleList(_critic(config) for _ in range(config.scales))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, 0.0, CRITIC_START_SD)
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]

    def forward(self, pictures: Tensor) -> list[Tensor]:
        """One map of patches per scale, (B, 1, h, w): 1 is real, 0 is made."""
        maps: list[Tensor] = []
        for critic in self.scales:
            maps.append(critic(pictures))
            pictures = functional.avg_pool2d(pictures, 3, 2, 1, count_include_pad=False)
        return maps


class CriticPair(nn.Module):
    """The discriminators of both domains."""

    def __init__(self, config: MunitConfig) -> None:
        super().__init__()
        self.hq = Critics(config)
        self.lq = Critics(config)


def adain(features: Tensor, gain: Tensor, shift: Tensor) -> Tensor:
    """Each channel of each picture brought to this mean and standard deviation.

    features    (B, C, H, W)        gain, shift     (B, C)
    """
    return functional.instance_norm(features) * gain[:, :, None, None] + shift[:, :, None, None]


def _critic(config: MunitConfig) -> nn.Sequential:
    widths = [1, *(config.critic_width << level for level in range(config.critic_layers))]
    layers: list[nn.Module] = []
    for inward, outward in pairwise(widths):
        layers += [nn.Conv2d(inward, outward, 4, 2, 1, padding_mode="reflect"), nn.LeakyReLU(LEAK)]
    return nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, 1))


def _kaiming(modules: Iterable[nn.Module]) -> None:
    for module in modules:
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
