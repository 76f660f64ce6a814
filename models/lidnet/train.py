"""Training of the denoiser with the pixel loss: seeded, resumable at any checkpoint to the same weights."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.device import of_preset
from models.lidnet.config import LidnetConfig, Preset, TrainConfig, training_of
from models.lidnet.network import channels_last
from models.lidnet.pairs import Batch, PairStore, make_pairs
from models.lidnet.slices import patient_of, slice_files, split
from models.lidnet.socket import plug
from models.training import OnProgress, TrainingRun
from models.weights import save_weights

FACTS = "training.json"
WORKERS: dict[Preset, int] = {"cpu": 0, "gpu": 6}
"""A GPU takes a step faster than one process makes its batch."""


def train(
    config: LidnetConfig,
    data: Path,
    out: Path,
    *,
    preset: Preset,
    seed: int,
    resume: bool = True,
    on_progress: OnProgress | None = None,
    steps: int | None = None,
    workers: int | None = None,
) -> Path:
    """Train on prepared slices; the weights' file (fp16 safetensors) is returned.

    data     folder of prepared slices (node/dicom/slices.py)
    out      pairs, checkpoint and weights go here, and beside the weights what they were made of (training.json)
    steps    instead of the preset's
    workers  processes that make pairs and batches, 0: this one; `WORKERS` without it. The weights do not depend on it
    raises   ModelError     no slices, or the checkpoint is of another run
    """
    training = training_of(preset, config.socket)
    training = training if steps is None else replace(training, steps=steps)
    workers = WORKERS[preset] if workers is None else workers
    device = of_preset(preset)
    report: OnProgress = on_progress or (lambda _what, _done, _total, _loss: None)
    kept, _ = split(slice_files(data), config.held_out)
    pairs = make_pairs(
        kept,
        out / "pairs",
        config.pairs,
        seed=seed,
        device=device,
        workers=workers,
        on_progress=lambda done, n: report("pairs", done, n, math.nan),
    )
    run = Run(config, training, seed=seed, device=device)
    checkpoint = out / "checkpoint.pt"
    if resume and checkpoint.exists():
        run.load(checkpoint)
    run.fit(PairStore(pairs, config.pairs, seed=seed), checkpoint, report, workers=workers)
    weights = out / "weights.safetensors"
    save_weights(run.smoothed, weights)
    facts = {
        "denoiser": config.socket,
        "preset": preset,
        "seed": seed,
        "patients": len({patient_of(path) for path in kept}),
        "slices": len(kept),
        "pairs": len(pairs),
        "held_out": list(config.held_out),
        "torch": torch.__version__,
        "device": device.type,
        **asdict(training),
        "data": asdict(config.pairs),
    }
    (out / FACTS).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    return weights


class Run(TrainingRun[nn.Module, Batch, TrainConfig]):
    """The denoiser's training."""

    def __init__(self, config: LidnetConfig, training: TrainConfig, *, seed: int, device: torch.device) -> None:
        super().__init__(lambda: channels_last(plug(config)), _optimiser_of, training, seed=seed, device=device)

    def loss(self, batch: Batch) -> Tensor:
        low, full, weight = (part.to(self.device) for part in (batch.low_dose, batch.full_dose, batch.weight))
        with torch.autocast(self.device.type, torch.bfloat16):
            denoised = self.network(low)
        return pixel_loss(denoised.float(), full, weight)


def _optimiser_of(network: nn.Module, training: TrainConfig) -> torch.optim.Optimizer:
    return torch.optim.Adam(network.parameters(), lr=training.learning_rate)


def pixel_loss(denoised: Tensor, full_dose: Tensor, weight: Tensor) -> Tensor:
    """Huber loss of the error in units of the patch's noise: squared within it, absolute beyond.

    Squared throughout, the edges of quiet patches would outweigh all noise, and the network would learn to do nothing.
    """
    error = (denoised - full_dose) * weight.sqrt()
    return 2 * functional.smooth_l1_loss(error, torch.zeros_like(error))
