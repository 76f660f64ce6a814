"""HRPS: ranked probability scores of 21 fine and five coarse levels; and what the probabilities say as one number.

A level's number is five times the mean of five readers' grades; its grade is that mean rounded, halves upwards.
source: ClinReadNet dossier 4; RPS as a proper score of ordered classes: arXiv 2309.08701
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from models.clinreadnet.config import COARSE_SIZES, HIGHEST, LEVEL_STEP, LEVELS, LossConfig

LEAST_PROBABILITY = 1e-7


def rps(p: Tensor, target: Tensor) -> Tensor:
    """Ranked probability score, 0 … 1: a certain opinion d levels off costs d / (K − 1).

    p        (B, K), rows sum to 1     target  int64 (B,)     returns  (B,)
    """
    cumulated = p.float().cumsum(-1)[:, :-1]
    wanted = torch.arange(p.shape[1] - 1, device=p.device) >= target[:, None]
    return (cumulated - wanted.float()).square().mean(1)


def coarse(p: Tensor) -> Tensor:
    """Probabilities of the five grades, (B, 5): sums over their levels, so that both opinions agree."""
    return torch.stack([part.sum(-1) for part in torch.split(p, list(COARSE_SIZES), -1)], -1)


def grade_of(level: Tensor) -> Tensor:
    """Grade 0 … 4 of a level 0 … 20, halves upwards; in whole numbers, since 0.2 is no binary fraction."""
    return (2 * level + 5) // 10


def level_of(score: Tensor) -> Tensor:
    """The level nearest to a mean grade, int64. Truncation would put 1.4 or 2.6 from a float32 file one too low."""
    return (score * 5).round().long().clamp(0, LEVELS - 1)


def hrps(p: Tensor, target: Tensor, *, coarse_weight: float = 0.5) -> Tensor:
    """RPS of the levels plus `coarse_weight` times RPS of the grades, (B,)."""
    return rps(p, target) + coarse_weight * rps(coarse(p), grade_of(target))


def quality_loss(p: Tensor, target: Tensor, config: LossConfig) -> Tensor:
    """The training's loss, mean over the batch."""
    ranked = config.fine * rps(p, target) + config.coarse * rps(coarse(p), grade_of(target))
    entropy = functional.nll_loss(p.float().clamp_min(LEAST_PROBABILITY).log(), target)
    return ranked.mean() + config.entropy * entropy


def decode(p: Tensor) -> tuple[Tensor, Tensor]:
    """Expected score, 0 … 4, and its standard deviation under the probabilities, (B,) each."""
    scores = LEVEL_STEP * torch.arange(LEVELS, dtype=p.dtype, device=p.device)
    mean = p @ scores
    spread = ((scores - mean[:, None]).square() * p).sum(1).sqrt()
    return mean.clamp(0, HIGHEST), spread
