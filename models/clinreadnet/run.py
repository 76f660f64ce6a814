"""Scores of a series: every slice at full resolution, and what they say together."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from models.clinreadnet.config import HIGHEST, LEVEL_STEP, LEVELS, SIDE_PX, RunConfig
from models.clinreadnet.domain import why_not
from models.clinreadnet.losses import decode
from models.clinreadnet.network import QualityNetwork, stored_units
from models.contract import Code, FloatArray, ModelError, ModelIdentity, Quality, Score, Volume
from models.device import as_written, through

OnProgress = Callable[[int, int], None]
"""Called with slices done and slices in all."""

BATCH, GPU_BATCH = 4, 16
"""Always so many at once, the last time with empty slices: a batch of another size rounds differently."""
AIR_HU = -1000.0
SCALE = (0.0, HIGHEST)
IMAGE_QUALITY: Code = ("image-quality", "99PACSNODE", "Median image quality of the slices")
LOW_QUALITY: Code = ("image-quality-10", "99PACSNODE", "10th percentile of image quality")
LOWEST_QUALITY: Code = ("image-quality-lo", "99PACSNODE", "Image quality of the lowest slice")
MEANING = "0 bad, 1 poor, 2 fair, 3 good, 4 excellent; learnt from simulated dose and views, not from readers"


def run(
    network: QualityNetwork,
    volume: Volume,
    on_progress: OnProgress | None = None,
    *,
    config: RunConfig | None = None,
) -> Quality:
    """Quality of every axial slice, or the reason why it is not scored.

    raises   ModelError     no slices, or values that are not finite, in or out
    """
    rules = config or RunConfig()
    if volume.voxels.ndim != 3 or not volume.voxels.size:
        raise ModelError("a volume of at least one slice is needed")
    if not np.isfinite(volume.voxels).all():
        raise ModelError("the volume holds values that are not finite")
    if reason := why_not(volume, rules):
        return not_scored(reason)
    device = network.soqn.embed.weight.device
    batch = GPU_BATCH if device.type == "cuda" else BATCH
    spans = [slice(start, start + batch) for start in range(0, len(volume.voxels), batch)]
    results = through(partial(_graded, network, batch=batch), (_seen(volume, span) for span in spans), device)
    parts = []
    for span, p in zip(spans, results, strict=True):
        count = min(span.stop, len(volume.voxels)) - span.start
        parts.append(_told(p, count))
        if on_progress is not None:
            on_progress(span.start + count, len(volume.voxels))
    scores, spreads, probabilities = (np.concatenate(part) for part in zip(*parts, strict=True))
    if not np.isfinite(probabilities).all():
        raise ModelError("the network's result is not finite")
    return summary(scores, spreads, probabilities, rules)


def summary(scores: FloatArray, spreads: FloatArray, probabilities: FloatArray, config: RunConfig) -> Quality:
    """The series from its slices: median and low percentile, not the mean, since a few bad slices are what matters."""
    return Quality(
        levels=levels(),
        probabilities=probabilities,
        scores=scores,
        spreads=spreads,
        median=float(np.median(scores)),
        low=float(np.percentile(scores, config.low_percentile)),
        poor=tuple(int(index) for index in np.flatnonzero(scores < config.poor_below)),
    )


def not_scored(reason: str) -> Quality:
    """No number, and why."""
    none = np.zeros(0, np.float32)
    return Quality(levels(), np.zeros((0, LEVELS), np.float32), none, none, np.nan, np.nan, (), reason)


def levels() -> FloatArray:
    """The 21 scores 0, 0.2 … 4."""
    return (LEVEL_STEP * np.arange(LEVELS)).astype(np.float32)


def scores_of(quality: Quality, identity: ModelIdentity, config: RunConfig | None = None) -> tuple[Score, ...]:
    """What the reader is told: median, low percentile, and the lowest slice; none where nothing was scored."""
    if quality.not_applicable:
        return ()
    rules = config or RunConfig()
    per_slice = tuple(float(score) for score in quality.scores)
    lowest = int(np.argmin(quality.scores))
    return (
        Score(IMAGE_QUALITY, quality.median, SCALE, identity, per_slice, rules.poor_below, note=MEANING),
        Score(LOW_QUALITY, quality.low, SCALE, identity),
        Score(LOWEST_QUALITY, per_slice[lowest], SCALE, identity, slice_index=lowest),
    )


def score_slices(network: QualityNetwork, stored: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Scores (B,), their spreads (B,) and probabilities (B, 21) of at most BATCH slices.

    stored   float32 (B, 512, 512), 0 at −1000 HU and 1 at 400 HU
    """
    x = torch.from_numpy(np.ascontiguousarray(stored, np.float32)).to(network.soqn.embed.weight)
    return _told(_probabilities(network, x, BATCH).cpu(), len(stored))


def _told(p: Tensor, count: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Scores, their spreads and probabilities of the first slices of a batch (B, 21)."""
    scores, spreads = decode(p)
    return scores[:count].numpy(), spreads[:count].numpy(), p[:count].numpy()


def _seen(volume: Volume, span: slice) -> Tensor:
    """These slices, air where nothing was reconstructed, (B, Y, X), HU."""
    hu = volume.voxels[span]
    if volume.padding is not None:
        hu = np.where(volume.padding[span], np.float32(AIR_HU), hu)
    return torch.from_numpy(np.ascontiguousarray(hu, np.float32))


def _graded(network: QualityNetwork, hu: Tensor, *, batch: int) -> Tensor:
    """Probabilities (batch, 21) of at most `batch` slices (B, Y, X), HU."""
    return _probabilities(network, _stored(hu), batch)


@torch.inference_mode()
@as_written()
def _probabilities(network: QualityNetwork, stored: Tensor, batch: int) -> Tensor:
    """(B, 512, 512) to (batch, 21): empty slices fill the batch."""
    filled: Tensor = network(functional.pad(stored[:, None], (0, 0, 0, 0, 0, 0, 0, batch - len(stored))))
    return filled


def _stored(hu: Tensor) -> Tensor:
    """HU (B, Y, X) on the network's grid: air around smaller slices, never another resolution."""
    below, right = SIDE_PX - hu.shape[1], SIDE_PX - hu.shape[2]
    around = (right // 2, right - right // 2, below // 2, below - below // 2)
    return stored_units(functional.pad(hu, around, value=AIR_HU))


def stored_slice(hu: FloatArray) -> FloatArray:
    """One slice (Y, X), HU, as `score_slices` takes it, (1, 512, 512)."""
    array: FloatArray = _stored(torch.from_numpy(np.ascontiguousarray(hu[None], np.float32))).numpy()
    return array


def prepare(network: QualityNetwork, device: torch.device) -> QualityNetwork:
    """The network as `run` wants it, in float32: what half precision does to scores has not been measured."""
    return network.to(device).eval().requires_grad_(False)
