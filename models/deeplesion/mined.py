"""What mining begins with and what it makes, and the files of both: the state after each round, and the end.

A run that was stopped goes on from its state; what is finished is read back whole or not at all.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from models.contract import ModelError
from models.deeplesion.clustering import Labels, Whitening, nearest
from models.deeplesion.table import Split

STATE, TENSORS, TABLE, REPORT = "round.safetensors", "mining.safetensors", "labels.csv", "mining.json"


@dataclass(frozen=True)
class MiningConfig:
    """One mining run.

    clusters            at the end (A17: 5)
    first_clusters      that k-means makes, before merging
    components          of the features that are clustered
    least_share         of all patches: smaller clusters are dropped
    settled             agreement with the round before that counts as no change; twice in a row ends the loop
    narrowing           rounds over which the clusters allowed after merging fall from `first_clusters` to `clusters`:
                        what is trained apart is never found together again, so splinters must be merged in between
    rounds              at most
    epochs              of training on one round's clusters
    shift_px            random shift of each patch in training
    """

    clusters: int = 5
    first_clusters: int = 30
    restarts: int = 10
    components: int = 256
    least_share: float = 0.01
    settled: float = 0.95
    narrowing: int = 5
    rounds: int = 10
    epochs: float = 2.0
    batch: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    gradient_clip: float = 5.0
    shift_px: int = 4


@dataclass(frozen=True, eq=False)
class Patches:
    """Lesions with what is around them.

    names       one per lesion, none twice
    hu          (N, M, S, S), int16 or float32, HU
    log_size    float32 (N,), logarithm of the box's larger side in mm
    split       one per lesion
    raises      ModelError      lengths differ, or a name occurs twice
    """

    names: tuple[str, ...]
    hu: Tensor
    log_size: Tensor
    split: tuple[Split, ...]

    def __post_init__(self) -> None:
        if len({len(self.names), len(self.hu), len(self.log_size), len(self.split)}) > 1:
            raise ModelError("names, images, sizes and splits of patches do not have one length")
        if len(set(self.names)) < len(self.names):
            raise ModelError("two patches bear the same name")

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class Round:
    """What one round found; NaN where there was no round before, or nothing was trained after.

    agreement, purity   with the labels of the round before
    loss                mean over the training on these labels
    """

    number: int
    clusters: int
    agreement: float
    purity: float
    loss: float


@dataclass(frozen=True, eq=False)
class Mined:
    """Pseudo-labels, and what gives them to other patches.

    centroids   (k, D) of the last k-means      groups  (k,), final cluster of each centroid
    labels      (N,) of the training patches, 0 is the largest cluster
    """

    extractor: nn.Module
    whitening: Whitening
    centroids: Tensor
    groups: Labels
    names: tuple[str, ...]
    labels: Labels
    rounds: tuple[Round, ...]
    config: MiningConfig
    seed: int

    def assign(self, patches: Patches) -> Labels:
        """Cluster of the nearest centroid for patches of any split; nothing is fitted."""
        return self.groups[nearest(self.whitening(features_of(self.extractor, patches)), self.centroids)]

    @property
    def label_of(self) -> Mapping[str, int]:
        """Training patches by name."""
        return {name: int(label) for name, label in zip(self.names, self.labels, strict=True)}


def features_of(extractor: nn.Module, patches: Patches, *, batch: int = 64) -> Tensor:
    """Features (N, C) of all patches, float32 on the CPU."""
    extractor.eval()
    device = next(extractor.parameters()).device
    with torch.no_grad():
        parts = [
            extractor(hu.to(device, torch.float32), size.to(device)).float().cpu()
            for hu, size in zip(torch.split(patches.hu, batch), torch.split(patches.log_size, batch), strict=True)
        ]
    return torch.cat(parts)


def keep(out: Path | None, extractor: nn.Module, run: str, rounds: Sequence[Round], labels: Labels) -> None:
    if out is None:
        return
    out.mkdir(parents=True, exist_ok=True)
    tensors = {f"extractor.{name}": value.contiguous() for name, value in extractor.state_dict().items()}
    tensors["labels"] = torch.from_numpy(labels)
    metadata = {"run": run, "rounds": json.dumps([asdict(one) for one in rounds])}
    _save(out / STATE, tensors, metadata)


def resume(out: Path | None, extractor: nn.Module, run: str) -> tuple[tuple[Round, ...], Labels | None]:
    """Rounds done and the last labels; the extractor gets its weights back."""
    if out is None or not (out / STATE).exists():
        return (), None
    tensors, metadata = _load(out / STATE)
    if metadata.get("run") != run:
        raise ModelError(f"{out.name} holds the rounds of other patches, settings or seed")
    _restore(extractor, tensors, out / STATE)
    rounds = tuple(Round(**one) for one in json.loads(metadata["rounds"]))
    return rounds, tensors["labels"].numpy()


def save_mined(mined: Mined, out: Path) -> None:
    """Network, whitening and centroids; the label table; a report with both files' sha256."""
    out.mkdir(parents=True, exist_ok=True)
    tensors = {f"extractor.{name}": value.contiguous() for name, value in mined.extractor.state_dict().items()}
    tensors |= {"mean": mined.whitening.mean, "axes": mined.whitening.axes.contiguous()}
    tensors |= {"centroids": mined.centroids.contiguous(), "groups": torch.from_numpy(mined.groups)}
    _save(out / TENSORS, tensors, {})
    lines = [f"{name},{label}" for name, label in zip(mined.names, mined.labels, strict=True)]
    (out / TABLE).write_text("\n".join(["name,cluster", *lines, ""]), encoding="utf8")
    report = {
        "sha256": {name: _sha256(out / name) for name in (TENSORS, TABLE)},
        "seed": mined.seed,
        "config": asdict(mined.config),
        "rounds": [{key: _or_none(value) for key, value in asdict(one).items()} for one in mined.rounds],
    }
    (out / REPORT).write_text(json.dumps(report, indent=1), encoding="utf8")


