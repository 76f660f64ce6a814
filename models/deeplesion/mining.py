"""Pseudo-categories of lesions that nobody labelled: features, clusters, training on the clusters, and again.

source: A17 (arXiv 1710.01766) for the loop and its purpose, LDPO (arXiv 1603.07965) for a fresh head each round and the
stop by mutual information, DeepCluster (arXiv 1807.05520) for whitening and uniform sampling. A17 tells neither the
first number of clusters nor its network; those are choices of `MiningConfig`.

Only patches of the training split are ever clustered. All others get the label of the nearest centroid.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from models.contract import ModelError
from models.deeplesion.clustering import (
    Clusters,
    Labels,
    Whitening,
    by_size,
    drop_small,
    fit_whitening,
    kmeans,
    merge_by_bic,
    mutual_information,
    nearest,
    purity,
    ward,
)
from models.deeplesion.table import LesionType, Split

STATE, TENSORS, TABLE, REPORT = "round.safetensors", "mining.safetensors", "labels.csv", "mining.json"
MIXED = "mixed"
LEAST_CLUSTERS = 2
"""One cluster teaches nothing."""


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


OnRound = Callable[[Round, Labels], None]
"""Called after each round with its labels."""


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


def mine(
    extractor: nn.Module,
    patches: Patches,
    config: MiningConfig,
    *,
    seed: int,
    out: Path | None = None,
    on_round: OnRound | None = None,
) -> Mined:
    """Rounds of clustering and training until the clusters settle; then merged to `config.clusters`.

    extractor   (hu (B, M, S, S), log_size (B,)) → features (B, C); all of it is trained, in place
    out         folder that keeps the state after each round: the same call goes on from there
    raises      ModelError      a patch is not of the training split, there are fewer patches than clusters or fewer
                                clusters than wanted, the loss is no number, or `out` holds the rounds of something else
    """
    _hold_to(patches, config)
    run = _fingerprint(extractor, patches, config, seed)
    # As a network comes that runs in a node, nothing of it would learn: features would be the same in each round.
    extractor.requires_grad_(True)
    rounds, previous = _resume(out, extractor, run)
    while True:
        number = len(rounds)
        features = features_of(extractor, patches)
        whitening = fit_whitening(features, _components(previous, config))
        points = whitening(features)
        clusters = kmeans(points, config.first_clusters, restarts=config.restarts, seed=_seed(seed, number))
        clusters = drop_small(points, clusters, config.least_share)
        if len(clusters.centroids) < config.clusters:
            raise ModelError(f"the patches fall into {len(clusters.centroids)} clusters, fewer than {config.clusters}")
        groups = merge_by_bic(points, clusters, least=config.clusters, most=_most(number, config))
        labels = by_size(groups[clusters.labels])
        agreement = math.nan if previous is None else mutual_information(labels, previous)
        matched = math.nan if previous is None else purity(labels, previous)
        last = number == config.rounds or (_settled(agreement, config) and _settled_before(rounds, config))
        loss = math.nan if last else _fine_tune(extractor, patches, labels, config, _seed(seed, number))
        rounds = (*rounds, Round(number, int(labels.max()) + 1, agreement, matched, loss))
        if on_round is not None:
            on_round(rounds[-1], labels)
        if last:
            break
        previous = labels
        _keep(out, extractor, run, rounds, labels)
    groups = _final_groups(points, clusters, config.clusters)
    final = groups[clusters.labels]
    return Mined(extractor, whitening, clusters.centroids, groups, patches.names, final, rounds, config, seed)


def _hold_to(patches: Patches, config: MiningConfig) -> None:
    if any(split is not Split.TRAIN for split in patches.split):
        raise ModelError("only patches of the training split may be clustered")
    if not LEAST_CLUSTERS <= config.clusters <= config.first_clusters:
        wanted = f"{config.clusters} clusters from {config.first_clusters} at first"
        raise ModelError(f"{wanted}: at least {LEAST_CLUSTERS} are needed, and no more than at first")
    if len(patches) < config.first_clusters:
        raise ModelError(f"{len(patches)} patches for {config.first_clusters} clusters")


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


def shuffled(labels: Labels, *, seed: int) -> Labels:
    """The control: as many of each label, given to patches by chance."""
    return np.random.default_rng(seed).permutation(labels)


def names_of_clusters(labels: Labels, types: Sequence[LesionType], *, majority: float = 0.5) -> list[str]:
    """The type that more than this share of a cluster's typed members have, else "mixed"; for rows that have types."""
    names = []
    for cluster in range(int(labels.max(initial=-1)) + 1):
        members = [types[int(index)] for index in np.flatnonzero(labels == cluster)]
        known = Counter(kind for kind in members if kind is not LesionType.UNLABELLED)
        kind, count = known.most_common(1)[0] if known else (None, 0)
        clear = kind is not None and count > majority * known.total()
        names.append(kind.name.lower().replace("_", " ") if kind is not None and clear else MIXED)
    return names


