"""Pairs of a clean and a degraded crop: drawn anew for every step by physics, or taken from what degraders have made.

A mix names its parts and their shares, for instance {"physics": 0.6, "munit": 0.2, "prior": 0.2}. "physics",
"bicubic" and "identity" are computed at each step; any other name is a bank on disk, made once by `make_bank`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter
from torch import Tensor

from models.contract import FloatArray, ModelError
from models.diffusionxray.config import CropConfig, TrainConfig
from models.diffusionxray.data import Picture, quantised, unquantised
from models.diffusionxray.stored import read_arrays, write_arrays
from models.diffusionxray.train import Pairs
from models.simulation.degradation import FAINT, bicubic_pair, degrade, draw_degradation
from models.weights import write_whole

PHYSICS, BICUBIC, IDENTITY = "physics", "bicubic", "identity"
COMPUTED = (PHYSICS, BICUBIC, IDENTITY)
MIX: Mapping[str, float] = {PHYSICS: 0.6, "prior": 0.25, IDENTITY: 0.15}
"""Of the weights that ship. None of the translator's pairs are in it: as far as two cores have trained it, `retention`
drops six in seven of them, and the others differ in tone above all (ARMS.md)."""
OnProgress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class Crop:
    """A square of a picture, at another pixel size.

    unit    float32 (side, side)
    """

    unit: FloatArray
    spacing_mm: float


def draw_crop(pictures: Sequence[Picture], side_px: int, config: CropConfig, rng: np.random.Generator) -> Crop:
    """A random square of a random picture, its pixels made finer or coarser, mirrored, in another tone.

    Squares without structure (collimation, air) are drawn again, a few times.
    """
    picture = pictures[int(rng.integers(len(pictures)))]
    height, width = picture.unit.shape
    for _ in range(config.tries):
        spacing = float(np.exp(rng.uniform(*np.log(config.spacing_mm))))
        reach = min(side_px * spacing / picture.spacing_mm, height, width)
        top, left = rng.uniform(0, height - reach), rng.uniform(0, width - reach)
        box = (left, top, left + reach, top + reach)
        image = Image.fromarray(picture.unit).resize((side_px, side_px), Image.Resampling.BICUBIC, box=box)
        unit = np.asarray(image, np.float32)
        if unit.std() >= config.least_contrast:
            break
    if rng.random() < 0.5:
        unit = unit[:, ::-1]
    return Crop(_toned(unit, config, rng), reach / side_px * picture.spacing_mm)


def _toned(unit: FloatArray, config: CropConfig, rng: np.random.Generator) -> FloatArray:
    """Another gain, offset and curvature of the grey scale, rising over all of it."""
    gain, offset, bend = (float(rng.uniform(-one, one)) for one in (config.gain, config.offset, config.bend))
    bent = unit + np.float32(bend) * (1 - np.square(unit.clip(-2, 2)))
    toned: FloatArray = np.ascontiguousarray(np.float32(1 + gain) * bent + np.float32(offset), np.float32)
    return toned


class MixedPairs:
    """Pairs that follow from the seed and the number of the step alone."""

    def __init__(
        self,
        pictures: Sequence[Picture],
        mix: Mapping[str, float],
        banks: Path | None,
        config: CropConfig,
        *,
        seed: int,
        keep_coarse: bool = False,
    ) -> None:
        """banks          folder with one folder of pairs for each name of the mix that is no computed degradation
        keep_coarse    degraded crops get the coarse structure of the clean ones: the network is to leave that alone
        raises   ModelError     a bank is missing or empty, or the shares are not positive
        """
        if not mix or not all(0 < share < math.inf for share in mix.values()):
            raise ModelError("a mix has positive shares")
        self._pictures, self._config, self._seed, self._keep_coarse = pictures, config, seed, keep_coarse
        self._names = sorted(mix)
        self._shares = np.cumsum([mix[name] for name in self._names]) / sum(mix.values())
        learnt = [name for name in self._names if name not in COMPUTED]
        self._banks = {name: read_bank(None if banks is None else banks / name, name) for name in learnt}

    def batch(self, step: int, training: TrainConfig, /) -> Pairs:
        """One batch."""
        rng = np.random.default_rng((self._seed, step))
        drawn = [self._pair(training.crop_px, rng) for _ in range(training.batch)]
        clean, degraded = (torch.from_numpy(np.stack(part))[:, None] for part in zip(*drawn, strict=True))
        return Pairs(clean, degraded)

    def _pair(self, side_px: int, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
        name = self._names[int(np.searchsorted(self._shares, rng.random(), side="right"))]
        if name in self._banks:
            bank = self._banks[name]
            return self._from_bank(bank[int(rng.integers(len(bank)))], side_px, rng)
        crop = draw_crop(self._pictures, side_px, self._config, rng)
        if name == BICUBIC:
            return crop.unit, bicubic_pair(crop.unit, self._config.bicubic_factor)
        if name == IDENTITY:
            return identity_pair(crop, self._config, rng)
        return crop.unit, degrade(crop.unit, crop.spacing_mm, draw_degradation(rng), rng)

    def _from_bank(self, path: Path, side_px: int, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
        clean, degraded, spacing_mm = read_pair(path)
        side = min(side_px, *clean.shape)
        if side < side_px:
            raise ModelError(f"crops of {side_px} pixels are larger than those of the bank ({side})")
        top, left = (int(rng.integers(length - side + 1)) for length in clean.shape)
        here = (slice(top, top + side), slice(left, left + side))
        if self._keep_coarse:
            degraded = with_coarse_of(clean, degraded, self._config.coarse_mm / spacing_mm)
        clean, degraded = clean[here], degraded[here]
        if rng.random() < 0.5:
            clean, degraded = clean[:, ::-1], degraded[:, ::-1]
        return np.ascontiguousarray(clean), np.ascontiguousarray(degraded)


def identity_pair(crop: Crop, config: CropConfig, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    """A crop twice, the second time with noise that nobody sees: a picture without noise is to be left alone.

    Every other crop is made soft first, both times alike: softness by itself is no reason to change anything.
    """
    clean = crop.unit
    if rng.random() < config.soft_share:
        clean = bicubic_pair(clean, float(rng.uniform(*config.soft_factor)))
    return clean, degrade(clean, crop.spacing_mm, draw_degradation(rng, FAINT), rng)


def with_coarse_of(clean: FloatArray, degraded: FloatArray, sigma_px: float) -> FloatArray:
    """The degraded picture with the low band of the clean one: what is left is its fine structure, noise and blur."""
    moved: FloatArray = degraded + gaussian_filter(clean - degraded, sigma_px, mode="reflect")
    return moved


Degrader = Callable[[Tensor, int], Tensor]
"""Clean (B, 1, H, W) and a seed to degraded, the same shape."""
Keep = Callable[[Tensor, Tensor], Sequence[bool]]
"""Which pairs of a batch are good enough to learn from."""


def make_bank(
    degrader: Degrader,
    pictures: Sequence[Picture],
    out: Path,
    config: CropConfig,
    *,
    count: int,
    seed: int,
    made_by: Mapping[str, str],
    keep: Keep | None = None,
    on_progress: OnProgress | None = None,
) -> tuple[int, int]:
    """Pairs by one degrader, on disk; those already there are kept. Returns how many are there, and of how many crops.

    count    crops that are degraded, rounded up to whole batches; fewer are kept where `keep` drops some
    made_by  which degrader it is: a bank holds the pairs of one
    raises   ModelError     the bank holds pairs of another degrader, or of other crops
    """
    _of_one_maker(out, {**made_by, "seed": seed, "crops": asdict(config)})
    for start in range(0, count, config.together):
        places = range(start, start + config.together)
        done = out / f"{start:06d}.done"
        if not done.exists():
            rngs = [np.random.default_rng((seed, place)) for place in places]
            crops = [draw_crop(pictures, config.bank_px, config, rng) for rng in rngs]
            clean = torch.from_numpy(np.stack([crop.unit for crop in crops]))[:, None]
            degraded = degrader(clean, seed + start)
            good = [True] * len(crops) if keep is None else keep(clean, degraded)
            for place, crop, lq, wanted in zip(places, crops, degraded, good, strict=True):
                if wanted:
                    _write_pair(out / f"{place:06d}.npz", crop, lq[0].cpu().numpy())
            done.touch()
        if on_progress is not None:
            on_progress(min(places[-1] + 1, count), count)
    return len(list(out.glob("*.npz"))), len(list(out.glob("*.done"))) * config.together


def _of_one_maker(bank: Path, told: Mapping[str, object]) -> None:
    """Write who makes the pairs of a bank, or hold it to what is written there. raises ModelError"""
    path, content = bank / "maker.json", (json.dumps(told, indent=1) + "\n").encode("utf8")
    if not any(bank.glob("*.done")):
        write_whole(content, path)
    elif not path.is_file() or path.read_bytes() != content:
        raise ModelError(
            f"{bank} holds pairs of other weights, another seed or other crops: take the folder away, and they are made"
            " anew"
        )


def read_bank(folder: Path | None, name: str) -> list[Path]:
    """The pairs of one bank in a fixed order. raises   ModelError   there are none"""
    found = sorted(folder.glob("*.npz")) if folder is not None else []
    if not found:
        raise ModelError(
            f"no pairs of the degrader {name}: make them first, or mix {', '.join(COMPUTED)}, which need none"
        )
    return found


def read_pair(path: Path) -> tuple[FloatArray, FloatArray, float]:
    """Clean, degraded (float32 (Y, X) each), and spacing in mm. raises ModelError: the file is no pair"""
    return read_arrays(
        path,
        lambda told: (unquantised(told["clean"]), unquantised(told["degraded"]), float(told["spacing_mm"])),
        what="a pair of crops",
    )


def _write_pair(path: Path, crop: Crop, degraded: FloatArray) -> None:
    write_arrays(
        path, compressed=False, clean=quantised(crop.unit), degraded=quantised(degraded), spacing_mm=crop.spacing_mm
    )
