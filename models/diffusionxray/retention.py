"""Checks on what a degrader makes, before a restorer learns from it.

A restorer trained on pairs whose degraded picture has lost a nodule learns to invent nodules; one trained on pairs that
are shifted against each other learns blur. So nodules are put into the clean picture and looked for in the degraded
one, and displacement is measured block by block; pairs that fail are dropped, and counted by reason.

source: dossier 13.1, 13.2
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from models.contract import FloatArray, ModelError

Array = NDArray[np.float64]
Degrade = Callable[[Tensor, int], Tensor]
"""Clean pictures (B, 1, H, W) and a seed to degraded ones. The same seed draws the same style and noise."""

FWHM = 2 * math.sqrt(2 * math.log(2))
REACH = 1.5
"""Half the side of a nodule's window, in diameters."""
AIR = -0.95
"""At and below this a picture shows what is beside the body."""
LEAST_BLOCK_PX = 16
BAND = 0.1
"""σ of the band in which blocks are compared, in cycles per pixel: the correlation's peak is then 2 pixels wide."""
NOISE_FROM = 0.35
NOISE_MARGIN = 4.0
"""In cycles per pixel, where a block is taken to hold noise alone; and how many times its power counts as noise."""
STRUCTURE_SD_PX = 2.0
FINENESS = 20
"""Places per pixel at which the correlation is computed around its peak."""


@dataclass(frozen=True)
class Nodules:
    """What is put in: Gaussian profiles, dense, so brighter than what is around.

    diameter_px     full width at half maximum      contrast    at the centre, of a range of 2
    most            per picture; fewer where there is no room
    """

    diameter_px: float = 12.0
    contrast: float = 0.1
    most: int = 9

    @property
    def reach_px(self) -> int:
        """Half the side of the window in which a nodule is looked for."""
        return math.ceil(REACH * self.diameter_px)


@dataclass(frozen=True, eq=False)
class Retention:
    """What became of the nodules of one picture.

    at          centres, int (n, 2), row and column
    share       of the contrast that is left, float64 (n,): 1 is all, 0 none, below 0 turned dark
    moved_px    distance of the centroid from where the nodule was put, float64 (n,); NaN where there is none
    """

    at: NDArray[np.intp]
    share: Array
    moved_px: Array


@dataclass(frozen=True)
class Limits:
    """Within which a pair is kept.

    share       of a nodule's contrast, least and most
    nodules     part of a picture's nodules that must be within
    moved_px    most that a nodule, and the middle block, may have moved
    """

    share: tuple[float, float] = (0.5, 2.0)
    nodules: float = 0.75
    moved_px: float = 1.0


@dataclass(frozen=True, eq=False)
class Kept:
    """Which pairs pass, and how many failed for which reason; a pair counts under the first reason that it meets.

    keep        bool (B,)
    dropped     "not finite", "nothing to measure", "nodules lost", "nodules exaggerated", "displaced"
    """

    keep: NDArray[np.bool_]
    dropped: dict[str, int]


class Checked:
    """A degrader, and what retention says of its pairs: the same seed that made them makes them again with nodules.

    dropped     pairs, by the reason
    """

    def __init__(self, degrade: Degrade) -> None:
        self.dropped: Counter[str] = Counter()
        self._degrade, self._seed = degrade, 0

    def __call__(self, clean: Tensor, seed: int) -> Tensor:
        self._seed = seed
        return self._degrade(clean, seed)

    def keep(self, clean: Tensor, degraded: Tensor) -> list[bool]:
        """Which of the pairs just made a restorer may learn from."""
        found = keep_pairs(clean, degraded, self._degrade, seed=self._seed)
        self.dropped.update(found.dropped)
        return [bool(one) for one in found.keep]


def profile(nodules: Nodules) -> Array:
    """The nodule in its window, float64 (2 reach + 1, 2 reach + 1)."""
    offset = np.arange(-nodules.reach_px, nodules.reach_px + 1)
    line = np.exp(-0.5 * (offset * FWHM / nodules.diameter_px) ** 2)
    return nodules.contrast * np.outer(line, line)


