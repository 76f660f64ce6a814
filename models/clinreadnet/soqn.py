"""SOQN, the Sobel ordinal quality network: edges beside the whole image, and an opinion on ordered levels.

source: ClinReadNet dossier 4; the gains of fixed edge kernels are learnt as in EDCNN (arXiv 2011.00139)
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.clinreadnet.config import LEVELS, NetworkConfig

EDGE_UNIT = 0.01
"""Slope per pixel, in units of the input, from which on edges are compressed: noise and borders differ 50-fold."""
STEM_WIDTH = 16
"""Widths below 16 must not become channels-last: torch 2.13.0 corrupts memory in their backward pass."""


def full_precision(x: Tensor) -> torch.autocast:
    """No half precision here: bf16 rounds soft tissue to steps of 5 HU, and the noise of a good scan with them."""
    return torch.autocast(x.device.type, enabled=False)


class Sobel(nn.Module):
    """Slopes along 0°, 45°, 90° and 135°: the kernels are fixed, their gains are learnt."""

    def __init__(self) -> None:
        super().__init__()
        straight = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]]) / 8
        oblique = torch.tensor([[0.0, 1, 2], [-1, 0, 1], [-2, -1, 0]]) / (6 * math.sqrt(2))
        kernels = [straight, oblique, straight.T.flip(0), oblique.flip(1)]
        self.register_buffer("kernels", torch.stack(kernels)[:, None])
        self.gain = nn.Parameter(torch.ones(len(kernels)))

    kernels: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1, H, W) to (B, 4, H, W), never negative: the slope per pixel times the gain's size."""
        padded = functional.pad(x, (1, 1, 1, 1), mode="replicate")
        with full_precision(x):
            return (self.gain[:, None, None] * functional.conv2d(padded, self.kernels.to(x))).abs()


class EdgePath(nn.Module):
    """Edges at full resolution, brought to the tokens' grid."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.sobel = Sobel()
        self.first = nn.Conv2d(4, STEM_WIDTH, 3, 2, 1)
        self.second = nn.Conv2d(STEM_WIDTH, width, 3, 2, 1)
        for layer in (self.first, self.second):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1, H, W) to (B, H / 4, W / 4, C)."""
        edges = torch.log1p(self.sobel(x) / EDGE_UNIT)
        found = functional.gelu(self.second(functional.gelu(self.first(edges))))
        return found.permute(0, 2, 3, 1)


class SOQN(nn.Module):
    """Both paths before the backbone, and both opinions after it."""

    def __init__(self, config: NetworkConfig, features: int) -> None:
        super().__init__()
        width = config.width
        self.embed = nn.Conv2d(1, width, 4, 4)
        self.embed_norm = nn.LayerNorm(width)
        self.edges = EdgePath(width) if config.sobel else None
        self.gate = nn.Parameter(torch.zeros(width)) if config.sobel else None
        self.whole = nn.Linear(features + (width if config.sobel else 0), LEVELS)
        self.local = nn.Linear(features, LEVELS) if config.local else None
        self.worth = nn.Linear(features, 1) if config.local else None

    def fuse(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """(B, 1, H, W) to tokens (B, H / 4, W / 4, C) with the edges in them, and the edges alone."""
        with full_precision(x):
            embedded = self.embed(x)
        tokens: Tensor = self.embed_norm(embedded.permute(0, 2, 3, 1))
        if self.edges is None or self.gate is None:
            return tokens, None
        edges: Tensor = self.edges(x)
        return tokens + self.gate.sigmoid() * edges, edges

    def judge(self, features: Tensor, edges: Tensor | None) -> Tensor:
        """Features (B, h, w, F) and edges (B, H / 4, W / 4, C) to probabilities of the levels (B, 21)."""
        seen = features.mean((1, 2))
        if edges is not None:
            seen = torch.cat([seen, edges.mean((1, 2))], 1)
        context = self.whole(seen).float().softmax(-1)
        if self.local is None or self.worth is None:
            return torch.as_tensor(context)
        opinions, worth = self.map(features)
        detail = (worth[..., None] * opinions).sum((1, 2))
        return torch.as_tensor(0.5 * context + 0.5 * detail)

    def map(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Opinion of every cell (B, h, w, 21) and its weight (B, h, w), which sum to 1 over the cells.

        raises   ValueError     a network without the local path
        """
        if self.local is None or self.worth is None:
            raise ValueError("this network has no local path")
        worth = self.worth(features)[..., 0].float()
        return self.local(features).float().softmax(-1), worth.flatten(1).softmax(-1).view_as(worth)
