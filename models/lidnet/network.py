"""The denoiser: a small residual U-Net on pixel-unshuffled HU.

LIDnet (Chen et al., arXiv 2104.08845) plugs any denoiser into its training; this one is made for two CPU cores.
No normalisation layers: a slice's result does not depend on its neighbours in the batch.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.lidnet.config import NetworkConfig

SLOPE = 0.1
"""Of the leaky rectifiers: plain ones died within the first steps of training."""

DETAIL_LIMIT = 8.0
"""Detail beyond this many times the noise is an edge."""

INPUTS = 3


class Denoiser(nn.Module):
    """HU in, HU out: subtracts the noise that it sees.

    What it subtracts has no part coarser than some 20 pixels (`_without_level`): the mean HU of an organ cannot move,
    whatever the weights say.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.multiple = config.multiple
        self.level_px = config.level_px
        self.body = UNet(config)
        # Constants are buffers, so that they travel with the weights.
        self.register_buffer("hu_range", torch.tensor(config.hu_range))
        self.register_buffer("input_hu", torch.tensor(config.input_hu))
        self.register_buffer("least_scale_hu", torch.tensor(config.least_scale_hu))

    hu_range: Tensor
    input_hu: Tensor
    least_scale_hu: Tensor

    def forward(self, hu: Tensor) -> Tensor:
        """float32 (B, 1, H, W), HU, to the same; H and W multiples of `multiple`."""
        return hu - self.residual(hu)

    def residual(self, hu: Tensor) -> Tensor:
        """The noise that would be subtracted, float32 (B, 1, H, W), HU."""
        clipped = torch.clamp(hu, self.hu_range[0], self.hu_range[1])
        detail = self._without_level(clipped)
        # Noise differs thirtyfold between doses and patients. In units of itself it is always the same to remove, and
        # edges stand out of it; half precision would round it away where HU are far from 0.
        scale = self._local_scale(detail)
        relative = torch.clamp(detail / scale, -DETAIL_LIMIT, DETAIL_LIMIT)
        seen = torch.cat([clipped / self.input_hu, relative, torch.log10(scale)], 1)  # (B, 3, H, W)
        # The body may run in half precision; HU never do, so that only what is subtracted is rounded.
        noise = self.body(seen.to(self.body.head.weight.dtype)).float() * scale
        return self._without_level(noise)

    def _local_scale(self, detail: Tensor) -> Tensor:
        """About the noise around each pixel, HU: a mean that a few edges cannot spoil, (B, 1, H, W)."""
        return self._level(detail.abs().sqrt()).square() + self.least_scale_hu

    def _without_level(self, image: Tensor) -> Tensor:
        """The image without what is coarser than some 20 pixels."""
        return image - self._level(image)

    def _level(self, image: Tensor) -> Tensor:
        """The image's mean over some 20 pixels around, (B, 1, H, W)."""
        coarse = functional.avg_pool2d(image, self.level_px)  # (B, 1, H/8, W/8)
        kernel = image.new_tensor([1.0, 2.0, 1.0]) / 4
        kernel = torch.outer(kernel, kernel)[None, None]
        for _ in range(2):
            coarse = functional.conv2d(functional.pad(coarse, (1, 1, 1, 1), mode="replicate"), kernel)
        return functional.interpolate(coarse, scale_factor=self.level_px, mode="bilinear", align_corners=False)


class UNet(nn.Module):
    """Encoder and decoder with concatenated shortcuts."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        widths, folded = config.widths, config.unshuffle**2
        self.unshuffle = config.unshuffle
        self.head = nn.Conv2d(INPUTS * folded, widths[0], 3, padding=1)
        self.encode = nn.ModuleList(_block(width, width) for width in widths)
        self.down = nn.ModuleList(nn.Conv2d(fine, coarse, 2, stride=2) for fine, coarse in pairwise(widths))
        self.up = nn.ModuleList(nn.ConvTranspose2d(coarse, fine, 2, stride=2) for fine, coarse in pairwise(widths))
        self.decode = nn.ModuleList(_block(2 * width, width) for width in widths[:-1])
        self.tail = nn.Conv2d(widths[0], folded, 3, padding=1)
        # A plain linear filter beside the U-Net: it learns to smooth within minutes, the rest learns where not to.
        self.linear = nn.Conv2d(INPUTS * folded, folded, 5, padding=2)
        # Without normalisation layers the usual small start would let the signal die away from layer to layer.
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.kaiming_normal_(layer.weight, SLOPE)
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        # An untrained network removes nothing.
        nn.init.zeros_(self.tail.weight)
        nn.init.zeros_(self.linear.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Image, relative detail and its scale (B, 3, H, W) to relative noise (B, 1, H, W)."""
        folded = functional.pixel_unshuffle(x, self.unshuffle)  # (B, 12, H/2, W/2)
        x = functional.leaky_relu(self.head(folded), SLOPE)  # (B, w0, H/2, W/2)
        shortcuts: list[Tensor] = []
        for level, block in enumerate(self.encode):
            x = block(x)
            if level < len(self.down):
                shortcuts.append(x)
                x = self.down[level](x)  # (B, w, H/2ⁿ, W/2ⁿ)
        for level in reversed(range(len(self.up))):
            x = torch.cat([self.up[level](x), shortcuts[level]], 1)  # (B, 2w, 2H', 2W')
            x = self.decode[level](x)
        return functional.pixel_shuffle(self.tail(x) + self.linear(folded), self.unshuffle)


def _block(inward: int, outward: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inward, outward, 3, padding=1),
        nn.LeakyReLU(SLOPE, inplace=True),
        nn.Conv2d(outward, outward, 3, padding=1),
        nn.LeakyReLU(SLOPE, inplace=True),
    )


def build(config: NetworkConfig) -> Denoiser:
    """The untrained network."""
    return Denoiser(config)


AnyNetwork = TypeVar("AnyNetwork", bound=nn.Module)


def channels_last(network: AnyNetwork) -> AnyNetwork:
    """The same network with its kernels stored channels last, which the convolutions of CPUs and GPUs read faster."""
    for parameter in network.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return network
