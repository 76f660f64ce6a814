"""The simulator beside an independent one, XCIST CatSim (gecatsim 1.6.8, BSD-3): simulation dossier 3.4, item 7.

PYTHONPATH=.:tests python -m bench.agree_with_catsim      where gecatsim is installed beside this project; minutes

Both scan the same solids of water with the same fan, 70 keV, the same photons per ray, electronic noise and optical
crosstalk. The sinograms of both go through the same reconstruction, which test_projection.py proves against closed
forms. Not compared here: spectrum, beam hardening, bowtie, focal spot, scatter.
"""

from __future__ import annotations

import contextlib
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from models.simulation.dose import Scanner, measure
from models.simulation.geometry import FanBeam
from models.simulation.projection import (
    MU_WATER_PER_MM,
    attenuation,
    filtered_back_project,
    forward_project,
    hounsfield,
)

Disc = tuple[float, float, float, float]
"""(x, y, radius) in mm and density over water; nested or apart, the inner ones later."""
PHANTOMS: dict[str, list[Disc]] = {
    "water disc": [(0, 0, 100, 1.0)],
    "body": [
        (0, 0, 140, 1.0), (-75, 0, 48, 0.26), (80, 5, 44, 0.26), (8, -45, 28, 1.05),
        (0, 62, 17, 1.4), (22, 42, 11, 1.05), (-95, 75, 12, 0.92),
    ],
}  # fmt: skip
PLACES: dict[str, list[tuple[float, float, float]]] = {
    "water disc": [(0, 0, 30)],
    "body": [(8, -45, 20), (-75, 0, 25), (80, 5, 25), (0, 92, 9), (0, 62, 9)],
}
"""(x, y, radius): where the mean and the noise are read."""

KEV, GAIN, ELECTRONIC_E, CROSSTALK = 70.0, 15.0, 5000.0, 0.01
FAN = FanBeam(views=500, channels=900, pitch_mm=1.0, source_mm=540, detector_mm=950, channel_offset=0.25)
SIDE, SPACING_MM = 256, 0.8
REPEATS = 6


def catsim_lines(discs: list[Disc], folder: Path, *, seed: int) -> tuple[Tensor, float, float]:
    """Line integrals (1, views, channels), photons per ray in air, and water's attenuation (1/mm)."""
    import gecatsim
    from gecatsim.pyfiles.GetMu import GetMu

    (folder / "phantom.ppm").write_text(_ppm(discs))
    samples = Path(gecatsim.__file__).parent / "examples" / "cfg"
    names = ("Phantom_Sample_Analytic", "Scanner_Sample_generic", "Protocol_Sample_axial", "Physics_Sample")
    simulation = gecatsim.CatSim(*(str(samples / name) for name in names))
    simulation.resultsName = str(folder / "scan")
    simulation.phantom.filename = str(folder / "phantom.ppm")
    simulation.scanner.detectorRowsPerMod = simulation.scanner.detectorRowCount = 1
    simulation.scanner.eNoise = ELECTRONIC_E
    protocol = simulation.protocol
    protocol.bowtie = []
    protocol.viewsPerRotation = protocol.viewCount = FAN.views
    protocol.stopViewId = FAN.views - 1
    physics = simulation.physics
    physics.monochromatic = KEV
    physics.crosstalkCallback = physics.lagCallback = ""
    physics.col_crosstalk_opt, physics.row_crosstalk_opt = CROSSTALK, 0.0
    for name in ("srcXSampleCount", "srcYSampleCount", "viewSampleCount", "rowSampleCount"):
        setattr(physics, name, 1)
    np.random.seed(seed)  # CatSim draws from this generator
    simulation.run_all()
    air = gecatsim.rawread(str(folder / "scan.air"), [FAN.channels], "float")
    prep = gecatsim.rawread(str(folder / "scan.prep"), [FAN.views, FAN.channels], "float")
    water = float(GetMu("water", KEV)[0]) / 10
    return torch.from_numpy(prep.copy())[None], float(np.mean(air)) / (GAIN * KEV), water


def own_lines(discs: list[Disc], photons: float) -> Tensor:
    """The same from this project, (REPEATS, views, channels)."""
    lines = forward_project(attenuation(paint(discs, 416, 0.8)), 0.8, FAN).expand(REPEATS, -1, -1)
    scanner = Scanner(FAN, "hann", photons, ELECTRONIC_E / (GAIN * KEV), CROSSTALK)
    return measure(lines, scanner, fraction=1.0, seed=1)


