"""The cosine schedule as released, and its view in continuous time for samplers of few steps. All tables are float64.

The released tables follow from the *clipped* betas, not from the cosine: the first 66 betas are raised to 1e-4, so that
ᾱ_0 is 0.9999 and never 1, and the last is cut to 0.9999, so that the last step alone is worth 4.6 of log-SNR. The
released code has them in float32, where the last ᾱ is off by 0.3 per mille.

source: dossier 5; improved DDPM (arXiv 2102.09672) for the cosine; DPM-Solver++ (arXiv 2211.01095) for λ
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from models.diffusionxray.config import ScheduleConfig

Table = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Schedule:
    """x_t = √ᾱ_t x_0 + √(1 − ᾱ_t) ε for t = 0 … T − 1.

    beta    float64 (T,)
    """

    beta: Table

    @property
    def steps(self) -> int:
        """T."""
        return len(self.beta)

    @cached_property
    def alpha_bar(self) -> Table:
        """ᾱ, float64 (T,)."""
        table: Table = np.cumprod(1 - self.beta, dtype=np.float64)
        return table

    @cached_property
    def alpha(self) -> Table:
        """What is left of the image, √ᾱ, float64 (T,)."""
        table: Table = np.sqrt(self.alpha_bar)
        return table

    @cached_property
    def sigma(self) -> Table:
        """Standard deviation of the noise, √(1 − ᾱ), float64 (T,)."""
        table: Table = np.sqrt(1 - self.alpha_bar)
        return table

    @cached_property
    def log_snr(self) -> Table:
        """λ = ln(α/σ), float64 (T,), falling: 4.6 at t = 0, −11.8 at t = 1999 as published."""
        table: Table = (np.log(self.alpha_bar) - np.log1p(-self.alpha_bar)) / 2
        return table

    def time_of(self, log_snr: Table) -> Table:
        """The time at which λ is reached, between whole steps too: λ is taken as linear from one step to the next."""
        times: Table = np.interp(-log_snr, -self.log_snr, np.arange(self.steps, dtype=np.float64))
        return times

    def log_snr_of(self, time: Table) -> Table:
        """λ at a time, the inverse of `time_of`."""
        table: Table = np.interp(time, np.arange(self.steps, dtype=np.float64), self.log_snr)
        return table


@dataclass(frozen=True, eq=False)
class Path:
    """Times that a sampler visits, from noise to image: n + 1 of them for n evaluations.

    time        what the network is told, float64 (n + 1,); the last is never asked for
    alpha       float64 (n + 1,)        sigma   float64 (n + 1,); 0 at the end of an exact path
    """

    time: Table
    alpha: Table
    sigma: Table

    @property
    def evaluations(self) -> int:
        """How often the network is run."""
        return len(self.time) - 1

    @cached_property
    def log_snr(self) -> Table:
        """λ, float64 (n + 1,); infinite at the end of an exact path."""
        with np.errstate(divide="ignore"):
            table: Table = np.log(self.alpha) - np.log(self.sigma)
        return table


def cosine(config: ScheduleConfig) -> Schedule:
    """The cosine schedule, betas clipped as in the released code."""
    angle = (np.arange(config.steps + 1) / config.steps + config.offset) / (1 + config.offset) * np.pi / 2
    ideal = np.cos(angle) ** 2
    return Schedule(np.clip(1 - ideal[1:] / ideal[:-1], *config.beta_range))


def every_step(schedule: Schedule, stride: int = 1) -> Path:
    """All whole steps, or one in `stride` counted from the noisiest, and then the image itself."""
    visited = np.arange(schedule.steps - 1, -1, -stride)
    return _ended(visited.astype(np.float64), schedule.alpha[visited], schedule.sigma[visited])


def even_steps(schedule: Schedule, evaluations: int, *, exact_end: bool = True) -> Path:
    """Evaluations evenly spread over λ, the last at t = 0; then the image itself.

    exact_end    False: the path stops at t = 0, where noise of σ = 0.01 is left (the released DDIM does that): only for
                 measuring a solver's order
    """
    spread = np.linspace(schedule.log_snr[-1], schedule.log_snr[0], evaluations + (not exact_end))
    time = schedule.time_of(spread)
    # of λ: 1 / (1 + e^(−2λ)) and its complement, neither of them by subtraction from 1
    alpha, sigma = (1 / np.sqrt(1 + np.exp(-2 * sign * spread)) for sign in (1, -1))
    return _ended(time, alpha, sigma) if exact_end else Path(time, alpha, sigma)


def _ended(time: Table, alpha: Table, sigma: Table) -> Path:
    return Path(np.append(time, 0.0), np.append(alpha, 1.0), np.append(sigma, 0.0))
