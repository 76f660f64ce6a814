"""Feature extractors: a small residual network with a pyramid at strides 4 and 8; the published VGG-16 at stride 8."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional

from models.deeplesion.config import NetworkConfig
from models.layers import ChannelNorm

FOLDED = 4
"""Pixels of the image in one of the residual backbone's first: two by two."""


class Residual(nn.Module):
    """Two 3×3 convolutions beside the identity, or beside a 1×1 convolution where width or stride change."""

    def __init__(self, inward: int, outward: int, stride: int = 1) -> None:
        super().__init__()
        self.first = nn.Conv2d(inward, outward, 3, stride, 1, bias=False)
        self.first_norm = ChannelNorm(outward)
        self.second = nn.Conv2d(outward, outward, 3, 1, 1, bias=False)
        self.second_norm = ChannelNorm(outward)
        same = inward == outward and stride == 1
        self.beside = nn.Identity() if same else nn.Conv2d(inward, outward, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C', H / stride, W / stride)."""
        inner = functional.relu(self.first_norm(self.first(x)))
        inner = self.second_norm(self.second(inner))
        return functional.relu(self.beside(x) + inner)


class ResidualPyramid(nn.Module):
    """Strides 4, 8, 16, … as in a ResNet; the coarser ones handed down to strides 4 and 8 (Lin et al., FPN)."""

    strides = (4, 8)

    def __init__(self, config: NetworkConfig, inward: int) -> None:
        super().__init__()
        widths, channels = config.widths, config.fpn_channels
        self.channels = channels
        self.multiple = 4 << (len(widths) - 1)
        # Pixels folded into channels: nothing of a lesion of five pixels is thrown away at full resolution.
        self.stem = nn.Conv2d(FOLDED * inward, 32, 3, 1, 1)
        self.stem_norm = ChannelNorm(32)
        self.stages = nn.ModuleList(
            nn.Sequential(Residual(inside, outside, 2), Residual(outside, outside))
            for inside, outside in pairwise((32, *widths))
        )
        self.lateral = nn.ModuleList(nn.Conv2d(width, channels, 1) for width in widths)
        self.smooth = nn.ModuleList(nn.Conv2d(channels, channels, 3, 1, 1) for _ in self.strides)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, C, H, W), H and W multiples of `multiple`, to (B, channels, H/4, W/4) and (B, channels, H/8, W/8)."""
        x = functional.relu(self.stem_norm(self.stem(functional.pixel_unshuffle(x, 2))))  # (B, 32, H/2, W/2)
        levels: list[Tensor] = []
        for stage, lateral in zip(self.stages, self.lateral, strict=True):
            x = stage(x)
            levels.append(lateral(x))
        for index in range(len(levels) - 1, 0, -1):
            levels[index - 1] = levels[index - 1] + functional.interpolate(levels[index], scale_factor=2.0)
        return [smooth(level) for smooth, level in zip(self.smooth, levels, strict=False)]


class Vgg16(nn.Module):
    """VGG-16 without pool4 and pool5 (J18): conv5_3 at stride 8. Its weights are not part of this."""

    strides = (8,)
    multiple = 8
    channels = 512

    def __init__(self, inward: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for stage, (width, count) in enumerate(((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))):
            for _ in range(count):
                layers += [nn.Conv2d(inward, width, 3, 1, 1), nn.ReLU(inplace=True)]
                inward = width
            if stage < 3:
                layers.append(nn.MaxPool2d(2))
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, C, H, W) to one level, (B, 512, H/8, W/8)."""
        return [self.layers(x)]


Backbone = ResidualPyramid | Vgg16


def build_backbone(config: NetworkConfig, inward: int) -> Backbone:
    """The untrained backbone of this configuration."""
    return Vgg16(inward) if config.backbone == "vgg16" else ResidualPyramid(config, inward)
