"""The quality network: an image in stored units to the probabilities of 21 levels."""

from __future__ import annotations

from torch import Tensor, nn

from models.clinreadnet.config import STORED_HU, NetworkConfig
from models.clinreadnet.soqn import SOQN
from models.clinreadnet.swin import Backbone


class QualityNetwork(nn.Module):
    """SOQN around a backbone with (S)W-MTMSA."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = Backbone(config)
        self.soqn = SOQN(config, self.backbone.width)
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, 1, H, W) in [0, 1], sides multiples of `config.multiple`, to probabilities (B, 21), float32."""
        tokens, edges = self.soqn.fuse(x)
        return self.soqn.judge(self.backbone(tokens), edges)


def build(config: NetworkConfig) -> QualityNetwork:
    """The untrained network."""
    return QualityNetwork(config)


def stored_units(hounsfield: Tensor) -> Tensor:
    """HU to what the network sees: 0 at air, 1 at 400 HU (dossier 2.5)."""
    low, high = STORED_HU
    return ((hounsfield - low) / (high - low)).clamp(0, 1)
