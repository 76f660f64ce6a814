"""DDPM-LQ: a diffusion prior of degraded pictures, and its use as a degrader that never saw a pair.

The published second stage needs pairs, so it can only be as unpaired as whatever made them. Here the prior learns from
degraded pictures alone, and a clean picture, noised up to a time t_0, is brought back by it (SDEdit): what the noise
has buried is drawn anew as it looks in degraded pictures. At each step the low band of x̂_0 is that of the clean picture
(ILVR), so that the anatomy stays where it is.

The samplers of few steps are linear in state and x̂_0, and x_t = α_t c is what they do to x̂_0 = c. They can therefore be
run on the difference from the clean picture c, in units of the noise at t_0: state (x_t − α_t c) / σ_0, which begins as
standard normal noise, as they expect.

source: dossier 4; SDEdit (arXiv 2108.01073); ILVR (arXiv 2108.02938)
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path as File
from typing import Protocol

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from models.contract import ModelError
from models.diffusionxray.config import NetworkConfig, ScheduleConfig, TrainConfig
from models.diffusionxray.facts import facts_for, fill, kept_up, size_of, write_facts
from models.diffusionxray.network import RestorationUNet, build
from models.diffusionxray.samplers import RANGE, Noise, Predict, dpm_solver
from models.diffusionxray.schedule import Path, Schedule, cosine
from models.diffusionxray.train import optimiser_of
from models.training import OnProgress, TrainingRun
from models.weights import save_weights

PRIOR = NetworkConfig(inputs=1, fold=2, width=32, mults=(1, 2, 4))
"""The prior that two cores can train."""

STAGE = "prior"
CPU = torch.device("cpu")


class Degraded(Protocol):
    """Degraded pictures, float32 (B, 1, H, W) in [−1, 1]; what else a batch has is not looked at."""

    @property
    def lq(self) -> Tensor: ...


class DegradedStore(Protocol):
    """Batches that follow from the number of the step alone."""

    def batch(self, step: int, training: TrainConfig, /) -> Degraded: ...


class PriorRun(TrainingRun[RestorationUNet, Degraded, TrainConfig]):
    """The training of the prior. What its loss draws follows from seed and step alone."""

    def __init__(
        self,
        network: NetworkConfig,
        schedule: ScheduleConfig,
        training: TrainConfig,
        *,
        seed: int,
        device: torch.device = CPU,
    ) -> None:
        same = {"stage": STAGE, "schedule": asdict(schedule), "training": kept_up(training)}
        super().__init__(lambda: build(network), optimiser_of, training, seed=seed, device=device, same=same)
        self._schedule = cosine(schedule)

    def loss(self, batch: Degraded) -> Tensor:
        draws = np.random.SeedSequence((self.seed, self.step)).generate_state(1, np.uint64)
        generator = torch.Generator().manual_seed(int(draws[0]))
        return prior_loss(self.network, batch.lq.to(self.device), self._schedule, generator)


def prior_loss(network: RestorationUNet, pictures: Tensor, schedule: Schedule, draws: torch.Generator) -> Tensor:
    """Mean absolute error of the predicted noise, t uniform over whole steps; the network sees the state alone.

    draws    a generator on the CPU: times and noise are the same on every device
    """
    time = torch.randint(schedule.steps, (len(pictures),), generator=draws)
    noise = torch.randn(pictures.shape, generator=draws).to(pictures)
    alpha, sigma = (
        torch.from_numpy(table)[time].to(pictures)[:, None, None, None] for table in (schedule.alpha, schedule.sigma)
    )
    return functional.l1_loss(network(alpha * pictures + sigma * noise, time.to(pictures)), noise)


def train_prior(
    store: DegradedStore,
    out: File,
    *,
    training: TrainConfig,
    seed: int,
    network: NetworkConfig = PRIOR,
    resume: bool = True,
    on_progress: OnProgress | None = None,
    device: torch.device = CPU,
    workers: int = 0,
) -> File:
    """Train the prior; the weights' file (fp16 safetensors) is returned, training.json beside it.

    store    degraded pictures that follow from the number of the step alone
    out      checkpoint and weights go here
    workers  processes that make batches ahead
    raises   ModelError     the checkpoint is of another run or has more steps; a loss that is no number
    """
    schedule = ScheduleConfig()
    run = PriorRun(network, schedule, training, seed=seed, device=device)
    checkpoint = out / "checkpoint.pt"
    if resume and checkpoint.exists():
        run.load(checkpoint)
    run.fit(store, checkpoint, on_progress or (lambda _what, _done, _total, _loss: None), workers=workers)
    weights = out / "weights.safetensors"
    save_weights(run.smoothed, weights)
    facts = {
        "stage": STAGE,
        "seed": seed,
        "torch": torch.__version__,
        "device": device.type,
        "network": asdict(network),
        "schedule": asdict(schedule),
        "late_loss": run.late_loss,
        **asdict(training),
    }
    write_facts(facts, weights)
    return weights


def read_prior(weights: File) -> RestorationUNet:
    """The prior, from what a training left: the weights and, beside them, its facts.

    raises   ModelError     the facts are missing or another stage's, or the weights are those of another network
    """
    network = build(size_of(facts_for(weights, STAGE), STAGE))
    fill(network, weights)
    return network.eval().requires_grad_(False)


def path_below(schedule: Schedule, strength: float, evaluations: int) -> Path:
    """Evaluations evenly spread over λ, the first at t_0 = strength · T, the last at t = 0; then the image itself.

    strength    t_0 as a share of T; at 1 this is `even_steps`
    raises   ModelError     a strength outside (0, 1], or fewer than two evaluations
    """
    if not 0 < strength <= 1 or evaluations < 2:
        raise ModelError("the strength must be above 0 and at most 1, with two evaluations or more")
    begin = schedule.log_snr_of(np.array([strength * (schedule.steps - 1)]))[0]
    spread = np.linspace(begin, schedule.log_snr[0], evaluations)
    # of λ: 1 / (1 + e^(−2λ)) and its complement, neither of them by subtraction from 1
    alpha, sigma = (1 / np.sqrt(1 + np.exp(-2 * sign * spread)) for sign in (1, -1))
    time = schedule.time_of(spread)
    return Path(np.append(time, 0.0), np.append(alpha, 1.0), np.append(sigma, 0.0))


def low_band(pictures: Tensor, sigma_px: float) -> Tensor:
    """What a Gaussian lets pass, (B, 1, H, W), the edge mirrored; all of the picture at σ = 0."""
    smooth = ndimage.gaussian_filter(pictures.cpu().numpy(), sigma_px, mode="reflect", axes=(-2, -1))
    return torch.from_numpy(smooth).to(pictures)


@dataclass(frozen=True, eq=False)
class _Guided:
    """The noise that the network tells, corrected so that the low band of x̂_0 is the clean picture's.

    clean    c, (B, 1, H, W)        low     its low band; None: not guided
    """

    network: Predict
    schedule: Schedule
    clean: Tensor
    sigma_0: float
    guidance_sigma_px: float | None
    limit: float | None

    def __call__(self, difference: Tensor, time: float) -> Tensor:
        """Noise in the state c's difference stands for, same shape."""
        snr = np.exp(2 * self.schedule.log_snr_of(np.array(time)))
        alpha, sigma = float(np.sqrt(snr / (1 + snr))), float(1 / np.sqrt(1 + snr))
        away = self.sigma_0 * difference
        told = self.network(away + alpha * self.clean, time)
        image = self.clean + (away - sigma * told) / alpha
        if self.limit is not None:
            image = image.clamp(-self.limit, self.limit)
        changed = image - self.clean
        if self.guidance_sigma_px is not None:
            changed = changed - low_band(changed, self.guidance_sigma_px)
        return (away - alpha * changed) / sigma


