"""The same work on many things, by processes side by side."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

import torch

Given = TypeVar("Given")
Made = TypeVar("Made")


def processes(count: int) -> ProcessPoolExecutor:
    """A pool of so many, each with one thread."""
    # Spawned: a fork of a process in which torch has threads may hang, and CUDA does not survive one.
    spawning = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(count, mp_context=spawning, initializer=torch.set_num_threads, initargs=(1,))


def each(work: Callable[[Given], Made], things: Sequence[Given], workers: int) -> Iterator[Made]:
    """What the work makes of each thing, in their order.

    workers     processes; 0: this one
    """
    if not workers or len(things) < 2:
        yield from map(work, things)
        return
    with processes(min(workers, len(things))) as pool:
        yield from pool.map(work, things)