def paint(discs: list[Disc], side: int, spacing_mm: float) -> Tensor:
    """HU (1, side, side), edges supersampled."""
    fine = 4
    axis = ((torch.arange(side * fine) + 0.5) / fine - side / 2) * spacing_mm
    density = torch.zeros(side * fine, side * fine)
    for x, y, radius, value in discs:
        density[(axis[:, None] - y) ** 2 + (axis - x) ** 2 < radius**2] = value
    return torch.nn.functional.avg_pool2d((density - 1)[None] * 1000, fine)


def reconstruct(lines: Tensor, fan: FanBeam = FAN) -> Tensor:
    """HU (B, side, side)."""
    image = filtered_back_project(lines, fan, shape=(SIDE, SIDE), spacing_mm=SPACING_MM, kernel="hann")
    return hounsfield(image)


def inside(place: tuple[float, float, float]) -> Tensor:
    """Pixels of a disc (x, y, radius)."""
    axis = (torch.arange(SIDE) - (SIDE - 1) / 2) * SPACING_MM
    return (axis[:, None] - place[1]) ** 2 + (axis - place[0]) ** 2 < place[2] ** 2


def spectrum_peak(noise: Tensor) -> float:
    """Frequency (1/mm) at which the noise power is greatest: top of a parabola through the radial means around it."""
    middle = noise[:, SIDE // 2 - 64 : SIDE // 2 + 64, SIDE // 2 - 64 : SIDE // 2 + 64]
    taper = torch.hann_window(128)
    power = torch.fft.fft2(middle * taper[:, None] * taper).abs().square().mean(0)
    f = torch.fft.fftfreq(128, SPACING_MM)
    radius = torch.hypot(f[:, None], f)
    lows = np.arange(0.08, 0.44, 0.04)
    rings = [float(power[(radius >= low) & (radius < low + 0.04)].mean()) for low in lows]
    curve, slope, _ = np.polyfit(lows + 0.02, rings, 2)
    return float(-slope / (2 * curve))


def _ppm(discs: list[Disc]) -> str:
    lines = ["materialList = {'water'};"]
    for number, (x, y, radius, density) in enumerate(discs, start=1):
        lines += [
            f"object.center({number},:) = [{x} {y} 0];",
            f"object.half_axes({number},:) = [{radius} {radius} 50];",
            f"object.euler_angs({number},:) = [0 0 0];",
            f"object.density({number}) = {density};",
            f"object.type({number}) = 2;",
            f"object.material({number}) = 1;",
            f"object.axial_lims({number},:) = [0 0];",
            f"object.shape({number}) = 0;",
            f"object.clip{{{number}}} = [];",
            "",
        ]
    return "\n".join(lines)


def main() -> None:
    torch.set_num_threads(1)
    print("photons per ray and attenuation of water are CatSim's; HU: CatSim, here; ratio: here over CatSim")
    for name, discs in PHANTOMS.items():
        with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
            scans = [catsim_lines(discs, Path(folder), seed=seed) for seed in range(REPEATS)]
        _, photons, water = scans[0]
        # CatSim counts channels the other way round, and its x and y both point against ours.
        lines = torch.cat([lines for lines, _, _ in scans]).flip(-1) * (MU_WATER_PER_MM / water)
        theirs = reconstruct(lines, replace(FAN, channel_offset=-FAN.channel_offset)).flip(1, 2)
        ours = reconstruct(own_lines(discs, photons))
        print(f"{name}: {photons:.0f} photons per ray, water {water:.5f} /mm")
        for place in PLACES[name]:
            spot = inside(place)
            a, b = theirs[:, spot], ours[:, spot]
            sd = [float(part.std(0).square().mean().sqrt()) for part in (a, b)]
            print(f"  at {place!s:16} mean {a.mean():8.1f} {b.mean():8.1f} HU   noise {sd[0]:6.1f} {sd[1]:6.1f} HU   "
                  f"ratio {sd[1] / sd[0]:.3f}")  # fmt: skip
        peaks = [spectrum_peak(images - images.mean(0)) for images in (theirs, ours)]
        print(f"  noise power: peak at {peaks[0]:.3f} {peaks[1]:.3f} /mm   ratio {peaks[1] / peaks[0]:.3f}")


if __name__ == "__main__":
    main()
