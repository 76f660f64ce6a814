"""Training of the quality network: seeded, resumable at any checkpoint to the same weights."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from models.clinreadnet.challenge import fold, load_challenge
from models.clinreadnet.config import TRAINING, ClinReadNetConfig, Preset, TrainConfig
from models.clinreadnet.correlation import agreement
from models.clinreadnet.data import Batch, PhysicsStore, RatedStore, Store
from models.clinreadnet.evaluate import graded_images, scores_of, spread
from models.clinreadnet.losses import quality_loss
from models.clinreadnet.network import QualityNetwork, build
from models.clinreadnet.run import BATCH, prepare, score_slices
from models.clinreadnet.samples import REAL, make_samples, read_facts, sample_files
from models.device import of_preset
from models.training import OnProgress, TrainingRun
from models.weights import save_weights

FACTS = "training.json"
VALIDATION = "validation.json"
VALIDATION_IMAGES = 240
CHALLENGE_FOLDS = 5
HEADS = ("soqn.whole", "soqn.local", "soqn.worth")
SPARED = ("raw_temperature", "share_logits", "position_bias")
"""Parameters of more than one dimension that do not decay."""


def train(
    config: ClinReadNetConfig,
    out: Path,
    *,
    preset: Preset,
    seed: int,
    slices: Sequence[Path] = (),
    samples: Path | None = None,
    training: TrainConfig | None = None,
    resume: bool = True,
    workers: int = 0,
    on_progress: OnProgress | None = None,
) -> Path:
    """Train on the physics-labelled set; the weights' file (fp16 safetensors) is returned.

    Beside the weights: what they were made of (training.json) and how they agree with the labels of the validation
    patients (validation.json).

    out      samples, checkpoint and weights go here        slices   prepared real slices
    samples  those of another run, instead of making them: arms of one comparison share them
    training instead of the preset's
    workers  processes that make samples side by side, and on a GPU batches; 0: this one alone
    raises   ModelError     the checkpoint is of another run, or slices cannot be read
    """
    training = training or TRAINING[preset]
    report: OnProgress = on_progress or (lambda _what, _done, _total, _loss: None)
    folder = samples or out / "samples"
    if samples is None:
        make_samples(
            folder,
            config,
            seed=seed,
            slices=slices,
            workers=workers,
            device=of_preset(preset),
            on_progress=lambda done, n: report("samples", done, n, math.nan),
        )
    store = PhysicsStore(sample_files(folder / "train"), config.data, seed=seed)
    run = Run(config, training, seed=seed, device=of_preset(preset))
    _fit(run, store, out, resume=resume, workers=workers, report=report)
    network = prepare(copy.deepcopy(run.smoothed), run.device)
    images = spread(graded_images(sample_files(folder / "validation"), config.data, seed=seed), VALIDATION_IMAGES)
    truth = np.array([image.score for image in images])
    told = scores_of({"network": network}, images, on_progress=lambda done, n: report("validation", done, n, math.nan))
    measured = {**agreement(told["network"], truth), "images": len(images)}
    tested = [read_facts(path) for path in sorted((folder / "test").glob("*.npy"))]
    facts = {
        "patients": len({sample.facts.patient for sample in store.samples}),
        "slices": len(store.samples),
        "families": sorted({sample.facts.family for sample in store.samples}),
        "held_out": sorted({known.patient for known in tested if known.family == REAL}),
        "data": asdict(config.data),
    }
    return _finished(run, config, out, preset=preset, measured=measured, facts=facts)


def train_on_challenge(
    config: ClinReadNetConfig,
    folder: Path,
    out: Path,
    *,
    held_out_fold: int,
    preset: Preset,
    seed: int,
    training: TrainConfig | None = None,
    resume: bool = True,
    on_progress: OnProgress | None = None,
) -> Path:
    """Train on the public rated images but for one fold of pseudo-patients, on which validation.json is measured.

    raises   ModelError     not that set, or the checkpoint is of another run
    """
    training = training or TRAINING[preset]
    report: OnProgress = on_progress or (lambda _what, _done, _total, _loss: None)
    kept, held_out = fold(load_challenge(folder), held_out_fold, folds=CHALLENGE_FOLDS, seed=seed)
    run = Run(config, training, seed=seed, device=of_preset(preset))
    _fit(run, RatedStore(kept, seed=seed), out, resume=resume, workers=0, report=report)
    network = prepare(copy.deepcopy(run.smoothed), run.device)
    told = []
    for start in range(0, len(held_out), BATCH):
        stored = np.stack([one.image() for one in held_out[start : start + BATCH]])
        told += score_slices(network, stored)[0].tolist()
        report("validation", min(start + BATCH, len(held_out)), len(held_out), math.nan)
    truth = np.array([one.score for one in held_out])
    measured = {**agreement(np.array(told), truth), "images": len(held_out)}
    facts = {"rated_images": len(kept), "fold": held_out_fold, "folds": CHALLENGE_FOLDS}
    return _finished(run, config, out, preset=preset, measured=measured, facts=facts)


def _fit(run: Run, store: Store, out: Path, *, resume: bool, workers: int, report: OnProgress) -> None:
    checkpoint = out / "checkpoint.pt"
    if resume and checkpoint.exists():
        run.load(checkpoint)
    run.fit(store, checkpoint, report, workers=workers if run.device.type == "cuda" else 0)


def _finished(
    run: Run,
    config: ClinReadNetConfig,
    out: Path,
    *,
    preset: Preset,
    measured: Mapping[str, float],
    facts: Mapping[str, object],
) -> Path:
    weights = out / "weights.safetensors"
    save_weights(run.smoothed, weights)
    known = {name: None if math.isnan(value) else value for name, value in measured.items()}
    (out / VALIDATION).write_text(json.dumps(known, indent=1) + "\n", encoding="utf8")
    all_facts = {
        "preset": preset,
        "seed": run.seed,
        "torch": torch.__version__,
        "device": run.device.type,
        "network": asdict(config.network),
        "loss": asdict(config.loss),
        **asdict(run.training),
        **facts,
    }
    (out / FACTS).write_text(json.dumps(all_facts, indent=1) + "\n", encoding="utf8")
    return weights


class Run(TrainingRun[QualityNetwork, Batch, TrainConfig]):
    """The quality network's training."""

    def __init__(self, config: ClinReadNetConfig, training: TrainConfig, *, seed: int, device: torch.device) -> None:
        same = {"loss": asdict(config.loss)}
        super().__init__(lambda: build(config.network), optimiser_of, training, seed=seed, device=device, same=same)
        self._weights = config.loss

    def loss(self, batch: Batch) -> Tensor:
        with torch.autocast(self.device.type, torch.bfloat16):
            p = self.network(batch.images(self.device))
        return quality_loss(p, batch.level.to(self.device), self._weights)


def optimiser_of(network: QualityNetwork, training: TrainConfig) -> torch.optim.Optimizer:
    """AdamW; norms, biases, temperatures, shares and gains do not decay, heads learn faster."""
    learnt = [(name, parameter) for name, parameter in network.named_parameters() if parameter.requires_grad]
    groups = []
    for head in (False, True):
        part = [(name, one) for name, one in learnt if name.startswith(HEADS) is head]
        decaying = [one for name, one in part if one.dim() > 1 and not name.endswith(SPARED)]
        others = [one for name, one in part if one.dim() <= 1 or name.endswith(SPARED)]
        times = training.head_rate if head else 1.0
        groups += [
            {"params": decaying, "weight_decay": training.weight_decay, "times": times},
            {"params": others, "weight_decay": 0.0, "times": times},
        ]
    return torch.optim.AdamW(groups, lr=training.learning_rate, fused=network.soqn.embed.weight.is_cuda)
