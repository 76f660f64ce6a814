"""Training of the three networks on given pairs: seeded, resumable at any checkpoint to the same weights.

Everything in float32: bfloat16 has 8 bits, and rounding the input to them would be a step as coarse as the 8-bit images
that this restorer is to avoid. On a GPU convolutions may multiply in TF32, as torch has it: 11 bits in the
factors, sums in float32. That is a step of 12-bit images, and the regressor adds its input itself to what it says.
"""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from models.contract import ModelError
from models.device import of_preset
from models.diffusionxray.config import TRAINING, DiffusionXRayConfig, Preset, Stage, TrainConfig
from models.diffusionxray.facts import kept_up, write_facts
from models.diffusionxray.losses import flow_loss, noise_loss, regression_loss
from models.diffusionxray.network import RestorationUNet, build
from models.diffusionxray.schedule import cosine
from models.training import OnProgress, Store, TrainingRun
from models.weights import save_weights


@dataclass(frozen=True, eq=False)
class Pairs:
    """One batch: the same images twice, float32 (B, 1, H, W) in [−1, 1]."""

    clean: Tensor
    degraded: Tensor


PairStore = Store[Pairs, TrainConfig]


class Run(TrainingRun[RestorationUNet, Pairs, TrainConfig]):
    """The training of one network. What its loss draws follows from seed and step alone."""

    stage: Stage

    def __init__(
        self,
        config: DiffusionXRayConfig,
        training: TrainConfig,
        *,
        seed: int,
        device: torch.device,
        same: Mapping[str, object] | None = None,
    ) -> None:
        network = config.networks[self.stage]
        told = {"stage": self.stage, "training": kept_up(training), **(same or {})}
        super().__init__(lambda: build(network), optimiser_of, training, seed=seed, device=device, same=told)

    def loss(self, batch: Pairs) -> Tensor:
        clean, degraded = batch.clean.to(self.device), batch.degraded.to(self.device)
        draws = np.random.SeedSequence((self.seed, self.step)).generate_state(1, np.uint64)
        return self.error(clean, degraded, torch.Generator().manual_seed(int(draws[0])))

    @abstractmethod
    def error(self, clean: Tensor, degraded: Tensor, draws: torch.Generator) -> Tensor:
        """The stage's loss, a scalar."""


class DdpmRun(Run):
    """The paper's conditional DDPM, the reference path."""

    stage = "ddpm"

    def __init__(
        self,
        config: DiffusionXRayConfig,
        training: TrainConfig,
        *,
        seed: int,
        device: torch.device,
        same: Mapping[str, object] | None = None,
    ) -> None:
        told = {"schedule": asdict(config.schedule), **(same or {})}
        super().__init__(config, training, seed=seed, device=device, same=told)
        self._schedule = cosine(config.schedule)

    def error(self, clean: Tensor, degraded: Tensor, draws: torch.Generator) -> Tensor:
        return noise_loss(self.network, clean, degraded, self._schedule, draws)


class RegressorRun(Run):
    """The conservative restoration."""

    stage = "regressor"

    def error(self, clean: Tensor, degraded: Tensor, draws: torch.Generator) -> Tensor:  # noqa: ARG002
        return regression_loss(self.network, clean, degraded)


class RefinerRun(Run):
    """The flow from the conservative restoration, whose network stays as it is."""

    stage = "refiner"

    def __init__(
        self,
        config: DiffusionXRayConfig,
        training: TrainConfig,
        *,
        seed: int,
        device: torch.device,
        regressor: RestorationUNet,
        same: Mapping[str, object] | None = None,
    ) -> None:
        start_sd = config.sampling.flow_noise
        told = {"regressor": digest(regressor), "start_sd": start_sd, **(same or {})}
        super().__init__(config, training, seed=seed, device=device, same=told)
        self._regressor = regressor.to(device).eval().requires_grad_(False)
        self._start_sd = start_sd

    def error(self, clean: Tensor, degraded: Tensor, draws: torch.Generator) -> Tensor:
        return flow_loss(self.network, clean, self._regressor(degraded), self._start_sd, draws)


def train(
    config: DiffusionXRayConfig,
    stage: Stage,
    store: PairStore,
    out: Path,
    *,
    preset: Preset,
    seed: int,
    regressor: RestorationUNet | None = None,
    training: TrainConfig | None = None,
    learns_from: Mapping[str, object] | None = None,
    resume: bool = True,
    on_progress: OnProgress | None = None,
    workers: int = 0,
) -> Path:
    """Train one network; the weights' file (fp16 safetensors) is returned, training.json beside it.

    store        pairs that follow from the number of the step alone
    learns_from  what is to be known of the store: a checkpoint goes on with the same alone, and the facts tell it
    out          checkpoint and weights go here
    regressor    for the refiner, trained; for no other
    training     instead of the preset's
    workers      processes that make batches ahead
    raises   ModelError     the checkpoint is of another run or has more steps; a regressor too few or too many; a loss
                            that is no number
    """
    training = training or TRAINING[preset]
    device = of_preset(preset)
    same = dict(learns_from or {})
    run = _run_of(config, stage, training, seed=seed, device=device, regressor=regressor, same=same)
    checkpoint = out / "checkpoint.pt"
    if resume and checkpoint.exists():
        run.load(checkpoint)
    run.fit(store, checkpoint, on_progress or (lambda _what, _done, _total, _loss: None), workers=workers)
    weights = out / "weights.safetensors"
    save_weights(run.smoothed, weights)
    facts = {
        "stage": stage,
        "preset": preset,
        "seed": seed,
        "torch": torch.__version__,
        "device": device.type,
        "network": asdict(config.networks[stage]),
        "regressor": None if regressor is None else digest(regressor),
        **asdict(training),
        **same,
    }
    write_facts(facts, weights)
    return weights


def optimiser_of(network: RestorationUNet, training: TrainConfig) -> torch.optim.Optimizer:
    """Adam, as published."""
    return torch.optim.Adam(network.parameters(), lr=training.learning_rate)


def digest(network: nn.Module) -> str:
    """SHA-256 over names and values of the parameters: which weights these are."""
    total = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        total.update(name.encode() + tensor.cpu().contiguous().numpy().tobytes())
    return total.hexdigest()


def _run_of(
    config: DiffusionXRayConfig,
    stage: Stage,
    training: TrainConfig,
    *,
    seed: int,
    device: torch.device,
    regressor: RestorationUNet | None,
    same: Mapping[str, object],
) -> Run:
    if (stage == "refiner") is (regressor is None):
        raise ModelError("the refiner is trained with a regressor, the other networks without one")
    if regressor is not None:
        return RefinerRun(config, training, seed=seed, device=device, regressor=regressor, same=same)
    plain: dict[Stage, type[DdpmRun] | type[RegressorRun]] = {"ddpm": DdpmRun, "regressor": RegressorRun}
    return plain[stage](config, training, seed=seed, device=device, same=same)
