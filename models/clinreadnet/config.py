"""Every number of the quality network, its data and its training.

source: ClinReadNet dossier 4 (a design of our own: of the paper only the abstract could be read)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Arm = Literal["clinreadnet", "rps", "ce", "single-temperature", "no-sobel", "plain-swin"]

LEVELS = 21
LEVEL_STEP = 0.2
COARSE_SIZES = (3, 5, 5, 5, 3)
"""Fine levels of each whole grade: those that round to it, halves upwards."""
GRADES = ("Bad", "Poor", "Fair", "Good", "Excellent")
HIGHEST = 4.0
STORED_HU = (-1000.0, 400.0)
"""HU at which the network's input is 0 and 1: the map of the public challenge set (dossier 2.5, to about 25 HU)."""
SIDE_PX = 512


@dataclass(frozen=True)
class NetworkConfig:
    """Sizes and switches of the network.

    width                   channels at stride 4, a multiple of 16; doubled at strides 8, 16, 32
    depths, heads           blocks and attention heads per stage
    window                  side of an attention window, in tokens; divides the tokens of every stage at 512 pixels
    temperatures            at which attention starts, above 1 the overall scan, below 1 the focus; at least one
    learn_temperatures      False: they and their shares stay as they start
    sobel                   the edge path
    local                   the ordinal map beside the global head
    """

    width: int = 32
    depths: tuple[int, ...] = (2, 2, 2, 2)
    heads: tuple[int, ...] = (1, 2, 4, 8)
    window: int = 8
    temperatures: tuple[float, ...] = (2.0, 1.0, 0.5)
    learn_temperatures: bool = True
    sobel: bool = True
    local: bool = True

    @property
    def multiple(self) -> int:
        """Height and width of the input must be multiples of this."""
        return 4 * self.window << (len(self.depths) - 1)


PAPER_LIKE = NetworkConfig(width=96, depths=(2, 2, 6, 2), heads=(3, 6, 12, 24))
"""The size of Swin-T, which the paper's words suggest."""


@dataclass(frozen=True)
class LossConfig:
    """Weights of the terms.

    fine        ranked probability score of the 21 levels
    coarse      of the five grades
    entropy     cross entropy of the 21 levels: RPS alone has next to no gradient where the network is surely wrong
    """

    fine: float = 1.0
    coarse: float = 0.5
    entropy: float = 0.1


ARMS: dict[Arm, tuple[NetworkConfig, LossConfig]] = {
    "clinreadnet": (NetworkConfig(), LossConfig()),
    "rps": (NetworkConfig(), LossConfig(coarse=0.0)),
    "ce": (NetworkConfig(), LossConfig(fine=0.0, coarse=0.0, entropy=1.0)),
    "single-temperature": (NetworkConfig(temperatures=(1.0,), learn_temperatures=False), LossConfig()),
    "no-sobel": (NetworkConfig(sobel=False), LossConfig()),
    "plain-swin": (
        NetworkConfig(temperatures=(1.0,), learn_temperatures=False, sobel=False, local=False),
        LossConfig(fine=0.0, coarse=0.0, entropy=1.0),
    ),
}
"""What is trained for the ablation: each differs from the first in what its name says."""
