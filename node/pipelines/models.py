"""The networks that a worker offers to its pipelines, loaded once per process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, cast

import torch

from models.catalogue import Model, catalogue
from models.contract import FloatArray, Lesion, ModelIdentity, Quality, Radiograph, Volume
from models.deeplesion.grouping import Region
from models.deeplesion.network import Detector as Network
from models.deeplesion.run import find
from models.diffusionxray.model import Restorer as RestorerNetwork
from models.diffusionxray.model import run, run_with_spread

DENOISER = "lidnet-fast"
"""The catalogue name of the CT denoiser that is used."""
DETECTOR = "deeplesion-fast"
"""That of the CT lesion detector."""
SCORER = "clinreadnet-fast"
"""That of the network that grades image quality."""
RESTORER = "diffusionxray-fast"
"""That of the network that restores chest radiographs."""
LOOKS_FOR = "lung nodules, lesions of liver and kidneys, enlarged lymph nodes, and soft-tissue masses"
"""What the detector was trained on, for the reader."""

Progress = Callable[[int, int], None]
"""Called with (done, total)."""


@dataclass(frozen=True)
class Denoiser:
    """A trained CT denoiser. `run` takes a Volume and returns float32 (Z, Y, X) HU on its grid."""

    identity: ModelIdentity
    run: Callable[[Volume, Progress], FloatArray]


class Candidate(Protocol):
    """A place that the detector noticed; a finding where its score reaches the operating point."""

    @property
    def score(self) -> float: ...

    @property
    def operating_point(self) -> float: ...

    @property
    def region(self) -> Region: ...

    def lesion(self, volume: Volume, identity: ModelIdentity) -> Lesion: ...


@dataclass(frozen=True)
class Detector:
    """A trained CT lesion detector. `find` returns all candidates, surest first.

    looks_for   the kinds of lesion, for the reader
    """

    identity: ModelIdentity
    find: Callable[[Volume, Progress], Sequence[Candidate]]
    looks_for: str


@dataclass(frozen=True)
class Scorer:
    """A trained network that grades the quality of CT slices, or says why it does not."""

    identity: ModelIdentity
    run: Callable[[Volume, Progress], Quality]


class Restored(Protocol):
    """A restored radiograph and what it was held to: float32 (Y, X) each, in the unit of the stored values.

    pixels      the result, values that can be stored
    safe        the conservative restoration, values that can be stored
    allowed     by how much `pixels` may differ from `safe`, beside half a step of each rounding
    spread      half width of the calibrated interval; None where it was not asked for
    noise_sd    local noise of the received image
    seed, steps     of the noise that the refiner began with, and how often the refiner was asked
    """

    @property
    def pixels(self) -> FloatArray: ...

    @property
    def safe(self) -> FloatArray: ...

    @property
    def allowed(self) -> FloatArray: ...

    @property
    def spread(self) -> FloatArray | None: ...

    @property
    def noise_sd(self) -> FloatArray: ...

    @property
    def seed(self) -> int: ...

    @property
    def steps(self) -> int: ...


@dataclass(frozen=True)
class Restorer:
    """A trained restorer of chest radiographs. `run` takes a Radiograph; the last argument asks for the spread."""

    identity: ModelIdentity
    run: Callable[[Radiograph, Progress, bool], Restored]


@dataclass(frozen=True)
class Models:
    """What is offered. None: no trained weights ship for it, and the report says so."""

    denoiser: Denoiser | None = None
    detector: Detector | None = None
    scorer: Scorer | None = None
    restorer: Restorer | None = None


def load(*, device: str, threads: int) -> Models:
    """Every network of the catalogue that has weights. raises models.contract.ModelError where a hash is wrong.

    device      "auto" takes CUDA where torch has one
    threads     of one operation on the CPU; 0 leaves torch's choice
    """
    if threads:
        torch.set_num_threads(threads)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    offered = catalogue()
    return Models(
        _denoiser(offered.get(DENOISER), device),
        _detector(offered.get(DETECTOR), device),
        _scorer(offered.get(SCORER), device),
        _restorer(offered.get(RESTORER), device),
    )


def _denoiser(model: Model[Any, Any] | None, device: str) -> Denoiser | None:
    if model is None:
        return None
    loaded = model.load(device)
    return Denoiser(loaded.identity, loaded)


def _detector(model: Model[Any, Any] | None, device: str) -> Detector | None:
    if model is None:
        return None
    loaded = model.load(device)
    return Detector(loaded.identity, partial(find, cast(Network, loaded.network)), LOOKS_FOR)


def _scorer(model: Model[Any, Any] | None, device: str) -> Scorer | None:
    if model is None:
        return None
    loaded = model.load(device)
    return Scorer(loaded.identity, loaded)


def _restorer(model: Model[Any, Any] | None, device: str) -> Restorer | None:
    if model is None:
        return None
    loaded = model.load(device)
    return Restorer(loaded.identity, partial(restore, cast(RestorerNetwork, loaded.network)))


def restore(network: RestorerNetwork, radiograph: Radiograph, on_progress: Progress, with_spread: bool) -> Restored:
    """One restoration, and where it is asked for how far several samples spread. raises ModelError as they do"""
    return (run_with_spread if with_spread else run)(network, radiograph, on_progress)
