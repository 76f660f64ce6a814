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
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from models.contract import ModelError
from models.deeplesion.clustering import (
    Clusters,
    Labels,
    by_size,
    drop_small,
    fit_whitening,
    kmeans,
    merge_by_bic,
    mutual_information,
    purity,
    ward,
)
from models.deeplesion.mined import Mined, MiningConfig, Patches, Round, features_of, keep, resume
from models.deeplesion.table import LesionType, Split

MIXED = "mixed"
LEAST_CLUSTERS = 2
"""One cluster teaches nothing."""

OnRound = Callable[[Round, Labels], None]
"""Called after each round with its labels."""


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
    rounds, previous = resume(out, extractor, run)
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
        keep(out, extractor, run, rounds, labels)
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
