"""The networks that a worker offers to its pipelines, loaded once per process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from models.catalogue import catalogue
from models.contract import FloatArray, ModelIdentity, Volume

DENOISER = "lidnet-fast"
"""The catalogue name of the CT denoiser that is used."""

Progress = Callable[[int, int], None]
"""Called with (done, total)."""


@dataclass(frozen=True)
class Denoiser:
    """A trained CT denoiser. `run` takes a Volume and returns float32 (Z, Y, X) HU on its grid."""

    identity: ModelIdentity
    run: Callable[[Volume, Progress], FloatArray]


@dataclass(frozen=True)
class Models:
    """What is offered. None: no trained weights ship for it, and the report says so."""

    denoiser: Denoiser | None = None


def load(*, device: str, threads: int) -> Models:
    """Every network of the catalogue that has weights. raises models.contract.ModelError where a hash is wrong.

    device      "auto" takes CUDA where torch has one
    threads     of one operation on the CPU; 0 leaves torch's choice
    """
    if threads:
        torch.set_num_threads(threads)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    lidnet = catalogue().get(DENOISER)
    if lidnet is None:
        return Models()
    loaded = lidnet.load(device)
    return Models(denoiser=Denoiser(loaded.identity, loaded))
