"""What a training tells beside its weights, and both read back: which network they are, and what made them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from models.contract import ModelError
from models.diffusionxray.config import NetworkConfig
from models.weights import write_whole

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

FACTS = "training.json"
MAY_CHANGE = ("steps", "checkpoint_every")
"""Of a training, when it is taken up again."""


def write_facts(facts: Mapping[str, object], weights: Path) -> None:
    """Beside the weights, whole or not at all."""
    write_whole((json.dumps(facts, indent=1) + "\n").encode("utf8"), weights.with_name(FACTS))


def facts_of(weights: Path) -> Mapping[str, Any]:
    """What the training wrote beside its weights; nothing where it wrote nothing. raises ModelError"""
    path = weights.with_name(FACTS)
    try:
        found = json.loads(path.read_text(encoding="utf8")) if path.is_file() else {}
    except ValueError as error:
        raise ModelError(f"{path}: not the facts of a training") from error
    if not isinstance(found, dict):
        raise ModelError(f"{path}: not the facts of a training")
    return found


def facts_for(weights: Path, stage: str) -> Mapping[str, Any]:
    """The same, where weights without them say too little. raises ModelError: none, or those of another stage"""
    if not (facts := facts_of(weights)):
        raise ModelError(f"no {FACTS} beside the weights {weights}")
    hold_to_stage(facts, stage)
    return facts


def hold_to_stage(facts: Mapping[str, Any], stage: str) -> None:
    """raises ModelError: these are of another stage; facts that name none are of any"""
    if (found := facts.get("stage", stage)) != stage:
        raise ModelError(f"a {stage} is wanted, and these are the weights of a {found}")


def size_of(facts: Mapping[str, Any], stage: str) -> NetworkConfig:
    """The network of these facts. raises ModelError: of another stage, or of no network"""
    hold_to_stage(facts, stage)
    try:
        told = facts["network"].items()
        sizes: dict[str, Any] = {name: tuple(one) if isinstance(one, list) else one for name, one in told}
        return NetworkConfig(**sizes)
    except (AttributeError, KeyError, TypeError) as error:
        raise ModelError(f"{FACTS} does not tell of the network of a {stage}") from error


def fill(network: nn.Module, weights: Path) -> None:
    """Put these weights into the network. raises ModelError: they are of another, or damaged"""
    try:
        network.load_state_dict({name: tensor.float() for name, tensor in load_file(weights).items()})
    except (OSError, RuntimeError, ValueError, SafetensorError) as error:
        raise ModelError(f"{weights}: not the weights of this network") from error


def kept_up(training: DataclassInstance) -> dict[str, Any]:
    """What a checkpoint must go on with: all but how long, and how often it is written."""
    return {name: value for name, value in asdict(training).items() if name not in MAY_CHANGE}
