"""What training draws from: images with their levels, the same for the same step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.clinreadnet.challenge import Rated
from models.clinreadnet.config import DataConfig, TrainConfig
from models.clinreadnet.labels import latent, level, quality
from models.clinreadnet.losses import level_of
from models.clinreadnet.network import stored_units
from models.clinreadnet.samples import STEP_HU, Sample, load_sample, mixed
from models.contract import BoolArray, ModelError
from models.evaluation.noise import body_mask

LEAST_BODY = 0.5
PLACEMENT_TRIES = 6
AIR_STORED = 0.02

Value = TypeVar("Value", bound=np.generic)


@dataclass(frozen=True, eq=False)
class Batch:
    """Images and their levels; what is left to be mixed is mixed where it is learnt from.

    planes          float32 (B, 1, P, P) in stored units, or int16 (B, 4, P, P): layers as in `Sample.layers`
    level           int64 (B,)
    noise_weights   float32 (B, 2), of layers
    """

    planes: Tensor
    level: Tensor
    noise_weights: Tensor | None = None

    def images(self, device: torch.device) -> Tensor:
        """Float32 (B, 1, P, P), stored units, on the device."""
        planes = self.planes.to(device)
        if self.noise_weights is None:
            return planes
        return stored_units(mixed(planes, self.noise_weights.to(device)))[:, None]


class Store(Protocol):
    """Batches by step: the same step always gives the same batch."""

    def batch(self, step: int, training: TrainConfig) -> Batch: ...


def shape_of_step(step: int, training: TrainConfig) -> tuple[int, int | None]:
    """How many images, and the side of their crops; None for whole ones."""
    if step >= training.steps * (1 - training.whole_share):
        return max(training.batch // 4, 1), None
    return training.batch, training.crop_px


class PhysicsStore:
    """Images mixed anew each time from the samples' ingredients, graded by pseudo-readers."""

    def __init__(self, files: Sequence[Path], config: DataConfig, *, seed: int) -> None:
        if not files:
            raise ModelError("no samples to train on")
        self.samples = [load_sample(path) for path in files]
        self._config, self._seed = config, seed
        patients = [sample.facts.patient for sample in self.samples]
        count = Counter(patients)
        weight = np.array([count[patient] ** -0.5 for patient in patients])
        self._probability = weight / weight.sum()
        self._body = [_body_boxes(sample) for sample in self.samples]

    def batch(self, step: int, training: TrainConfig) -> Batch:
        """The batch of this step."""
        rng = np.random.default_rng((self._seed, step))
        count, side = shape_of_step(step, training)
        chosen = rng.choice(len(self.samples), size=count, p=self._probability)
        drawn = [self._one(int(index), side, rng) for index in chosen]
        layers, weights, levels = zip(*drawn, strict=True)
        return Batch(torch.from_numpy(np.stack(layers)), torch.tensor(levels), torch.tensor(weights))

    def _one(
        self, index: int, side: int | None, rng: np.random.Generator
    ) -> tuple[NDArray[np.int16], tuple[float, float], int]:
        sample, config = self.samples[index], self._config
        view, fraction = int(rng.integers(len(sample.facts.thinning))), self._fraction(rng)
        value = quality(latent(sample.facts.physics, view, fraction), config.observer)
        rows, columns = _placed(self._body[index], sample.planes.shape[1:], side, rng)
        signs = (1 if rng.random() < 0.5 else -1, 1 if rng.random() < 0.5 else -1)
        layers = flipped(sample.layers(view, rows, columns), rng)
        return layers, sample.noise_weights(view, fraction, signs=signs), level(value, config.observer, rng)

    def _fraction(self, rng: np.random.Generator) -> float:
        low, high = self._config.fractions
        if rng.random() < self._config.full_share:
            return high
        return float(np.exp(rng.uniform(np.log(low), np.log(high))))


class RatedStore:
    """Images as radiologists rated them, cropped and flipped; nothing else may be done to them."""

    def __init__(self, rated: Sequence[Rated], *, seed: int) -> None:
        if not rated:
            raise ModelError("no rated images to train on")
        self._rated, self._seed = rated, seed

    def batch(self, step: int, training: TrainConfig) -> Batch:
        """The batch of this step."""
        rng = np.random.default_rng((self._seed, step))
        count, side = shape_of_step(step, training)
        chosen = [self._rated[int(index)] for index in rng.integers(len(self._rated), size=count)]
        images = []
        for one in chosen:
            image = one.image()
            images.append(flipped(image[_placed(image > AIR_STORED, image.shape, side, rng)], rng))
        scores = torch.tensor([one.score for one in chosen], dtype=torch.float64)
        return Batch(torch.from_numpy(np.stack(images))[:, None], level_of(scores))


def flipped(image: NDArray[Value], rng: np.random.Generator) -> NDArray[Value]:
    """(…, Y, X) mirrored up and down, left and right, or not."""
    rows, columns = (slice(None, None, -1 if rng.random() < 0.5 else 1) for _ in range(2))
    return np.ascontiguousarray(image[..., rows, columns])


def _body_boxes(sample: Sample) -> BoolArray:
    """Where the body is, on every eighth pixel."""
    return body_mask(STEP_HU * sample.planes[0, ::8, ::8].astype(np.float32))


def _placed(body: BoolArray, shape: tuple[int, ...], side: int | None, rng: np.random.Generator) -> tuple[slice, slice]:
    """A random square that is half filled with body, if one is soon found; the whole image for None."""
    if side is None:
        return slice(None), slice(None)
    scale = shape[0] / body.shape[0]
    for _ in range(PLACEMENT_TRIES):
        top, left = (int(rng.integers(length - side + 1)) for length in shape)
        part = body[int(top / scale) : int((top + side) / scale), int(left / scale) : int((left + side) / scale)]
        if part.mean() >= LEAST_BODY:
            break
    return slice(top, top + side), slice(left, left + side)
