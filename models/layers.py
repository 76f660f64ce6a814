"""Layers that more than one network is built of."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class ChannelNorm(nn.Module):
    """Every position normalised over its own channels.

    GroupNorm over the image would do as well in training, but then each feature would depend on every pixel: crops and
    whole images would be normalised differently, and no loss could be confined to a region.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, …) to the same, of an image or a volume."""
        last = functional.layer_norm(x.movedim(1, -1), (x.shape[1],), self.weight, self.bias)
        return last.movedim(-1, 1)
