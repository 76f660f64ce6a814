"""The detector as the catalogue offers it."""

from __future__ import annotations

import torch

from models.catalogue import Accepts, Model
from models.deeplesion.config import DeepLesionConfig, NetworkConfig
from models.deeplesion.network import Detector, build
from models.deeplesion.run import prepare, run

FAST = DeepLesionConfig(network=NetworkConfig(offsets_mm=(-4.0, -2.0, 0.0, 2.0, 4.0)))
"""The configuration of the weights that ship: five slices, since a vessel is told from a nodule by where it goes."""


def build_fast() -> Detector:
    """The untrained network of the weights that ship."""
    return build(FAST.network)


def prepare_for(network: Detector, device: torch.device) -> Detector:
    """In bf16 where the device has it."""
    return prepare(network, device)


MODEL = Model(
    name="deeplesion-fast",
    task="detection of lesions in CT",
    accepts=Accepts(kind="volume", modalities=("CT",)),
    weights="deeplesion-fast",
    build=build_fast,
    prepare=prepare_for,
    run=run,
)
