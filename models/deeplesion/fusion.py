"""Features of several images of three slices each, joined where a region is judged.

source: 3DCE (Yan et al., arXiv 1806.09648; dossier 4.3). Every image goes through the same backbone; where to look is
decided on the central one alone, what is there on all of them: each is turned into 7 × 7 groups of channels, of which
every cell of a region takes its own, and the cells of all images are joined to one layer.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.contract import ModelError
from models.deeplesion.backbone import Backbone
from models.deeplesion.config import POOLED, FusionConfig, NetworkConfig


def images_of(config: NetworkConfig) -> int:
    """How many images the slices of one input make: 1 where nothing is fused.

    raises   ModelError     slices do not make an odd number of whole images
    """
    if config.fusion is None:
        return 1
    images, rest = divmod(config.slices, config.fusion.slices)
    if rest or images % 2 == 0:
        raise ModelError(f"{config.slices} slices do not make an odd number of images of {config.fusion.slices} slices")
    return images


def levels_of(backbone: Backbone, seen: Tensor, images: int) -> list[Tensor]:
    """Levels of the backbone, those of all images side by side.

    seen        (B, images · C, H, W)       returns     (B, images · C', H / stride, W / stride) each
    """
    if images == 1:
        # As they are: a view of other strides would be computed in another order.
        return list(backbone(seen))
    levels: list[Tensor] = backbone(seen.reshape(-1, seen.shape[1] // images, *seen.shape[2:]))
    return [level.reshape(len(seen), -1, *level.shape[2:]) for level in levels]


def central(level: Tensor, images: int) -> Tensor:
    """What the central image has of a level (B, images · C, H, W)."""
    width = level.shape[1] // images
    return level[:, images // 2 * width : (images // 2 + 1) * width]


class FusedHead(nn.Module):
    """Cells of all images through one fully connected layer to K + 1 class scores and one box correction."""

    def __init__(self, inward: int, images: int, config: FusionConfig, categories: int) -> None:
        super().__init__()
        self.images, self.per_cell = images, config.per_cell
        self.cells = nn.Conv2d(inward, POOLED**2 * config.per_cell, 1)
        self.full = nn.Linear(images * config.per_cell * POOLED**2, config.width)
        self.scores = nn.Linear(config.width, categories + 1)
        self.deltas = nn.Linear(config.width, 4)
        nn.init.normal_(self.scores.weight, std=0.01)
        nn.init.zeros_(self.deltas.weight)
        nn.init.zeros_(self.deltas.bias)

    def maps(self, level: Tensor) -> Tensor:
        """(B, images · C, H, W) to (B, 49 · images · per cell, H, W): for every cell its channels of all images."""
        batch, _, height, width = level.shape
        made: Tensor = self.cells(level.reshape(batch * self.images, -1, height, width))
        made = made.reshape(batch, self.images, POOLED**2, self.per_cell, height, width).transpose(1, 2)
        return made.reshape(batch, -1, height, width)

    def forward(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """(K, images · per cell, 7, 7) to (K, 1 + categories), background first, and (K, 4)."""
        hidden = functional.relu(self.full(torch.flatten(pooled, 1)))
        return self.scores(hidden), self.deltas(hidden)