def load_mined(folder: Path, extractor: nn.Module) -> Mined:
    """What `save_mined` wrote; the extractor gets its weights.

    raises   ModelError     a file is missing or was changed, or the extractor is another one
    """
    try:
        report = json.loads((folder / REPORT).read_text(encoding="utf8"))
        digests = {name: _sha256(folder / name) for name in (TENSORS, TABLE)}
        lines = (folder / TABLE).read_text(encoding="utf8").splitlines()[1:]
    except (OSError, ValueError) as exc:
        raise ModelError(f"{folder.name}: no finished mining run") from exc
    if digests != report["sha256"]:
        raise ModelError(f"{folder.name}: a file is not the one that its report was written for")
    tensors, _ = _load(folder / TENSORS)
    _restore(extractor, tensors, folder / TENSORS)
    names, labels = zip(*(line.rsplit(",", 1) for line in lines), strict=True)
    return Mined(
        extractor=extractor,
        whitening=Whitening(tensors["mean"], tensors["axes"]),
        centroids=tensors["centroids"],
        groups=tensors["groups"].numpy(),
        names=tuple(names),
        labels=np.array(labels, np.int64),
        rounds=tuple(Round(**{key: _or_nan(value) for key, value in one.items()}) for one in report["rounds"]),
        config=MiningConfig(**report["config"]),
        seed=report["seed"],
    )


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value


def _or_nan(value: Any) -> Any:
    return math.nan if value is None else value


def _restore(extractor: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    start = "extractor."
    state = {name.removeprefix(start): value for name, value in tensors.items() if name.startswith(start)}
    try:
        extractor.load_state_dict(state)
    except RuntimeError as exc:
        raise ModelError(f"{path.name}: weights of another network") from exc


def _save(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Whole or not at all."""
    unfinished = path.with_suffix(".part")
    save_file(tensors, unfinished, metadata=metadata)
    os.replace(unfinished, path)


def _load(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata() or {})
        return load_file(path), metadata
    except (OSError, SafetensorError) as exc:
        raise ModelError(f"{path.name}: damaged") from exc


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