def drawn_below(
    noise_in: Predict,
    clean: Tensor,
    noise: Noise,
    *,
    schedule: Schedule,
    strength: float,
    evaluations: int,
    guidance_sigma_px: float | None,
    limit: float | None = RANGE,
) -> Tensor:
    """The clean picture noised up to t_0 and brought back by DPM-Solver++, as whatever `noise_in` knows would look.

    noise_in             predicts the noise in a state (B, 1, H, W) at a time
    guidance_sigma_px    σ of the Gaussian that takes the low band; None: free
    limit                of |x̂_0| before the low band is put in, which may exceed it a little; None for none
    """
    path = path_below(schedule, strength, evaluations)
    sigma_0 = float(path.sigma[0])
    guided = _Guided(noise_in, schedule, clean, sigma_0, guidance_sigma_px, limit)
    in_units = Path(path.time, path.alpha / sigma_0, path.sigma / sigma_0)
    return clean + dpm_solver(guided, in_units, clean, noise, limit=None)


@torch.inference_mode()
def degrade_by_prior(
    network: RestorationUNet,
    clean: Tensor,
    *,
    strength: float = 0.4,
    guidance_sigma_px: float | None = 4.0,
    evaluations: int = 10,
    seed: int,
    schedule: Schedule | None = None,
) -> Tensor:
    """The degraded copy of clean pictures.

    network             the trained prior
    clean               float32 (B, 1, H, W) in [−1, 1], of any size
    strength            t_0 as a share of T: what is finer than the noise there is drawn anew
    guidance_sigma_px   what is coarser stays the clean picture's; None: free
    seed                of the noise; one field for the batch, different for each of its pictures
    returns             the same shape, a fine detail or two beyond the range of pictures
    """
    height, width = clean.shape[-2:]
    multiple = network.config.multiple
    filled = functional.pad(clean, (0, -width % multiple, 0, -height % multiple), mode="reflect")

    def noise_in(state: Tensor, time: float) -> Tensor:
        told: Tensor = network(state, torch.full((len(state),), time, device=state.device))
        return told

    made = drawn_below(
        noise_in, filled, Noise(seed),
        schedule=schedule or cosine(ScheduleConfig()), strength=strength, evaluations=evaluations,
        guidance_sigma_px=guidance_sigma_px,
    )  # fmt: skip
    return made[..., :height, :width].clone()
