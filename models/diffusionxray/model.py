"""The restorer as the catalogue offers it: regressor and refiner under one name, in one file of weights."""

from __future__ import annotations

import torch
from torch import nn

from models.catalogue import Accepts, Model, OnProgress
from models.contract import Radiograph
from models.diffusionxray.config import DiffusionXRayConfig
from models.diffusionxray.network import RestorationUNet, build
from models.diffusionxray.run import Restored
from models.diffusionxray.run import run as run_networks

FAST = DiffusionXRayConfig()
"""The configuration of the weights that ship."""


class Restorer(nn.Module):
    """The conservative restoration and the flow that starts from it."""

    def __init__(self, config: DiffusionXRayConfig) -> None:
        super().__init__()
        self.config = config
        self.regressor: RestorationUNet = build(config.networks["regressor"])
        self.refiner: RestorationUNet = build(config.networks["refiner"])


def build_fast() -> Restorer:
    """The untrained networks of the weights that ship."""
    return Restorer(FAST)


def prepare(network: Restorer, device: torch.device) -> Restorer:
    """In float32: an image of 12 bits and more does not fit in bfloat16."""
    return network.to(device).eval().requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def run(network: Restorer, radiograph: Radiograph, on_progress: OnProgress | None = None) -> Restored:
    """One restoration, without uncertainty.

    raises   ModelError     no pixel spacing, values out of range, or a result that is not finite
    """
    return run_networks(network.regressor, network.refiner, radiograph, network.config, on_progress=on_progress)


def run_with_spread(
    network: Restorer, radiograph: Radiograph, on_progress: OnProgress | None = None, *, samples: int | None = None
) -> Restored:
    """The same restoration, and beside it how far several samples spread.

    samples     instead of the configuration's
    raises   ModelError     as `run`
    """
    count = network.config.sampling.samples if samples is None else samples
    return run_networks(
        network.regressor, network.refiner, radiograph, network.config, samples=count, on_progress=on_progress
    )


MODEL = Model(
    name="diffusionxray-fast",
    task="restoration of chest radiographs",
    accepts=Accepts(kind="radiograph", modalities=("CR", "DX")),
    weights="diffusionxray-fast",
    build=build_fast,
    prepare=prepare,
    run=run,
)
