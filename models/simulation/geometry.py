"""Where source, detector and rays are: parallel-beam and fan-beam scans of one transverse plane.

Lengths in mm, angles in rad. The plane is the image's own: x along columns, y along rows, origin in its middle.
At view angle θ the detector's axis is n = (cos θ, sin θ) and the central ray runs along d = (−sin θ, cos θ).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class ParallelBeam:
    """Parallel rays over half a turn.

    views           number of view angles over π
    channels        number of detector bins
    pitch_mm        bin width
    source: Kak & Slaney, Principles of Computerized Tomographic Imaging, ch. 3.3
    """

    views: int = 984
    channels: int = 736
    pitch_mm: float = 0.7

    @property
    def step_rad(self) -> float:
        """Angle between two views."""
        return math.pi / self.views

    @property
    def quarter_views(self) -> int | None:
        """Views in a quarter turn, None where the views do not fill quarter turns evenly."""
        return self.views // 2 if self.views % 2 == 0 else None

    @property
    def sampling(self) -> float:
        """Distance between two channels in the detector's own coordinate (mm)."""
        return self.pitch_mm

    @property
    def radius_mm(self) -> float:
        """Radius of the disc that every view sees whole."""
        return (self.channels - 1) / 2 * self.pitch_mm

    def coordinates(self) -> Tensor:
        """Position of each channel centre (channels,), mm."""
        return (torch.arange(self.channels, dtype=torch.float32) - (self.channels - 1) / 2) * self.pitch_mm

    def rays(self) -> tuple[Tensor, Tensor]:
        """Distance of each ray from the centre, mm, and its turn against the view angle, rad; (channels,) each."""
        offset = self.coordinates()
        return offset, torch.zeros_like(offset)

    def sparser(self, factor: int) -> ParallelBeam:
        """The same scan with every `factor`-th view only.

        raises   ValueError    the views do not divide evenly
        """
        return replace(self, views=_divided(self.views, factor))

    def coarser(self, factor: int) -> ParallelBeam:
        """The same scan with 1/factor of the views and channels."""
        return replace(
            self, views=self.views // factor, channels=self.channels // factor, pitch_mm=self.pitch_mm * factor
        )


@dataclass(frozen=True)
class FanBeam:
    """Third-generation fan with an equi-angular (curved) detector over a full turn.

    views               number of source positions over 2π
    channels            number of detector channels
    pitch_mm            channel width on the detector arc
    source_mm           source to centre of rotation
    detector_mm         source to detector
    channel_offset      quarter-detector offset, in channels
    source: simulation dossier 3.2 (XCIST sample scanner); Kak & Slaney ch. 3.4.1
    """

    views: int = 1000
    channels: int = 900
    pitch_mm: float = 1.0
    source_mm: float = 540.0
    detector_mm: float = 950.0
    channel_offset: float = 0.25

    @property
    def step_rad(self) -> float:
        """Angle between two views."""
        return 2 * math.pi / self.views

    @property
    def quarter_views(self) -> int | None:
        """Views in a quarter turn, None where the views do not fill quarter turns evenly."""
        return self.views // 4 if self.views % 4 == 0 else None

    @property
    def sampling(self) -> float:
        """Angle between two channels (rad)."""
        return self.pitch_mm / self.detector_mm

    @property
    def radius_mm(self) -> float:
        """Radius of the disc that every view sees whole."""
        return self.source_mm * math.sin(((self.channels - 1) / 2 - abs(self.channel_offset)) * self.sampling)

    def coordinates(self) -> Tensor:
        """Fan angle γ of each channel centre (channels,), rad."""
        centred = torch.arange(self.channels, dtype=torch.float32) - (self.channels - 1) / 2
        return (centred + self.channel_offset) * self.sampling

    def rays(self) -> tuple[Tensor, Tensor]:
        """Distance of each ray from the centre, mm, and its turn against the view angle, rad; (channels,) each."""
        gamma = self.coordinates()
        return self.source_mm * torch.sin(gamma), -gamma

    def sparser(self, factor: int) -> FanBeam:
        """The same scan with every `factor`-th view only.

        raises   ValueError    the views do not divide evenly
        """
        return replace(self, views=_divided(self.views, factor))

    def coarser(self, factor: int) -> FanBeam:
        """The same scan with 1/factor of the views and channels."""
        return replace(
            self,
            views=self.views // factor,
            channels=self.channels // factor,
            pitch_mm=self.pitch_mm * factor,
            channel_offset=self.channel_offset / factor,
        )


Geometry = ParallelBeam | FanBeam


def _divided(views: int, factor: int) -> int:
    if views % factor:
        raise ValueError(f"{views} views cannot be thinned by {factor}")
    return views // factor
