"""The two trained networks as one artist: DiffMask draws the shape, LeFusion what is in it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import numpy as np
import torch
from scipy import ndimage

from models.contract import BoolArray, FloatArray, ModelError
from models.diffusionxray.samplers import Noise
from models.diffusionxray.schedule import cosine
from models.lefusion.composite import EDGE_SIGMA_MM
from models.lefusion.config import SCHEDULE
from models.lefusion.histogram import LUNG, Histogram, Texture, jittered, preset
from models.lefusion.insert import LEAST_VOXELS, Drawn, Site
from models.lefusion.masks import control_sphere, draw_mask
from models.lefusion.network import LesionUNet
from models.lefusion.samplers import Fields, Walk, sample, some_times, walk
from models.lefusion.train import CPU, Trained, read_trained

HISTOGRAMS = "histograms.json"
RADIUS_PER_DIAMETER = 0.65
"""Of a control sphere over the diameter of equal volume, as in the shapes that DiffMask learns from."""
CORE_DEPTH = 0.4
"""A part-solid lesion's core lies deeper than this part of its greatest depth."""

Source = Literal["published", "trained"]
"""Of histograms: the published centres, each bin jittered; or those of lesions trained on."""


@dataclass(frozen=True)
class Sampling:
    """How lesions are drawn.

    evaluations     of the network, without those that resampling adds; 300 is every step, as in the paper
    jump, visits    of RePaint's resampling, in visited times
    eta             1: ancestral; 0: DDIM
    """

    evaluations: int = 30
    jump: int = 1
    visits: int = 1
    eta: float = 0.0

    @property
    def path(self) -> Walk:
        """The walk of one lesion."""
        times = some_times(SCHEDULE.steps, self.evaluations)
        return walk(times, jump=self.jump, visits=self.visits)


FAST, PAPER_SAMPLING = Sampling(), Sampling(evaluations=SCHEDULE.steps, jump=2, visits=2, eta=1.0)


@dataclass(frozen=True, eq=False)
class Synthesiser:
    """DiffMask and LeFusion. `known` are histograms of lesions trained on, (n, classes · bins)."""

    texture: Trained
    mask: Trained
    known: FloatArray
    sampling: Sampling = FAST
    source: Source = "trained"
    name: str = "LeFusion"

    def draw(self, site: Site, seed: int, /) -> Drawn | None:
        """See `insert.Artist`."""
        if site.shift_hu is not None:
            raise ModelError("these networks draw lesions of the lung")
        rng, texture = np.random.default_rng((seed, 2)), cast(Texture, site.kind)
        radius = round(RADIUS_PER_DIAMETER * site.diameter_mm)
        sphere = control_sphere(site.healthy.shape, site.centre, max(radius, 2))
        schedule = cosine(SCHEDULE)
        mask = draw_mask(
            self.mask.network, sphere, site.organ, Noise(seed), path=self.sampling.path, schedule=schedule,
            eta=self.sampling.eta,
        )  # fmt: skip
        if np.count_nonzero(mask) < LEAST_VOXELS:
            return None
        classes = int(self.texture.facts["classes"])
        masks = [mask] if classes == 1 else parts_of(mask, texture)
        wanted = self._wanted(texture, masks, rng)
        hu = draw_texture(self.texture.network, site.healthy, masks, wanted, Noise(seed, 1), sampling=self.sampling)
        return Drawn(tuple(hu), tuple(masks), EDGE_SIGMA_MM)

    def _wanted(self, texture: Texture, masks: Sequence[BoolArray], rng: np.random.Generator) -> Histogram:
        """What the network is asked for, (classes · bins,); zeros for a class that is not there."""
        present = [bool(mask.any()) for mask in masks]
        names: Sequence[Texture] = [texture] if len(masks) == 1 else ["ground-glass", "solid"]
        alike = self._alike(texture, present)
        if self.source == "trained" and len(alike):
            told = alike[int(rng.integers(len(alike)))]
        else:
            told = np.stack([jittered(preset(name), rng) for name in names])
        return np.concatenate([part if there else 0 * part for part, there in zip(told, present, strict=True)])

    def _alike(self, texture: Texture, present: Sequence[bool]) -> FloatArray:
        """Of the lesions trained on that have these classes, the third nearest in mean, (n, classes, bins)."""
        shares: FloatArray = self.known.reshape(len(self.known), len(present), -1)
        shares = shares[(shares.sum(2)[:, present] > 0.5).all(1)]
        wanted = float(preset(texture) @ LUNG.centres_hu)
        total = shares.sum(1)
        nearest = np.argsort(np.abs(total @ LUNG.centres_hu / total.sum(1) - wanted))
        alike: FloatArray = shares[nearest[: -(-len(shares) // 3)]]
        return alike


@torch.inference_mode()
def draw_texture(
    network: LesionUNet,
    healthy: FloatArray,
    masks: Sequence[BoolArray],
    wanted: Histogram,
    fields: Fields,
    *,
    sampling: Sampling = FAST,
) -> list[FloatArray]:
    """What is in each class's mask, HU, (D, H, W) each; not to be used outside of the masks.

    wanted      (classes · bins,)
    """
    device = next(network.parameters()).device
    known = torch.from_numpy(LUNG.unit(healthy)).to(device).expand(1, len(masks), *healthy.shape)
    inside = torch.from_numpy(np.stack(masks))[None].to(device)
    condition = torch.from_numpy(wanted)[None].to(device)

    def noise_in(state: torch.Tensor, time: int) -> torch.Tensor:
        told: torch.Tensor = network(state, torch.full((1,), float(time), device=device), condition)
        return told

    drawn = sample(noise_in, sampling.path, known, inside, fields, schedule=cosine(SCHEDULE), eta=sampling.eta)
    return [LUNG.hu(one) for one in drawn[0].cpu().numpy()]


def parts_of(mask: BoolArray, texture: Texture) -> list[BoolArray]:
    """Ground glass and solid part of a lesion of this texture, without a voxel in common."""
    if texture == "part-solid":
        depth = ndimage.distance_transform_edt(mask)
        core = depth > CORE_DEPTH * depth.max()
    else:
        core = mask if texture == "solid" else np.zeros_like(mask)
    return [mask & ~core, core]


def write_histograms(histograms: FloatArray, folder: Path) -> None:
    """Beside the weights: what can be asked of them. (n, classes · bins)"""
    rows = [[round(float(share), 4) for share in row] for row in histograms]
    (folder / HISTOGRAMS).write_text(json.dumps(rows) + "\n", encoding="utf8")


def read_histograms(folder: Path) -> FloatArray:
    """raises ModelError where there are none"""
    path = folder / HISTOGRAMS
    if not path.is_file():
        raise ModelError(f"no {HISTOGRAMS} beside the weights in {folder}")
    return np.array(json.loads(path.read_text(encoding="utf8")), np.float32)


def read_synthesiser(
    run: Path,
    *,
    texture: str = "texture",
    sampling: Sampling = FAST,
    source: Source = "trained",
    device: torch.device = CPU,
) -> Synthesiser:
    """From the folder of a run.

    texture  folder in it: another one for an ablation
    raises   ModelError     a network is missing there, or is another's
    """
    drawn, mask = read_trained(run / texture, "texture", device), read_trained(run / "mask", "mask", device)
    return Synthesiser(drawn, mask, read_histograms(run / texture), sampling, source)
