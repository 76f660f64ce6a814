"""From noise to image, or from the conservative restoration to a sharp one; every noise field follows from a seed.

Three samplers of the reference path (the paper's DDPM), and one of few steps. For the latter the dossier leaves two
forms, residual shifting (ResShift, arXiv 2307.12348) and a flow from the posterior mean (PMRF, arXiv 2410.00418). The
flow it is: its start m is the conservative restoration, which the bounds need anyway and which zero steps return; it
has no schedule to tune, one plain squared loss, and among all restorations that look like real images the ideal one has
the least error, where a sample of the posterior has twice that of m. The velocity therefore sees Z_t alone, not the
input: with the input beside it, it would sample the posterior again.

The last step of every sampler is exact: it returns the network's image x̂_0 and not a mixture with ᾱ_0 = 0.9999, by
which the released DDIM leaves 1 % of noise in the result. x̂_0 is held to the range of images in all of them.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from models.diffusionxray.schedule import Path

Predict = Callable[[Tensor, float], Tensor]
"""State (1, 1, H, W) and time to noise, or velocity, of the same shape."""

RANGE = 1.0
"""Images are within −1 and 1."""


def seed_of(uid: str) -> int:
    """The seed of an image, 64 bits: the first 8 bytes of the SHA-256 of its SOP Instance UID, big end first."""
    return int.from_bytes(hashlib.sha256(uid.encode("ascii")).digest()[:8], "big")


@dataclass(frozen=True)
class Noise:
    """Noise fields of one image; the same numbers on every device and with any number of threads.

    Drawn by numpy's Philox, whose key is seed, sample and field: a field does not depend on those drawn before it.

    seed    64 bits, see `seed_of`      sample      which of several restorations of the image
    """

    seed: int
    sample: int = 0

    def field(self, index: int, like: Tensor) -> Tensor:
        """Standard normal numbers of the shape, type and device of `like`."""
        key = np.array([self.seed, self.sample << 32 | index], np.uint64)
        drawn = np.random.Generator(np.random.Philox(key=key)).standard_normal(tuple(like.shape), np.float32)
        return torch.from_numpy(drawn).to(like)


def ancestral(noise_in: Predict, path: Path, like: Tensor, noise: Noise, *, limit: float | None = RANGE) -> Tensor:
    """DDPM as the paper samples: each state drawn from q(x_s | x_t, x̂_0).

    noise_in    predicts the noise          path    `every_step` as published, or any other
    like        shape, type and device of the image, (1, 1, H, W)
    limit       of |x̂_0|; None for none
    source      DDPM (arXiv 2006.11239) eq. 6 and 7, between any two times
    """
    x = noise.field(0, like)
    for index in range(path.evaluations):
        clean = _clean(noise_in, path, index, x, limit)
        if path.sigma[index + 1] == 0:
            return clean
        (alpha_t, alpha_s), (var_t, var_s) = path.alpha[index : index + 2], path.sigma[index : index + 2] ** 2
        beta = 1 - (alpha_t / alpha_s) ** 2
        mean = float(alpha_s * beta / var_t) * clean + float(alpha_t / alpha_s * var_s / var_t) * x
        x = mean + math.sqrt(beta * var_s / var_t) * noise.field(index + 1, like)
    return x


def ddim(
    noise_in: Predict, path: Path, like: Tensor, noise: Noise, *, eta: float = 0.0, limit: float | None = RANGE
) -> Tensor:
    """DDIM: one Euler step of the probability flow per evaluation where η = 0, ancestral sampling where η = 1.

    source   arXiv 2010.02502 eq. 12, with ᾱ = 1 at the end
    """
    x = noise.field(0, like)
    for index in range(path.evaluations):
        clean = _clean(noise_in, path, index, x, limit)
        (alpha_t, alpha_s), (sigma_t, sigma_s) = path.alpha[index : index + 2], path.sigma[index : index + 2]
        if sigma_s == 0:
            return clean
        drawn = eta * sigma_s / sigma_t * math.sqrt(1 - (alpha_t / alpha_s) ** 2)
        direction = (x - float(alpha_t) * clean) / float(sigma_t)
        x = float(alpha_s) * clean + math.sqrt(sigma_s**2 - drawn**2) * direction
        if eta:
            x = x + float(drawn) * noise.field(index + 1, like)
    return x


def dpm_solver(noise_in: Predict, path: Path, like: Tensor, noise: Noise, *, limit: float | None = RANGE) -> Tensor:
    """DPM-Solver++ 2M: the probability flow by second-order multistep on x̂_0; first order in the first and last step.

    source   arXiv 2211.01095 algorithm 2
    """
    x = noise.field(0, like)
    before: Tensor | None = None
    for index in range(path.evaluations):
        clean = _clean(noise_in, path, index, x, limit)
        if path.sigma[index + 1] == 0:
            return clean
        step = path.log_snr[index + 1] - path.log_snr[index]
        ahead = clean
        if before is not None:
            share = float(step / (path.log_snr[index] - path.log_snr[index - 1]) / 2)
            ahead = (1 + share) * clean - share * before
        kept = float(path.sigma[index + 1] / path.sigma[index])
        x = kept * x - float(path.alpha[index + 1] * np.expm1(-step)) * ahead
        before = clean
    return x


def refine(velocity: Predict, safe: Tensor, noise: Noise, *, steps: int, start_sd: float) -> Tensor:
    """The few-step restorer: Euler steps of the flow from the conservative restoration; with none, that restoration.

    velocity    of the state at a time from 0 to 1          safe    m, (1, 1, H, W)
    start_sd    of the noise added to m, without which the flow could not make what m lacks
    source      PMRF (arXiv 2410.00418) algorithm 1
    """
    if steps == 0:
        return safe
    x = safe + start_sd * noise.field(0, safe)
    for index in range(steps):
        x = x + velocity(x, index / steps) / steps
    return x


def _clean(noise_in: Predict, path: Path, index: int, x: Tensor, limit: float | None) -> Tensor:
    """x̂_0 at one time of the path, (1, 1, H, W)."""
    told = noise_in(x, float(path.time[index]))
    clean = (x - float(path.sigma[index]) * told) / float(path.alpha[index])
    return clean if limit is None else clean.clamp(-limit, limit)