def _final_groups(points: Tensor, clusters: Clusters, count: int) -> Labels:
    """Final cluster of each centroid, numbered by size."""
    groups = ward(points, clusters, least=count)[-1]
    numbered = by_size(groups[clusters.labels])
    final = np.zeros(len(groups), np.int64)
    final[clusters.labels] = numbered
    return final


def _components(previous: Labels | None, config: MiningConfig) -> int:
    """As many as the clusters trained on: whitening would make noise of the others as large as what was learnt."""
    return config.components if previous is None else min(config.components, int(previous.max()) + 1)


def _most(number: int, config: MiningConfig) -> int:
    """Clusters allowed in a round, falling by the same factor each time."""
    share = min(number / config.narrowing, 1.0) if config.narrowing else 1.0
    factor: float = (config.clusters / config.first_clusters) ** share
    return round(config.first_clusters * factor)


def _settled(agreement: float, config: MiningConfig) -> bool:
    return agreement > config.settled


def _settled_before(rounds: Sequence[Round], config: MiningConfig) -> bool:
    return bool(rounds) and _settled(rounds[-1].agreement, config)


def _fine_tune(extractor: nn.Module, patches: Patches, labels: Labels, config: MiningConfig, seed: int) -> float:
    """A fresh linear head and all layers, on batches in which every cluster is as likely. Returns the mean loss."""
    device = next(extractor.parameters()).device
    rng = np.random.default_rng(seed)
    members = [np.flatnonzero(labels == cluster) for cluster in range(int(labels.max()) + 1)]
    width = features_of(extractor, _part(patches, np.array([0]))).shape[1]
    steps = max(1, math.ceil(config.epochs * len(patches) / config.batch))
    total = 0.0
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        head = nn.Linear(width, len(members)).to(device)
        parameters = [*extractor.parameters(), *head.parameters()]
        optimizer = torch.optim.AdamW(parameters, lr=config.learning_rate, weight_decay=config.weight_decay)
        extractor.train()
        for _ in range(steps):
            drawn = rng.integers(len(members), size=config.batch)
            chosen = np.array([members[cluster][rng.integers(len(members[cluster]))] for cluster in drawn])
            part = _part(patches, chosen)
            hu = _shifted(part.hu.to(torch.float32), config.shift_px, rng).to(device)
            logits = head(extractor(hu, part.log_size.to(device)))
            loss = functional.cross_entropy(logits, torch.from_numpy(drawn).to(device))
            if not torch.isfinite(loss):
                raise ModelError("the loss of the training on clusters is no number")
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(parameters, config.gradient_clip)
            optimizer.step()
            total += float(loss.detach())
    return total / steps


def _part(patches: Patches, chosen: NDArray[np.int64]) -> Patches:
    """Some patches, of which one may come several times."""
    index = torch.from_numpy(chosen)
    names = tuple(f"{place}" for place in range(len(chosen)))
    return Patches(names, patches.hu[index], patches.log_size[index], tuple(patches.split[i] for i in chosen))


def _shifted(hu: Tensor, most: int, rng: np.random.Generator) -> Tensor:
    """Every patch moved by a few pixels, its edge continued."""
    if most == 0:
        return hu
    side = hu.shape[-1]
    padded = functional.pad(hu, (most,) * 4, mode="replicate")
    places = rng.integers(2 * most + 1, size=(len(hu), 2))
    return torch.stack(
        [image[:, y : y + side, x : x + side] for image, (y, x) in zip(padded, places.tolist(), strict=True)]
    )


def _seed(seed: int, number: int) -> int:
    """Of one round: whether earlier ones ran in this process or another does not matter."""
    return int(np.random.SeedSequence((seed, number)).generate_state(1)[0])


def _fingerprint(extractor: nn.Module, patches: Patches, config: MiningConfig, seed: int) -> str:
    """Of what the rounds depend on: settings, names, pixels and sizes, and the weights that they begin with."""
    said = hashlib.sha256(json.dumps([patches.names, asdict(config), seed, list(patches.hu.shape)]).encode())
    for tensor in (patches.hu, patches.log_size, *extractor.state_dict().values()):
        said.update(tensor.detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy())
    return said.hexdigest()


def _keep(out: Path | None, extractor: nn.Module, run: str, rounds: Sequence[Round], labels: Labels) -> None:
    if out is None:
        return
    out.mkdir(parents=True, exist_ok=True)
    tensors = {f"extractor.{name}": value.contiguous() for name, value in extractor.state_dict().items()}
    tensors["labels"] = torch.from_numpy(labels)
    metadata = {"run": run, "rounds": json.dumps([asdict(one) for one in rounds])}
    _save(out / STATE, tensors, metadata)


def _resume(out: Path | None, extractor: nn.Module, run: str) -> tuple[tuple[Round, ...], Labels | None]:
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
