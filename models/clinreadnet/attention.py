"""(S)W-MTMSA: multi-head self-attention in (shifted) windows, at several temperatures per head.

source: ClinReadNet dossier 4; windows, shifts and position bias as in Swin (arXiv 2103.14030). With one
temperature of 1 it is Swin's attention, bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache, reduce

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

LEAST_TEMPERATURE = 0.1
"""Towards 0 the gradient of a temperature is not a number."""


class WindowAttention(nn.Module):
    """Attention among the tokens of each window.

    temperatures    at which every head starts
    learn           whether temperatures and their shares are learnt
    """

    def __init__(
        self, width: int, heads: int, window: int, *, temperatures: Sequence[float], learn: bool = True
    ) -> None:
        super().__init__()
        self.heads, self.window = heads, window
        self.qkv = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)
        self.position_bias = nn.Parameter(torch.empty((2 * window - 1) ** 2, heads))
        nn.init.trunc_normal_(self.position_bias, std=0.02)
        self.register_buffer("position", torch.from_numpy(relative_position(window)), persistent=False)
        start = torch.tensor(temperatures).expand(heads, -1).contiguous()
        above = start - LEAST_TEMPERATURE
        raw = above + torch.log(-torch.expm1(-above))  # softplus of it is `above`
        self.register_buffer("start", start, persistent=False)
        self.register_buffer("raw_start", raw, persistent=False)
        self.raw_temperature = nn.Parameter(raw.clone(), requires_grad=learn)
        self.share_logits = nn.Parameter(torch.zeros_like(raw), requires_grad=learn)

    start: Tensor
    raw_start: Tensor
    position: Tensor

    @property
    def temperatures(self) -> Tensor:
        """(heads, S), each above `LEAST_TEMPERATURE`; at the start exactly those given, hence the difference."""
        return self.start + (functional.softplus(self.raw_temperature) - functional.softplus(self.raw_start))

    @property
    def shares(self) -> Tensor:
        """Of the temperatures in each head's attention, (heads, S), summing to 1."""
        return self.share_logits.softmax(-1)

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """Windows of tokens (B·W, N, C) to the same.

        mask     float (W, N, N), added to the logits of each window: 0, or −∞ where nothing may be seen
        """
        query, key, value = self._heads_of(tokens)
        mixed = (self._weights(query, key, mask) @ value).transpose(1, 2).reshape(tokens.shape)
        projected: Tensor = self.project(mixed)
        return projected

    def weights(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """How much each token attends to each other, (B·W, heads, N, N); rows sum to 1."""
        query, key, _ = self._heads_of(tokens)
        return self._weights(query, key, mask)

    def _heads_of(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        windows, count, width = tokens.shape
        parts = self.qkv(tokens).reshape(windows, count, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4).unbind(0)  # (B·W, heads, N, C / heads) each
        return query * (width // self.heads) ** -0.5, key, value

    def _weights(self, query: Tensor, key: Tensor, mask: Tensor | None) -> Tensor:
        count = query.shape[-2]
        bias = self.position_bias[self.position].reshape(count, count, self.heads).permute(2, 0, 1)
        logits = query @ key.transpose(-2, -1) + bias
        return mixed_softmax(logits, self.temperatures, self.shares, mask)


def mixed_softmax(logits: Tensor, temperatures: Tensor, shares: Tensor, mask: Tensor | None = None) -> Tensor:
    """Weighted mean of the softmaxes at several temperatures.

    logits   (B·W, heads, N, N)     temperatures, shares  (heads, S)     mask  (W, N, N), 0 or −∞
    """
    parts = []
    for temperature, share in zip(temperatures.unbind(1), shares.unbind(1), strict=True):
        cooled = logits / temperature[:, None, None]
        if mask is not None:  # after the division: a warm head must not see through it
            cooled = (cooled.reshape(-1, len(mask), *cooled.shape[1:]) + mask[:, None]).flatten(0, 1)
        parts.append(cooled.float().softmax(-1).to(logits.dtype) * share[:, None, None].to(logits.dtype))
    return reduce(torch.add, parts)


def relative_position(window: int) -> NDArray[np.int64]:
    """For every pair of tokens of a window the row of the position bias, (window⁴,)."""
    y, x = np.indices((window, window)).reshape(2, -1)
    down, across = (axis[:, None] - axis[None] + window - 1 for axis in (y, x))
    rows: NDArray[np.int64] = (down * (2 * window - 1) + across).reshape(-1)
    return rows


@lru_cache(maxsize=32)
def shift_mask(height: int, width: int, window: int, shift: int) -> NDArray[np.float32]:
    """For windows of a grid rolled by `shift`: −∞ between tokens that were not neighbours before, (W, N, N)."""
    region = np.zeros((height, width), np.int64)
    cuts = (slice(0, -window), slice(-window, -shift), slice(-shift, None))
    for number, (rows, columns) in enumerate((rows, columns) for rows in cuts for columns in cuts):
        region[rows, columns] = number
    tiles = region.reshape(height // window, window, width // window, window).swapaxes(1, 2).reshape(-1, window**2)
    mask: NDArray[np.float32] = np.where(tiles[:, :, None] == tiles[:, None], 0, -np.inf).astype(np.float32)
    return mask
