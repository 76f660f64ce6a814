"""From noise to a lesion in its surroundings: at every step the outside is what is known, noised as the step is.

States are named by their time t = 0 … T − 1, the finished image by `CLEAN`. A walk is the times in the order of visits:
down by evaluations of the network, up by noise (RePaint).

source: dossier 2 (paper eq. 3) and 5; RePaint (arXiv 2201.09865); DDIM (arXiv 2010.02502) eq. 12
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from models.contract import ModelError
from models.diffusionxray.schedule import Schedule

CLEAN = -1
RANGE = 1.0

Predict = Callable[[Tensor, int], Tensor]
"""State (B, classes, D, H, W) and time to the noise in it, same shape."""
Walk = Sequence[int]


class Fields(Protocol):
    """Standard normal fields by number, of the shape, type and device of a tensor (`diffusionxray.samplers.Noise`)."""

    def field(self, index: int, like: Tensor, /) -> Tensor: ...


def every_time(steps: int) -> list[int]:
    """All times, noisiest first."""
    return list(range(steps - 1, -1, -1))


def some_times(steps: int, evaluations: int) -> list[int]:
    """So many times, evenly spread, the noisiest and 0 among them.

    raises   ModelError     less than 2, or more than there are
    """
    if not 2 <= evaluations <= steps:
        raise ModelError(f"{evaluations} evaluations of {steps} steps: between 2 and all of them are wanted")
    return [int(time) for time in np.rint(np.linspace(steps - 1, 0, evaluations))]


def walk(times: Sequence[int], *, jump: int = 1, visits: int = 1) -> list[int]:
    """Down through the times and, from every `jump`-th on, up again by as many, so that each stretch is gone `visits`
    times; then `CLEAN`.

    times    falling, as of `every_time` or `some_times`
    source   RePaint, algorithm 1 with jump length and number of resamplings
    """
    last = len(times)
    left = dict.fromkeys(range(0, last - jump, jump), visits - 1)  # places count from the end
    place, visited = last, []
    while place >= 1:
        place -= 1
        visited.append(place)
        if left.get(place, 0) > 0:
            left[place] -= 1
            visited.extend(range(place + 1, place + jump + 1))
            place += jump
    return [*(times[last - 1 - place] for place in visited), CLEAN]


def evaluations(path: Walk) -> int:
    """How often a walk asks the network."""
    return sum(after < before for before, after in pairwise(path))


def sample(
    noise_in: Predict,
    path: Walk,
    known: Tensor,
    inside: Tensor,
    fields: Fields,
    *,
    schedule: Schedule,
    eta: float = 1.0,
) -> Tensor:
    """What the network draws inside, in keeping with what is known outside; the outside is not yet put back.

    known    float32 (B, classes, D, H, W) in −1 … 1: the healthy crop, once per class
    inside   bool, same shape: where it is drawn anew
    eta      1: as in training (DDPM), the noise of each step is drawn; 0: none is (DDIM), for walks of few steps
    """
    alpha = dict(enumerate(schedule.alpha.tolist())) | {CLEAN: 1.0}
    sigma = dict(enumerate(schedule.sigma.tolist())) | {CLEAN: 0.0}
    drawn = iter(range(2**31))

    def noise() -> Tensor:
        return fields.field(next(drawn), known)

    x = noise()
    for now, after in pairwise(path):
        if after > now:
            kept = alpha[after] / alpha[now]
            x = kept * x + math.sqrt(1 - kept**2) * noise()
            continue
        x = torch.where(inside, x, alpha[now] * known + sigma[now] * noise())
        told = noise_in(x, now)
        clean = ((x - sigma[now] * told) / alpha[now]).clamp(-RANGE, RANGE)
        fresh = eta * sigma[after] / sigma[now] * math.sqrt(1 - (alpha[now] / alpha[after]) ** 2)
        direction = (x - alpha[now] * clean) / sigma[now]
        x = alpha[after] * clean + math.sqrt(sigma[after] ** 2 - fresh**2) * direction
        if fresh:
            x = x + fresh * noise()
    return x
