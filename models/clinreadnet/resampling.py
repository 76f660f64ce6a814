"""`agreement` of many bootstrap draws of patients at once: exactly what it says of every drawn set of images.

A patient drawn c times counts c times over. Pairs of images and sums are counted per patient once; a draw only weighs
them, so that a thousand draws cost little more than one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def drawn_agreement(told: Floats, truth: Floats, owner: Ints, counts: Ints) -> Floats:
    """Pearson, Spearman, Kendall (tau-b), sum of their sizes, mean absolute error, for every draw, (D, 5).

    told, truth     (N,)        owner   patient 0 … P − 1 of each image, (N,)
    counts          how often each draw has each patient, (D, P)        NaN for a correlation of what does not vary
    """
    told, truth = np.asarray(told, np.float64), np.asarray(truth, np.float64)
    found = [
        _linear(told, truth, owner, counts),
        drawn_rank_correlation(told, truth, owner, counts),
        _kendall(told, truth, owner, counts),
    ]
    error = _summed(np.abs(told - truth), owner, counts) / _summed(np.ones(len(told)), owner, counts)
    return np.stack([*found, np.abs(found).sum(0), error], 1)


def drawn_rank_correlation(first: Floats, second: Floats, owner: Ints, counts: Ints) -> Floats:
    """Spearman's for every draw, (D,); NaN where one of them does not vary."""
    weights = counts[:, owner].astype(np.float64)  # (D, N)
    middle = (weights.sum(1, keepdims=True) + 1) / 2
    a, b = (_ranks(np.asarray(values, np.float64), owner, counts) - middle for values in (first, second))
    ab, aa, bb = (np.einsum("dn,dn,dn->d", weights, *pair) for pair in ((a, b), (a, a), (b, b)))
    varies = (aa > 0) & (bb > 0)
    return np.where(varies, ab / np.sqrt(np.where(varies, aa * bb, 1)), np.nan)


def _linear(first: Floats, second: Floats, owner: Ints, counts: Ints) -> Floats:
    a, b = first - first.mean(), second - second.mean()
    n, of_a, of_b, aa, bb, ab = (
        _summed(values, owner, counts) for values in (np.ones(len(a)), a, b, a * a, b * b, a * b)
    )
    spread = (aa - of_a**2 / n) * (bb - of_b**2 / n)
    varies = _varies(first, owner, counts) & _varies(second, owner, counts)
    return np.where(varies, (ab - of_a * of_b / n) / np.sqrt(np.where(varies, spread, 1)), np.nan)


def _summed(values: Floats, owner: Ints, counts: Ints) -> Floats:
    """Of the images of each draw, (D,)."""
    found: Floats = counts.astype(np.float64) @ np.bincount(owner, weights=values, minlength=counts.shape[1])
    return found


def _varies(values: Floats, owner: Ints, counts: Ints) -> NDArray[np.bool_]:
    """Whether the images of each draw differ in it, (D,)."""
    low, high = np.full(counts.shape[1], np.inf), np.full(counts.shape[1], -np.inf)
    np.minimum.at(low, owner, values)
    np.maximum.at(high, owner, values)
    seen = counts > 0
    differ: NDArray[np.bool_] = np.where(seen, high, -np.inf).max(1) > np.where(seen, low, np.inf).min(1)
    return differ


def _ranks(values: Floats, owner: Ints, counts: Ints) -> Floats:
    """Mean rank of every image among those drawn, (D, N)."""
    place = np.unique(values, return_inverse=True)[1].reshape(-1)
    held = np.zeros((counts.shape[1], place.max() + 1))
    np.add.at(held, (owner, place), 1)
    drawn: Floats = counts.astype(np.float64) @ held  # images of each value
    up_to = drawn.cumsum(1)
    ranks: Floats = (up_to - (drawn - 1) / 2)[:, place]
    return ranks


def _kendall(told: Floats, truth: Floats, owner: Ints, counts: Ints) -> Floats:
    signs = [np.sign(values[:, None] - values) for values in (told, truth)]
    patients = np.eye(counts.shape[1])[owner]  # (N, P)
    tables = [patients.T @ pairs @ patients for pairs in (signs[0] * signs[1], signs[0] ** 2, signs[1] ** 2)]
    order, first, second = (_paired(table, counts) for table in tables)
    varies = (first > 0) & (second > 0)
    return np.where(varies, order / np.sqrt(np.where(varies, first * second, 1)), np.nan)


def _paired(table: Floats, counts: Ints) -> Floats:
    """Sum of a table of pairs of patients over all pairs drawn, (D,)."""
    found: Floats = np.einsum("dp,pq,dq->d", counts, table, counts, optimize=True)
    return found


def of_patients(patients: Sequence[str]) -> tuple[Ints, int]:
    """Number of each image's patient, and how many there are."""
    names, owner = np.unique(np.asarray(patients), return_inverse=True)
    return owner.reshape(-1).astype(np.int64), len(names)
