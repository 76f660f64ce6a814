"""What every training has: a schedule, a smoothed network, a smoothed loss, a checkpoint that is whole or not there."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

OnProgress = Callable[[str, int, int, float], None]
"""Called with what is being done, steps done, steps in all, and the loss of late (NaN while data are made)."""

SMOOTHING = 0.99


class Schedule(Protocol):
    """What the learning rate follows from."""

    @property
    def steps(self) -> int: ...
    @property
    def warmup_steps(self) -> int: ...
    @property
    def learning_rate(self) -> float: ...
    @property
    def last_learning_rate(self) -> float: ...


def learning_rate(step: int, schedule: Schedule) -> float:
    """Linear warm-up, then half a cosine."""
    if step < schedule.warmup_steps:
        return schedule.learning_rate * (step + 1) / schedule.warmup_steps
    span = max(schedule.steps - schedule.warmup_steps, 1)
    cosine = (1 + math.cos(math.pi * (step - schedule.warmup_steps) / span)) / 2
    return schedule.last_learning_rate + (schedule.learning_rate - schedule.last_learning_rate) * cosine


@torch.no_grad()
def follow(average: nn.Module, network: nn.Module, decay: float, *, step: int | None = None) -> None:
    """Move the averaged parameters towards the network's.

    step    of the training: early on the average follows closely, so that a short run is not left with its first steps
    """
    if step is not None:
        decay = min(decay, (1 + step) / (10 + step))
    for smoothed, now in zip(average.parameters(), network.parameters(), strict=True):
        smoothed.lerp_(now, 1 - decay)


def smoothed_loss(before: float, loss: float, smoothing: float = SMOOTHING) -> float:
    """The loss of late; NaN before there is any."""
    return loss if math.isnan(before) else smoothing * before + (1 - smoothing) * loss


def write_checkpoint(state: Mapping[str, Any], path: Path) -> None:
    """Whole or not at all: an interrupted run leaves the checkpoint before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".part")
    torch.save(dict(state), partial)
    os.replace(partial, path)
