"""Training of the denoiser with the pixel loss: seeded, resumable at any checkpoint to the same weights."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.contract import ModelError
from models.lidnet.config import TRAINING, LidnetConfig, Preset, TrainConfig
from models.lidnet.network import channels_last
from models.lidnet.pairs import Batch, PairStore, make_pairs
from models.lidnet.slices import patient_of, slice_files, split
from models.lidnet.socket import plug
from models.training import OnProgress, follow, learning_rate, smoothed_loss, write_checkpoint
from models.weights import save_weights

FACTS = "training.json"


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
) -> Path:
    """Train on prepared slices; the weights' file (fp16 safetensors) is returned.

    data     folder of prepared slices (node/dicom/slices.py)
    out      pairs, checkpoint and weights go here, and beside the weights what they were made of (training.json)
    steps    instead of the preset's
    raises   ModelError     no slices, or the checkpoint is of another run
    """
    training = TRAINING[preset] if steps is None else replace(TRAINING[preset], steps=steps)
    report: OnProgress = on_progress or (lambda _what, _done, _total, _loss: None)
    kept, _ = split(slice_files(data), config.held_out)
    pairs = make_pairs(
        kept, out / "pairs", config.pairs, seed=seed, on_progress=lambda done, n: report("pairs", done, n, math.nan)
    )
    device = torch.device("cuda" if preset == "gpu" and torch.cuda.is_available() else "cpu")
    run = Run(config, training, seed=seed, device=device)
    checkpoint = out / "checkpoint.pt"
    if resume and checkpoint.exists():
        run.load(checkpoint)
    run.fit(PairStore(pairs, config.pairs, seed=seed), checkpoint, report)
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


class Run:
    """The state of a training run: all of it is in the checkpoint."""

    def __init__(self, config: LidnetConfig, training: TrainConfig, *, seed: int, device: torch.device) -> None:
        torch.manual_seed(seed)
        self.seed = seed
        self.training = training
        self.device = device
        self.network = channels_last(plug(config).to(device))
        self.smoothed = plug(config).to(device).requires_grad_(False)
        self.smoothed.load_state_dict(self.network.state_dict())
        self.optimiser = torch.optim.Adam(self.network.parameters(), lr=training.learning_rate)
        self.step = 0
        self.late_loss = math.nan

    def fit(self, store: PairStore, checkpoint: Path, report: OnProgress) -> None:
        """The remaining steps."""
        self.network.train()
        while self.step < self.training.steps:
            loss = self._one_step(store.batch(self.step, self.training))
            self.late_loss = smoothed_loss(self.late_loss, loss)
            self.step += 1
            report("training", self.step, self.training.steps, self.late_loss)
            if self.step % self.training.checkpoint_every == 0 or self.step == self.training.steps:
                self.save(checkpoint)

    def _one_step(self, batch: Batch) -> float:
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(self.step, self.training)
        low, full, weight = (part.to(self.device) for part in (batch.low_dose, batch.full_dose, batch.weight))
        with torch.autocast(self.device.type, torch.bfloat16):
            denoised = self.network(low)
        loss = pixel_loss(denoised.float(), full, weight)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.network.parameters(), self.training.gradient_clip)
        self.optimiser.step()
        follow(self.smoothed, self.network, self.training.ema_decay, step=self.step)
        return float(loss.detach())

    def save(self, path: Path) -> None:
        """Write the checkpoint, whole or not at all."""
        state = {
            "seed": self.seed,
            "step": self.step,
            "late_loss": self.late_loss,
            "network": self.network.state_dict(),
            "smoothed": self.smoothed.state_dict(),
            "optimiser": self.optimiser.state_dict(),
        }
        write_checkpoint(state, path)

    def load(self, path: Path) -> None:
        """Continue from a checkpoint.

        raises   ModelError     it was made with another seed
        """
        state = torch.load(path, map_location=self.device, weights_only=True)
        if state["seed"] != self.seed:
            raise ModelError("the checkpoint belongs to a run with another seed")
        self.step, self.late_loss = state["step"], state["late_loss"]
        self.network.load_state_dict(state["network"])
        self.smoothed.load_state_dict(state["smoothed"])
        self.optimiser.load_state_dict(state["optimiser"])


def pixel_loss(denoised: Tensor, full_dose: Tensor, weight: Tensor) -> Tensor:
    """Huber loss of the error in units of the patch's noise: squared within it, absolute beyond.

    Squared throughout, the edges of quiet patches would outweigh all noise, and the network would learn to do nothing.
    """
    error = (denoised - full_dose) * weight.sqrt()
    return 2 * functional.smooth_l1_loss(error, torch.zeros_like(error))
