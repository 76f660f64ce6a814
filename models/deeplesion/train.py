"""Training of the detector: seeded, resumable at any checkpoint to the same weights."""

from __future__ import annotations

import copy
import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import get_args

import torch
from torch import Tensor, nn

from models.contract import ModelError
from models.deeplesion.config import TRAINING, DeepLesionConfig, Preset, TrainConfig
from models.deeplesion.data import Batch, SampleStore
from models.deeplesion.losses import Targets, with_ignored
from models.deeplesion.marked import make_marked_samples
from models.deeplesion.network import Detector, build
from models.deeplesion.run import prepare
from models.deeplesion.samples import FAMILIES, Split, family_of, make_samples, patient_of
from models.deeplesion.validate import calibrate
from models.training import OnProgress, follow, learning_rate, smoothed_loss, write_checkpoint
from models.weights import save_weights

FACTS = "training.json"


def train(
    config: DeepLesionConfig,
    out: Path,
    *,
    preset: Preset,
    seed: int,
    volumes: Sequence[Path] = (),
    marks: Sequence[Path] = (),
    training: TrainConfig | None = None,
    resume: bool = True,
    workers: int = 0,
    on_progress: OnProgress | None = None,
) -> Path:
    """Train on drawn cases and real volumes with planted nodules; the weights' file (fp16 safetensors) is returned.

    Score and operating point are set on the validation patients at the end; what was measured is in validation.json,
    what the weights were made of in training.json.

    out      samples, checkpoint and weights go here        volumes  prepared (models/deeplesion/samples.py)
    marks    folders of marked lesions (DL_info.csv and Images_png), as `pacsnode harvest` leaves them
    training instead of the preset's
    workers  processes that make samples side by side; 0: this one alone
    raises   ModelError     the checkpoint is of another run, or marked lesions cannot be read
    """
    training = training or TRAINING[preset]
    report: OnProgress = on_progress or (lambda _what, _done, _total, _loss: None)
    folder = out / "samples"
    make_samples(
        folder,
        config,
        seed=seed,
        volumes=volumes,
        workers=workers,
        on_progress=lambda done, n: report("samples", done, n, math.nan),
    )
    for table in marks:
        make_marked_samples(
            table, folder, config, on_progress=lambda done, n: report("marked lesions", done, n, math.nan)
        )
    store = SampleStore(
        list((folder / "train").glob("*.npz")),
        seed=seed,
        categories=len(config.network.categories),
        complete=() if config.data.unannotated_share else FAMILIES,
    )
    device = torch.device("cuda" if preset == "gpu" and torch.cuda.is_available() else "cpu")
    run = Run(config, training, seed=seed, device=device)
    checkpoint = out / "checkpoint.pt"
    if resume and checkpoint.exists():
        run.load(checkpoint)
    run.fit(store, checkpoint, report)
    # Calibrated as it will run: in the precision of the device.
    deployed = prepare(copy.deepcopy(run.teacher), device)
    measured = calibrate(
        deployed, config, seed=seed, on_progress=lambda done, n: report("validation", done, n, math.nan)
    )
    run.teacher.calibration.copy_(deployed.calibration)
    run.teacher.operating_point.copy_(deployed.operating_point)
    (out / "validation.json").write_text(json.dumps(measured, indent=1), encoding="utf8")
    weights = out / "weights.safetensors"
    save_weights(run.teacher, weights)
    facts = {
        "preset": preset,
        "seed": seed,
        "categories": list(config.network.categories),
        "offsets_mm": list(config.network.offsets_mm),
        "samples": {split: _per_family(folder / split) for split in get_args(Split)},
        "held_out": list(config.held_out),
        "test_families": list(config.test_families),
        "torch": torch.__version__,
        "device": device.type,
        **asdict(training),
        "data": asdict(config.data),
        "validation": measured,
    }
    (out / FACTS).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf8")
    return weights


def _per_family(folder: Path) -> dict[str, dict[str, int]]:
    """Patients and samples of each family."""
    samples = Counter(family_of(path) for path in folder.glob("*.npz"))
    patients = Counter(family for _, family in {(patient_of(path), family_of(path)) for path in folder.glob("*.npz")})
    return {family: {"patients": patients[family], "samples": count} for family, count in sorted(samples.items())}


class Run:
    """The state of a training run: all of it is in the checkpoint."""

    def __init__(self, config: DeepLesionConfig, training: TrainConfig, *, seed: int, device: torch.device) -> None:
        torch.manual_seed(seed)
        self.seed = seed
        self.training = training
        self.device = device
        self.network = build(config.network).to(device)
        self.teacher = build(config.network).to(device).eval().requires_grad_(False)
        self.teacher.load_state_dict(self.network.state_dict())
        self.optimiser = optimiser_of(self.network, training)
        self.step = 0
        self.late_loss = math.nan

    def fit(self, store: SampleStore, checkpoint: Path, report: OnProgress) -> None:
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
        hu = batch.hu.to(self.device)
        targets = [target.to(self.device) for target in batch.targets]
        drawing = torch.Generator().manual_seed((self.seed << 32) + self.step)
        with torch.autocast(self.device.type, torch.bfloat16):
            for index, target in self._spared(hu, targets, batch.incomplete).items():
                targets[index] = target
            losses = self.network.losses(hu, targets, generator=drawing)
        loss = torch.stack(list(losses.values())).sum()
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.network.parameters(), self.training.gradient_clip)
        self.optimiser.step()
        follow(self.teacher, self.network, self.training.ema_decay, step=self.step)
        return float(loss.detach())

    def _spared(self, hu: Tensor, targets: Sequence[Targets], incomplete: Sequence[int] | None) -> dict[int, Targets]:
        """Targets of the images that the teacher is asked about, with what it is sure of to be ignored."""
        asked = list(range(len(targets)) if incomplete is None else incomplete)
        if self.training.missing == "plain" or self.step < self.training.teacher_after or not asked:
            return {}
        spared = with_ignored(self.teacher, hu[asked], [targets[index] for index in asked], self.training.teacher_score)
        return dict(zip(asked, spared, strict=True))

    def save(self, path: Path) -> None:
        """Write the checkpoint, whole or not at all."""
        state = {
            "seed": self.seed,
            "step": self.step,
            "late_loss": self.late_loss,
            "network": self.network.state_dict(),
            "teacher": self.teacher.state_dict(),
            "optimiser": self.optimiser.state_dict(),
        }
        write_checkpoint(state, path)

    def load(self, path: Path) -> None:
        """Continue from a checkpoint.

        raises   ModelError     it was made with another seed, or of another network
        """
        state = torch.load(path, map_location=self.device, weights_only=True)
        if state["seed"] != self.seed:
            raise ModelError("the checkpoint belongs to a run with another seed")
        try:
            self.network.load_state_dict(state["network"])
            self.teacher.load_state_dict(state["teacher"])
        except RuntimeError as error:
            raise ModelError("the checkpoint belongs to another network") from error
        self.step, self.late_loss = state["step"], state["late_loss"]
        self.optimiser.load_state_dict(state["optimiser"])


def optimiser_of(network: Detector, training: TrainConfig) -> torch.optim.Optimizer:
    """AdamW; norms and biases do not decay."""
    matrices = [parameter for parameter in network.parameters() if parameter.dim() > 1]
    others = [parameter for parameter in network.parameters() if parameter.dim() <= 1]
    groups = [{"params": matrices, "weight_decay": training.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=training.learning_rate)
