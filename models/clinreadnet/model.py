"""The quality network as the catalogue offers it."""

from __future__ import annotations

from models.catalogue import Accepts, Model
from models.clinreadnet.config import ClinReadNetConfig
from models.clinreadnet.network import QualityNetwork, build
from models.clinreadnet.run import prepare, run

FAST = ClinReadNetConfig()
"""The configuration of the weights that ship."""


def build_fast() -> QualityNetwork:
    """The untrained network of the weights that ship."""
    return build(FAST.network)


MODEL = Model(
    name="clinreadnet-fast",
    task="image quality of CT slices",
    accepts=Accepts(kind="volume", modalities=("CT",)),
    weights="clinreadnet-fast",
    build=build_fast,
    prepare=prepare,
    run=run,
)