def places(picture: FloatArray, nodules: Nodules, seed: int) -> NDArray[np.intp]:
    """Where nodules fit, int (n, 2): windows that do not overlap, inside the body, not too bright to be added to.

    picture     (Y, X)
    """
    reach = nodules.reach_px
    side = 2 * reach + 1
    rows, columns = (np.arange(reach, size - reach, side) for size in picture.shape)
    centres = np.array([(row, column) for row in rows for column in columns], np.intp).reshape(-1, 2)
    windows = [_window(picture, at, reach) for at in centres]
    fits = [bool(np.median(here) > AIR and here.max() + nodules.contrast <= 1) for here in windows]
    free = centres[np.array(fits, bool)]
    return np.random.default_rng(seed).permutation(free)[: nodules.most]


def nodule_retention(
    degrade: Degrade, clean: Tensor, *, seed: int, nodules: Nodules = Nodules(), degraded: Tensor | None = None
) -> list[Retention]:
    """How much of known nodules a degrader keeps, and where: the difference that they make to its result.

    clean       float32 (B, 1, H, W) in [−1, 1]
    seed        of the degrader, with and without nodules alike, and of their places
    degraded    degrade(clean, seed), if it is already there
    returns     per picture
    """
    pictures = clean[:, 0].cpu().numpy()
    centres = [places(picture, nodules, seed + index) for index, picture in enumerate(pictures)]
    nodule, added = profile(nodules), np.zeros_like(pictures)
    for picture, at in zip(added, centres, strict=True):
        for place in at:
            _window(picture, place, nodules.reach_px)[...] += nodule
    without = degrade(clean, seed) if degraded is None else degraded
    difference = degrade(clean + torch.from_numpy(added).to(clean)[:, None], seed) - without
    return [
        _retained(one, at, nodule, nodules)
        for one, at in zip(difference[:, 0].double().cpu().numpy(), centres, strict=True)
    ]


