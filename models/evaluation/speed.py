"""Speeds side by side: every call in turn, round after round, so that a busy machine slows all of them alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from models.evaluation.bootstrap import Interval
from models.evaluation.table import Row, Table

RESAMPLES = 2000


def interleaved(
    title: str, calls: Mapping[str, Callable[[], object]], *, slices: int, rounds: int, notes: tuple[str, ...] = ()
) -> Table:
    """Seconds a slice (median of the rounds) of each call, and the ratio to the first; 95 % bootstrap over rounds.

    calls    name → work on so many slices; each is called once before the rounds
    """
    for call in calls.values():
        call()
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            begun = perf_counter()
            call()
            taken[name].append((perf_counter() - begun) / slices)
    first = np.array(next(iter(taken.values())))
    rows = []
    for name, seconds in taken.items():
        each = np.array(seconds)
        values = {"seconds a slice": _median(each), f"ratio to {next(iter(taken))}": _median(each / first)}
        rows.append(Row(f"{rounds} rounds of {slices} slices", name, values))
    return Table(title, tuple(rows), notes)


def _median(values: NDArray[np.float64]) -> Interval:
    rng = np.random.default_rng(0)
    drawn = np.median(values[rng.integers(len(values), size=(RESAMPLES, len(values)))], axis=1)
    low, high = np.percentile(drawn, (2.5, 97.5))
    return Interval(float(np.median(values)), float(low), float(high), len(values))
