"""Weights that ship, and the card that says what they are. A card without its weights, or with others, is refused."""

from __future__ import annotations

import hashlib
import json
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save
from torch import nn

from models.contract import ModelError, ModelIdentity

FOLDER = Path(__file__).parent / "weights"

REQUIRED = ("name", "version", "file", "sha256", "licence", "training", "made_by", "limits")


@dataclass(frozen=True)
class Card:
    """What a reader must know of a set of weights.

    training        one sentence for the reader of a result
    made_by         the command or call that made them
    limits          what must not be concluded from their results
    collections     the data collections trained on, each with licence and attribution
    training_data   facts that the training wrote beside its weights
    metrics         measured quality: the tables of one evaluation
    """

    name: str
    version: str
    file: str
    sha256: str
    licence: str
    training: str
    made_by: str
    limits: tuple[str, ...]
    collections: tuple[Mapping[str, str], ...]
    training_data: Mapping[str, Any]
    metrics: tuple[Mapping[str, Any], ...]

    @property
    def identity(self) -> ModelIdentity:
        """Which network, which weights."""
        return ModelIdentity(self.name, self.version, self.sha256, self.training)


def read_card(stem: str, folder: Path = FOLDER) -> Card:
    """The card `<stem>.toml`, and beside it the numbers `<stem>.json` as `pacsnode evaluate` wrote them.

    raises   ModelError     there is none, it is incomplete, or the numbers are those of other weights
    """
    path = folder / f"{stem}.toml"
    if not path.is_file():
        raise ModelError(f"no card for the weights {stem}")
    content = tomllib.loads(path.read_text(encoding="utf-8"))
    missing = [key for key in REQUIRED if not content.get(key)]
    if missing:
        raise ModelError(f"the card of {stem} lacks {', '.join(missing)}")
    measured = _measured(folder / f"{stem}.json")
    if measured["weights_sha256"] != content["sha256"]:
        raise ModelError(f"the numbers beside the card of {stem} are those of other weights")
    return Card(
        **{key: content[key] for key in REQUIRED if key != "limits"},
        limits=tuple(content["limits"]),
        collections=tuple(content.get("collections", ())),
        training_data=measured["training"],
        metrics=tuple(measured["tables"]),
    )


def _measured(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        raise ModelError(f"no measured numbers ({path.name}) beside the card")
    content: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if missing := {"weights_sha256", "training", "tables"} - content.keys():
        raise ModelError(f"{path.name} lacks {', '.join(sorted(missing))}")
    return content


def shipped(stem: str, folder: Path = FOLDER) -> bool:
    """Whether card and weights are both there. Whether they belong together is seen on loading."""
    return (folder / f"{stem}.toml").is_file() and (folder / f"{stem}.safetensors").is_file()


def load_weights(network: nn.Module, card: Card, folder: Path = FOLDER) -> None:
    """Fill the network with the card's weights.

    raises   ModelError     file missing, hash not the card's, or not the weights of this network
    """
    path = folder / card.file
    if not path.is_file():
        raise ModelError(f"the weights {card.file} are missing")
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != card.sha256:
        raise ModelError(f"the weights {card.file} are not those of their card: sha256 differs")
    tensors = {name: tensor.float() for name, tensor in load(content).items()}
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise ModelError(f"the weights {card.file} do not fit the network {card.name}") from error


def save_weights(network: nn.Module, path: Path) -> str:
    """Parameters as fp16 safetensors, constants as they are, whole or not at all; the file's sha256 is returned."""
    parameters = {name for name, _ in network.named_parameters()}
    tensors: dict[str, torch.Tensor] = {}
    for name, tensor in network.state_dict().items():
        kept = tensor.detach().cpu().contiguous()
        tensors[name] = kept.half() if name in parameters else kept
    content = save(tensors)
    write_whole(content, path)
    return hashlib.sha256(content).hexdigest()


def write_whole(content: bytes | memoryview, path: Path) -> None:
    """All of it under this name, or what was there before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".part")
    try:
        partial.write_bytes(content)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