def displacement(clean: FloatArray, degraded: FloatArray, block_px: int = 64) -> Array:
    """How far each block of the degraded picture lies from the clean one's, by phase correlation.

    clean, degraded     (Y, X)
    returns             float64 (blocks down, blocks across, 2), rows and columns in px; NaN where the clean picture has
                        no structure in one direction or both, by which a place could be told
    raises   ModelError     pictures of different shapes, or blocks too small
    """
    if clean.shape != degraded.shape or block_px < LEAST_BLOCK_PX:
        raise ModelError(f"pictures must have one shape, and blocks {LEAST_BLOCK_PX} pixels or more")
    down, across = (size // block_px for size in clean.shape)
    found = np.full((down, across, 2), np.nan)
    told = _structure(clean, block_px)
    for row, column in zip(*np.nonzero(told), strict=True):
        here = np.s_[row * block_px : (row + 1) * block_px, column * block_px : (column + 1) * block_px]
        found[row, column] = _shift(clean[here].astype(np.float64), degraded[here].astype(np.float64))
    return found


def keep_pairs(
    clean: Tensor,
    degraded: Tensor,
    degrade: Degrade,
    *,
    seed: int,
    nodules: Nodules = Nodules(),
    limits: Limits = Limits(),
    block_px: int = 64,
) -> Kept:
    """Which pairs a restorer may learn from.

    clean, degraded     float32 (B, 1, H, W), degraded = degrade(clean, seed)
    """
    reasons: list[str | None] = []
    retained = nodule_retention(degrade, clean, seed=seed, nodules=nodules, degraded=degraded)
    for before, after, nodule in zip(clean[:, 0].cpu().numpy(), degraded[:, 0].cpu().numpy(), retained, strict=True):
        reasons.append(_reason(before, after, nodule, limits, block_px))
    failed = [reason for reason in reasons if reason is not None]
    counts = {reason: failed.count(reason) for reason in sorted(set(failed))}
    return Kept(np.array([reason is None for reason in reasons], bool), counts)


def _reason(clean: FloatArray, degraded: FloatArray, found: Retention, limits: Limits, block_px: int) -> str | None:
    if not np.isfinite(degraded).all():
        return "not finite"
    moved = np.hypot(*np.moveaxis(displacement(clean, degraded, block_px), -1, 0))
    if not len(found.share) or np.isnan(moved).all():
        return "nothing to measure"
    least, most = limits.share
    if (found.share >= least).mean() < limits.nodules:
        return "nodules lost"
    if (found.share <= most).mean() < limits.nodules:
        return "nodules exaggerated"
    if (found.moved_px < limits.moved_px).mean() < limits.nodules or np.nanmedian(moved) >= limits.moved_px:
        return "displaced"
    return None


def _retained(difference: Array, centres: NDArray[np.intp], nodule: Array, nodules: Nodules) -> Retention:
    """Shares by matched filter; the filter has mean zero, so that a change of the whole picture's level is not seen."""
    seeker = nodule - nodule.mean()
    seeker /= (seeker * nodule).sum()
    windows = [_window(difference, at, nodules.reach_px) for at in centres]
    share = np.array([(seeker * window).sum() for window in windows], np.float64)
    moved = [math.hypot(*_centroid(window, nodules)) for window in windows]
    return Retention(centres, share, np.array(moved, np.float64))


def _centroid(window: NDArray[np.floating], nodules: Nodules, rounds: int = 12) -> tuple[float, float]:
    """Offset of what is in the window from its middle, by a centroid whose weight follows it.

    Weighted by a Gaussian of its own width about c, a Gaussian at m has its centroid half way between: so c moves twice
    as far. NaN where nothing is brighter than the window's edge, or the centroid leaves the window.
    """
    edge = np.concatenate([window[0], window[-1], window[1:-1, 0], window[1:-1, -1]])
    level = window - np.median(edge)
    offset = np.arange(-nodules.reach_px, nodules.reach_px + 1)
    at = np.zeros(2)
    for _ in range(rounds):
        rows, columns = (np.exp(-0.5 * ((offset - c) * FWHM / nodules.diameter_px) ** 2) for c in at)
        weighted = level * np.outer(rows, columns)
        total = weighted.sum()
        if total <= 0 or np.abs(at).max() > nodules.reach_px:
            return math.nan, math.nan
        step = np.array([(weighted.sum(1) * offset).sum(), (weighted.sum(0) * offset).sum()]) / total - at
        at = at + 2 * step
    return float(at[0]), float(at[1])


def _structure(clean: FloatArray, block_px: int, least: float = 0.004) -> NDArray[np.bool_]:
    """Blocks that have structure in every direction: the lesser eigenvalue of the gradient's second moments.

    least    root of that eigenvalue, change per pixel
    """
    down, across = (size // block_px for size in clean.shape)
    rows, columns = (
        ndimage.gaussian_filter(
            clean[: down * block_px, : across * block_px].astype(np.float64), STRUCTURE_SD_PX, order
        )
        for order in ((1, 0), (0, 1))
    )
    rr, cc, rc = (
        product.reshape(down, block_px, across, block_px).mean((1, 3))
        for product in (rows**2, columns**2, rows * columns)
    )
    lesser = (rr + cc) / 2 - np.sqrt(((rr - cc) / 2) ** 2 + rc**2)
    enough: NDArray[np.bool_] = lesser > least**2
    return enough


def _shift(clean: Array, degraded: Array) -> Array:
    """By how much the degraded block lies further down and to the right, float64 (2,)."""
    side = len(clean)
    line = np.hanning(side + 2)[1:-1]
    window = np.outer(line, line)
    one, other = (np.fft.fft2(window * (block - (window * block).sum() / window.sum())) for block in (clean, degraded))
    cross = other * one.conj()
    frequency = np.fft.fftfreq(side)
    band = np.exp(-0.5 * (frequency / BAND) ** 2)
    weight = np.outer(band, band) * _above_noise(one, frequency) * _above_noise(other, frequency)
    phase = cross / np.maximum(np.abs(cross), np.finfo(np.float64).tiny) * weight
    peak = np.unravel_index(np.argmax(np.fft.ifft2(phase).real), cross.shape)
    at = np.array([place - side if place > side // 2 else place for place in peak], np.float64)
    near = np.arange(-FINENESS, FINENESS + 1) / FINENESS
    rows, columns = (np.exp(2j * np.pi * np.outer(here + near, frequency)) for here in at)
    fine = (rows @ phase @ columns.T).real
    best = np.unravel_index(np.argmax(fine), fine.shape)
    return at + near[list(best)]


def _above_noise(spectrum: NDArray[np.complex128], frequency: NDArray[np.floating]) -> Array:
    """Share of each frequency's power that is not noise: as white as what is found at the highest frequencies."""
    power = np.abs(spectrum) ** 2
    noise = NOISE_MARGIN * power[np.hypot(frequency[:, None], frequency) > NOISE_FROM].mean()
    share: Array = power / (power + noise + np.finfo(np.float64).tiny)
    return share


def _window(picture: NDArray[np.floating], at: NDArray[np.intp], reach: int) -> NDArray[np.floating]:
    row, column = at
    return picture[row - reach : row + reach + 1, column - reach : column + reach + 1]
