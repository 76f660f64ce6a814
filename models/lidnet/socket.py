"""LIDnet's socket: any network that takes HU and gives HU, slice by slice, of any size that its `multiple` divides."""

from __future__ import annotations

from models.lidnet.config import LidnetConfig
from models.lidnet.network import Denoiser, build
from models.lidnet.redcnn import RedCnn, build_redcnn

PluggedIn = Denoiser | RedCnn


def plug(config: LidnetConfig) -> PluggedIn:
    """The untrained denoiser of this configuration."""
    return build_redcnn() if config.socket == "red-cnn" else build(config.network)
