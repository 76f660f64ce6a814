"""Training of the detector: seeded, resumable at any checkpoint to the same weights."""

from __future__ import annotations

import copy
import hashlib
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

import torch
from safetensors.torch import load_file
from torch import Tensor

from models.contract import ModelError
from models.deeplesion.config import TRAINING, DeepLesionConfig, Preset, TrainConfig
from models.deeplesion.data import Batch, SampleStore
from models.deeplesion.losses import TargetBatch, Targets, with_ignored
from models.deeplesion.marked import make_marked_samples
from models.deeplesion.network import Detector, build
from models.deeplesion.run import prepare
from models.deeplesion.samples import FAMILIES, Split, family_of, make_samples, own_categories, patient_of
from models.deeplesion.validate import calibrate
from models.device import of_preset
from models.training import OnProgress, TrainingRun
from models.weights import save_weights

FACTS = "training.json"
CLASS_LAYER = "roi_head.scores"
LOADERS = 6
"""Processes that make batches for a GPU."""


def train(
    config: DeepLesionConfig,
    out: Path,
    *,
    preset: Preset,
    seed: int,
    volumes: Sequence[Path] = (),
    marks: Sequence[Path] = (),
    training: TrainConfig | None = None,
    start: Path | None = None,
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
    start    weights (fp16 safetensors) to go on from, of however many categories, instead of from nothing
    workers  processes that make samples side by side; 0: this one alone
    raises   ModelError     the checkpoint is of another run, marked lesions cannot be read, samples do not fit the
                            network, or `start` does not
    """
    training = training or TRAINING[preset]
    report: OnProgress = on_progress or (lambda _what, _done, _total, _loss: None)
    device = of_preset(preset)
    store = _samples(
        out / "samples", config, seed=seed, volumes=volumes, marks=marks, workers=workers, device=device, report=report
    )
    run = Run(config, training, seed=seed, device=device)
    if start is not None:
        run.start_from(start)
    checkpoint = out / "checkpoint.pt"
    if resume and checkpoint.exists():
        run.load(checkpoint)
    # On a CPU the step itself takes every core.
    run.fit(store, checkpoint, report, workers=0 if device.type == "cpu" else min(workers, LOADERS))
    measured = _calibrate(run, config, report)
    weights = out / "weights.safetensors"
    save_weights(run.smoothed, weights)
    facts = {
        "preset": preset,
        "started_from": None if start is None else hashlib.sha256(start.read_bytes()).hexdigest(),
        "samples": {split: _per_family(out / "samples" / split) for split in get_args(Split)},
        **_facts_of(run, config),
        "validation": measured,
    }
    (out / "validation.json").write_text(json.dumps(measured, indent=1), encoding="utf8")
    (out / FACTS).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf8")
    return weights


def _samples(
    folder: Path,
    config: DeepLesionConfig,
    *,
    seed: int,
    volumes: Sequence[Path],
    marks: Sequence[Path],
    workers: int,
    device: torch.device,
    report: OnProgress,
) -> SampleStore:
    """All samples, those made that are missing; samples with categories of their own stay among themselves.

    raises   ModelError     these have another number of categories than the network, or others were to be added
    """
    own = own_categories(folder)
    categories = len(config.network.categories)
    if own is None:
        make_samples(
            folder,
            config,
            seed=seed,
            volumes=volumes,
            workers=workers,
            device=device,
            on_progress=lambda done, n: report("samples", done, n, math.nan),
        )
        for table in marks:
            make_marked_samples(
                table, folder, config, on_progress=lambda done, n: report("marked lesions", done, n, math.nan)
            )
    elif volumes or marks:
        raise ModelError(f"{folder} has categories of its own: other images cannot be added to it")
    elif categories not in (own, 1):
        raise ModelError(f"{folder} has {own} categories of its own, and the network {categories}")
    return SampleStore(
        list((folder / "train").glob("*.npz")),
        seed=seed,
        categories=categories,
        slices=config.network.slices,
        complete=() if config.data.unannotated_share else FAMILIES,
    )


def _calibrate(run: Run, config: DeepLesionConfig, report: OnProgress) -> dict[str, Any]:
    """Score and operating point of what ships, as it will run: in the precision of the device."""
    deployed = prepare(copy.deepcopy(run.smoothed), run.device)
    measured = calibrate(
        deployed, config, seed=run.seed, on_progress=lambda done, n: report("validation", done, n, math.nan)
    )
    run.smoothed.calibration.copy_(deployed.calibration)
    run.smoothed.operating_point.copy_(deployed.operating_point)
    return measured


def _facts_of(run: Run, config: DeepLesionConfig) -> dict[str, object]:
    return {
        "seed": run.seed,
        "categories": list(config.network.categories),
        "offsets_mm": list(config.network.offsets_mm),
        "held_out": list(config.held_out),
        "test_families": list(config.test_families),
        "torch": torch.__version__,
        "device": run.device.type,
        **asdict(run.training),
        "data": asdict(config.data),
    }


def _per_family(folder: Path) -> dict[str, dict[str, int]]:
    """Patients and samples of each family."""
    samples = Counter(family_of(path) for path in folder.glob("*.npz"))
    patients = Counter(family for _, family in {(patient_of(path), family_of(path)) for path in folder.glob("*.npz")})
    return {family: {"patients": patients[family], "samples": count} for family, count in sorted(samples.items())}


class Run(TrainingRun[Detector, Batch, TrainConfig]):
    """The detector's training. The smoothed network is its teacher."""

    def __init__(self, config: DeepLesionConfig, training: TrainConfig, *, seed: int, device: torch.device) -> None:
        super().__init__(lambda: build(config.network), optimiser_of, training, seed=seed, device=device)

    def start_from(self, weights: Path) -> None:
        """Network and teacher as these weights have them; the optimiser knows nothing yet.

        Weights of another number of categories fit as well, with the class layer that `for_categories` makes of theirs.

        raises   ModelError     they are of another network
        """
        known = {name: tensor.float() for name, tensor in load_file(weights).items()}
        known = for_categories(known, len(self.network.config.categories))
        for network in (self.network, self.smoothed):
            try:
                network.load_state_dict(known)
            except RuntimeError as error:
                raise ModelError(f"the weights {weights.name} are of another network") from error

    def loss(self, batch: Batch) -> Tensor:
        hu, targets = batch.hu.to(self.device), batch.targets.to(self.device)
        drawing = torch.Generator(self.device).manual_seed((self.seed << 32) + self.step)
        with torch.autocast(self.device.type, torch.bfloat16):
            if spared := self._spared(hu, targets, batch.incomplete):
                targets = TargetBatch.of([spared.get(index, target) for index, target in enumerate(targets)])
            losses = self.network.losses(hu, targets, generator=drawing)
        return torch.stack(list(losses.values())).sum()

    def _spared(self, hu: Tensor, targets: TargetBatch, incomplete: Sequence[int] | None) -> dict[int, Targets]:
        """Targets of the images that the teacher is asked about, with what it is sure of to be ignored."""
        asked = list(range(len(targets)) if incomplete is None else incomplete)
        if self.training.missing == "plain" or self.step < self.training.teacher_after or not asked:
            return {}
        given = [targets[index] for index in asked]
        spared = with_ignored(self.smoothed, hu[asked], given, self.training.teacher_score)
        return dict(zip(asked, spared, strict=True))


def for_categories(known: Mapping[str, Tensor], count: int) -> dict[str, Tensor]:
    """Weights of the detector, float32 by name, with a class layer for so many categories.

    The background's row stays. Every category's is the mean of the old ones, its bias by log(old / count) higher: of
    one category's weights no region's probability of being a lesion changes, and no category is likelier than another.
    Of several it falls, as far as they disagree. Weights without such a layer are returned as they are.
    """
    weight, bias = (known.get(f"{CLASS_LAYER}.{part}") for part in ("weight", "bias"))
    if weight is None or bias is None or bias.numel() in (1, count + 1):
        return dict(known)
    shift = math.log(bias.numel() - 1) - math.log(count)
    return {
        **known,
        f"{CLASS_LAYER}.weight": torch.cat([weight[:1], weight[1:].mean(0, keepdim=True).repeat(count, 1)]),
        f"{CLASS_LAYER}.bias": torch.cat([bias[:1], (bias[1:].mean(0, keepdim=True) + shift).repeat(count)]),
    }


def optimiser_of(network: Detector, training: TrainConfig) -> torch.optim.Optimizer:
    """AdamW; norms and biases do not decay."""
    matrices = [parameter for parameter in network.parameters() if parameter.dim() > 1]
    others = [parameter for parameter in network.parameters() if parameter.dim() <= 1]
    groups = [{"params": matrices, "weight_decay": training.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=training.learning_rate)
