"""The models on offer: every folder here that ends in a MODEL whose weights ship."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import torch
from torch import nn

import models
from models.contract import ModelIdentity, Radiograph, Volume
from models.weights import FOLDER, Card, load_weights, read_card, shipped

Network = TypeVar("Network", bound=nn.Module)
Result = TypeVar("Result")
OnProgress = Callable[[int, int], None]


@dataclass(frozen=True)
class Accepts:
    """What may be given to a model.

    kind        "volume" (`Volume`) or "radiograph" (`Radiograph`)
    modalities  DICOM modalities that it was made for
    """

    kind: Literal["volume", "radiograph"]
    modalities: tuple[str, ...]


@dataclass(frozen=True)
class Model(Generic[Network, Result]):
    """A network, its weights and how to use it.

    name        as in the catalogue and in ModelIdentity
    task        what it does, one phrase
    accepts     its input
    weights     stem of card and weights in models/weights
    build       makes the untrained network
    prepare     puts it on a device, in the precision that is fast and accurate there
    run         (network, input, on_progress) to its result: an array on the input's grid, in its unit, or findings
    """

    name: str
    task: str
    accepts: Accepts
    weights: str
    build: Callable[[], Network]
    prepare: Callable[[Network, torch.device], Network]
    run: Callable[[Network, Any, OnProgress | None], Result]

    def card(self, folder: Path = FOLDER) -> Card:
        """What is known of the weights.

        raises   ModelError     no card, or an incomplete one
        """
        return read_card(self.weights, folder)

    def load(self, device: torch.device | str = "cpu", folder: Path = FOLDER) -> Loaded[Result]:
        """The model ready to run.

        raises   ModelError     weights missing, or not those of the card
        """
        card = self.card(folder)
        network = self.build()
        load_weights(network, card, folder)
        return Loaded(card.identity, self.prepare(network, torch.device(device)), self.run)


@dataclass(frozen=True, eq=False)
class Loaded(Generic[Result]):
    """A model with its weights in memory."""

    identity: ModelIdentity
    network: nn.Module
    _run: Callable[[Any, Any, OnProgress | None], Result]

    def __call__(self, image: Volume | Radiograph, on_progress: OnProgress | None = None) -> Result:
        """The model's result for this input. Same input, same bits.

        raises   ModelError     the input does not suit, or the result is not finite
        """
        return self._run(self.network, image, on_progress)


def catalogue(folder: Path = FOLDER) -> dict[str, Model[Any, Any]]:
    """All models whose weights are in the folder, by name. Weights are neither read nor checked yet."""
    found: dict[str, Model[Any, Any]] = {}
    for module in pkgutil.iter_modules(models.__path__):
        if not module.ispkg:
            continue
        model = getattr(importlib.import_module(f"models.{module.name}"), "MODEL", None)
        if isinstance(model, Model) and shipped(model.weights, folder):
            found[model.name] = model
    return found
