"""Training of the texture and of the mask network: seeded, resumable at any checkpoint to the same weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.contract import ModelError
from models.diffusionxray.schedule import cosine
from models.lefusion.config import NETWORKS, SCHEDULE, NetworkConfig, Preset, Stage, TrainConfig
from models.lefusion.data import Classes, Crops
from models.lefusion.histogram import LUNG
from models.lefusion.losses import noise_loss
from models.lefusion.network import LesionUNet, build
from models.training import OnProgress, Store, TrainingRun
from models.weights import save_weights

FACTS, WEIGHTS = "training.json", "weights.safetensors"
CPU = torch.device("cpu")


class LesionRun(TrainingRun[LesionUNet, Crops, TrainConfig]):
    """The training of one network. What its loss draws follows from seed and step alone."""

    def __init__(
        self, network: NetworkConfig, stage: Stage, training: TrainConfig, *, seed: int, device: torch.device = CPU
    ) -> None:
        same = {"stage": stage, "focus": training.focus, "schedule": asdict(SCHEDULE)}
        super().__init__(lambda: build(network), _optimiser, training, seed=seed, device=device, same=same)
        self._schedule = cosine(SCHEDULE)

    def loss(self, batch: Crops) -> Tensor:
        draws = np.random.SeedSequence((self.seed, self.step)).generate_state(1, np.uint64)
        condition, beside = (None if one is None else one.to(self.device) for one in (batch.condition, batch.beside))
        return noise_loss(
            self.network, batch.image.to(self.device), batch.masks.to(self.device), self._schedule,
            torch.Generator().manual_seed(int(draws[0])), condition=condition, beside=beside, focus=self.training.focus,
        )  # fmt: skip


def network_for(stage: Stage, preset: Preset, *, classes: Classes = 1) -> NetworkConfig:
    """The preset's network, with a channel and a histogram for each class of lesion."""
    config = NETWORKS[stage][preset]
    if stage == "mask":
        return config
    return replace(config, inputs=classes, outputs=classes, condition=classes * LUNG.bins)


def train(
    network: NetworkConfig,
    stage: Stage,
    store: Store[Crops, TrainConfig],
    out: Path,
    *,
    training: TrainConfig,
    seed: int,
    facts: Mapping[str, object] | None = None,
    resume: bool = True,
    on_progress: OnProgress | None = None,
    device: torch.device = CPU,
    workers: int = 0,
) -> Path:
    """Train one network; the weights' file (fp16 safetensors) is returned, training.json beside it.

    store    batches that follow from the number of the step alone
    out      checkpoint and weights go here
    facts    of the data, written beside the weights
    workers  processes that make batches ahead
    raises   ModelError     the checkpoint is of another run
    """
    run = LesionRun(network, stage, training, seed=seed, device=device)
    checkpoint = out / "checkpoint.pt"
    if resume and checkpoint.exists():
        run.load(checkpoint)
    run.fit(store, checkpoint, on_progress or (lambda _what, _done, _total, _loss: None), workers=workers)
    weights = out / WEIGHTS
    save_weights(run.smoothed, weights)
    told = {
        "stage": stage,
        "seed": seed,
        "torch": torch.__version__,
        "device": device.type,
        "network": asdict(network),
        "schedule": asdict(SCHEDULE),
        "late_loss": run.late_loss,
        **(facts or {}),
        **asdict(training),
    }
    (out / FACTS).write_text(json.dumps(told, indent=1) + "\n", encoding="utf8")
    return weights


@dataclass(frozen=True, eq=False)
class Trained:
    """A network ready to draw, and what its training wrote beside its weights."""

    network: LesionUNet
    facts: Mapping[str, Any]


def read_trained(folder: Path, stage: Stage, device: torch.device = CPU) -> Trained:
    """From what a training left in a folder.

    raises   ModelError     something is missing there, or it is of another stage or network
    """
    from safetensors.torch import load_file

    facts_file, weights = folder / FACTS, folder / WEIGHTS
    if not facts_file.is_file() or not weights.is_file():
        raise ModelError(f"no trained {stage} network in {folder}: `pacsnode train lefusion {stage}` makes one")
    facts: dict[str, Any] = json.loads(facts_file.read_text(encoding="utf8"))
    if facts.get("stage") != stage:
        raise ModelError(f"{folder} holds a network of another stage ({facts.get('stage')}, {stage} is wanted)")
    told = facts["network"]
    lists = {name: tuple(value) for name, value in told.items() if isinstance(value, list)}
    network = build(NetworkConfig(**told | lists))
    try:
        network.load_state_dict({name: tensor.float() for name, tensor in load_file(weights).items()})
    except RuntimeError as error:
        raise ModelError(f"the weights in {folder} do not fit the network of {FACTS}") from error
    return Trained(network.to(device).eval().requires_grad_(False), facts)


def _optimiser(network: LesionUNet, training: TrainConfig) -> torch.optim.Optimizer:
    """Adam, as published."""
    return torch.optim.Adam(network.parameters(), lr=training.learning_rate)
